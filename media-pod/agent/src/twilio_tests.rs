use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn session() -> Session {
    Session::new(StartInfo {
        account_sid: "AC1".into(),
        call_sid: "CA1".into(),
        stream_sid: "MZ1".into(),
        custom_parameters: BTreeMap::from([("FirstName".to_owned(), "Jane \"J\"".to_owned())]),
    })
}

fn parse(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap()
}

/// What is written.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn every_message_has_the_documented_shape() {
    let mut session = session();
    assert_eq!(
        parse(Session::connected()),
        json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})
    );
    assert_eq!(
        parse(written(|out| session.start(out))),
        json!({
            "event": "start",
            "sequenceNumber": "1",
            "start": {
                "accountSid": "AC1",
                "streamSid": "MZ1",
                "callSid": "CA1",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"FirstName": "Jane \"J\""},
            },
            "streamSid": "MZ1",
        })
    );
    assert_eq!(
        parse(written(|out| session.media(&[0xff, 0x7f, 0, 1], 20, out))),
        json!({
            "event": "media",
            "sequenceNumber": "2",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "/38AAQ=="},
            "streamSid": "MZ1",
        })
    );
    assert_eq!(
        parse(written(|out| session.dtmf('#', out))),
        json!({
            "event": "dtmf",
            "streamSid": "MZ1",
            "sequenceNumber": "3",
            "dtmf": {"track": "inbound_track", "digit": "#"},
        })
    );
    assert_eq!(
        parse(written(|out| session.mark("my \"label\"\n", out))),
        json!({"event": "mark", "sequenceNumber": "4", "streamSid": "MZ1", "mark": {"name": "my \"label\"\n"}})
    );
    let silence = written(|out| session.media(&[], 40, out));
    assert_eq!(parse(silence)["media"]["chunk"], "2");
    assert_eq!(
        parse(written(|out| session.stop(out))),
        json!({
            "event": "stop",
            "sequenceNumber": "6",
            "stop": {"accountSid": "AC1", "callSid": "CA1"},
            "streamSid": "MZ1",
        })
    );
}

#[test]
fn reads_audio_marks_and_clear() {
    let mut session = session();
    let audio = r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/38AAQ=="}}"#;
    assert_eq!(
        session.receive(audio),
        Ok(Some(Command::Audio(&[0xff, 0x7f, 0, 1])))
    );
    let unpadded = r#"{"media":{"payload":"\/38AAQ"},"event":"media"}"#;
    assert_eq!(
        session.receive(unpadded),
        Ok(Some(Command::Audio(&[0xff, 0x7f, 0, 1])))
    );
    let mark = r#"{"event":"mark","streamSid":"MZ1","sequenceNumber":7,"mark":{"name":"a\nb"}}"#;
    assert_eq!(
        session.receive(mark),
        Ok(Some(Command::Mark("a\nb".into())))
    );
    assert_eq!(
        session.receive(r#"{"event":"clear","streamSid":"MZ1"}"#),
        Ok(Some(Command::Clear))
    );
}

#[test]
fn unknown_events_are_ignored_and_counted() {
    let mut session = session();
    assert_eq!(session.receive(r#"{"event":"hello","media":5}"#), Ok(None));
    assert_eq!(
        session.receive(r#"{"event":"transcript","mark":{"name":"x"}}"#),
        Ok(None)
    );
    assert_eq!(session.unknown_events(), 2);
}

#[test]
fn a_malformed_message_is_named() {
    let mut session = session();
    let mut error = |text: &str| session.receive(text).unwrap_err().to_string();
    assert!(error("hello").starts_with("message is not a Media Streams message"));
    assert!(error("{}").contains("event"));
    assert_eq!(
        error(r#"{"event":"media"}"#),
        r#""media" message without "media.payload""#
    );
    assert_eq!(
        error(r#"{"event":"media","media":{}}"#),
        r#""media" message without "media.payload""#
    );
    assert!(
        error(r#"{"event":"media","media":{"payload":"!"}}"#)
            .starts_with("media.payload is not base64")
    );
    assert_eq!(
        error(r#"{"event":"mark","mark":{}}"#),
        r#""mark" message without "mark.name""#
    );
    assert_eq!(
        error(r#"{"event":"clear","streamSid":"MZ2"}"#),
        "streamSid is another stream's, expected MZ1"
    );
    let long = format!(
        r#"{{"event":"mark","mark":{{"name":"{}"}}}}"#,
        "x".repeat(1025)
    );
    assert!(error(&long).contains("1025"));
    assert!(error(&" ".repeat(MAX_MESSAGE_BYTES + 1)).contains("1 MiB"));
}

#[test]
fn identifiers_look_like_twilios() {
    let mut rng = rand::rng();
    let sid = new_sid("MZ", &mut rng);
    assert_eq!(sid.len(), 34);
    assert!(
        sid.starts_with("MZ")
            && sid[2..]
                .chars()
                .all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase())
    );
    assert_ne!(sid, new_sid("MZ", &mut rng));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
        let _ = session().receive(&text);
    }

    #[test]
    fn any_audio_survives(audio in proptest::collection::vec(any::<u8>(), 1..400)) {
        let mut session = session();
        let text = String::from_utf8(written(|out| session.media(&audio, 0, out))).unwrap();
        prop_assert_eq!(session.receive(&text), Ok(Some(Command::Audio(&audio))));
    }
}
