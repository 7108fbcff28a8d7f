//! Telephone events (RFC 4733): pressed keys in RTP, received and sent.
//!
//! A key is reported at the first packet of its event, whatever is lost later; what makes an event is its RTP timestamp,
//! so repeats, lost end packets and missing marker bits don't matter. Tones inside the audio are [`in_band`]'s.

pub mod in_band;

const DIGITS: &[u8; 16] = b"0123456789*#ABCD";
/// Events whose packets may still arrive late and must not be reported again.
const REMEMBERED: usize = 8;
/// An event longer than this goes on in a new segment (RFC 4733 §2.5.1.3); the field ends at 0xffff.
const LONG_SEGMENT: u16 = 0xf000;
/// How far, in samples, a continuing segment may start from where the last one ended.
const SEGMENT_TOLERANCE: u32 = 1600;

#[derive(Debug, Clone, Copy)]
struct Event {
    ssrc: u32,
    timestamp: u32,
    code: u8,
    duration: u16,
    ended: bool,
}

/// Finds keys in the telephone-event packets of one call.
#[derive(Debug, Default)]
pub struct Receiver {
    recent: [Option<Event>; REMEMBERED],
    /// Index of the newest event in `recent`.
    newest: usize,
}

impl Receiver {
    /// Takes one packet; gives the key when it is the first seen of its event. Malformed payloads and events other than
    /// the 16 keys (fax tones, hook flash) give nothing.
    pub fn receive(&mut self, ssrc: u32, timestamp: u32, payload: &[u8]) -> Option<char> {
        let [code, flags, high, low, ..] = *payload else {
            return None;
        };
        let digit = char::from(*DIGITS.get(usize::from(code))?);
        let duration = u16::from_be_bytes([high, low]);
        let ended = flags & 0x80 != 0;
        if let Some(known) = self
            .recent
            .iter_mut()
            .flatten()
            .find(|event| event.ssrc == ssrc && event.timestamp == timestamp)
        {
            known.duration = known.duration.max(duration);
            known.ended |= ended;
            return None;
        }
        let event = Event {
            ssrc,
            timestamp,
            code,
            duration,
            ended,
        };
        let continues = self.recent[self.newest].is_some_and(|last| last.is_continued_by(&event));
        self.newest = (self.newest + 1) % REMEMBERED;
        self.recent[self.newest] = Some(event);
        (!continues).then_some(digit)
    }
}

impl Event {
    fn is_continued_by(&self, next: &Event) -> bool {
        let expected = self.timestamp.wrapping_add(u32::from(self.duration));
        let off = next
            .timestamp
            .wrapping_sub(expected)
            .cast_signed()
            .unsigned_abs();
        !self.ended
            && self.code == next.code
            && self.ssrc == next.ssrc
            && self.duration >= LONG_SEGMENT
            && off <= SEGMENT_TOLERANCE
    }
}

/// One telephone-event packet to send. All packets of an event carry the RTP timestamp of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPacket {
    /// The four payload bytes.
    pub payload: [u8; 4],
    /// Marker bit: set on the first packet.
    pub marker: bool,
}

/// Makes the packets of one key press: one every 20 ms, the last one three times.
#[derive(Debug, Clone)]
pub struct Generator {
    code: u8,
    sent: u16,
    frames: u16,
    ticks: u16,
}

impl Generator {
    /// `None` if `digit` is not one of `0-9 * # A-D` (either case). The duration is rounded up to 20 ms, at least 40 ms
    /// and at most 8 s; `ticks` of the RTP clock are 20 ms, and an event has at most 65,535 of them.
    pub fn new(digit: char, duration_millis: u32, ticks: u16) -> Option<Self> {
        let digit = digit.to_ascii_uppercase();
        let code = DIGITS
            .iter()
            .position(|known| char::from(*known) == digit)?;
        let most = u32::from(u16::MAX / ticks.max(1)).clamp(2, 400);
        let frames = duration_millis.div_ceil(20).clamp(2, most) as u16;
        Some(Self {
            code: code as u8,
            sent: 0,
            frames,
            ticks,
        })
    }
}

impl Iterator for Generator {
    type Item = EventPacket;

    fn next(&mut self) -> Option<EventPacket> {
        const REPEATS: u16 = 2;
        const VOLUME: u8 = 10;
        if self.sent >= self.frames + REPEATS {
            return None;
        }
        self.sent += 1;
        let elapsed = self.sent.min(self.frames);
        let end = if elapsed == self.frames { 0x80 } else { 0 };
        let duration = (elapsed.saturating_mul(self.ticks)).to_be_bytes();
        Some(EventPacket {
            payload: [self.code, end | VOLUME, duration[0], duration[1]],
            marker: self.sent == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn press(
        receiver: &mut Receiver,
        timestamp: u32,
        digit: char,
        keep: impl Fn(usize) -> bool,
    ) -> Vec<char> {
        Generator::new(digit, 100, 160)
            .unwrap()
            .enumerate()
            .filter(|(index, _)| keep(*index))
            .filter_map(|(_, packet)| receiver.receive(1, timestamp, &packet.payload))
            .collect()
    }

    #[test]
    fn every_key_is_reported_once() {
        let mut receiver = Receiver::default();
        for (index, digit) in "0123456789*#ABCD".chars().enumerate() {
            assert_eq!(
                press(&mut receiver, index as u32 * 2000, digit, |_| true),
                [digit]
            );
        }
    }

    #[test]
    fn a_repeated_digit_counts_twice_even_without_end_packets() {
        let mut receiver = Receiver::default();
        assert_eq!(press(&mut receiver, 0, '5', |index| index < 4), ['5']);
        assert_eq!(press(&mut receiver, 2000, '5', |index| index < 4), ['5']);
    }

    #[test]
    fn an_event_of_which_only_the_end_arrives_is_reported() {
        assert_eq!(
            press(&mut Receiver::default(), 0, '#', |index| index == 6),
            ['#']
        );
    }

    #[test]
    fn a_late_packet_of_an_earlier_event_is_not_reported_again() {
        let mut receiver = Receiver::default();
        press(&mut receiver, 0, '1', |_| true);
        press(&mut receiver, 2000, '2', |_| true);
        assert_eq!(receiver.receive(1, 0, &[1, 0x8a, 3, 32]), None);
    }

    #[test]
    fn a_press_longer_than_one_segment_is_reported_once() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(1, 1000, &[7, 10, 0, 160]), Some('7'));
        assert_eq!(receiver.receive(1, 1000, &[7, 10, 0xff, 0xff]), None);
        assert_eq!(receiver.receive(1, 1000 + 0xffff, &[7, 10, 0, 160]), None);
        assert_eq!(receiver.receive(1, 1000 + 0xffff, &[7, 0x8a, 0, 200]), None);
        assert_eq!(
            receiver.receive(1, 1000 + 0xffff + 800, &[7, 10, 0, 160]),
            Some('7')
        );
    }

    #[test]
    fn other_events_and_short_payloads_give_nothing() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(1, 0, &[16, 0, 0, 160]), None);
        assert_eq!(receiver.receive(1, 0, &[1, 0, 0]), None);
        assert!(Generator::new('x', 100, 160).is_none());
    }

    #[test]
    fn a_press_ends_with_three_end_packets() {
        let packets: Vec<_> = Generator::new('3', 100, 160).unwrap().collect();
        assert_eq!(packets.len(), 7);
        assert!(packets[0].marker && !packets[1].marker);
        assert_eq!(
            packets
                .iter()
                .filter(|packet| packet.payload[1] & 0x80 != 0)
                .count(),
            3
        );
        assert_eq!(packets[6].payload, [3, 0x8a, 3, 32]);
    }

    #[test]
    fn durations_are_in_ticks_of_the_clock_and_fit_their_field() {
        let packets: Vec<_> = Generator::new('1', 100, 960).unwrap().collect();
        assert_eq!(packets[1].payload[2..], 1920_u16.to_be_bytes());
        let longest: Vec<_> = Generator::new('1', 8000, 960).unwrap().collect();
        assert_eq!(longest.len(), 68 + 2);
        assert_eq!(longest[69].payload[2..], 65_280_u16.to_be_bytes());
        assert_eq!(Generator::new('1', 8000, 160).unwrap().count(), 402);
    }

    proptest! {
        #[test]
        fn any_loss_and_order_reports_each_press_at_most_once(
            order in proptest::collection::vec((0..4u32, 0..7usize), 0..60),
            noise in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut receiver = Receiver::default();
            let mut reported = [0; 4];
            for (event, index) in order {
                let packet = Generator::new('9', 100, 160).unwrap().nth(index).unwrap();
                if receiver.receive(9, event * 3000, &packet.payload).is_some() {
                    reported[event as usize] += 1;
                }
                let _ = receiver.receive(10, 1, &noise);
            }
            prop_assert!(reported.iter().all(|count| *count <= 1));
        }
    }
}
