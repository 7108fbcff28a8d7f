//! Peers that do not behave: others are served all the same.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use ringwire_tests::address::Address;
use ringwire_tests::agent::{self, Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::{IS_ECHO, agent_gateway, echo_gateway};

/// Waits until so many connections have been cut off for this reason.
#[track_caller]
fn wait_cut_off(gateway: &Gateway, reason: &str, count: f64) {
    let name = format!("ringwire_connections_cut_off_total{{reason=\"{reason}\"}}");
    wait::until_ok(
        seconds(30),
        &format!("{count} connections cut off for {reason}"),
        || match gateway.metric_or_none(&name) {
            Some(seen) if seen.total_cmp(&count).is_eq() => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    );
}

#[test]
fn a_connection_that_stops_in_the_middle_of_a_message_holds_nobody_up() {
    let gateway = echo_gateway();
    let mut stuck = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(gateway.sip()).unwrap();
        stream.write_all(b"INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nContent-Length: 500\r\n\r\nv=0").unwrap();
        stuck.push(stream);
    }
    for mut phone in [Phone::tcp(gateway.sip()), Phone::udp(gateway.sip())] {
        phone.call();
        phone.hang_up();
    }
    wait_cut_off(&gateway, "SlowMessage", 50.0);
}

#[test]
fn a_connection_that_speaks_no_sip_is_cut_off() {
    let gateway = echo_gateway();
    let mut stream = TcpStream::connect(gateway.sip()).unwrap();
    stream.set_read_timeout(Some(seconds(5))).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    wait_cut_off(&gateway, "Garbage", 1.0);
}

#[test]
fn one_address_has_only_so_many_connections() {
    let gateway = echo_gateway();
    let connect = |_| TcpStream::connect(gateway.sip()).unwrap();
    let streams: Vec<TcpStream> = (0..70).map(connect).collect();
    wait_cut_off(&gateway, "TooMany", 6.0);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    phone.hang_up();
    drop(streams);
}

#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let gateway = echo_gateway();
    let mut phone = Phone::tcp(gateway.sip());
    let mut stream = TcpStream::connect(gateway.sip()).unwrap();
    stream.set_write_timeout(Some(seconds(10))).unwrap();
    let filler = "x".repeat(2000);
    let taken = (0..20_000).take_while(|turn| {
        // What is put into the answer besides: the Via.
        let request = format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{turn};filler={filler}\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: {turn}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).is_ok()
    });
    assert!(taken.count() < 20_000, "nobody noticed");
    wait_cut_off(&gateway, "NotReading", 1.0);
    phone.call();
    phone.hang_up();
    // What is under way still arrives, and then the end.
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(seconds(5))).unwrap();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
}

#[test]
fn a_connection_without_end_is_closed() {
    let gateway = echo_gateway();
    let mut stream = TcpStream::connect(gateway.sip()).unwrap();
    stream.set_write_timeout(Some(seconds(5))).unwrap();
    stream.set_read_timeout(Some(seconds(5))).unwrap();
    stream.write_all(b"INVITE sip:x@y SIP/2.0\r\n").unwrap();
    let filler = format!("X-Filler: {}\r\n", "x".repeat(1000));
    let written = (0..10_000)
        .take_while(|_| stream.write_all(filler.as_bytes()).is_ok())
        .count();
    assert!(written < 5000, "{written} kB of one header were taken");
    // What is answered, if anything, and then the end.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    wait_cut_off(&gateway, "OversizedMessage", 1.0);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    phone.hang_up();
}

#[test]
fn a_scanner_gets_no_answer_and_is_counted() {
    let (carrier, scanner) = (Address::claim(), Address::claim());
    let trunk = static_trunk(&carrier, "codecs: [PCMA]");
    let set = [
        trunk,
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let ask = |from: &Address, agent: &str| {
        let socket = UdpSocket::bind(from.port(5080)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let text = format!(
            "OPTIONS sip:100@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from}:5080;rport;branch=z9hG4bK{agent}\r\nMax-Forwards: 70\r\n\
             From: <sip:100@{from}>;tag=1\r\nTo: <sip:100@{to}>\r\nCall-ID: {agent}\r\nCSeq: 1 OPTIONS\r\n\
             User-Agent: {agent}\r\nContent-Length: 0\r\n\r\n",
            to = gateway.sip(),
        );
        socket.send_to(text.as_bytes(), gateway.sip()).unwrap();
        socket.recv(&mut [0; 2048]).is_ok()
    };
    assert!(ask(&scanner, "phone"), "a stranger that asks once is heard");
    assert!(!ask(&scanner, "friendly-scanner"));
    assert!(!ask(&scanner, "phone"), "it is shut out");
    assert!(ask(&carrier, "friendly-scanner"), "the carrier never is");
    let counted = "{reason=\"ScannerIgnored\"} ";
    wait::until_ok(seconds(15), "the scanner is counted", || {
        let (_, metrics) = gateway.http("/metrics").unwrap();
        let line = metrics.lines().find(|line| line.contains(counted));
        line.map(|_| ()).ok_or(metrics)
    });
}

#[test]
fn a_flood_of_junk_leaves_calls_alone() {
    let agent = Agent::start(Manner {
        echoes: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    let from = Address::claim();
    let socket = UdpSocket::bind(from.port(0)).unwrap();
    for turn in 0..3000u32 {
        let length = 1 + (turn * 37 % 1400) as usize;
        let junk: Vec<u8> = (0..length)
            .map(|at| ((at as u32).wrapping_mul(turn) >> 3) as u8)
            .collect();
        let text = match turn % 3 {
            0 => junk,
            1 => [b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK".to_vec(), junk].concat(),
            _ => format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h{turn};branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\n\r\n").into_bytes(),
        };
        let _ = socket.send_to(&text, gateway.sip());
        // And into the call's audio.
        let _ = socket.send_to(&text, remote);
    }
    let samples = ringwire_media::tone::speech_like(1500, 5);
    let heard = audio::exchange(&phone.rtp, remote, 0, &samples, seconds(2));
    let comparison = audio::compare(&samples, &audio::decode(&heard));
    assert!(comparison.correlation > IS_ECHO, "{comparison:?}");
    phone.hang_up();
    assert_eq!(gateway.record_of(phone.call_id())["reason"], "CallerHungUp");
}

#[test]
fn a_stranger_is_not_heard_and_hears_nothing() {
    let agent = Agent::start(Manner {
        echoes: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    audio::exchange(&phone.rtp, remote, 0, &[0; 160], Duration::from_millis(300));
    let place = Address::claim();
    let stranger = UdpSocket::bind(place.port(4000)).unwrap();
    let loud = ringwire_media::tone::speech_like(1000, 9);
    let caught = audio::exchange(&stranger, remote, 0, &loud, seconds(1));
    assert_eq!(caught.len(), 0, "the stranger got the caller's audio");
    phone.hang_up();
    agent.wait("closed");
    let frames = agent.events("media");
    let loudest = frames
        .iter()
        .flat_map(|frame| agent::audio(&frame.message))
        .map(|code| i32::from(ringwire_media::g711::decode_ulaw(code)).abs());
    assert!(loudest.max().unwrap() < 100, "the agent heard the stranger");
}

#[test]
fn several_messages_in_one_segment_and_one_in_many_are_read() {
    let gateway = echo_gateway();
    let mut phone = Phone::tcp(gateway.sip());
    let first = phone.request("OPTIONS", "", "");
    let second = phone.request("OPTIONS", "", "");
    // A keep-alive in between (RFC 5626).
    phone.send(&format!("{first}\r\n\r\n{second}"));
    assert_eq!(phone.answer("OPTIONS").status(), 200);
    let offer = phone.offer();
    let invite = phone.request("INVITE", "", &offer);
    for part in invite.as_bytes().chunks(50) {
        phone.send(std::str::from_utf8(part).unwrap());
    }
    let answer = phone.finish_invite(&invite);
    phone.confirm(&answer, "");
    phone.hang_up();
}
