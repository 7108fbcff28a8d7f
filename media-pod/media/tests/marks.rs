//! What the network sees of a packet's importance: each one that a plane sends is marked for expedited forwarding (RFC 3246, DSCP 46), which
//! is 0xB8 in the byte that IPv4 calls the type of service, and IPv6 the traffic class.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use ringwire_media::networks::Networks;
use ringwire_media::plane::{Agent, Parts, Plane, Turn};
use ringwire_media::ports::Wanted;
use ringwire_media::stream::{Codec, RtpStream, Session, StreamConfig};

const EXPEDITED: u8 = 0xb8;

/// Says nothing.
struct Mute;

impl Agent for Mute {
    fn frame(&mut self, _: &[u8], _: u64, _: &mut RtpStream, _: Instant) -> Turn {
        Turn::Done
    }
}

/// A peer's port that is told of marks.
fn port(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::IpRecvTos, &true).unwrap();
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvTClass, &true).unwrap();
    }
    socket
}

/// The mark of the next packet that comes there, and its second byte, which tells what it is.
fn next(socket: &UdpSocket) -> (u8, u8) {
    let mut datagram = [0; 2048];
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let mut control = nix::cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    );
    let message = message.expect("no packet came");
    let mark = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4Tos(mark) => Some(mark),
        ControlMessageOwned::Ipv6TClass(mark) => u8::try_from(mark).ok(),
        _ => None,
    });
    (mark.expect("no mark was told"), datagram[1])
}

fn sees_marks(bind: &str, peer: &str) {
    let [bind, peer]: [IpAddr; 2] = [bind, peer].map(|text| text.parse().unwrap());
    let [rtp, reports] = [(); 2].map(|()| port(peer));
    let [remote, remote_rtcp] = [&rtp, &reports].map(|socket| socket.local_addr().unwrap());
    let plane = Plane::start(1).unwrap();
    let seat = plane
        .seat(&Wanted {
            bind,
            range: (24_200, 24_399),
            remote: Some(remote),
            signalling: None,
            networks: Networks::default(),
            thread: None,
        })
        .unwrap();
    let ours = seat.port();
    let session = Session {
        remote_rtcp: Some(remote_rtcp),
        ..Session::new(Codec::Pcmu, 0, Some(remote))
    };
    let config = StreamConfig::new(session, (1, 1, 1));
    let call = plane.open(Parts {
        seat,
        stream: RtpStream::new(config, Instant::now()),
        agent: Box::new(Mute),
        tell: Box::new(|_| {}),
    });
    call.with(RtpStream::start);
    for _ in 0..5 {
        // PCMU, the first one with the marker bit.
        let (mark, kind) = next(&rtp);
        assert_eq!((mark, kind & 0x7f), (EXPEDITED, 0), "{bind} to {peer}");
    }
    // Of one who says something there are reports.
    let to = SocketAddr::new(if bind.is_unspecified() { peer } else { bind }, ours);
    for sequence in 1..5 {
        let mut packet = vec![0x80, 0, 0, sequence, 0, 0, 0, sequence, 0, 0, 0, 9];
        packet.extend([0xff; 160]);
        rtp.send_to(&packet, to).unwrap();
    }
    let (mark, kind) = next(&reports);
    assert!((200..=201).contains(&kind), "a report: {kind}");
    assert_eq!(mark, EXPEDITED, "a report, {bind} to {peer}");
    call.end(|_| {});
}

#[test]
fn packets_and_reports_are_marked_over_ipv4() {
    sees_marks("127.0.0.1", "127.0.0.1");
}

#[test]
fn packets_and_reports_are_marked_over_ipv6() {
    sees_marks("::1", "::1");
}

#[test]
fn packets_and_reports_over_ipv4_are_marked_from_a_socket_of_both() {
    sees_marks("::", "127.0.0.1");
}
