use super::incoming::MAX_FRAMES;
use super::*;
use crate::FRAME_SAMPLES;
use crate::cover::Protection;
use crate::format::MOST_BYTES;
use crate::g711::{ALAW_SILENCE, ULAW_SILENCE, ulaw_to_alaw};
use crate::jitter::Delay;
use crate::playback::take_front;
use crate::rtcp::REPORT_BYTES;

const PEER: &str = "192.0.2.1:4000";

/// Marker, payload type, sequence, timestamp, payload.
type Sent = (bool, u8, u16, u32, Vec<u8>);

struct Bench {
    stream: RtpStream,
    now: Instant,
    sent: u16,
    /// Of the last tick: first byte, and when it began.
    frames: Vec<(u8, u64)>,
}

fn session(codec: Codec) -> Session {
    let payload_type = if codec == Codec::Pcmu { 0 } else { 8 };
    Session {
        telephone_event: Some(TelephoneEvent {
            send: 101,
            receive: 96,
            clock_rate: 8000,
        }),
        ..Session::new(codec, payload_type, PEER.parse().ok())
    }
}

pub(super) fn config(codec: Codec, cushion_millis: u32, delay: Delay) -> StreamConfig {
    StreamConfig {
        delay,
        cushion_millis,
        ..StreamConfig::new(session(codec), (77, 65_534, u32::MAX - 100))
    }
}

impl Bench {
    fn new(codec: Codec) -> Self {
        Self::with_cushion(codec, 20)
    }

    fn with_cushion(codec: Codec, cushion_millis: u32) -> Self {
        let now = Instant::now();
        let config = config(codec, cushion_millis, Delay::Fixed(0));
        let mut stream = RtpStream::new(config, now);
        stream.start(now);
        Self {
            stream,
            now,
            sent: 0,
            frames: Vec::new(),
        }
    }

    fn peer_sends(&mut self, payload_type: u8, payload: &[u8]) {
        let packet = Packet {
            marker: false,
            payload_type,
            sequence: self.sent,
            timestamp: u32::from(self.sent) * 160,
            ssrc: 5,
            payload,
        };
        let mut buffer = [0; 1500];
        let length = packet.write(&mut buffer).unwrap();
        self.sent += 1;
        self.stream
            .receive(&buffer[..length], PEER.parse().unwrap(), self.now);
    }

    /// One tick: the packets and the frames, which are told by their first byte.
    fn tick_frames(&mut self) -> (Vec<Sent>, Vec<(u8, u64)>) {
        let (packets, _) = self.tick();
        (packets, std::mem::take(&mut self.frames))
    }

    /// One tick: the packets and the events.
    fn tick(&mut self) -> (Vec<Sent>, Vec<StreamEvent>) {
        self.stream.handle_timeout(self.now);
        self.now += TICK;
        let mut out = [0; PACKET_BYTES];
        let mut packets = Vec::new();
        while let Some((length, to)) = self.stream.poll_transmit(&mut out) {
            assert_eq!(to, PEER.parse().unwrap());
            let packet = Packet::parse(&out[..length]).unwrap();
            assert_eq!(packet.ssrc, 77);
            packets.push((
                packet.marker,
                packet.payload_type,
                packet.sequence,
                packet.timestamp,
                packet.payload.to_vec(),
            ));
        }
        self.frames.clear();
        let mut frame = [0; MOST_BYTES];
        while let Some((length, at)) = self.stream.poll_frame(&mut frame) {
            assert_eq!(length, FRAME_SAMPLES);
            self.frames.push((frame[0], at));
        }
        (
            packets,
            std::iter::from_fn(|| self.stream.poll_event()).collect(),
        )
    }

    /// The agent speaks, just before the next tick.
    fn play(&mut self, ulaw: &[u8]) {
        self.stream.play(ulaw, self.now);
    }

    fn payload(&mut self) -> Vec<u8> {
        let (mut packets, _) = self.tick();
        assert_eq!(packets.len(), 1);
        packets.remove(0).4
    }
}

fn marks(events: &[StreamEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::MarkPlayed(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn silence_leaves_every_20_ms_with_continuous_numbers() {
    for (codec, silence) in [(Codec::Pcmu, ULAW_SILENCE), (Codec::Pcma, ALAW_SILENCE)] {
        let mut bench = Bench::new(codec);
        for number in 0..10u16 {
            assert_eq!(bench.stream.poll_timeout(), Some(bench.now));
            let (packets, frames) = bench.tick_frames();
            let timestamp = (u32::MAX - 100).wrapping_add(u32::from(number) * 160);
            let payload_type = session(codec).send_payload_type;
            let sequence = 65_534u16.wrapping_add(number);
            assert_eq!(
                packets,
                [(
                    number == 0,
                    payload_type,
                    sequence,
                    timestamp,
                    vec![silence; 160]
                )]
            );
            assert_eq!(frames, [(ULAW_SILENCE, u64::from(number) * 20)]);
        }
    }
}

#[test]
fn the_callers_audio_reaches_the_agent_as_ulaw() {
    let mut bench = Bench::new(Codec::Pcma);
    bench.peer_sends(8, &[0x2a; 160]);
    assert_eq!(
        bench.tick_frames().1,
        [(crate::g711::alaw_to_ulaw(0x2a), 0)]
    );
    bench.peer_sends(0, &[0x33; 160]);
    assert_eq!(bench.tick_frames().1, [(0x33, 20)]);
    bench.peer_sends(13, &[1]);
    bench.peer_sends(120, &[1; 160]);
    assert_eq!(bench.tick_frames().1.len(), 1);
    assert_eq!(bench.stream.stats().unknown_payload, 1);
}

#[test]
fn agent_audio_is_paced_and_marks_come_back_when_played() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.mark("at once".into());
    bench.play(&[1; 160]);
    bench.play(&[2; 200]);
    bench.stream.mark("end".into());
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [1; 160]);
    assert_eq!(marks(&events), ["at once"]);
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [2; 160]);
    assert!(marks(&events).is_empty());
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4[..40], [2; 40]);
    assert_eq!(packets[0].4[40..], [ULAW_SILENCE; 120]);
    assert_eq!(marks(&events), ["end"]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
}

#[test]
fn an_agent_in_real_time_gets_a_cushion_of_one_frame() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.play(&[1; 160]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
    bench.play(&[2; 160]);
    assert_eq!(bench.payload(), [1; 160]);
    // This frame is late by up to a tick and nobody hears it.
    assert_eq!(bench.payload(), [2; 160]);
    bench.play(&[3; 160]);
    bench.play(&[4; 160]);
    assert_eq!(bench.payload(), [3; 160]);
}

/// Runs to that time, a millisecond at a time. When packets left since `begin`, their timestamps in packets, and whether they spoke.
fn run(bench: &mut Bench, begin: Instant, until_millis: u64) -> Vec<(u64, u32, bool)> {
    let mut sent = Vec::new();
    let mut out = [0; PACKET_BYTES];
    while bench.now <= begin + Duration::from_millis(until_millis) {
        bench.stream.handle_timeout(bench.now);
        while let Some((length, _)) = bench.stream.poll_transmit(&mut out) {
            let packet = Packet::parse(&out[..length]).unwrap();
            let number = packet.timestamp.wrapping_sub(u32::MAX - 100) / 160;
            let at = bench.now.duration_since(begin).as_millis() as u64;
            sent.push((at, number, packet.payload[0] != ULAW_SILENCE));
        }
        while bench.stream.poll_event().is_some() {}
        bench.now += Duration::from_millis(1);
    }
    sent
}

#[test]
fn a_talk_spurt_leaves_when_it_is_due_and_silence_goes_back_to_the_grid() {
    for (cushion, speaks_at) in [(0, 7), (5, 12), (20, 27), (50, 57)] {
        let mut bench = Bench::with_cushion(Codec::Pcmu, cushion);
        let begin = bench.now;
        let mut sent = run(&mut bench, begin, 6);
        // Three frames in real time.
        for at in [7, 27, 47] {
            sent.extend(run(&mut bench, begin, at - 1));
            bench.play(&[1; 160]);
        }
        sent.extend(run(&mut bench, begin, 200));
        let speaking: Vec<u64> = sent
            .iter()
            .filter_map(|(at, _, speaks)| speaks.then_some(*at))
            .collect();
        assert_eq!(
            speaking,
            [speaks_at, speaks_at + 20, speaks_at + 40],
            "cushion {cushion}"
        );
        let numbers: Vec<u32> = sent.iter().map(|(_, number, _)| *number).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
        for (at, number, speaks) in &sent {
            let clock = u64::from(*number) * 20;
            assert!(*at <= clock && clock - at <= 20, "{number} at {at} ms");
            let in_spurt = (speaks_at..=speaks_at + 60).contains(at);
            assert!(*speaks || in_spurt || *at == clock, "{number} at {at} ms");
        }
    }
}

#[test]
fn a_talk_spurt_of_one_frame_leaves_when_it_is_due() {
    let mut bench = Bench::new(Codec::Pcmu);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 160]);
    let sent = run(&mut bench, begin, 80);
    let expected = [
        (20, 1, false),
        (27, 2, true),
        (47, 3, false),
        (80, 4, false),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn an_agent_that_is_ahead_needs_no_cushion() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 60);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 4 * 160]);
    let sent = run(&mut bench, begin, 40);
    assert_eq!(sent[0], (7, 1, true));
}

#[test]
fn without_a_cushion_what_an_agent_says_in_real_time_leaves_when_it_comes() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    let mut sent = run(&mut bench, begin, 6);
    // The fifth is later than silence can wait, and what follows has time again.
    for at in [7, 32, 44, 77, 105, 119, 141] {
        sent.extend(run(&mut bench, begin, at - 1));
        bench.play(&[1; 160]);
    }
    sent.extend(run(&mut bench, begin, 185));
    let speaking: Vec<u64> = sent
        .iter()
        .filter_map(|(at, _, speaks)| speaks.then_some(*at))
        .collect();
    assert_eq!(speaking, [7, 32, 44, 77, 105, 119, 141]);
    let silent: Vec<u64> = sent
        .iter()
        .filter_map(|(at, _, speaks)| (!speaks).then_some(*at))
        .collect();
    assert_eq!(silent, [0, 100, 180]);
    let numbers: Vec<u32> = sent.iter().map(|(_, number, _)| *number).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
}

#[test]
fn without_a_cushion_an_agent_that_is_ahead_is_paced() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    let mut sent = Vec::new();
    for at in 7..10 {
        bench.play(&[1; 160]);
        sent.extend(run(&mut bench, begin, at));
    }
    sent.extend(run(&mut bench, begin, 90));
    let times: Vec<u64> = sent.iter().map(|(at, ..)| *at).collect();
    // The second comes as one in real time would, the third does not.
    assert_eq!(times, [7, 10, 30, 80], "{times:?}");
}

#[test]
fn what_is_less_than_a_frame_leaves_with_the_grid() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 80]);
    let sent = run(&mut bench, begin, 45);
    assert_eq!(sent, [(20, 1, true), (40, 2, false)]);
}

#[test]
fn spurts_one_upon_another_stay_within_20_ms_of_the_clock() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    let mut sent = Vec::new();
    let mut at = 3;
    for step in 0..500 {
        sent.extend(run(&mut bench, begin, at));
        bench.play(&[1; 160]);
        // Sometimes before the last one has been played, sometimes long after.
        at += [21, 33, 40, 57, 79, 22, 150][step % 7];
    }
    for pair in sent.windows(2) {
        let spacing = pair[1].0 - pair[0].0;
        assert!((1..=40).contains(&spacing), "{pair:?}");
    }
    for (at, number, _) in &sent {
        let clock = u64::from(*number) * 20;
        assert!(*at <= clock && clock - at <= 20, "{number} at {at} ms");
    }
    assert_eq!(sent.iter().filter(|(_, _, speaks)| *speaks).count(), 499);
}

#[test]
fn a_talk_spurt_starts_with_the_marker_bit() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.play(&[1; 480]);
    let markers: Vec<_> = (0..4).map(|_| bench.tick().0[0].0).collect();
    assert_eq!(markers, [true, false, false, false]);
}

#[test]
fn clear_holds_from_the_next_packet_and_returns_the_marks() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.play(&[1; 8000]);
    bench.stream.mark("a".into());
    bench.play(&[1; 8000]);
    bench.stream.mark("b".into());
    assert_eq!(bench.payload(), [1; 160]);
    bench.stream.clear();
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [ULAW_SILENCE; 160]);
    assert_eq!(marks(&events), ["a", "b"]);
    assert_eq!(bench.stream.queued_millis(), 0);
}

#[test]
fn audio_beyond_120_s_is_dropped_and_said_once() {
    let mut bench = Bench::new(Codec::Pcmu);
    for _ in 0..125 {
        bench.play(&[1; 8000]);
    }
    let (_, events) = bench.tick();
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == StreamEvent::AgentAudioOverflow)
            .count(),
        1
    );
    assert_eq!(bench.stream.queued_millis(), 119_980);
    bench.play(&[1; 8000]);
    assert!(!bench.tick().1.contains(&StreamEvent::AgentAudioOverflow));
}

#[test]
fn marks_without_audio_stay_bounded_and_are_never_lost() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.play(&[1; 320]);
    for number in 0..1000 {
        bench.stream.mark(number.to_string());
    }
    let mut heard = 0;
    for _ in 0..3 {
        heard += marks(&bench.tick().1).len();
    }
    assert_eq!(heard, 1000);
}

#[test]
fn on_hold_nothing_is_sent_the_agents_audio_passes_unheard_and_timestamps_run_on() {
    let mut bench = Bench::new(Codec::Pcmu);
    let (packets, _) = bench.tick();
    let first = packets[0].3;
    let held = Session {
        send: false,
        receive: false,
        ..session(Codec::Pcmu)
    };
    bench.stream.update(held, bench.now);
    // The last 320 samples are still to be said when the hold ends.
    bench.play(&[7; 47 * 160]);
    bench.stream.mark("during hold".into());
    bench.play(&[9; 5 * 160]);
    let mut marks = 0;
    for _ in 0..50 {
        let (packets, events) = bench.tick();
        assert!(packets.is_empty());
        assert_eq!(bench.frames.len(), 1);
        marks += events
            .iter()
            .filter(|event| matches!(event, StreamEvent::MarkPlayed(_)))
            .count();
    }
    assert_eq!(marks, 1);
    assert!(bench.stream.on_hold());
    bench.stream.update(session(Codec::Pcmu), bench.now);
    assert_eq!(bench.stream.idle_for(bench.now), Duration::ZERO);
    let (packets, _) = bench.tick();
    assert_eq!(packets[0].3, first.wrapping_add(51 * 160));
    assert_eq!(
        (packets[0].0, packets[0].2, packets[0].4[0]),
        (true, 65_535, 9)
    );
}

#[test]
fn paused_playback_sends_silence_until_released() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.pause_playback(true, bench.now);
    bench.play(&[3; 320]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
    bench.stream.pause_playback(false, bench.now);
    assert_eq!(bench.payload(), [3; 160]);
}

#[test]
fn a_late_thread_catches_up_without_a_burst() {
    let mut bench = Bench::new(Codec::Pcmu);
    let first = bench.tick().0[0].3;
    bench.now += Duration::from_millis(400);
    let (packets, frames) = bench.tick_frames();
    let timestamps: Vec<_> = packets
        .iter()
        .map(|packet| packet.3.wrapping_sub(first) / 160)
        .collect();
    assert_eq!(timestamps, [19, 20, 21]);
    assert_eq!(packets[0].2, 65_535);
    assert_eq!(
        frames.iter().map(|frame| frame.1).collect::<Vec<_>>(),
        [380, 400, 420]
    );
    assert_eq!(bench.stream.poll_timeout(), Some(bench.now));
    assert_eq!(bench.stream.stats().ticks_skipped, 18);
}

#[test]
fn digits_are_reported_once_each() {
    let mut bench = Bench::new(Codec::Pcmu);
    for _ in 0..5 {
        bench.peer_sends(96, &[5, 10, 0, 160]);
        bench.sent -= 1;
    }
    let (_, events) = bench.tick();
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == StreamEvent::Digit('5'))
            .count(),
        1
    );
}

#[test]
fn sent_digits_replace_the_audio_and_are_understood_by_a_receiver() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    assert!(bench.stream.send_digit('4', 100) && bench.stream.send_digit('4', 100));
    assert!(!bench.stream.send_digit('x', 100));
    let (mut receiver, mut heard) = (dtmf::Receiver::default(), String::new());
    let mut expected = 65_535u16;
    for _ in 0..40 {
        let (packets, _) = bench.tick();
        assert_eq!(packets.len(), 1, "one packet a tick, whatever it carries");
        for (_, payload_type, sequence, timestamp, payload) in packets {
            assert_eq!(sequence, expected);
            expected = expected.wrapping_add(1);
            if payload_type == 101 {
                heard.extend(receiver.receive(77, timestamp, &payload));
            }
        }
    }
    assert_eq!(heard, "44");
}

#[test]
fn a_codec_change_by_re_invite_holds_from_the_next_packet() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.stream.update(session(Codec::Pcma), bench.now);
    let (packets, _) = bench.tick();
    assert_eq!((packets[0].1, packets[0].4[0]), (8, ALAW_SILENCE));
}

#[test]
fn strangers_rtcp_and_noise_are_ignored_and_counted() {
    let mut bench = Bench::new(Codec::Pcmu);
    let mut rtp = [0x80; 172];
    rtp[1] = 0;
    bench
        .stream
        .receive(&rtp, "203.0.113.5:9".parse().unwrap(), bench.now);
    bench.stream.receive(
        &[0x80, 200, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
        PEER.parse().unwrap(),
        bench.now,
    );
    bench
        .stream
        .receive(b"noise", PEER.parse().unwrap(), bench.now);
    let stats = bench.stream.stats();
    assert_eq!(
        (
            stats.rejected_source,
            stats.malformed,
            stats.packets_received
        ),
        (1, 1, 0)
    );
    assert_eq!(stats.last_received, None);
}

#[test]
fn counts_loss_duplicates_and_idle_time() {
    let mut bench = Bench::new(Codec::Pcmu);
    for number in 0..50 {
        if number % 10 == 5 {
            bench.sent += 1;
        } else {
            bench.peer_sends(0, &[1; 160]);
        }
        if number == 20 {
            bench.sent -= 1;
            bench.peer_sends(0, &[1; 160]);
        }
        bench.tick();
    }
    let stats = bench.stream.stats();
    assert_eq!(
        (stats.packets_received, stats.packets_lost, stats.duplicates),
        (45, 5, 1)
    );
    assert_eq!(stats.octets_sent, 50 * 160);
    assert!(stats.jitter_millis < 0.1);
    bench.now += Duration::from_secs(30);
    assert!(bench.stream.idle_for(bench.now) >= Duration::from_secs(30));
}

#[test]
fn after_the_stop_nothing_leaves() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.stream.stop();
    assert_eq!(bench.stream.poll_timeout(), None);
    bench.now += Duration::from_secs(1);
    assert!(bench.tick().0.is_empty());
}

#[test]
fn an_owner_that_fetches_nothing_does_not_fill_the_memory() {
    let mut bench = Bench::new(Codec::Pcmu);
    for _ in 0..1000 {
        bench.stream.handle_timeout(bench.now);
        bench.now += TICK;
    }
    assert_eq!(bench.stream.frames.len(), MAX_FRAMES);
    assert_eq!(bench.stream.sound.len(), MAX_FRAMES * FRAME_SAMPLES);
    assert_eq!(bench.stream.events.len(), 1, "that nobody speaks");
    assert_eq!(bench.stream.transmit.len(), 3);
    assert_eq!(
        bench.stream.stats().frames_dropped,
        1000 - MAX_FRAMES as u64
    );
}

#[test]
fn packets_before_the_start_do_not_add_delay() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.stop();
    for _ in 0..20 {
        bench.peer_sends(0, &[1; 160]);
        bench.now += TICK;
    }
    bench.stream.start(bench.now);
    bench.peer_sends(0, &[2; 160]);
    assert_eq!(bench.tick_frames().1, [(2, 0)]);
    assert_eq!(bench.stream.stats().packets_received, 21);
}

#[test]
fn the_peers_reports_tell_what_it_has_lost_and_ours_go_beside_the_rtp() {
    let Bench {
        mut stream, now, ..
    } = Bench::new(Codec::Pcmu);
    let peer: SocketAddr = PEER.parse().unwrap();
    let mut out = [0; crate::rtcp::REPORT_BYTES];
    assert!(
        stream.poll_report(&mut out, now).is_none(),
        "none is due yet"
    );
    let later = now + Duration::from_secs(10);
    let (length, to) = stream.poll_report(&mut out, later).unwrap();
    assert_eq!(to, SocketAddr::new(peer.ip(), 4001));
    assert!(crate::rtcp::read(&out[..length], 0).is_some());
    assert!(
        stream.poll_report(&mut out, later).is_none(),
        "one at a time"
    );

    let block = crate::rtcp::Block {
        ssrc: 77,
        lost: 7,
        ..crate::rtcp::Block::default()
    };
    let length = crate::rtcp::write(&mut out, 1, None, Duration::ZERO, Some(block));
    let stranger = "203.0.113.250:4001".parse().unwrap();
    stream.receive_report(&out[..length], stranger, later);
    assert_eq!(stream.stats().packets_lost_remote, None);
    let from = SocketAddr::new(peer.ip(), 9999);
    stream.receive_report(&out[..length], from, later);
    assert_eq!(stream.stats().packets_lost_remote, Some(7));
    let next = later + Duration::from_secs(10);
    assert_eq!(stream.poll_report(&mut out, next).unwrap().1, from);
}

/// What is told of missing directions in so many ticks.
fn one_way(bench: &mut Bench, ticks: u32, speaks: bool) -> Vec<Missing> {
    let mut told = Vec::new();
    for _ in 0..ticks {
        if speaks {
            bench.peer_sends(0, &[7; 160]);
        }
        told.extend(bench.tick().1.into_iter().filter_map(|event| match event {
            StreamEvent::OneWay(missing) => Some(missing),
            _ => None,
        }));
    }
    told
}

#[test]
fn a_peer_from_whom_nothing_comes_is_told_of_after_five_seconds_unless_he_is_on_hold() {
    let mut bench = Bench::new(Codec::Pcmu);
    assert_eq!(one_way(&mut bench, 249, false), []);
    assert_eq!(one_way(&mut bench, 3, false), [Missing::FromPeer]);
    assert!(!bench.stream.stats().both_ways);
    assert_eq!(bench.stream.stats().mos, None);
    assert_eq!(one_way(&mut bench, 300, true), []);
    assert!(bench.stream.stats().both_ways);
    let held = Session {
        receive: false,
        ..session(Codec::Pcmu)
    };
    bench.stream.update(held, bench.now);
    assert_eq!(one_way(&mut bench, 500, false), []);
    bench.stream.update(session(Codec::Pcmu), bench.now);
    assert_eq!(one_way(&mut bench, 252, false), [Missing::FromPeer]);
    // Then he is silent on purpose: comfort noise (RFC 3389), and no more.
    bench.peer_sends(13, &[60]);
    assert_eq!(one_way(&mut bench, 500, false), []);
}

#[test]
fn a_peer_whose_reports_are_silent_about_us_is_told_of() {
    let mut bench = Bench::new(Codec::Pcmu);
    let mut out = [0; REPORT_BYTES];
    let mut report = |bench: &mut Bench, highest: Option<u32>| {
        let block = highest.map(|highest| crate::rtcp::Block {
            ssrc: 77,
            highest,
            lost: 5,
            ..crate::rtcp::Block::default()
        });
        let length = crate::rtcp::write(&mut out, 1, None, Duration::ZERO, block);
        let from = "192.0.2.1:4001".parse().unwrap();
        bench.stream.receive_report(&out[..length], from, bench.now);
    };
    assert_eq!(one_way(&mut bench, 50, true), []);
    report(&mut bench, None);
    assert_eq!(one_way(&mut bench, 1, true), [], "he may not know yet");
    assert_eq!(one_way(&mut bench, 100, true), []);
    report(&mut bench, None);
    assert_eq!(one_way(&mut bench, 1, true), [Missing::ToPeer]);
    report(&mut bench, Some(65_700));
    assert_eq!(one_way(&mut bench, 1, true), []);
    let stats = bench.stream.stats();
    assert!(stats.both_ways);
    // 5 of about 150 packets did not get there, and all of his came.
    assert!((3.5..4.2).contains(&stats.mos_remote.unwrap()), "{stats:?}");
    assert!(stats.mos.unwrap() > 4.3, "{stats:?}");
}

#[test]
fn a_successor_plays_what_was_said_and_counts_the_agents_frames_on() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.play(&[7; 4 * 160]);
    bench.stream.mark("said".to_owned());
    bench.tick();
    bench.tick();
    let config = StreamConfig {
        delay: Delay::Fixed(0),
        ..StreamConfig::new(session(Codec::Pcma), (77, 9, 1))
    };
    let before = bench.stream;
    bench.stream = before.into_successor(config, bench.now);
    bench.stream.pause_playback(false, bench.now);
    assert_eq!(bench.stream.stats().packets_sent, 0);
    let (packets, frames) = bench.tick_frames();
    let [(_, payload_type, sequence, _, payload)] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!((*payload_type, *sequence), (8, 9));
    assert_eq!(*payload, [ulaw_to_alaw(7); 160]);
    assert_eq!(frames[0].1, 60);
    let played = (0..3)
        .flat_map(|_| bench.tick().1)
        .any(|event| matches!(event, StreamEvent::MarkPlayed(name) if name == "said"));
    assert!(played, "the mark comes back in the successor");
}

#[test]
fn a_lost_packet_is_concealed_and_counted() {
    let mut bench = Bench::new(Codec::Pcma);
    for number in 0..10 {
        if number == 5 {
            bench.sent += 1;
        } else {
            bench.peer_sends(8, &[0x2a; 160]);
        }
        let (_, frames) = bench.tick_frames();
        // Loud, also where one takes over from the other.
        assert!(frames[0].0 < 0x10, "frame {number}");
    }
    let stats = bench.stream.stats();
    assert_eq!((stats.concealed, stats.packets_lost, stats.late), (1, 1, 0));
    assert!(stats.buffer_millis < 20.0 && stats.mean_buffer_millis < 20.0);
}

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

#[test]
fn keys_are_tones_where_no_events_were_agreed_on() {
    let tone = |at: usize| {
        let angle = 2.0 * std::f32::consts::PI * at as f32 / 8000.0;
        let value = (angle * 770.0).sin() + (angle * 1336.0).sin();
        crate::g711::encode_ulaw((value * 8_000.0) as i16)
    };
    for (events, heard) in [(None, "5"), (session(Codec::Pcmu).telephone_event, "")] {
        let mut bench = Bench::new(Codec::Pcmu);
        let session = Session {
            telephone_event: events,
            ..bench.stream.session
        };
        bench.stream.update(session, bench.now);
        let mut digits = String::new();
        for number in 0..10 {
            let sound: Vec<u8> = (0..FRAME_SAMPLES)
                .map(|at| tone(number * FRAME_SAMPLES + at))
                .collect();
            bench.peer_sends(0, &sound);
            let (_, events) = bench.tick();
            digits.extend(events.iter().filter_map(|event| match event {
                StreamEvent::Digit(digit) => Some(*digit),
                _ => None,
            }));
        }
        assert_eq!(digits, heard);
    }
}

#[test]
fn the_front_of_a_queue_is_taken_across_its_seam() {
    let mut queue = VecDeque::with_capacity(8);
    queue.extend([0; 6]);
    queue.drain(..6);
    queue.extend(1..=7);
    let mut out = [0; 5];
    take_front(&mut queue, &mut out);
    assert_eq!(
        (out, queue.make_contiguous()),
        ([1, 2, 3, 4, 5], &mut [6, 7][..])
    );
}
