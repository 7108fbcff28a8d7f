//! RTCP (RFC 3550 section 6): what each side tells the other of the packets that it has sent and got.
//!
//! Written are a sender or receiver report with one block and a CNAME; read is what the peer reports about our stream. Intervals are
//! those of a call between two, so the RFC's scaling for groups is left out.

use std::time::{Duration, Instant};

/// Longest report that is written: SR 28, block 24, SDES 24, and protection.
pub const REPORT_BYTES: usize = 80 + crate::srtp::OVERHEAD;

/// Mean time between reports (section 6.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// A longer round trip is none: 10 s, in 1/65536 s.
const MAX_ROUND_TRIP: u32 = 10 << 16;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const CNAME: u8 = 1;

/// One side's view of the other's stream (section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whose stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the start; duplicates can make it negative. 24 bits.
    pub lost: i32,
    /// Highest sequence number, with the count of wraps above it.
    pub highest: u32,
    /// Interarrival jitter in units of the timestamp.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time in the last sender report; 0: none came.
    pub last_report: u32,
    /// Time since that came, in 1/65536 s.
    pub delay: u32,
}

/// What a compound packet says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Middle 32 bits of the NTP time of a sender report.
    pub sent_at: Option<u32>,
    /// What the peer says about our stream.
    pub about_us: Option<Block>,
}

/// Reads a compound packet; `None` if it is none. Packets of other kinds and malformed rests are skipped.
pub fn read(mut data: &[u8], ours: u32) -> Option<Heard> {
    let mut heard = Heard::default();
    let mut any = false;
    while let Some((header, _)) = data.split_first_chunk::<4>() {
        let length = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
        if header[0] >> 6 != 2 || length > data.len() {
            break;
        }
        let (packet, rest) = data.split_at(length);
        data = rest;
        let start = match header[1] {
            SR => 28,
            RR => 8,
            SDES..=204 | 205..=207 => continue,
            _ => break,
        };
        any = true;
        if header[1] == SR {
            heard.sent_at = word(packet, 10);
        }
        let blocks = packet.get(start..).unwrap_or_default();
        let count = usize::from(header[0] & 0x1f);
        for block in blocks.chunks_exact(24).take(count) {
            if word(block, 0) == Some(ours) {
                heard.about_us = read_block(block);
            }
        }
    }
    any.then_some(heard)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn read_block(block: &[u8]) -> Option<Block> {
    let lost = word(block, 4)? << 8;
    Some(Block {
        ssrc: word(block, 0)?,
        fraction_lost: block[4],
        lost: lost.cast_signed() >> 8,
        highest: word(block, 8)?,
        jitter: word(block, 12)?,
        last_report: word(block, 16)?,
        delay: word(block, 20)?,
    })
}

/// What we have sent so far, for a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// RTP timestamp of now.
    pub timestamp: u32,
    /// Packets.
    pub packets: u32,
    /// Bytes of payload.
    pub octets: u32,
}

/// Writes a report: a sender report if we `sent` anything since the last one. `elapsed` since the stream's start stands for the NTP
/// time, as section 6.4.1 allows. Gives its length.
pub fn write(
    out: &mut [u8; REPORT_BYTES],
    ssrc: u32,
    sent: Option<Sent>,
    elapsed: Duration,
    block: Option<Block>,
) -> usize {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    let count = u8::from(block.is_some());
    let words = 1 + if sent.is_some() { 5 } else { 0 } + if block.is_some() { 6 } else { 0 };
    let kind = if sent.is_some() { SR } else { RR };
    put(&[0x80 | count, kind, 0, words]);
    put(&ssrc.to_be_bytes());
    if let Some(sent) = sent {
        put(&ntp(elapsed).to_be_bytes());
        put(&sent.timestamp.to_be_bytes());
        put(&sent.packets.to_be_bytes());
        put(&sent.octets.to_be_bytes());
    }
    if let Some(block) = block {
        put(&block.ssrc.to_be_bytes());
        let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        put(&((u32::from(block.fraction_lost) << 24) | lost).to_be_bytes());
        for word in [block.highest, block.jitter, block.last_report, block.delay] {
            put(&word.to_be_bytes());
        }
    }
    // SDES with the CNAME that every compound packet must have; the SSRC is as random as RFC 7022 wants a short-lived one.
    let name = format!("{ssrc:08x}");
    put(&[0x81, SDES, 0, 5]);
    put(&ssrc.to_be_bytes());
    put(&[CNAME, 8]);
    put(name.as_bytes());
    // The end of the list, up to the next word.
    put(&[0; 6]);
    at
}

fn ntp(elapsed: Duration) -> u64 {
    (elapsed.as_secs() << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000)
}

/// When reports are due, and what is remembered between them.
#[derive(Debug)]
pub struct Reports {
    start: Instant,
    interval: Duration,
    next: Option<Instant>,
    /// Packets that the last report had told of.
    told: u64,
    /// NTP time of the peer's last sender report, and when it came.
    last: Option<(u32, Instant)>,
    round_trip: Option<Duration>,
}

impl Reports {
    /// None is due yet. The interval is spread by the random `ssrc`, as section 6.3 wants.
    pub fn new(ssrc: u32, now: Instant) -> Self {
        Self {
            start: now,
            interval: INTERVAL.mul_f64(0.5 + f64::from(ssrc & 0xffff) / 65_536.0),
            next: None,
            told: 0,
            last: None,
            round_trip: None,
        }
    }

    /// Starts them: the first one comes after half an interval.
    pub fn start(&mut self, now: Instant) {
        self.next.get_or_insert(now + self.interval / 2);
    }

    /// No more.
    pub fn stop(&mut self) {
        self.next = None;
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Takes the time of a sender report, and what the answer to ours took.
    pub fn heard(&mut self, heard: &Heard, now: Instant) {
        if let Some(sent_at) = heard.sent_at {
            self.last = Some((sent_at, now));
        }
        // Section 6.4.1: the time of the report that it answers is our own.
        let answer = heard.about_us.filter(|block| block.last_report != 0);
        if let Some(block) = answer {
            let now = (ntp(now.saturating_duration_since(self.start)) >> 16) as u32;
            let ticks = now
                .wrapping_sub(block.last_report)
                .wrapping_sub(block.delay);
            // A peer whose clock runs ahead of ours comes to a little less than nothing.
            if ticks <= MAX_ROUND_TRIP {
                self.round_trip = Some(Duration::from_secs_f64(f64::from(ticks) / 65_536.0));
            }
        }
    }

    /// How long a packet takes to the peer and back, by its last report.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Writes the report that is due, and sets the time of the next.
    pub fn write(
        &mut self,
        out: &mut [u8; REPORT_BYTES],
        ssrc: u32,
        (packets, octets, timestamp): (u64, u64, u32),
        block: Option<Block>,
        now: Instant,
    ) -> usize {
        self.next = Some(now + self.interval);
        let block = block.map(|block| match self.last {
            Some((last_report, at)) => Block {
                last_report,
                delay: (now.saturating_duration_since(at).as_secs_f64() * 65_536.0) as u32,
                ..block
            },
            None => block,
        });
        let sends = packets > self.told;
        self.told = packets;
        let sent = sends.then_some(Sent {
            timestamp,
            packets: packets as u32,
            octets: octets as u32,
        });
        let elapsed = now.saturating_duration_since(self.start);
        write(out, ssrc, sent, elapsed, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block = Block {
        ssrc: 0x1122_3344,
        fraction_lost: 64,
        lost: -3,
        highest: 0x0001_0005,
        jitter: 17,
        last_report: 0xdead_beef,
        delay: 65_536,
    };

    #[test]
    fn reads_what_it_writes() {
        let sent = Sent {
            timestamp: 160,
            packets: 7,
            octets: 1120,
        };
        for (sent, expected) in [(Some(sent), Some(0x0001_8000)), (None, None)] {
            let mut out = [0; REPORT_BYTES];
            let elapsed = Duration::from_millis(1500);
            let length = write(&mut out, 9, sent, elapsed, Some(BLOCK));
            assert_eq!(length % 4, 0);
            let heard = read(&out[..length], BLOCK.ssrc).unwrap();
            assert_eq!(heard.sent_at, expected);
            assert_eq!(heard.about_us, Some(BLOCK));
            assert_eq!(read(&out[..length], 1).unwrap().about_us, None);
        }
    }

    #[test]
    fn no_input_is_too_short_or_too_long() {
        let mut out = [0; REPORT_BYTES];
        let length = write(&mut out, 9, None, Duration::ZERO, Some(BLOCK));
        for end in 0..length {
            let _ = read(&out[..end], BLOCK.ssrc);
        }
        assert_eq!(read(b"", 1), None);
        assert_eq!(
            read(&[0x9f, SR, 0, 1, 0, 0, 0, 1], 1),
            Some(Heard::default())
        );
        assert_eq!(read(&[0x80, 0, 1, 2], 1), None, "that is RTP");
    }

    #[test]
    fn the_round_trip_is_what_the_peer_did_not_wait_for() {
        let start = Instant::now();
        let mut reports = Reports::new(0x8000, start);
        let mut out = [0; REPORT_BYTES];
        let sent_at = start + Duration::from_millis(2500);
        reports.start(start);
        let length = reports.write(&mut out, 9, (10, 1600, 0), None, sent_at);
        let last_report = read(&out[..length], 0).unwrap().sent_at.unwrap();
        let heard = |delay| Heard {
            sent_at: None,
            about_us: Some(Block {
                last_report,
                delay,
                ..BLOCK
            }),
        };
        assert_eq!(reports.round_trip(), None);
        // It waited for a second, and 80 ms were the network's.
        let back = sent_at + Duration::from_millis(1080);
        reports.heard(&heard(65_536), back);
        let millis = reports.round_trip().unwrap().as_secs_f64() * 1000.0;
        assert!((millis - 80.0).abs() < 0.1, "{millis}");
        // More than has passed: impossible, and not believed.
        reports.heard(&heard(2 * 65_536), back);
        reports.heard(&Heard::default(), back);
        assert!((reports.round_trip().unwrap().as_secs_f64() * 1000.0 - 80.0).abs() < 0.1);
    }

    #[test]
    fn reports_come_every_few_seconds_and_tell_the_delay_since_the_peers() {
        let start = Instant::now();
        let mut reports = Reports::new(0x8000, start);
        assert_eq!(reports.due(), None);
        reports.start(start);
        let due = reports.due().unwrap();
        assert_eq!(due - start, Duration::from_millis(2500));
        let heard = Heard {
            sent_at: Some(5),
            about_us: None,
        };
        reports.heard(&heard, start + Duration::from_millis(1500));
        let mut out = [0; REPORT_BYTES];
        let length = reports.write(&mut out, 9, (10, 1600, 0), Some(BLOCK), due);
        let told = read(&out[..length], BLOCK.ssrc).unwrap().about_us.unwrap();
        assert_eq!((told.last_report, told.delay), (5, 65_536));
        assert_eq!(out[1], SR);
        assert_eq!(reports.due(), Some(due + Duration::from_secs(5)));
        // Nothing was sent since.
        reports.write(&mut out, 9, (10, 1600, 0), None, due);
        assert_eq!(out[1], RR);
    }
}
