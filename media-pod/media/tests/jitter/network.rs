//! A network for jitter buffers: which packets get lost, and when the others arrive. The same for every buffer, and in every run.

/// What the network itself takes, in milliseconds; not the buffer's doing.
pub const BASE: f64 = 40.0;

/// Arrivals minus send times in tenths of a millisecond, of 4,000 packets in 20 ms spacing. How they were recorded is in `docs/jitter.md`.
const RECORDED: &str = include_str!("recorded.txt");

/// Which packets get lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each with this probability.
    Random(f64),
    /// In bursts (Gilbert): 5 % of all, 3 in a row on average.
    Bursts,
}

/// How much later than the fastest packets arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Anything up to so many milliseconds, evenly, each packet for itself; they overtake each other.
    Even(f64),
    /// 5 ms, and every 2 to 5 s the network stands still for 80 to 250 ms, then all comes at once.
    Stalls,
    /// As recorded.
    Recorded,
}

impl Loss {
    pub const ALL: [Self; 6] = [
        Self::Random(0.0),
        Self::Random(0.01),
        Self::Random(0.03),
        Self::Random(0.05),
        Self::Random(0.10),
        Self::Bursts,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Random(share) => format!("{:.0} %", share * 100.0),
            Self::Bursts => "bursts".into(),
        }
    }
}

impl Jitter {
    pub const ALL: [Self; 6] = [
        Self::Even(0.0),
        Self::Even(10.0),
        Self::Even(30.0),
        Self::Even(60.0),
        Self::Stalls,
        Self::Recorded,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Even(millis) => format!("{millis:.0} ms"),
            Self::Stalls => "stalls".into(),
            Self::Recorded => "recorded".into(),
        }
    }
}

struct Dice(u64);

impl Dice {
    /// Evenly from 0 to 1 (xorshift64*).
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Number and arrival in milliseconds of the packets that arrive, in the order in which they do. Packet n is sent after n times 20 ms.
pub fn arrivals(packets: usize, loss: Loss, jitter: Jitter) -> Vec<(usize, f64)> {
    let mut losses = Dice(0x1234_5678_9abc_def1);
    let mut delays = Dice(0x0fed_cba9_8765_4321);
    let recorded: Vec<f64> = RECORDED
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(|tenths: f64| tenths / 10.0)
        .collect();
    let mut lost = false;
    let mut stall = (2000.0, 2150.0);
    let mut all = Vec::new();
    for number in 0..packets {
        let sent = number as f64 * 20.0;
        let late = match jitter {
            Jitter::Even(most) => delays.roll() * most,
            Jitter::Stalls => {
                if sent > stall.1 {
                    let begin = stall.1 + 2000.0 + 3000.0 * delays.roll();
                    stall = (begin, begin + 80.0 + 170.0 * delays.roll());
                }
                let arrives = sent + delays.roll() * 5.0;
                if sent >= stall.0 {
                    arrives.max(stall.1) - sent
                } else {
                    arrives - sent
                }
            }
            Jitter::Recorded => recorded[number % recorded.len()],
        };
        lost = match loss {
            Loss::Random(share) => losses.roll() < share,
            Loss::Bursts if lost => losses.roll() < 0.667,
            Loss::Bursts => losses.roll() < 0.0175,
        };
        if !lost {
            all.push((number, sent + BASE + late));
        }
    }
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all
}
