//! A call in each codec, without a network: what the caller says reaches the agent, and what the agent says the caller.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringwire_media::FRAME_SAMPLES;
#[cfg(feature = "amr-wb")]
use ringwire_media::codec::AmrWbParameters;
use ringwire_media::codec::{Codec, Decoder, Encoder, IlbcMode, OpusParameters, PAYLOAD_BYTES};
use ringwire_media::compare::compare;
use ringwire_media::format::{Format, MOST_BYTES};
use ringwire_media::g711::encode_ulaw;
use ringwire_media::jitter::Delay;
use ringwire_media::resample::Resampler;
use ringwire_media::rtp::Packet;
use ringwire_media::stream::{PACKET_BYTES, RtpStream, Session, StreamConfig, TelephoneEvent};
use ringwire_media::tone::speech_like;
use ringwire_sip_allocations::count;

const PEER: &str = "192.0.2.1:4000";
const TICK: Duration = Duration::from_millis(20);

fn opus(parameters: OpusParameters) -> Codec {
    Codec::Opus(parameters)
}

fn session(codec: Codec) -> Session {
    Session {
        receive_payload_type: 98,
        telephone_event: Some(TelephoneEvent {
            send: 100,
            receive: 101,
            clock_rate: codec.clock_rate(),
        }),
        ..Session::new(codec, 97, PEER.parse().ok())
    }
}

/// The caller, his call, and its agent, who sends back what he hears.
struct Call {
    stream: RtpStream,
    format: Format,
    now: Instant,
    encoder: Box<dyn Encoder>,
    decoder: Box<dyn Decoder>,
    sequence: u16,
    timestamp: u32,
    /// Whether the agent says what he hears.
    echoes: bool,
    agent_hears: Vec<i16>,
    caller_hears: Vec<i16>,
    /// Timestamp, payload type, marker and length of what was sent to the caller.
    packets: Vec<(u32, u8, bool, usize)>,
}

impl Call {
    fn new(codec: Codec) -> Self {
        Self::with_agent(codec, Format::Ulaw)
    }

    fn with_agent(codec: Codec, format: Format) -> Self {
        let now = Instant::now();
        let config = StreamConfig {
            format,
            delay: Delay::Fixed(40),
            ..StreamConfig::new(session(codec), (77, 65_534, u32::MAX - 100))
        };
        let mut stream = RtpStream::new(config, now);
        stream.start(now);
        let mut call = Self {
            stream,
            format,
            now,
            encoder: codec.encoder(48_000).unwrap(),
            decoder: codec.decoder(48_000).unwrap(),
            sequence: 0,
            timestamp: 0_u32.wrapping_sub(5000),
            echoes: true,
            agent_hears: Vec::new(),
            caller_hears: Vec::new(),
            packets: Vec::new(),
        };
        // Room for all, so that nothing is asked for while memory is counted.
        call.agent_hears.reserve(500_000);
        call.caller_hears.reserve(500_000);
        call.packets.reserve(2000);
        call
    }

    /// 20 ms: the caller says this.
    fn tick(&mut self, said: &[i16]) {
        let mut payload = [0; PAYLOAD_BYTES];
        let length = self.encoder.encode(said, &mut payload);
        let packet = Packet {
            marker: false,
            payload_type: 98,
            sequence: self.sequence,
            timestamp: self.timestamp.wrapping_sub(self.encoder.lead()),
            ssrc: 5,
            payload: &payload[..length],
        };
        let ticks = self.encoder.clock_rate() / 50;
        self.timestamp = self.timestamp.wrapping_add(ticks);
        if length > 0 {
            let mut buffer = [0; 1500];
            let length = packet.write(&mut buffer).unwrap();
            self.sequence += 1;
            self.stream.receive(
                &buffer[..length],
                PEER.parse::<SocketAddr>().unwrap(),
                self.now,
            );
        }
        self.stream.handle_timeout(self.now);
        let mut out = [0; PACKET_BYTES];
        let mut sound = [0; 960];
        while let Some((length, _)) = self.stream.poll_transmit(&mut out) {
            let packet = Packet::parse(&out[..length]).unwrap();
            let Packet {
                marker,
                payload_type,
                timestamp,
                payload,
                ..
            } = packet;
            self.packets
                .push((timestamp, payload_type, marker, payload.len()));
            if payload_type == 97 {
                let count = self.decoder.decode(payload, &mut sound);
                self.caller_hears.extend(&sound[..count]);
            }
        }
        let mut frame = [0; MOST_BYTES];
        while let Some((length, _)) = self.stream.poll_frame(&mut frame) {
            let count = self.format.decode(&frame[..length], &mut sound);
            self.agent_hears.extend(&sound[..count]);
            if self.echoes {
                self.stream.play(&frame[..length], self.now);
            }
        }
        while self.stream.poll_event().is_some() {}
        self.now += TICK;
    }
}

fn resample(sound: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to {
        return sound.to_vec();
    }
    let mut resampler = Resampler::new(from, to).unwrap();
    let mut output = vec![0; sound.len() * to as usize / from as usize + 1];
    let made = resampler.process(sound, &mut output);
    output.truncate(made);
    output
}

fn codecs() -> Vec<Codec> {
    let with_all = OpusParameters {
        fec: true,
        constant: true,
        ..OpusParameters::default()
    };
    vec![
        Codec::G722,
        Codec::L16 { rate: 8000 },
        Codec::L16 { rate: 16_000 },
        opus(OpusParameters::default()),
        opus(with_all),
        #[cfg(feature = "amr-wb")]
        amr_wb(true),
        #[cfg(feature = "amr-wb")]
        amr_wb(false),
        #[cfg(feature = "ilbc")]
        Codec::Ilbc(IlbcMode::Millis20),
        #[cfg(feature = "ilbc")]
        Codec::Ilbc(IlbcMode::Millis30),
        #[cfg(feature = "g7221")]
        Codec::G7221(ringwire_media::codec::G7221Rate::Kilobits24),
        #[cfg(feature = "g7221")]
        Codec::G7221(ringwire_media::codec::G7221Rate::Kilobits32),
    ]
}

/// Every codec with each kind of agent.
fn codecs_and_formats() -> Vec<(Codec, Format)> {
    let linear = [8000, 16_000, 24_000, 48_000].map(|rate| Format::Linear { rate });
    let formats = linear.into_iter().chain([Format::Ulaw]);
    let all = formats.flat_map(|format| codecs().into_iter().map(move |codec| (codec, format)));
    all.collect()
}

#[cfg(feature = "amr-wb")]
fn amr_wb(octet_aligned: bool) -> Codec {
    Codec::AmrWb(AmrWbParameters {
        octet_aligned,
        modes: 0x1ff,
        every_second: false,
        neighbors_only: false,
    })
}

#[test]
fn caller_and_agent_hear_each_other_in_every_codec() {
    for (codec, format) in codecs_and_formats() {
        let mut call = Call::with_agent(codec, format);
        let rate = call.encoder.sample_rate();
        let voice = speech_like(4000, 11);
        let said = resample(&voice, 8000, rate);
        for frame in said.chunks_exact(rate as usize / 50) {
            call.tick(frame);
        }
        let heard = resample(&call.agent_hears, format.rate(), 8000);
        let heard = compare(&voice, &heard, 300).unwrap();
        let echo = resample(&call.caller_hears, call.decoder.sample_rate(), 8000);
        let echo = compare(&voice, &echo, 500).unwrap();
        println!(
            "{codec:?}, {format:?}: agent {:.4} after {} ms, caller {:.4} after {} ms",
            heard.correlation,
            heard.delay_millis(),
            echo.correlation,
            echo.delay_millis()
        );
        // Opus sounds like what it codes more than it looks like it.
        let (once, twice) = match codec {
            Codec::Opus(_) | Codec::AmrWb(_) | Codec::Ilbc(_) => (0.8, 0.8),
            Codec::G7221(_) => (0.97, 0.95),
            _ => (0.99, 0.99),
        };
        assert!(heard.correlation > once, "{codec:?}: {heard:?}");
        assert!(echo.correlation > twice, "{codec:?}: {echo:?}");
        let long = codec == Codec::Ilbc(IlbcMode::Millis30);
        let (step, count) = if long {
            (240, 133)
        } else {
            (codec.clock_rate() / 50, 200)
        };
        for pair in call.packets.windows(2) {
            assert_eq!(pair[1].0.wrapping_sub(pair[0].0), step, "{codec:?}");
        }
        assert_eq!(call.packets.len(), count);
        assert_eq!(call.stream.stats().unknown_payload, 0);
        // Two packets of 30 ms leave in 60 ms, 20 and 40 ms apart.
        let jitter = if long { 12.0 } else { 0.1 };
        assert!(call.stream.stats().jitter_millis < jitter);
    }
}

/// How often memory is asked for in four seconds of a call that has begun, and how many packets leave in them.
fn asks_for_memory(codec: Codec, format: Format, halves: bool) -> (u64, usize) {
    let mut call = Call::with_agent(codec, format);
    call.stream.send_halves(halves);
    let said: Vec<i16> = (0..call.encoder.sample_rate() / 50)
        .map(|n| (n * 97 % 9000) as i16)
        .collect();
    (0..50).for_each(|_| call.tick(&said));
    let before = (count(), call.packets.len());
    (0..200).for_each(|_| call.tick(&said));
    (count() - before.0, call.packets.len() - before.1)
}

#[test]
fn no_memory_is_asked_for_while_a_codec_is_at_work() {
    for (codec, format) in codecs_and_formats() {
        let (asked, _) = asks_for_memory(codec, format, false);
        assert_eq!(asked, 0, "{codec:?}, {format:?}");
    }
}

#[test]
fn no_memory_is_asked_for_by_packets_of_ten_milliseconds() {
    let halved = |codec: &Codec| matches!(codec, Codec::G722 | Codec::L16 { .. } | Codec::Opus(_));
    for (codec, format) in codecs_and_formats() {
        if halved(&codec) {
            let asked = asks_for_memory(codec, format, true);
            assert_eq!(asked, (0, 400), "{codec:?}, {format:?}");
        }
    }
}

#[test]
fn keys_have_the_clock_of_the_codec() {
    let mut call = Call::new(opus(OpusParameters::default()));
    assert!(call.stream.send_digit('5', 100));
    (0..12).for_each(|_| call.tick(&[0; 960]));
    let keys: Vec<u32> = call
        .packets
        .iter()
        .filter(|(_, payload_type, ..)| *payload_type == 100)
        .map(|(timestamp, ..)| *timestamp)
        .collect();
    assert_eq!(keys, [u32::MAX - 100; 7]);
    let after = call.packets.iter().find(|packet| packet.1 == 97).unwrap();
    assert_eq!(after.0, (u32::MAX - 100).wrapping_add(7 * 960));
}

#[test]
fn silence_is_left_out_only_where_the_peer_wants_that() {
    let silent = |dtx| {
        let mut call = Call::new(opus(OpusParameters {
            dtx,
            ..OpusParameters::default()
        }));
        call.echoes = false;
        (0..100).for_each(|_| call.tick(&[0; 960]));
        let silent = call.packets.len();
        let talk = [encode_ulaw(9000), encode_ulaw(-9000)].repeat(FRAME_SAMPLES * 5);
        let now = call.now;
        call.stream.play(&talk, now);
        (0..8).for_each(|_| call.tick(&[0; 960]));
        (silent, call.packets)
    };
    let (all, _) = silent(false);
    let (few, packets) = silent(true);
    assert_eq!(all, 100);
    assert!(few < 40, "{few} packets of silence");
    // The clock went on meanwhile, and what is said then is marked.
    let spoken = packets.iter().rev().find(|packet| packet.2).unwrap();
    let steps = spoken.0.wrapping_sub(u32::MAX - 100) / 960;
    assert!((100..104).contains(&steps), "{steps}");
}

#[test]
fn another_codec_in_the_middle_of_a_call_is_carried_on() {
    let mut call = Call::new(Codec::G722);
    (0..20).for_each(|_| call.tick(&[3000; 320]));
    let codec = opus(OpusParameters::default());
    call.stream.update(session(codec), call.now);
    call.encoder = codec.encoder(48_000).unwrap();
    call.decoder = codec.decoder(48_000).unwrap();
    call.packets.clear();
    let voice = speech_like(3000, 3);
    call.agent_hears.clear();
    for frame in resample(&voice, 8000, 48_000).chunks_exact(960) {
        call.tick(frame);
    }
    let heard = compare(&voice, &call.agent_hears, 1000).unwrap();
    assert!(heard.correlation > 0.9, "{heard:?}");
    let pair = (call.packets[0].0, call.packets[1].0);
    assert_eq!(pair.1.wrapping_sub(pair.0), 960);
}

/// How loud a tone of that frequency is in a sound, as an amplitude.
fn loudness(sound: &[i16], rate: u32, hertz: f64) -> f64 {
    let step = std::f64::consts::TAU * hertz / f64::from(rate);
    let parts = sound.iter().enumerate().map(|(at, sample)| {
        let (sine, cosine) = (step * at as f64).sin_cos();
        (f64::from(*sample) * sine, f64::from(*sample) * cosine)
    });
    let (sine, cosine) = parts.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    2.0 * sine.hypot(cosine) / sound.len() as f64
}

#[test]
fn an_agent_that_asks_for_wide_band_hears_and_says_what_telephones_do_not_carry() {
    let tone: Vec<i16> = (0..32_000)
        .map(|at| {
            (8000.0 * (f64::from(at) * std::f64::consts::TAU * 6000.0 / 16_000.0).sin()) as i16
        })
        .collect();
    for codec in [Codec::G722, Codec::L16 { rate: 16_000 }] {
        for (format, wide) in [(Format::of(codec), true), (Format::Ulaw, false)] {
            let mut call = Call::with_agent(codec, format);
            tone.chunks_exact(320).for_each(|frame| call.tick(frame));
            let agent = &call.agent_hears[call.agent_hears.len() / 2..];
            let agent = loudness(agent, format.rate(), 6000.0);
            let caller = loudness(&call.caller_hears[16_000..], 16_000, 6000.0);
            println!("{codec:?}, {format:?}: {agent:.0} at the agent, {caller:.0} back");
            // In narrow band it would be an alias at 2 kHz.
            assert_eq!(agent > 6000.0, wide, "{codec:?}, {format:?}");
            assert_eq!(caller > 6000.0, wide, "{codec:?}, {format:?}");
            assert!(wide || caller < 200.0);
        }
    }
}

#[cfg(feature = "ilbc")]
#[test]
fn after_a_key_frames_of_30_ms_begin_where_the_key_ended() {
    let mut call = Call::new(Codec::Ilbc(IlbcMode::Millis30));
    call.tick(&[0; 160]);
    assert!(call.packets.is_empty());
    assert!(call.stream.send_digit('5', 100));
    (0..10).for_each(|_| call.tick(&[0; 160]));
    let first = (u32::MAX - 100).wrapping_add(160);
    assert!(
        call.packets[..7]
            .iter()
            .all(|packet| packet.1 == 100 && packet.0 == first)
    );
    let next = call.packets[7];
    assert_eq!((next.0, next.1), (first.wrapping_add(7 * 160), 97));
}

#[cfg(feature = "amr-wb")]
#[test]
fn the_caller_decides_on_the_mode_of_what_he_hears() {
    let mut call = Call::new(amr_wb(true));
    (0..3).for_each(|_| call.tick(&[0; 320]));
    let lengths = |call: &Call| call.packets.last().map(|packet| packet.3);
    // A request, a table of contents, and 253 bits of speech.
    assert_eq!(lengths(&call), Some(2 + 32));
    let payload = [8 << 4, 15 << 3 | 4];
    let packet = Packet {
        marker: false,
        payload_type: 98,
        sequence: call.sequence,
        timestamp: call.timestamp,
        ssrc: 5,
        payload: &payload,
    };
    let mut buffer = [0; 100];
    let length = packet.write(&mut buffer).unwrap();
    let now = call.now;
    call.stream
        .receive(&buffer[..length], PEER.parse().unwrap(), now);
    call.sequence += 1;
    (0..3).for_each(|_| call.tick(&[0; 320]));
    assert_eq!(lengths(&call), Some(2 + 60));
}
