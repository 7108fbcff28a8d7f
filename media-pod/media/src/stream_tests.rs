use super::incoming::MAX_FRAMES;
use super::*;
use crate::FRAME_SAMPLES;
use crate::format::MOST_BYTES;
use crate::g711::{ALAW_SILENCE, ULAW_SILENCE, ulaw_to_alaw};
use crate::jitter::Delay;
use crate::playback::take_front;

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
            assert_eq!(to, PEER.parse::<SocketAddr>().unwrap());
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

#[path = "stream_speech_tests.rs"]
mod speech;

#[path = "stream_reports_tests.rs"]
mod reports;

#[path = "stream_keys_tests.rs"]
mod keys;
