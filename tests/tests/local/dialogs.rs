//! Calls that are up: what carriers do inside the dialog. With sipp where it can, else with a phone made of text.

use std::time::Duration;

use ringwire_media::tone::speech_like;
use ringwire_tests::address::{Address, Loopback6};
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::gateway;
use ringwire_tests::manifests::NUMBER;
use ringwire_tests::phone::{Message, Phone};
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};

use crate::{ECHO_EXPECTED, IS_ECHO, agent_gateway, echo_gateway, echo_gateway_on};

/// The caller's words come back from `remote`.
#[track_caller]
fn assert_echo(phone: &Phone, remote: std::net::SocketAddr, payload_type: u8) {
    let samples = speech_like(1200, 11);
    let heard = audio::exchange(
        &phone.rtp,
        remote,
        payload_type,
        &samples,
        Duration::from_millis(1600),
    );
    assert!(
        heard
            .iter()
            .all(|packet| packet.payload_type == payload_type)
    );
    let comparison = audio::compare(&samples, &audio::decode(&heard));
    assert!(comparison.correlation > IS_ECHO, "{comparison:?}");
}

#[test]
fn sipp_calls_and_hangs_up_over_udp_and_tcp() {
    let gateway = echo_gateway();
    sipp::run("call.xml", gateway.sip(), &["-m", "5", "-d", "300"]);
    sipp::run(
        "call.xml",
        gateway.sip(),
        &["-m", "5", "-d", "300", "-t", "t1"],
    );
    sipp::run(
        "call.xml",
        gateway.sip(),
        &["-m", "5", "-d", "300", "-t", "tn"],
    );
    assert_eq!(gateway.records().len(), 15);
    gateway.wait_calls(0);
}

#[test]
fn sipp_holds_resumes_and_refreshes_by_reinvite_and_update() {
    let gateway = echo_gateway();
    sipp::run("hold.xml", gateway.sip(), &[]);
    let record = gateway.record();
    assert_eq!(record["reason"], "CallerHungUp", "{record}");
}

#[test]
fn sipp_calls_without_an_offer() {
    let gateway = echo_gateway();
    sipp::run("offerless.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["codec"], "PCMA");
}

#[test]
fn sipp_gives_up_before_the_answer() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    sipp::run("cancel.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerCancelled");
}

#[test]
fn sipp_sends_the_same_invite_over_two_paths() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    sipp::run("merged.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerCancelled");
    assert_eq!(gateway.records().len(), 1);
}

#[test]
fn sipp_calls_over_ipv6() {
    let loopback = Loopback6::claim();
    let gateway = echo_gateway_on(&loopback);
    for (scenario, more) in [
        ("call.xml", &["-d", "300"][..]),
        ("call.xml", &["-d", "300", "-t", "t1"]),
        ("offerless.xml", &[]),
        ("prack.xml", &[]),
    ] {
        sipp::run(scenario, gateway.sip(), more);
        let record = gateway.record();
        assert_eq!(record["reason"], "CallerHungUp", "{scenario}: {record}");
    }
    let target = format!("sip:{NUMBER}@{}", gateway.sip());
    let call = gateway::call(&target, loopback.ip(), &ECHO_EXPECTED);
    assert!(call.success, "{}", call.result);
}

#[test]
fn ringwire_call_goes_where_sipp_sends_it_if_it_may() {
    let gateway = echo_gateway();
    let elsewhere = format!("{NUMBER}@{}", gateway.sip());
    let more = ["-key", "elsewhere", &elsewhere, "-m", "2"];
    let server = sipp::start("redirect.xml", gateway.sip(), &more);
    listens(server.ip());
    let (target, caller) = (format!("sip:1@{}", server.ip()), Address::claim());
    let refused = gateway::call(&target, caller.ip(), &[]);
    let failure = refused.result["failure"].to_string();
    assert!(failure.contains("--follow-redirects"), "{failure}");
    let arguments = [&["--follow-redirects"], &ECHO_EXPECTED[..]].concat();
    let call = gateway::call(&target, caller.ip(), &arguments);
    assert!(call.success, "{}", call.result);
    server.end();
    assert_eq!(gateway.record()["reason"], "CallerHungUp");
}

/// Waits until sipp listens there.
#[track_caller]
fn listens(ip: std::net::IpAddr) {
    let std::net::IpAddr::V4(ip) = ip else {
        panic!("sipp is on an address of IPv4");
    };
    // Of this machine's byte order.
    let local = format!(" {:08X}:13C4 ", u32::from_ne_bytes(ip.octets()));
    wait::until(seconds(5), "sipp listens on port 5060", || {
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        sockets.contains(&local).then_some(())
    });
}

/// `ringwire call` to a server that plays this scenario and sends the audio of its call back.
#[track_caller]
fn call_server(scenario: &str) -> gateway::TestCall {
    // The first argument is where sipp's own requests would go.
    let nowhere = Address::claim();
    let server = sipp::start(scenario, nowhere.port(5060), &["-rtp_echo"]);
    listens(server.ip());
    let target = format!("sip:1@{}", server.ip());
    let call = gateway::call(&target, Address::claim().ip(), &ECHO_EXPECTED);
    assert!(call.success, "{}", call.result);
    server.end();
    call
}

#[test]
fn ringwire_call_is_answered_by_one_of_the_forks_of_sipp() {
    let call = call_server("forked.xml");
    assert_eq!(call.result["codec"], "PCMA", "{}", call.result);
}

#[test]
fn ringwire_call_has_early_media_with_sipp_and_acknowledges_it() {
    let call = call_server("early.xml");
    assert_eq!(call.result["codec"], "PCMA", "{}", call.result);
}

#[test]
fn sipp_and_we_change_the_session_at_the_same_moment() {
    let gateway = echo_gateway();
    sipp::run("glare.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerHungUp");
}

#[test]
fn our_bye_goes_along_the_route_that_the_call_came() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let peer = sipp::start("ended-by-us.xml", gateway.sip(), &[]);
    agent.wait("start");
    agent.hang_up();
    peer.end();
    assert_eq!(gateway.record()["reason"], "AgentClosed");
}

#[test]
fn a_call_without_an_offer_gets_ours_and_is_heard_after_its_ack() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let answer = phone.invite("", "");
    assert_eq!(answer.status(), 200);
    assert!(
        answer.lines("m=audio")[0].contains(" RTP/AVP "),
        "{}",
        answer.text
    );
    let reply = phone.sdp("m=audio {port} RTP/AVP 8");
    phone.confirm(&answer, &reply);
    assert_echo(&phone, answer.media(), 8);
    phone.hang_up();
    assert_eq!(gateway.record()["codec"], "PCMA");
}

#[track_caller]
fn direction(answer: &Message) -> &str {
    assert_eq!(answer.status(), 200, "{}", answer.text);
    let directions: Vec<&str> = answer
        .body()
        .lines()
        .filter(|line| ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"].contains(line))
        .collect();
    directions.first().map_or("a=sendrecv", |line| line)
}

#[test]
fn hold_stops_our_audio_and_resume_brings_it_back() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    assert_echo(&phone, remote, 0);
    for method in ["INVITE", "UPDATE"] {
        for hold in ["a=sendonly", "a=inactive", "c=IN IP4 0.0.0.0"] {
            let offer = phone.offer();
            let ip = phone.rtp.local_addr().unwrap().ip();
            let offer = if hold.starts_with('c') {
                offer.replace(&format!("c=IN IP4 {ip}"), hold)
            } else {
                format!("{offer}{hold}\n")
            };
            let answer = phone.ask(method, "", &offer);
            let expected = if hold == "a=sendonly" {
                "a=recvonly"
            } else {
                "a=inactive"
            };
            // An address of zeros, as RFC 2543 had it, says only where we must not send.
            if hold.starts_with('a') {
                assert_eq!(
                    direction(&answer),
                    expected,
                    "{method} {hold}: {}",
                    answer.text
                );
            }
            if method == "INVITE" {
                phone.confirm(&answer, "");
            }
            std::thread::sleep(Duration::from_millis(60));
            audio::drain(&phone.rtp);
            let heard = audio::exchange(&phone.rtp, remote, 0, &[], Duration::from_millis(300));
            assert_eq!(heard.len(), 0, "{method} {hold}: audio goes on during hold");
            let offer = phone.offer();
            let answer = phone.ask(method, "", &offer);
            assert_eq!(direction(&answer), "a=sendrecv", "{}", answer.text);
            if method == "INVITE" {
                phone.confirm(&answer, "");
            }
            let heard = audio::exchange(&phone.rtp, remote, 0, &[], Duration::from_millis(400));
            assert!(
                heard.len() >= 15,
                "{method} {hold}: {} packets in 400 ms after resume",
                heard.len()
            );
        }
    }
    assert_echo(&phone, remote, 0);
    phone.hang_up();
}

#[test]
fn an_unchanged_session_is_answered_with_the_unchanged_session() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let first = phone.call();
    let offer = phone.offer();
    for method in ["INVITE", "UPDATE", "INVITE"] {
        let answer = phone.ask(method, "", &offer);
        assert_eq!(answer.body(), first.body(), "{method}");
        if method == "INVITE" {
            phone.confirm(&answer, "");
        }
    }
    // A refresh of a session timer has no body at all.
    let answer = phone.ask("UPDATE", "", "");
    assert_eq!((answer.status(), answer.body()), (200, ""));
    let answer = phone.ask("OPTIONS", "", "");
    assert_eq!(answer.status(), 200);
    assert_echo(&phone, first.media(), 0);
    phone.hang_up();
}

#[test]
fn a_reinvite_can_move_the_audio_and_change_the_codec() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    assert_echo(&phone, remote, 0);
    let ip = phone.rtp.local_addr().unwrap().ip();
    phone.rtp = std::net::UdpSocket::bind((ip, 4100)).unwrap();
    let offer = phone.sdp("m=audio {port} RTP/AVP 8");
    let answer = phone.ask("INVITE", "", &offer);
    phone.confirm(&answer, "");
    assert_echo(&phone, answer.media(), 8);
    // What cannot be agreed on leaves the call as it is.
    let offer = phone.sdp("m=audio {port} RTP/AVP 18");
    let text = phone.request("INVITE", "", &offer);
    phone.send(&text);
    assert_eq!(phone.finish_invite(&text).status(), 488);
    assert_echo(&phone, remote, 8);
    phone.hang_up();
}

#[test]
fn an_answer_finds_a_caller_whose_connection_has_closed() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let (mut phone, listener) = Phone::reachable(gateway.sip());
    let offer = phone.offer();
    let invite = phone.request("INVITE", "", &offer);
    phone.send(&invite);
    phone.expect("180", |message| message.status() == 180);
    phone.close();
    agent.accept();
    phone.accept(&listener, seconds(5));
    let answer = phone.answer("INVITE");
    phone.confirm(&answer, "");
    agent.wait("start");
    agent.hang_up();
    // Over the connection that the answer came on: it is that of the dialog since the ACK.
    let bye = phone.wait_request("BYE", seconds(5));
    phone.respond(&bye, 200);
    assert_eq!(gateway.record()["reason"], "AgentClosed");
    let again = listener.accept().map(drop);
    assert_eq!(
        again.unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "one connection is enough"
    );
}

#[test]
fn a_call_over_tcp_is_answered_and_ended_over_its_connection() {
    let agent = Agent::start(Manner {
        echoes: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::tcp(gateway.sip());
    let answer = phone.call();
    assert!(
        answer.contact().contains("transport=tcp"),
        "{}",
        answer.text
    );
    assert_echo(&phone, answer.media(), 0);
    phone.hang_up();
    phone.new_call();
    phone.call();
    agent.hang_up();
    let bye = phone.wait_request("BYE", seconds(3));
    phone.respond(&bye, 200);
    assert!(bye.header("Via").contains("/TCP"), "{}", bye.text);
}

#[test]
fn a_cancel_at_the_moment_of_the_answer_leaves_no_call_behind() {
    let gateway = echo_gateway();
    let (mut answered, mut cancelled) = (0, 0);
    for turn in 0..40 {
        let mut phone = Phone::udp(gateway.sip());
        let offer = phone.offer();
        let invite = phone.request("INVITE", "", &offer);
        let cancel = phone.cancel(&invite);
        phone.send(&invite);
        // From at once to a moment after the answer.
        let pause = Duration::from_micros(100 * turn);
        let start = std::time::Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        phone.send(&cancel);
        let answer = phone.finish_invite(&invite);
        match answer.status() {
            200 => {
                answered += 1;
                phone.confirm(&answer, "");
                phone.hang_up();
            }
            487 => cancelled += 1,
            other => panic!("{other}: {}", answer.text),
        }
        let bye_or_cancel = phone
            .seen
            .iter()
            .any(|message| message.status() == 200 && message.header("CSeq").contains("CANCEL"));
        let stale = phone.seen.iter().any(|message| message.status() == 481);
        assert!(
            bye_or_cancel || stale || phone.receive(seconds(1)).is_some(),
            "the CANCEL is not answered"
        );
    }
    println!("CANCEL and 200 crossing: {answered} answered, {cancelled} cancelled");
    gateway.wait_calls(0);
}

#[test]
fn keys_come_by_info_too() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    agent.wait("start");
    let answer = phone.ask(
        "INFO",
        "Content-Type: application/dtmf-relay\n",
        "Signal=7\nDuration=160\n",
    );
    assert_eq!(answer.status(), 200, "{}", answer.text);
    assert_eq!(agent.wait("dtmf").message["dtmf"]["digit"], "7");
    let answer = phone.ask("INFO", "Content-Type: text/plain\n", "hello\n");
    assert_eq!(answer.status(), 415, "{}", answer.text);
    phone.hang_up();
}

#[test]
fn a_caller_without_audio_yet_hears_silence_from_the_answer_on() {
    let gateway = echo_gateway();
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let heard = audio::exchange(&phone.rtp, remote, 0, &[], Duration::from_secs(1));
    assert!(
        (47..=52).contains(&heard.len()),
        "{} packets in the first second",
        heard.len()
    );
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
    }
    phone.hang_up();
}

#[test]
fn a_session_timer_is_kept_by_us_where_the_caller_leaves_it_to_us() {
    let gateway = echo_gateway();
    sipp::run(
        "timer.xml",
        gateway.sip(),
        &["-recv_timeout", "60000", "-rtp_echo"],
    );
    assert_eq!(gateway.record()["reason"], "CallerHungUp");
}

#[test]
fn provisional_responses_are_reliable_where_the_caller_requires_it() {
    let gateway = echo_gateway();
    sipp::run("prack.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerHungUp");
}
