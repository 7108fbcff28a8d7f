//! Packets and reports under keys.

use super::*;
use crate::cover::Protection;

fn key(byte: u8) -> crate::srtp::MasterKey {
    crate::srtp::MasterKey::new(crate::srtp::Profile::Aes128Sha1_80, &[byte; 30]).unwrap()
}

fn keys(ours: u8, theirs: u8) -> Protection {
    Protection::Keys {
        send: key(ours),
        receive: key(theirs),
    }
}

/// A packet of the peer's, 160 samples.
fn plain(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(5_u32.to_be_bytes());
    packet.extend([0x31; FRAME_SAMPLES]);
    packet
}

fn sealed(guard: &mut crate::srtp::Guard, sequence: u16) -> Vec<u8> {
    let mut packet = plain(sequence);
    packet.resize(PACKET_BYTES, 0);
    let length = guard.protect_rtp(&mut packet, HEADER_BYTES + FRAME_SAMPLES);
    packet.truncate(length.unwrap());
    packet
}

fn next_packet(bench: &mut Bench) -> Option<Vec<u8>> {
    bench.stream.handle_timeout(bench.now);
    bench.now += TICK;
    let mut out = [0; PACKET_BYTES];
    let (length, _) = bench.stream.poll_transmit(&mut out)?;
    Some(out[..length].to_vec())
}

#[test]
fn a_protected_stream_speaks_and_hears_only_under_its_keys() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.protect(&keys(1, 2), bench.now);
    let mut peer = crate::srtp::Guard::new(&key(2), &key(1)).unwrap();
    let mut packet = next_packet(&mut bench).unwrap();
    assert_eq!(packet.len(), HEADER_BYTES + FRAME_SAMPLES + 10);
    let sequence = u16::from_be_bytes([packet[2], packet[3]]);
    assert!(sequence < 0x8000, "{sequence}");
    assert_eq!(
        peer.unprotect_rtp(&mut packet),
        Ok(HEADER_BYTES + FRAME_SAMPLES)
    );
    assert!(
        packet[HEADER_BYTES..][..FRAME_SAMPLES]
            .iter()
            .all(|code| *code == ULAW_SILENCE)
    );

    let from: SocketAddr = PEER.parse().unwrap();
    let mut forged = sealed(&mut crate::srtp::Guard::new(&key(3), &key(3)).unwrap(), 7);
    bench.stream.take(&mut forged, from, bench.now);
    bench.stream.take(&mut plain(8), from, bench.now);
    assert_eq!(bench.stream.stats().packets_received, 0);
    assert_eq!(bench.stream.stats().not_authentic, 2);
    let genuine = sealed(&mut peer, 9);
    bench.stream.take(&mut genuine.clone(), from, bench.now);
    bench.stream.take(&mut genuine.clone(), from, bench.now);
    let stats = bench.stream.stats();
    assert_eq!((stats.packets_received, stats.duplicates), (1, 1));
}

#[test]
fn what_is_not_authentic_neither_confirms_a_source_nor_moves_it() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.protect(&keys(1, 2), bench.now);
    let mut peer = crate::srtp::Guard::new(&key(2), &key(1)).unwrap();
    // From the very address of the SDP.
    let from: SocketAddr = PEER.parse().unwrap();
    let natted: SocketAddr = "198.51.100.20:7000".parse().unwrap();
    for sequence in 0..5 {
        bench.stream.take(&mut plain(sequence), from, bench.now);
    }
    assert_eq!(bench.stream.last_received(), None);
    // From nowhere that anybody has heard of, but authentic.
    bench
        .stream
        .take(&mut sealed(&mut peer, 1), natted, bench.now);
    assert_eq!(bench.stream.destination(), Some(natted));
    let other: SocketAddr = "203.0.113.77:9000".parse().unwrap();
    let captured = sealed(&mut peer, 2);
    bench.now += Duration::from_secs(1);
    bench.stream.take(&mut captured.clone(), other, bench.now);
    assert_eq!(
        bench.stream.destination(),
        Some(natted),
        "he is still heard"
    );
    bench.now += Duration::from_secs(4);
    bench.stream.take(&mut captured.clone(), other, bench.now);
    assert_eq!(
        bench.stream.destination(),
        Some(natted),
        "a copy of his packet"
    );
    bench.now += Duration::from_secs(1);
    bench
        .stream
        .take(&mut sealed(&mut peer, 3), other, bench.now);
    assert_eq!(bench.stream.destination(), Some(other), "himself");
    // Many from strangers are not even looked at.
    let before = bench.stream.stats();
    for _ in 0..50 {
        bench.stream.take(&mut plain(9), natted, bench.now);
    }
    let after = bench.stream.stats();
    assert!(after.not_authentic - before.not_authentic <= 1);
    assert!(after.rejected_source - before.rejected_source >= 49);
}

#[test]
fn an_unchanged_key_goes_on_and_a_new_one_begins_a_stream() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.protect(&keys(1, 2), bench.now);
    let mut peer = crate::srtp::Guard::new(&key(2), &key(1)).unwrap();
    let ssrc_of = |bench: &mut Bench, peer: &mut crate::srtp::Guard| {
        let mut packet = next_packet(bench).unwrap();
        peer.unprotect_rtp(&mut packet).unwrap();
        packet[8..12].to_vec()
    };
    let first = ssrc_of(&mut bench, &mut peer);
    bench.stream.protect(&keys(1, 2), bench.now);
    assert_eq!(ssrc_of(&mut bench, &mut peer), first);
    // The peer's key changes, ours stays.
    bench.stream.protect(&keys(1, 4), bench.now);
    assert_eq!(ssrc_of(&mut bench, &mut peer), first);
    let from: SocketAddr = PEER.parse().unwrap();
    let mut new_peer = crate::srtp::Guard::new(&key(4), &key(9)).unwrap();
    bench
        .stream
        .take(&mut sealed(&mut new_peer, 1), from, bench.now);
    assert_eq!(bench.stream.stats().packets_received, 1);
    bench.stream.protect(&keys(9, 4), bench.now);
    assert_ne!(ssrc_of(&mut bench, &mut new_peer), first);
}

#[test]
fn nothing_passes_a_closed_door() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.protect(&Protection::Closed, bench.now);
    assert_eq!(next_packet(&mut bench), None);
    bench
        .stream
        .take(&mut plain(1), PEER.parse().unwrap(), bench.now);
    assert_eq!(bench.stream.stats().packets_received, 0);
    bench.now += Duration::from_secs(10);
    let mut out = [0; crate::rtcp::REPORT_BYTES];
    assert!(bench.stream.poll_report(&mut out, bench.now).is_none());
    bench.stream.protect(&keys(1, 2), bench.now);
    assert!(next_packet(&mut bench).is_some());
}

#[test]
fn reports_are_protected_too() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.protect(&keys(1, 2), bench.now);
    let mut peer = crate::srtp::Guard::new(&key(2), &key(1)).unwrap();
    next_packet(&mut bench);
    bench.now += Duration::from_secs(8);
    let mut out = [0; crate::rtcp::REPORT_BYTES];
    let (length, _) = bench.stream.poll_report(&mut out, bench.now).unwrap();
    assert!(
        crate::rtcp::read(&out[..length], 1).is_some(),
        "its header is not encrypted"
    );
    let plain = peer.unprotect_rtcp(&mut out[..length]).unwrap();
    assert_eq!(length - plain, 14);

    let ssrc = u32::from_be_bytes([out[4], out[5], out[6], out[7]]);
    let block = crate::rtcp::Block {
        ssrc,
        lost: 7,
        ..crate::rtcp::Block::default()
    };
    let length = crate::rtcp::write(&mut out, 5, None, Duration::ZERO, Some(block));
    let from = "192.0.2.1:4001".parse().unwrap();
    let mut clear = out;
    bench
        .stream
        .take_report(&mut clear[..length], from, bench.now);
    assert_eq!(bench.stream.stats().packets_lost_remote, None);
    let length = peer.protect_rtcp(&mut out, length).unwrap();
    bench
        .stream
        .take_report(&mut out[..length], from, bench.now);
    assert_eq!(bench.stream.stats().packets_lost_remote, Some(7));
}
