//! Calls with real audio, through the carrier and the Contact that was registered there, and how good they sound. A program of its own, not
//! part of `local`: sound is to be measured while not a dozen other tests want the processors.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::time::{Duration, Instant};

use ringwire_tests::address::Address;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::audiosocket::AudioSocketAgent;
use ringwire_tests::baresip::Baresip;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::{self, Gateway, registered};
use ringwire_tests::manifests::{NUMBER, audio_socket, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::Phone;
use ringwire_tests::stall;
use ringwire_tests::wait::{self, seconds};

/// What an echo must at least be like. Opus keeps what can be heard rather than the shape of the wave.
const CLEAN: f64 = 0.9;
const CLEAN_OPUS: f64 = 0.7;

/// A call from the telephone network through the carrier, whose audio comes back as it was.
fn clean_call(carrier: &Carrier, codec: &str) -> gateway::TestCall {
    let caller = Address::claim();
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let arguments = [
        "--header",
        "X-Provider: network",
        "--codec",
        codec,
        "--min-correlation",
        "0.9",
    ];
    let call = stall::unless_stalled(
        |call: &gateway::TestCall| call.success,
        || gateway::call(&target, caller.ip(), &arguments),
    );
    assert!(call.success, "{}", call.result);
    call
}

fn echo_through_the_carrier(codec: &str, transport: &str, options: &[&str]) -> Carrier {
    let carrier = Carrier::start(options);
    let gateway = registered(
        &carrier,
        Gateway::start,
        &echo("bot", ""),
        &format!("transport: {transport}, codecs: [{codec}]"),
    );
    let call = clean_call(&carrier, codec);
    let name = if codec == "Opus" { "opus" } else { codec };
    assert_eq!(call.result["codec"], name);
    println!(
        "echo, {codec}, {transport}: {}, set-up {} ms",
        call.result["echo"], call.result["setupMillis"]
    );

    let record = gateway.record();
    assert_eq!(record["codec"], name);
    assert_eq!(record["to"], NUMBER, "{record}");
    assert_eq!(record["provider"], "default/trunk");
    assert_eq!(record["number"], "default/main");
    assert_eq!(record["agent"], "default/bot");
    assert_eq!(record["ended_by"], "caller");
    assert_eq!(record["reason"], "CallerHungUp");
    assert_eq!(record["status"], 200);
    for field in ["call_id", "start", "answer", "end", "from", "source"] {
        assert!(
            record[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {record}"
        );
    }
    assert!(
        record["packets_received"].as_u64().unwrap() > 250,
        "{record}"
    );
    assert!(record["packets_sent"].as_u64().unwrap() > 250, "{record}");
    assert_eq!(record["packets_lost"], 0, "{record}");
    carrier
}

#[test]
fn the_echo_of_a_call_through_the_carrier_is_what_was_said_in_pcmu() {
    echo_through_the_carrier("PCMU", "UDP", &[]);
}

#[test]
fn the_echo_of_a_call_through_the_carrier_is_what_was_said_in_pcma() {
    echo_through_the_carrier("PCMA", "UDP", &[]);
}

#[test]
fn the_echo_of_a_call_through_the_carrier_is_what_was_said_in_g722() {
    echo_through_the_carrier("G722", "UDP", &[]);
}

#[test]
fn the_echo_of_a_call_through_the_carrier_is_what_was_said_in_opus() {
    echo_through_the_carrier("Opus", "UDP", &[]);
}

#[test]
fn the_echo_of_a_call_through_the_carrier_is_what_was_said_in_l16() {
    echo_through_the_carrier("L16", "UDP", &[]);
}

#[test]
fn a_carrier_that_we_registered_with_over_tcp_calls_over_tcp() {
    echo_through_the_carrier("PCMA", "TCP", &[]);
}

#[test]
fn a_carrier_may_put_a_relay_between_us_and_the_caller() {
    let carrier = echo_through_the_carrier("PCMA", "UDP", &["--relay", "yes"]);
    // Both sides' voice went through it: at the end of the call it says how many packets.
    let relayed = wait::until_ok(seconds(10), "the relay has counted", || {
        let log = carrier.log("rtpengine");
        let streams = log.lines().filter(|line| !line.contains("(RTCP)"));
        let packets = streams.filter_map(|line| line.split_once(" p, ")?.0.rsplit(' ').next());
        let packets: Vec<u32> = packets.filter_map(|count| count.parse().ok()).collect();
        if packets.len() == 2 {
            Ok(packets)
        } else {
            Err(log)
        }
    });
    assert!(relayed.iter().all(|count| *count > 250), "{relayed:?}");
}

#[test]
fn the_called_number_is_found_in_the_request_uri_as_well() {
    let carrier = Carrier::start(&[]);
    let _gateway = registered(
        &carrier,
        Gateway::start,
        &echo("bot", ""),
        "calledNumberFrom: RequestUri",
    );
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let caller = Address::claim();
    let header = ["--header", "X-Provider: network", "--duration", "1"];
    let call = gateway::call(&target, caller.ip(), &header);
    assert_eq!(
        call.result["status"], 404,
        "the Request-URI holds our contact only: {}",
        call.result
    );
    let arguments = [&header[..], &["--header", "X-Called-In: ruri"]].concat();
    let call = gateway::call(&target, caller.ip(), &arguments);
    assert_eq!(call.result["status"], 200, "{}", call.result);
}

/// baresip calls through the carrier, says `samples` for that long, and hangs up. Gives what it sent and what it heard.
fn baresip_call(codec: &str, agent: &str, length: Duration) -> (Vec<i16>, Vec<i16>, Gateway) {
    let samples = ringwire_media::tone::speech_like(10_000, 7);
    let mut phone = Baresip::start(&samples, codec);
    let carrier = Carrier::start_on(phone.here(), &[]);
    let gateway = registered(
        &carrier,
        |files| Gateway::start_on(phone.here(), files),
        agent,
        "codecs: [G722, Opus, L16, PCMU, PCMA]",
    );
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    phone.command("dial", &target);
    phone.wait_event("CALL_ESTABLISHED", seconds(10));
    // It speaks for so long: nothing to poll for.
    std::thread::sleep(length);
    phone.command("hangup", "");
    phone.wait_event("CALL_CLOSED", seconds(5));
    (phone.recording("enc"), phone.recording("dec"), gateway)
}

fn baresip_hears_his_echo(codec: &str) {
    let clean = if codec.starts_with("opus") {
        CLEAN_OPUS
    } else {
        CLEAN
    };
    let call = || {
        let (sent, heard, gateway) = baresip_call(codec, &echo("bot", ""), seconds(7));
        (audio::compare(&sent, &heard), gateway)
    };
    let (comparison, gateway) =
        stall::unless_stalled(|(comparison, _)| comparison.correlation > clean, call);
    println!(
        "baresip, {codec}: correlation {:.4}, delay {} ms",
        comparison.correlation,
        comparison.delay_millis()
    );
    assert!(comparison.correlation > clean, "{comparison:?}");
    let record = gateway.record();
    assert_eq!(
        Some(record["codec"].as_str().unwrap()),
        codec.split('/').next()
    );
    // baresip reports every five seconds what it has lost.
    assert_eq!(record["packets_lost_remote"], 0, "{record}");
}

#[test]
fn baresip_hears_his_echo_in_pcmu() {
    baresip_hears_his_echo("PCMU/8000/1");
}

#[test]
fn baresip_hears_his_echo_in_pcma() {
    baresip_hears_his_echo("PCMA/8000/1");
}

#[test]
fn baresip_hears_his_echo_in_g722() {
    baresip_hears_his_echo("G722/16000/1");
}

#[test]
fn baresip_hears_his_echo_in_opus() {
    baresip_hears_his_echo("opus/48000/2");
}

#[test]
fn baresip_hears_his_echo_in_l16() {
    baresip_hears_his_echo("L16/16000/1");
}

/// A call through the carrier to an agent that is an echo.
fn echo_of_an_agent(kind: &str, codec: &str, agent: &str) {
    let carrier = Carrier::start(&[]);
    let gateway = registered(&carrier, Gateway::start, agent, "");
    let call = clean_call(&carrier, codec);
    println!(
        "{kind} agent, {codec}: {}, set-up {} ms",
        call.result["echo"], call.result["setupMillis"]
    );
    let record = gateway.record();
    assert_eq!(
        (&record["codec"], &record["ended_by"]),
        (&codec.into(), &"caller".into()),
        "{record}"
    );
}

#[test]
fn a_websocket_agent_hears_the_caller_and_is_heard() {
    for codec in ["PCMU", "PCMA"] {
        let agent = Agent::start(Manner {
            echoes: true,
            ..Manner::default()
        });
        echo_of_an_agent("WebSocket", codec, &web_socket("bot", &agent.url(), ""));
    }
}

#[test]
fn an_audiosocket_agent_hears_and_is_heard() {
    for codec in ["PCMU", "PCMA"] {
        let agent = AudioSocketAgent::start(&["-echo"]);
        let manifest = audio_socket("bot", agent.address(), "");
        echo_of_an_agent("AudioSocket", codec, &manifest);
    }
}

/// When the last packet came of those that come for a second from now on.
fn last_packet(phone: &Phone) -> Option<Instant> {
    let begun = Instant::now();
    let (mut last, mut buffer) = (None, [0; 2048]);
    phone.rtp.set_read_timeout(Some(seconds(1) / 50)).unwrap();
    while begun.elapsed() < seconds(1) {
        if phone.rtp.recv(&mut buffer).is_ok() {
            last = Some(Instant::now());
        }
    }
    last
}

#[test]
fn whoever_ends_a_call_all_is_over_within_half_a_second() {
    for ends in ["caller", "agent", "gateway"] {
        let agent = Agent::start(Manner {
            echoes: true,
            ..Manner::default()
        });
        let bot = web_socket("bot", &agent.url(), "limits: {maxCallSeconds: 2}");
        let trunk = static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]");
        let set = [trunk, number("main", NUMBER, "trunk", "bot"), bot];
        let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
        let mut phone = Phone::udp(gateway.sip());
        phone.call();
        agent.wait("media");
        let ended = match ends {
            "caller" => {
                let ended = Instant::now();
                phone.hang_up();
                ended
            }
            who => {
                let mut ended = Instant::now();
                if who == "agent" {
                    agent.hang_up();
                }
                let bye = phone.wait_request("BYE", seconds(5));
                if who == "agent" {
                    assert!(
                        ended.elapsed() < seconds(1) / 2,
                        "BYE after {:?}",
                        ended.elapsed()
                    );
                } else {
                    ended = Instant::now();
                }
                phone.respond(&bye, 200);
                ended
            }
        };
        let last = last_packet(&phone).map_or(Duration::ZERO, |last| last.duration_since(ended));
        let closed = agent.wait("closed").at.saturating_duration_since(ended);
        println!("ended by the {ends}: agent told after {closed:?}, last packet after {last:?}");
        assert!(
            closed.max(last) < seconds(1) / 2,
            "{ends}: {closed:?}, {last:?}"
        );
        assert_eq!(gateway.record_of(phone.call_id())["ended_by"], ends);
        gateway.wait_calls(0);
        assert_eq!(agent.connections(), (1, 0), "{ends}");
    }
}
