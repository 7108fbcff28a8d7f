//! The agent's side of a call: Twilio's Media Streams as a bot sees them, and when the bot is reached.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringwire_media::g711;
use ringwire_tests::address::Address;
use ringwire_tests::agent::{self, Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, object};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::{IS_ECHO, agent_gateway, local_set};

fn target(gateway: &Gateway) -> String {
    format!("sip:{NUMBER}@{}", gateway.sip())
}

#[test]
fn the_agent_gets_connected_start_media_and_stop_as_twilio_sends_them() {
    let agent = Agent::start(Manner::default());
    let spec = format!(
        "{{webSocket: {{url: \"{}\", headersSecretRef: {{name: headers}}, customParameters: {{language: es, empty: \"\"}}}}}}",
        agent.url()
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: headers}\nstringData: {Authorization: Bearer abc}\n";
    let set = [
        local_set(&object("VoiceAgent", "bot", &spec)),
        secret.to_owned(),
    ]
    .join("---\n");
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    let call = gateway::call(
        &target(&gateway),
        Address::claim().ip(),
        &["--duration", "3"],
    );
    assert!(call.success, "{}", call.result);
    agent.wait("closed");

    let heard = agent.heard();
    let request = &heard[0].message;
    assert_eq!(request["uri"], "/media?bot=1");
    assert_eq!(request["headers"]["authorization"], "Bearer abc");
    let connected = &heard[1].message;
    assert_eq!(
        (&connected["event"], &connected["protocol"]),
        (&"connected".into(), &"Call".into()),
        "{connected}"
    );
    assert!(connected["version"].is_string());

    let start = &heard[2].message;
    assert_eq!(
        (&start["event"], &start["sequenceNumber"]),
        (&"start".into(), &"1".into()),
        "{start}"
    );
    let body = &start["start"];
    for (field, prefix) in [("accountSid", "AC"), ("callSid", "CA"), ("streamSid", "MZ")] {
        let sid = body[field].as_str().unwrap();
        assert!(sid.starts_with(prefix) && sid.len() == 34, "{field}: {sid}");
    }
    assert_eq!(start["streamSid"], body["streamSid"]);
    assert_eq!(body["tracks"], serde_json::json!(["inbound"]));
    assert_eq!(
        body["mediaFormat"],
        serde_json::json!({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1})
    );
    let parameters = &body["customParameters"];
    for (name, value) in [("language", "es"), ("empty", ""), ("called_number", NUMBER)] {
        assert_eq!(parameters[name], value, "{name}: {parameters}");
    }

    let media = agent.events("media");
    // 50 in a second, for three seconds, less what the caller needs to begin, and more where it is late to end.
    assert!(
        (140..=175).contains(&media.len()),
        "{} frames in 3 s",
        media.len()
    );
    for (index, frame) in media.iter().enumerate() {
        let message = &frame.message;
        assert_eq!(message["media"]["track"], "inbound");
        assert_eq!(message["media"]["chunk"], (index + 1).to_string());
        assert_eq!(
            message["sequenceNumber"],
            (index + 2).to_string(),
            "{message}"
        );
        assert_eq!(message["streamSid"], start["streamSid"]);
        assert_eq!(agent::audio(message).len(), 160);
        assert!(
            message["media"]["timestamp"]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
                < 4000
        );
    }
    let span = media.last().unwrap().at - media[0].at;
    let rate = (media.len() - 1) as f64 / span.as_secs_f64();
    assert!((45.0..55.0).contains(&rate), "{rate} frames in a second");
    let heard_audio: Vec<i16> = media
        .iter()
        .flat_map(|frame| agent::audio(&frame.message))
        .map(g711::decode_ulaw)
        .collect();
    let comparison = audio::compare(
        &ringwire_media::tone::speech_like(5000, 1)[..20_000],
        &heard_audio,
    );
    assert!(
        comparison.correlation > IS_ECHO,
        "the agent heard something else: {comparison:?}"
    );

    let (stop, closed) = (
        &heard[heard.len() - 2].message,
        &heard[heard.len() - 1].message,
    );
    assert_eq!(
        (&stop["event"], &closed["event"]),
        (&"stop".into(), &"closed".into()),
        "{stop}"
    );
    assert_eq!(stop["stop"]["callSid"], body["callSid"]);
}

#[test]
fn the_agent_gets_each_key_once() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let call = gateway::call(
        &target(&gateway),
        Address::claim().ip(),
        &["--dtmf", "159#*D", "--duration", "4"],
    );
    assert_eq!(call.result["keysSent"], "159#*D", "{}", call.result);
    let keys: String = agent
        .events("dtmf")
        .iter()
        .map(|heard| heard.message["dtmf"]["digit"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, "159#*D");
}

#[test]
fn a_mark_comes_back_when_the_audio_before_it_was_played_and_clear_drops_the_rest() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    agent.wait("start");
    let tone: Vec<u8> = ringwire_media::tone::speech_like(1000, 3)
        .into_iter()
        .map(g711::encode_ulaw)
        .collect();
    let said = Instant::now();
    agent.say(&tone);
    agent.mark("after a second");
    let heard = audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(1500));
    let mark = agent.wait("mark");
    assert_eq!(mark.message["mark"]["name"], "after a second");
    let waited = mark.at - said;
    assert!(
        (900..1300).contains(&waited.as_millis()),
        "the mark came after {waited:?}, the audio before it lasts 1 s"
    );
    let comparison = audio::compare(
        &ringwire_media::tone::speech_like(1000, 3),
        &audio::decode(&heard),
    );
    assert!(comparison.correlation > IS_ECHO, "{comparison:?}");

    // Ten seconds more, taken back after a moment: the caller hears silence again, and the mark comes at once.
    let long: Vec<u8> = tone.iter().cycle().take(80_000).copied().collect();
    agent.say(&long);
    agent.mark("never heard");
    audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(400));
    let cleared = Instant::now();
    agent.clear();
    let marks = wait::until(seconds(2), "the second mark", || {
        Some(agent.events("mark")).filter(|marks| marks.len() == 2)
    });
    assert_eq!(marks[1].message["mark"]["name"], "never heard");
    assert!(marks[1].at - cleared < Duration::from_millis(500));
    audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(100));
    let after = audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(500));
    assert!(
        (23..=27).contains(&after.len()),
        "RTP never stops: {} packets in 500 ms",
        after.len()
    );
    assert!(
        audio::decode(&after).iter().all(|sample| sample.abs() < 16),
        "something is still heard after clear"
    );
    phone.hang_up();
    agent.wait("stop");
}

#[test]
fn the_call_is_answered_only_when_the_agent_has_accepted_and_start_comes_only_then() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let invite = {
        let offer = phone.offer();
        phone.request("INVITE", "", &offer)
    };
    phone.send(&invite);
    phone.expect("ringing", |message| message.status() == 180);
    // A second long nothing more comes, whatever is sent again.
    while let Some(message) = phone.receive(seconds(1)) {
        assert!(
            message.status() < 200,
            "answered before the agent was: {}",
            message.text
        );
    }
    assert_eq!(agent.connections(), (0, 0));
    let accepted = Instant::now();
    agent.accept();
    let answer = phone.answer("INVITE");
    println!("200 came {:?} after the agent accepted", accepted.elapsed());
    phone.confirm(&answer, "");
    let start = agent.wait("start");
    assert!(start.at > accepted);
    phone.hang_up();
    agent.wait("closed");
}

#[test]
fn an_agent_whose_call_is_given_up_is_never_told_of_a_start() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let invite = phone.request("INVITE", "", &offer);
    phone.send(&invite);
    phone.expect("ringing", |message| message.status() == 180);
    let cancel = phone.cancel(&invite);
    phone.send(&cancel);
    assert_eq!(phone.answer("CANCEL").status(), 200);
    assert_eq!(phone.finish_invite(&invite).status(), 487);
    agent.accept();
    let record = gateway.record();
    assert_eq!(
        (&record["reason"], &record["status"]),
        (&"CallerCancelled".into(), &487.into()),
        "{record}"
    );
    gateway.wait_calls(0);
    assert!(agent.events("start").is_empty() && agent.events("connected").is_empty());
    assert_eq!(agent.connections().1, 0, "a connection is left");
}

/// A caller's packets come by threes every 60 ms: how many threes the agent hears at once.
fn threes_at_once(caller_audio: &str) -> usize {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, &format!("callerAudio: {caller_audio}"));
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let start = Instant::now();
    for number in 0..90u16 {
        let due = start + Duration::from_millis(u64::from(number) / 3 * 60);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut packet = vec![0x80, 0];
        packet.extend(number.to_be_bytes());
        packet.extend((u32::from(number) * 160).to_be_bytes());
        packet.extend(7u32.to_be_bytes());
        packet.extend([0x91; 160]);
        phone.rtp.send_to(&packet, remote).unwrap();
    }
    phone.hang_up();
    agent.wait("closed");
    let sound = STANDARD.encode([0x91; 160]);
    let media = agent.events("media");
    let times: Vec<Instant> = media
        .iter()
        .filter(|heard| heard.message["media"]["payload"] == sound.as_str())
        .map(|heard| heard.at)
        .collect();
    // Some are shortened away by the buffer that paces them.
    assert!(times.len() > 60, "{}", times.len());
    let at_once = |three: &&[Instant]| three[2] - three[0] < Duration::from_millis(10);
    times.windows(3).filter(at_once).count()
}

#[test]
fn an_agent_may_have_each_frame_when_it_comes() {
    let (paced, on_arrival) = (threes_at_once("Paced"), threes_at_once("OnArrival"));
    assert!(on_arrival >= 20, "{on_arrival} of 30");
    assert!(paced <= 10, "{paced} of 30");
}

#[test]
fn an_agent_that_closes_its_connection_hangs_up() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    agent.wait("start");
    agent.hang_up();
    let bye = phone.wait_request("BYE", seconds(3));
    phone.respond(&bye, 200);
    assert!(bye.header("Reason").contains("AgentClosed"), "{}", bye.text);
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["ended_by"], &record["reason"]),
        (&"agent".into(), &"AgentClosed".into()),
        "{record}"
    );
    gateway.wait_calls(0);
}
