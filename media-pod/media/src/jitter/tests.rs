use super::control::MAX_SHIFT;
use super::*;
use crate::FRAME_SAMPLES;
use crate::codec::Decoder;
use crate::g711::{ULAW_SILENCE, encode_ulaw};
use proptest::prelude::*;

const MILLI: Duration = Duration::from_millis(1);

/// A sender, a network and a clock around a buffer. The sender's sound is a voice of 125 Hz, or packets that all carry their number.
struct Bench {
    buffer: JitterBuffer<u8>,
    start: Instant,
    now: Instant,
    /// Frames come so many microseconds later than in a grid of 20 ms.
    phase: i64,
}

fn voice(n: u32) -> u8 {
    static PERIOD: [std::sync::OnceLock<u8>; 64] = [const { std::sync::OnceLock::new() }; 64];
    *PERIOD[n as usize % 64].get_or_init(|| compute(n % 64))
}

fn compute(n: u32) -> u8 {
    let phase = n as f32 / 8000.0 * 125.0 * std::f32::consts::TAU;
    encode_ulaw((5000.0 * (phase.sin() + 0.5 * (3.0 * phase).cos())) as i16)
}

impl Bench {
    fn new(delay: Delay) -> Self {
        let start = Instant::now();
        Self {
            buffer: JitterBuffer::ulaw(delay),
            start,
            now: start,
            phase: 0,
        }
    }

    fn fixed(millis: u32) -> Self {
        Self::new(Delay::Fixed(millis))
    }

    fn adaptive() -> Self {
        Self::new(Delay::Adaptive)
    }

    /// Packet `number` of a 20 ms stream.
    fn put(&mut self, number: u32) -> Insert {
        self.put_at(1, number as u16, number * 160, 160, false)
    }

    fn put_at(
        &mut self,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        length: u32,
        marker: bool,
    ) -> Insert {
        let at = Position {
            ssrc,
            sequence,
            timestamp,
            marker,
        };
        let codes = std::iter::repeat_n(sequence as u8, length as usize);
        self.buffer.insert(at, length, codes, self.now)
    }

    fn speak(&mut self, number: u32, length: u32) -> Insert {
        let at = Position {
            ssrc: 1,
            sequence: number as u16,
            timestamp: number.wrapping_mul(length),
            marker: false,
        };
        let codes = (0..length as usize).map(|n| voice(number * length + n as u32));
        self.buffer.insert(at, length, codes, self.now)
    }

    fn due(&self) -> Instant {
        self.now + Duration::from_micros((FRAME + self.phase).unsigned_abs())
    }

    fn pop(&mut self) -> [u8; FRAME_SAMPLES] {
        let mut frame = [0; FRAME_SAMPLES];
        let shift = self.buffer.pop(&mut Ulaw, &mut frame, self.due());
        assert!((-MAX_SHIFT..=FRAME).contains(&shift));
        self.phase += shift;
        assert!((-FRAME..=FRAME).contains(&self.phase));
        self.now += 20 * MILLI;
        frame
    }

    /// One tick; the code that most of the frame has, `None` for silence.
    fn tick(&mut self) -> Option<u8> {
        let mut counts = [0; 256];
        for code in self.pop() {
            counts[usize::from(code)] += 1;
        }
        let most = (0..=u8::MAX).max_by_key(|code| counts[usize::from(*code)])?;
        (most != ULAW_SILENCE).then_some(most)
    }

    /// Lets packets of `length` samples come, so many milliseconds after they were sent, until `seconds` have passed. The longest and
    /// the mean delay after the first quarter.
    fn run(&mut self, seconds: u64, length: u32, delay: impl Fn(u32) -> u64) -> (f64, f64) {
        let mut packets: Vec<(Duration, u32)> = (0..seconds as u32 * 8000 / length)
            .map(|number| {
                let sent = u64::from(number) * u64::from(length) * 125;
                (
                    Duration::from_micros(sent) + MILLI * delay(number) as u32,
                    number,
                )
            })
            .collect();
        packets.sort_unstable();
        let mut packets = packets.into_iter().peekable();
        let end = self.start + Duration::from_secs(seconds);
        let (mut longest, mut sum, mut count) = (0.0f64, 0.0, 0.0);
        while self.now < end {
            let due = self.due();
            while let Some((at, number)) = packets.next_if(|(at, _)| self.start + *at <= due) {
                let now = std::mem::replace(&mut self.now, self.start + at);
                self.speak(number, length);
                self.now = now;
            }
            self.pop();
            if self.now > self.start + Duration::from_secs(seconds / 4) {
                let delay = self.buffer.stats().delay_millis;
                longest = longest.max(delay);
                sum += delay;
                count += 1.0;
            }
        }
        (longest, sum / count)
    }
}

#[test]
fn a_fixed_delay_holds_packets_back_by_it() {
    let mut bench = Bench::fixed(40);
    let mut out = Vec::new();
    for number in 1..7 {
        bench.put(number);
        out.push(bench.tick());
    }
    assert_eq!(out, [None, None, Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_delay_of_zero_plays_at_once() {
    let mut bench = Bench::fixed(0);
    for number in 1..7 {
        bench.put(number);
        assert_eq!(bench.tick(), Some(number as u8));
    }
}

#[test]
fn undisturbed_sound_passes_bit_by_bit() {
    let mut bench = Bench::adaptive();
    let mut out = Vec::new();
    for number in 0..100 {
        bench.speak(number, 160);
        out.extend(bench.pop());
    }
    let begin = out.iter().position(|code| *code != ULAW_SILENCE).unwrap();
    let heard = &out[begin..];
    assert!(heard.len() > 90 * 160);
    // The first frames are shortened away while the delay comes down.
    let settled = &heard[40 * 160..50 * 160];
    let sent: Vec<u8> = (0..100 * 160).map(voice).collect();
    assert!(sent.windows(settled.len()).any(|window| window == settled));
}

#[test]
fn a_clean_network_adds_next_to_no_delay() {
    for length in [80, 160, 240, 320, 480] {
        for phase in [0, 3, 11, 19] {
            let mut bench = Bench::adaptive();
            let (longest, mean) = bench.run(20, length, |_| phase);
            let frames = if length % 160 == 0 { 0.0 } else { 10.0 };
            assert!(
                longest <= 10.0 + frames,
                "{length} samples, phase {phase}: {longest} ms"
            );
            assert!(
                mean <= 8.0 + frames,
                "{length} samples, phase {phase}: {mean} ms"
            );
            let stats = bench.buffer.stats();
            assert_eq!(
                (stats.late, stats.concealed / 2),
                (0, 0),
                "{length} samples, phase {phase}"
            );
        }
    }
}

#[test]
fn the_delay_follows_the_network_up_and_down() {
    let mut bench = Bench::adaptive();
    let spread = |number: u32| u64::from(number.wrapping_mul(2_654_435_761) >> 16) % 60;
    let (longest, mean) = bench.run(60, 160, spread);
    assert!(mean > 45.0 && longest < 110.0, "{mean} {longest}");
    let concealed = bench.buffer.stats().concealed;
    assert!(concealed < 60, "{concealed}");
    let mut bench = Bench::adaptive();
    let delay = |number| if number < 1000 { spread(number) } else { 0 };
    bench.run(100, 160, delay);
    let last = bench.buffer.stats().delay_millis;
    assert!(last < 15.0, "{last}");
}

#[test]
fn the_delay_has_a_limit() {
    let mut bench = Bench::adaptive();
    let (longest, _) = bench.run(30, 160, |number| u64::from(number * 7 % 20) * 30);
    assert!(longest <= 240.0, "{longest}");
}

#[test]
fn reorders_and_drops_duplicates() {
    let mut bench = Bench::fixed(40);
    bench.put(1);
    let mut out = vec![bench.tick(), bench.tick()];
    assert_eq!(bench.put(3), Insert::Stored);
    assert_eq!(bench.put(2), Insert::Stored);
    assert_eq!(bench.put(2), Insert::Duplicate);
    assert_eq!(bench.put(3), Insert::Duplicate);
    out.extend((0..3).map(|_| bench.tick()));
    assert_eq!(out, [None, None, Some(1), Some(2), Some(3)]);
    let stats = bench.buffer.stats();
    assert_eq!((stats.duplicates, stats.concealed), (2, 0));
}

#[test]
fn a_lost_packet_is_concealed_and_counted() {
    let mut bench = Bench::fixed(40);
    let mut quiet = 0;
    for number in 0..100 {
        if number != 50 {
            bench.speak(number, 160);
        }
        let frame = bench.pop();
        quiet += u32::from(
            number > 10
                && frame
                    .split(|code| *code != ULAW_SILENCE)
                    .any(|silence| silence.len() > 40),
        );
    }
    let stats = bench.buffer.stats();
    assert_eq!((stats.concealed, quiet), (1, 0));
    let mut bench = Bench::fixed(40);
    bench.buffer = bench.buffer.without_concealment();
    let silent = (0..100).filter(|number| {
        if *number != 50 {
            bench.speak(*number, 160);
        }
        bench.pop() == [ULAW_SILENCE; 160] && *number > 10
    });
    assert_eq!(silent.count(), 1);
    assert_eq!(bench.buffer.stats().concealed, 1);
}

#[test]
fn with_a_fixed_delay_a_late_packet_is_counted_and_its_time_is_over() {
    let mut bench = Bench::fixed(0);
    bench.put(1);
    assert_eq!(bench.tick(), Some(1));
    bench.tick();
    bench.put(3);
    assert_eq!(bench.put(2), Insert::Late);
    bench.tick();
    bench.put(4);
    assert_eq!(bench.tick(), Some(4));
    let stats = bench.buffer.stats();
    assert_eq!((stats.late, stats.concealed), (1, 1));
}

#[test]
fn a_late_begin_of_a_talk_spurt_is_played_whole() {
    let mut bench = Bench::adaptive();
    for number in 0..100 {
        bench.put(number);
        bench.tick();
    }
    for _ in 0..52 {
        bench.tick();
    }
    // 150 ought to have been here 40 ms ago.
    assert_eq!(bench.put_at(1, 100, 150 * 160, 160, true), Insert::Stored);
    let mut codes = Vec::new();
    for number in 101..108u16 {
        bench.put_at(1, number, u32::from(number + 50) * 160, 160, false);
        codes.extend(bench.tick());
    }
    assert!(
        (100..103).all(|number| codes.contains(&number)),
        "{codes:?}"
    );
}

#[test]
fn splits_and_merges_packets_of_other_lengths() {
    for delay in [Delay::Fixed(60), Delay::Adaptive] {
        let mut bench = Bench::new(delay);
        let (mut sent, mut sequence) = (0, 0u16);
        let mut out = Vec::new();
        for tick in 0..600u32 {
            // One after another 10, 20, 30, 40 and 60 ms, sent when complete.
            loop {
                let length = [80, 160, 240, 320, 480][usize::from(sequence / 40) % 5];
                if sent + length > tick * 160 + 160 {
                    break;
                }
                let at = Position {
                    ssrc: 1,
                    sequence,
                    timestamp: sent,
                    marker: false,
                };
                let codes = (sent..)
                    .take(length as usize)
                    .map(voice)
                    .collect::<Vec<_>>();
                assert_eq!(
                    bench
                        .buffer
                        .insert(at, length, codes.into_iter(), bench.now),
                    Insert::Stored
                );
                sent += length;
                sequence += 1;
            }
            out.extend(bench.pop());
        }
        let stats = bench.buffer.stats();
        // When packets get longer the delay has to grow.
        assert!(stats.concealed <= 30, "{delay:?}: {stats:?}");
        assert_eq!(stats.late, 0, "{delay:?}");
    }
}

#[test]
fn a_new_ssrc_or_a_timestamp_jump_starts_anew() {
    for delay in [Delay::Fixed(0), Delay::Adaptive] {
        let mut bench = Bench::new(delay);
        let mut number = 0u16;
        for (ssrc, timestamp) in [
            (1, 0),
            (2, 5),
            (2, 0x9000_0000),
            (2, 0x1000_0000),
            (2, 0x9000_0000),
        ] {
            let mut heard = 0;
            for step in 0..20 {
                // The sequence alone may jump: the timestamp says where the audio belongs.
                number = if step == 10 {
                    number.wrapping_add(30_000)
                } else {
                    number.wrapping_add(1)
                };
                bench.put_at(ssrc, number, timestamp + step * 160, 160, false);
                heard += u32::from(bench.tick().is_some());
            }
            assert!(heard >= 16, "{delay:?} {ssrc} {timestamp:#x}: {heard}");
        }
        assert_eq!(bench.buffer.stats().late, 0);
    }
}

#[test]
fn a_pause_with_running_timestamps_is_no_loss_and_keeps_the_delay() {
    for delay in [Delay::Fixed(40), Delay::Adaptive] {
        let mut bench = Bench::new(delay);
        for number in 0..100 {
            bench.put(number);
            bench.tick();
        }
        let before = bench.buffer.stats();
        // Fades out, and stays silent.
        let sounds = (100..260)
            .filter(|_| bench.pop() != [ULAW_SILENCE; 160])
            .count();
        assert!(sounds <= 6, "{delay:?}: {sounds}");
        let mut heard = 0;
        for number in 260..280u32 {
            bench.put_at(1, number as u16 - 160, number * 160, 160, number == 260);
            heard += usize::from(bench.tick().is_some());
        }
        let after = bench.buffer.stats();
        assert!(heard >= 16, "{delay:?}: {heard}");
        assert_eq!(after.late, 0);
        assert!(after.concealed - before.concealed <= 3);
        assert!((after.delay_millis - before.delay_millis).abs() < 15.0);
    }
}

#[test]
fn a_stream_that_stood_still_and_continues_is_heard_again() {
    for delay in [Delay::Fixed(0), Delay::Adaptive] {
        for (marker, lost) in [(true, 0), (false, 2)] {
            let mut bench = Bench::new(delay);
            bench.put(0);
            for _ in 0..100 {
                bench.tick();
            }
            let mut heard = 0;
            for number in 1..=20 {
                bench.put_at(1, number as u16, number * 160, 160, marker && number == 1);
                heard += usize::from(bench.tick().is_some());
            }
            assert!(heard >= 16, "{heard}");
            assert_eq!(bench.buffer.stats().late, lost);
        }
    }
}

#[test]
fn a_burst_after_a_long_stall_is_played_from_the_newest_on() {
    for (delay, longest) in [(Delay::Fixed(40), 60.0), (Delay::Adaptive, 222.0)] {
        let mut bench = Bench::new(delay);
        for number in 0..100 {
            bench.speak(number, 160);
            bench.pop();
        }
        for _ in 100..200 {
            bench.pop();
        }
        for number in 100..=200 {
            bench.speak(number, 160);
        }
        bench.pop();
        let now = bench.buffer.stats().delay_millis;
        assert!(now <= longest, "{delay:?}: {now}");
        for number in 201..300 {
            bench.speak(number, 160);
            bench.pop();
        }
        let later = bench.buffer.stats().delay_millis;
        assert!(later <= 65.0, "{delay:?}: {later}");
    }
}

#[test]
fn a_longer_way_is_followed() {
    let mut bench = Bench::fixed(0);
    let mut heard = 0;
    for tick in 0..50 {
        // From tick 10 on every packet is 60 ms later than before.
        if tick < 10 {
            bench.put(tick);
        } else if tick >= 13 {
            bench.put(tick - 3);
        }
        heard += usize::from(bench.tick().is_some());
    }
    assert!(heard >= 40, "{heard}");
    assert!(bench.buffer.stats().late <= 3);
    let mut bench = Bench::adaptive();
    bench.run(40, 160, |number| if number < 500 { 0 } else { 150 });
    let stats = bench.buffer.stats();
    // What all packets have in common is not ours.
    assert!(stats.late <= 3 && stats.delay_millis < 15.0, "{stats:?}");
    assert!(stats.concealed <= 10, "{stats:?}");
}

/// A sender whose clock is off.
fn drift(delay: Delay, nanos_per_packet: u64, ticks: u64) -> (JitterStats, f64, u64) {
    let mut bench = Bench::new(delay);
    let mut sent = 0;
    let (mut longest, mut hidden) = (0.0f64, 0);
    for tick in 0..ticks {
        let due = bench.due();
        loop {
            let at = bench.start + Duration::from_nanos(nanos_per_packet * sent);
            if at > due {
                break;
            }
            let now = std::mem::replace(&mut bench.now, at);
            bench.speak(sent as u32, 160);
            bench.now = now;
            sent += 1;
        }
        hidden += u64::from(bench.pop() == [ULAW_SILENCE; 160]);
        if tick > 500 {
            longest = longest.max(bench.buffer.stats().delay_millis);
        }
    }
    (bench.buffer.stats(), longest, hidden)
}

#[test]
fn clock_drift_both_ways_keeps_the_delay_for_hours() {
    // 200 ppm for two hours, 2,000 for one quarter.
    for (nanos, ticks) in [
        (19_996_000, 360_000),
        (20_004_000, 360_000),
        (19_960_000, 45_000),
        (20_040_000, 45_000),
    ] {
        for (delay, limit) in [(Delay::Adaptive, 45.0), (Delay::Fixed(40), 90.0)] {
            let (stats, longest, silent) = drift(delay, nanos, ticks);
            assert!(longest < limit, "{delay:?} {nanos}: {longest} ms");
            assert_eq!(stats.late, 0, "{delay:?} {nanos}: {stats:?}");
            assert!(stats.concealed <= 4, "{delay:?} {nanos}: {stats:?}");
            assert!(silent < 5, "{delay:?} {nanos}: {silent}");
            // 8 ms at once.
            let wanted = ticks * (20_000_000i64 - nanos.cast_signed()).unsigned_abs() / 8_000_000;
            assert!(
                (wanted / 4..=wanted * 2 + 40).contains(&stats.corrections),
                "{delay:?} {nanos}: {stats:?}, {wanted}"
            );
        }
    }
}

#[test]
fn timestamps_and_sequence_numbers_may_wrap() {
    for delay in [Delay::Fixed(20), Delay::Adaptive] {
        let mut bench = Bench::new(delay);
        let mut heard = 0;
        for number in 0..100u16 {
            let timestamp = (u32::MAX - 8000).wrapping_add(u32::from(number) * 160);
            bench.put_at(1, 65_500u16.wrapping_add(number), timestamp, 160, false);
            heard += usize::from(bench.tick().is_some());
        }
        assert!(heard >= 95, "{delay:?}: {heard}");
        assert_eq!(bench.buffer.stats().late, 0);
    }
}

#[test]
fn frames_that_a_late_thread_skipped_are_played_later_or_passed_over() {
    for (delay, jump) in [(Delay::Fixed(40), 5), (Delay::Adaptive, 0)] {
        let mut bench = Bench::new(delay);
        for number in 0..50 {
            bench.put(number);
            bench.tick();
        }
        let before = bench.buffer.position().unwrap();
        bench.buffer.skip(5);
        assert_eq!(bench.buffer.position().unwrap() - before, jump * 160);
    }
}

/// A codec of 16 kHz whose payload is one byte for 20 ms, as G.722 has 8,000 ticks.
#[derive(Debug, Default)]
struct Wide {
    decoded: Vec<u8>,
    concealed: Vec<Option<u8>>,
}

impl Decoder for Wide {
    fn sample_rate(&self) -> u32 {
        16_000
    }

    fn clock_rate(&self) -> u32 {
        8000
    }

    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        Some(payload.len() as u32 * 160)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        self.decoded.extend(payload);
        sound.fill(i16::from(payload[0]) * 10);
        sound.len()
    }

    fn conceal(&mut self, next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        self.concealed.push(next.map(|payload| payload[0]));
        sound.fill(-1000);
        true
    }

    fn reset(&mut self) {
        self.decoded.clear();
    }
}

#[test]
fn a_codec_decodes_in_playing_order_and_conceals_itself() {
    let mut codec = Wide::default();
    let mut buffer = JitterBuffer::<i16>::new(Delay::Fixed(60), 8000, 16_000);
    let mut now = Instant::now();
    let mut frames = Vec::new();
    for number in 1..20u8 {
        // 6 comes after 7, 10 and 11 not at all.
        let numbers: &[u8] = match number {
            6 | 10 | 11 => &[],
            7 => &[7, 6],
            _ => &[number],
        };
        for number in numbers {
            let at = Position {
                ssrc: 1,
                sequence: (*number).into(),
                timestamp: u32::from(*number) * 160,
                marker: false,
            };
            buffer.insert(at, 160, [*number].into_iter(), now);
        }
        now += 20 * MILLI;
        let mut frame = [0; 320];
        assert_eq!(buffer.pop(&mut codec, &mut frame, now), 0);
        frames.push(frame[0]);
    }
    let expected: Vec<i16> = (1..=16)
        .map(|n| {
            if (10..=11).contains(&n) {
                -1000
            } else {
                n * 10
            }
        })
        .collect();
    assert_eq!(frames[3..], expected);
    assert_eq!(
        codec.decoded,
        (1..=16)
            .filter(|n| !(10..=11).contains(n))
            .collect::<Vec<u8>>()
    );
    assert_eq!(codec.concealed, [None, Some(12)]);
    assert_eq!(buffer.stats().concealed, 2);
}

#[test]
fn takes_little_memory_for_g711() {
    let mut bench = Bench::adaptive();
    bench.run(20, 160, |number| u64::from(number * 7 % 10) * 10);
    let all = size_of::<JitterBuffer<u8>>()
        + bench.buffer.store.footprint()
        + bench.buffer.sound.footprint();
    assert!(all < 10 << 10, "{all}");
}

proptest! {
    #[test]
    fn survives_anything(
        adaptive in any::<bool>(),
        packets in proptest::collection::vec(
            (any::<u8>(), any::<u16>(), any::<u32>(), 0..2000u32, 0..3000usize, any::<bool>(), 0..4u8, any::<bool>()), 0..300,
        ),
    ) {
        let mut bench = Bench::new(if adaptive { Delay::Adaptive } else { Delay::Fixed(40) });
        for (ssrc, sequence, timestamp, ticks, length, marker, pops, near) in packets {
            // Half of them not far from each other.
            let (sequence, timestamp) = if near { (sequence % 64, timestamp % 20_000) } else { (sequence, timestamp) };
            let at = Position { ssrc: u32::from(ssrc / 250), sequence, timestamp, marker };
            bench.buffer.insert(at, ticks, std::iter::repeat_n(sequence as u8, length), bench.now);
            for _ in 0..pops {
                bench.pop();
            }
            prop_assert!(bench.buffer.store.footprint() < 20 << 10);
            prop_assert!(bench.buffer.sound.footprint() < 10 << 10, "{}", bench.buffer.sound.footprint());
        }
    }

    #[test]
    fn jitter_below_a_fixed_delay_loses_nothing_and_keeps_order(delays in proptest::collection::vec(0..60u64, 30..120)) {
        let mut bench = Bench::fixed(60);
        let mut arrivals: Vec<(u64, u32)> = delays
            .iter()
            .enumerate()
            .map(|(number, delay)| (number as u64 * 20 + delay * u64::from(number > 0), number as u32 + 1))
            .collect();
        arrivals.sort_unstable();
        let count = arrivals.len();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut heard = Vec::new();
        for tick in 0..count as u64 + 10 {
            while let Some((_, number)) = arrivals.next_if(|(at, _)| *at <= tick * 20) {
                bench.put(number);
            }
            heard.extend(bench.tick());
        }
        heard.truncate(count);
        prop_assert_eq!(heard, (1..=count as u8).collect::<Vec<_>>());
        prop_assert_eq!(bench.buffer.stats().late, 0);
    }
}
