//! Agents that speak AudioSocket. Where all goes well the agent is made with the library of the protocol's authors; where it does not, a
//! plain TCP server says what no library would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use ringwire_media::tone::speech_like;
use ringwire_tests::address::Address;
use ringwire_tests::audio;
use ringwire_tests::audiosocket::AudioSocketAgent;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, audio_socket};
use ringwire_tests::phone::{Message, Phone};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

use crate::{IS_ECHO, local_set};

fn start(address: SocketAddr) -> Gateway {
    Gateway::start(&[("all.yaml", &local_set(&audio_socket("bot", address, "")))])
}

fn target(gateway: &Gateway) -> String {
    format!("sip:{NUMBER}@{}", gateway.sip())
}

/// An agent that has nothing but a socket.
struct Plain {
    listener: TcpListener,
}

impl Plain {
    fn start() -> (Self, Gateway) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = start(listener.local_addr().unwrap());
        (Self { listener }, gateway)
    }

    /// The connection of the next call, behind its first frame.
    fn accept(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(seconds(5))).unwrap();
        let mut first = [0; 19];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first[..3], [0x01, 0, 16], "the first frame tells the call");
        stream
    }
}

/// The status of the agent, once it says what went wrong last.
fn failed_status(gateway: &Gateway) -> Value {
    wait::until(seconds(3), "the agent's status tells", || {
        let agent = gateway.object("VoiceAgent", "bot");
        agent["status"]["lastError"].is_string().then_some(agent)
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap()
}

#[track_caller]
fn ended_by_agent(gateway: &Gateway, phone: &mut Phone, reason: &str) -> (Message, Value) {
    let bye = phone.wait_request("BYE", seconds(3));
    phone.respond(&bye, 200);
    assert!(bye.header("Reason").contains(reason), "{}", bye.text);
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["ended_by"], &record["reason"]),
        (&"agent".into(), &reason.into()),
        "{record}"
    );
    gateway.wait_calls(0);
    (bye, record)
}

#[test]
fn an_echo_comes_back_and_the_agent_is_told_of_the_end() {
    let agent = AudioSocketAgent::start(&["-echo"]);
    let gateway = start(agent.address());
    // On a busy machine the agent's frames come late, and each that does leaves a hole; `--test audio` asks for more.
    let arguments = ["--duration", "3", "--min-correlation", "0.5"];
    let call = gateway::call(&target(&gateway), Address::claim().ip(), &arguments);
    assert!(call.success, "{}", call.result);

    let told = agent.wait("hangup");
    let frames = told["frames"].as_u64().unwrap();
    // 50 in a second, for three seconds, less what the caller needs to begin.
    assert!((140..=152).contains(&frames), "{frames} frames in 3 s");
    assert_eq!(told["bytes"], frames * 320);
    let closed = agent.wait("closed");
    assert!(
        closed["error"].as_str().unwrap().ends_with("EOF"),
        "closed in an orderly way: {closed}"
    );
    assert!(agent.events("unknown").is_empty() && agent.events("error").is_empty());
    let record = gateway.record();
    assert_eq!(
        agent.wait("id")["id"],
        record["agent_call_id"],
        "the agent's identifier is in the record: {record}"
    );
    let status = gateway.object("VoiceAgent", "bot");
    assert_eq!(status["status"]["backend"], "AudioSocket");
    assert_eq!(condition(&status, "BackendReachable")["status"], "True");
}

#[test]
fn each_call_has_an_identifier_and_a_connection_of_its_own() {
    let agent = AudioSocketAgent::start(&["-echo"]);
    let gateway = start(agent.address());
    let mut phones = [Phone::udp(gateway.sip()), Phone::udp(gateway.sip())];
    for phone in &mut phones {
        phone.call();
    }
    let ids = wait::until(seconds(3), "both calls", || {
        Some(agent.events("id")).filter(|ids| ids.len() == 2)
    });
    assert_ne!(ids[0]["id"], ids[1]["id"]);
    for phone in &mut phones {
        phone.hang_up();
    }
    gateway.wait_calls(0);
    wait::until(seconds(3), "the end of both connections", || {
        (agent.events("closed").len() == 2).then_some(())
    });
}

#[test]
fn the_agent_gets_each_key_once() {
    let agent = AudioSocketAgent::start(&[]);
    let gateway = start(agent.address());
    let call = gateway::call(
        &target(&gateway),
        Address::claim().ip(),
        &["--dtmf", "159#*D", "--duration", "4"],
    );
    assert_eq!(call.result["keysSent"], "159#*D", "{}", call.result);
    agent.wait("closed");
    let keys: String = agent
        .events("digit")
        .iter()
        .map(|told| told["digit"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, "159#*D");
}

#[test]
fn what_the_agent_says_is_heard_and_its_hang_up_ends_the_call() {
    let folder = Scratch::new("slin");
    let file = folder.path().join("say.slin");
    let said = speech_like(1500, 3);
    let bytes: Vec<u8> = said
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    std::fs::write(&file, bytes).unwrap();
    let agent = AudioSocketAgent::start(&["-say", file.to_str().unwrap()]);
    let gateway = start(agent.address());
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let heard = audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(1200));
    // The last second of it is heard after the call is over at the agent's side, not here.
    let comparison = audio::compare(&said[..8000], &audio::decode(&heard));
    assert!(comparison.correlation > IS_ECHO, "{comparison:?}");
    let (_, record) = ended_by_agent(&gateway, &mut phone, "AgentClosed");
    assert_eq!(record["detail"], "the agent hung up", "{record}");
    assert!(agent.events("error").is_empty());
}

#[test]
fn an_agent_that_just_closes_hangs_up() {
    let (agent, gateway) = Plain::start();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    drop(agent.accept());
    ended_by_agent(&gateway, &mut phone, "AgentClosed");
}

#[test]
fn an_error_of_the_agent_ends_the_call_with_its_code() {
    let (agent, gateway) = Plain::start();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    agent.accept().write_all(&[0xff, 0, 1, 4]).unwrap();
    let (_, record) = ended_by_agent(&gateway, &mut phone, "AgentFailed");
    assert_eq!(
        record["detail"], "the agent reported an error, code 4",
        "{record}"
    );
    let status = failed_status(&gateway);
    assert_eq!(
        status["status"]["lastError"],
        "AgentFailed: the agent reported an error, code 4"
    );
    assert!(status["status"]["lastErrorAt"].is_string(), "{status}");
    // What it answers to one call does not make it unreachable.
    wait::until_ok(seconds(3), "the agent is said to be reachable", || {
        let agent = gateway.object("VoiceAgent", "bot");
        let reachable = condition(&agent, "BackendReachable");
        match reachable["status"].as_str() {
            Some("True") => Ok(()),
            _ => Err(reachable.to_string()),
        }
    });
}

#[test]
fn what_is_not_audiosocket_ends_the_call_and_the_status_says_so() {
    let (agent, gateway) = Plain::start();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    let mut stream = agent.accept();
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        .unwrap();
    let (_, record) = ended_by_agent(&gateway, &mut phone, "AgentProtocolError");
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("kind 0x48") && detail.contains("AudioSocket server?"),
        "{record}"
    );
    let agent = failed_status(&gateway);
    let reachable = condition(&agent, "BackendReachable");
    assert_eq!(
        (&reachable["status"], &reachable["reason"]),
        (&"False".into(), &"AgentProtocolError".into()),
        "{reachable}"
    );
    assert_eq!(reachable["message"], detail);
    assert_eq!(condition(&agent, "Ready")["status"], "True");
}

#[test]
fn another_program_at_the_agents_port_fails_call_after_call_without_a_change_of_status() {
    let (agent, mut gateway) = Plain::start();
    let call = |gateway: &Gateway, says: &[u8], reason| {
        let mut phone = Phone::udp(gateway.sip());
        phone.call();
        let mut stream = agent.accept();
        stream.write_all(says).unwrap();
        ended_by_agent(gateway, &mut phone, reason);
    };
    for _ in 0..3 {
        call(&gateway, b"SSH-2.0-OpenSSH_9.2\r\n", "AgentProtocolError");
    }
    let failed = failed_status(&gateway);
    assert_eq!(condition(&failed, "BackendReachable")["status"], "False");
    // Now the right one listens: a frame of silence, and it hangs up.
    let right = [&[0x10, 1, 64][..], &[0; 320], &[0, 0, 0]].concat();
    call(&gateway, &right, "AgentClosed");
    wait::until_ok(seconds(3), "the agent is said to be reachable", || {
        let agent = gateway.object("VoiceAgent", "bot");
        match condition(&agent, "BackendReachable")["status"].as_str() {
            Some("True") => Ok(()),
            _ => Err(agent.to_string()),
        }
    });
    let log = gateway.process().log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("BackendReachable"))
        .filter_map(|line| {
            let reasons = ["NotCalledYet", "AgentProtocolError", "AgentReachable"];
            reasons.into_iter().find(|reason| line.contains(reason))
        })
        .collect();
    assert_eq!(
        told,
        ["NotCalledYet", "AgentProtocolError", "AgentReachable"],
        "{log}"
    );
}

#[test]
fn frames_that_cannot_be_used_are_told_and_the_call_goes_on() {
    let (agent, gateway) = Plain::start();
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let mut stream = agent.accept();
    let mut frames = vec![0x12, 2, 128];
    frames.extend([0x55; 640]);
    stream.write_all(&frames).unwrap();
    let heard = audio::exchange(&phone.rtp, remote, 0, &[0], Duration::from_millis(500));
    assert!(
        audio::decode(&heard).iter().all(|sample| sample.abs() < 16),
        "audio of another rate was played"
    );
    phone.hang_up();
    gateway.wait_calls(0);
    let mut gateway = gateway;
    let log = gateway.process().log();
    assert!(
        log.contains("audio at 16000 Hz (kind 0x12): only 8000 Hz (kind 0x10) is played"),
        "{log}"
    );
}

#[test]
fn an_agent_that_asks_for_another_rate_hears_and_speaks_at_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let manifest = audio_socket("bot", address, "").replace("\"}", "\", sampleRate: 16000}");
    let gateway = Gateway::start(&[("all.yaml", &local_set(&manifest))]);
    let agent = Plain { listener };
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let mut stream = agent.accept();
    let echo = std::thread::spawn(move || {
        let mut frames = 0;
        let mut frame = [0; 3 + 640];
        // The last one is the hang-up.
        while stream.read_exact(&mut frame[..3]).is_ok() && frame[0] != 0 {
            assert_eq!(frame[..3], [0x12, 2, 128], "20 ms at 16 kHz");
            stream.read_exact(&mut frame[3..]).unwrap();
            stream.write_all(&frame).unwrap();
            frames += 1;
        }
        frames
    });
    let samples = speech_like(2000, 7);
    let heard = audio::exchange(&phone.rtp, remote, 0, &samples, seconds(3));
    phone.hang_up();
    let frames = echo.join().unwrap();
    assert!((140..=165).contains(&frames), "{frames} frames in 3 s");
    let correlation = audio::compare(&samples, &audio::decode(&heard)).correlation;
    assert!(correlation >= IS_ECHO, "correlation {correlation}");
}

#[test]
fn a_caller_who_hangs_up_is_told_to_the_agent_even_while_it_talks() {
    let (agent, gateway) = Plain::start();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    let mut stream = agent.accept();
    let talker = stream.try_clone().unwrap();
    let (ended, told) = mpsc::channel();
    let talking = std::thread::spawn(move || {
        let frame = [&[0x10, 1, 64][..], &[0; 320]].concat().repeat(50);
        loop {
            let over = told.try_recv().is_ok();
            let written = (&talker).write_all(&frame);
            if over || written.is_err() {
                return written;
            }
        }
    });
    phone.hang_up();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(
        heard.ends_with(&[0, 0, 0]),
        "the last frame is no hang-up: {:?}",
        &heard[heard.len().saturating_sub(8)..]
    );
    // An orderly end: we can still talk. A reset might have taken the last frame with it.
    let _ = ended.send(());
    talking.join().unwrap().expect("the connection was reset");
    gateway.wait_calls(0);
}

#[test]
fn an_agent_that_cannot_be_reached_leaves_the_call_unanswered_with_the_reason() {
    let nobody = {
        // Free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = start(nobody);
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    let answer = phone.invite("", &offer);
    assert_eq!(answer.status(), 480, "{}", answer.text);
    assert!(
        answer.header("Reason").contains("AgentUnreachable"),
        "{}",
        answer.text
    );
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["status"], &record["reason"], &record["answer"]),
        (&480.into(), &"AgentUnreachable".into(), &"".into()),
        "{record}"
    );
    let agent = failed_status(&gateway);
    let reachable = condition(&agent, "BackendReachable");
    assert_eq!(
        (&reachable["status"], &reachable["reason"]),
        (&"False".into(), &"AgentUnreachable".into())
    );
    let message = reachable["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("{nobody}: connection refused")),
        "{message}"
    );
    assert_eq!(condition(&agent, "Ready")["status"], "True");
}

#[test]
fn the_first_audio_waits_for_as_long_as_the_cushion_is() {
    let agent = AudioSocketAgent::start(&["-echo"]);
    let delay = |cushion: u32| {
        let object = audio_socket("bot", agent.address(), &format!("cushionMillis: {cushion}"));
        let gateway = Gateway::start(&[("all.yaml", &local_set(&object))]);
        let arguments = ["--duration", "3", "--min-correlation", "0.5"];
        let call = gateway::call(&target(&gateway), Address::claim().ip(), &arguments);
        assert!(call.success, "{}", call.result);
        call.result["echo"]["delayMillis"].as_f64().unwrap()
    };
    let (none, longest) = (delay(0), delay(200));
    let more = longest - none;
    assert!(
        (120.0..=320.0).contains(&more),
        "{none} ms without a cushion, {longest} ms with one of 200 ms"
    );
}
