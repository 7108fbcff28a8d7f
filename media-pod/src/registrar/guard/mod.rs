//! Who is heard at all: a look at each message before it is parsed.
//!
//! Sources of UDP are forged as easily as letters, so carriers' addresses are never shut out, whatever comes from them; they have a lane
//! of their own to the edge. Strangers get few messages; who sends more is shut out, for longer each time. Whether a stranger may *call*
//! is not decided here but by [`ringwire_config::route`].
//!
//! Without sockets and clock. What it keeps is bounded, however many sources there seem to be.

pub mod filter;
pub mod known;
pub mod sight;
pub mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::Reason;

use self::known::{Known, Standing};
use self::sight::Sight;
use self::table::{Key, Table};
use super::bucket::Bucket;

/// Messages per second, and at once, of one carrier's address in the carriers' lane; more wait behind all others. No trunk brings so many.
const CARRIER: (u32, u32) = (20_000, 20_000);

/// The same of one address that is let in only because everybody is; more are dropped.
const ANYONE: (u32, u32) = (100, 200);

/// The same of all of them together.
const ALL_ANYONE: (u32, u32) = (2_000, 4_000);

/// The same of one stranger; who sends more is shut out.
const STRANGER: (u32, u32) = (10, 20);

/// At once while there is a flood.
const STRANGER_IN_FLOOD: u32 = 4;

/// The same of all strangers together: each may cost a transaction that is remembered for 32 s.
const ALL_STRANGERS: (u32, u32) = (200, 400);

/// So many wrong passwords shut a stranger out.
pub const MAX_GUESSES: u32 = 5;

/// They are forgotten after so long without another.
const GUESSES_LAST: Duration = Duration::from_secs(600);

/// A flood is thought to last so long after its last sign.
const FLOOD_LASTS: Duration = Duration::from_secs(10);

/// The first ban; each further one is twice as long.
const FIRST_BAN: Duration = Duration::from_secs(10);

/// The longest ban. After so long without an offence all is forgiven.
const LONGEST_BAN: Duration = Duration::from_secs(3600);

/// Sources that are remembered. One takes about 100 bytes.
const MAX_SOURCES: usize = 16_384;

/// Why a message is dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is a scanner's, by its own account.
    Scanner,
    /// A stranger sends too many of them, or all strangers together do.
    Flood,
    /// Its source is shut out.
    Banned,
    /// Its source is let in as everybody is, and has had its share.
    Share,
}

impl Why {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Scanner, Self::Flood, Self::Banned, Self::Share];

    /// How it is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::Scanner => Reason::ScannerIgnored,
            Self::Flood | Self::Share => Reason::FloodIgnored,
            Self::Banned => Reason::SourceBanned,
        }
    }
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the edge, before all strangers'.
    Carrier,
    /// To the edge, when it has time.
    Stranger,
    /// Not to the edge.
    Drop(Why),
}

/// A source that is shut out from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub source: IpAddr,
    /// What for.
    pub reason: Reason,
    /// For how long.
    pub lasts: Duration,
}

/// See the module.
pub struct Guard {
    known: Arc<Known>,
    carriers: Table<()>,
    others: Table<Record>,
    all_anyone: Bucket,
    all_strangers: Bucket,
    flood_until: Option<Instant>,
    /// The latest ban, until it is asked for.
    latest: Option<Ban>,
    /// Whether the set of banned sources has changed since it was asked for.
    changed: bool,
    /// When the next ban of that set ends.
    next_end: Option<Instant>,
}

/// What a source has done.
#[derive(Clone, Copy, Default)]
struct Record {
    banned_until: Option<Instant>,
    /// How many times it was.
    bans: u32,
    /// Wrong passwords, and when the last one came.
    guesses: Option<(u32, Instant)>,
}

impl table::Worth for Record {
    fn is_kept(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }
}

impl table::Worth for () {
    fn is_kept(&self, _: Instant) -> bool {
        false
    }
}

impl Guard {
    /// A guard that knows these carriers.
    pub fn new(known: Arc<Known>, now: Instant) -> Self {
        Self {
            known,
            carriers: Table::new(MAX_SOURCES),
            others: Table::new(MAX_SOURCES),
            all_anyone: Bucket::full(ALL_ANYONE.1, now),
            all_strangers: Bucket::full(ALL_STRANGERS.1, now),
            flood_until: None,
            latest: None,
            changed: false,
            next_end: None,
        }
    }

    /// The carriers have changed. Whoever has become one is shut out no more.
    pub fn set_known(&mut self, known: Arc<Known>) {
        if Arc::ptr_eq(&known, &self.known) {
            return;
        }
        self.known = known;
        let Self {
            known,
            others,
            changed,
            ..
        } = self;
        for (key, record) in others.iter_mut() {
            if record.banned_until.is_some() && !may_be_banned(known, key.address()) {
                *record = Record::default();
                *changed = true;
            }
        }
    }

    /// Decides about a message.
    pub fn judge(&mut self, source: IpAddr, message: &impl Sight, now: Instant) -> Verdict {
        let source = source.to_canonical();
        match self.known.standing(source) {
            Standing::Carrier => {
                let ((), bucket) = self.carriers.entry(Key::exact(source), CARRIER.1, now);
                if bucket.take(CARRIER.0, CARRIER.1, now) {
                    Verdict::Carrier
                } else {
                    Verdict::Stranger
                }
            }
            // Whoever knows a secret of ours is no stranger, wherever he is.
            _ if message.user().is_some_and(|user| self.known.admits(&user)) => Verdict::Carrier,
            Standing::Anyone if message.is_scanners() => Verdict::Drop(Why::Scanner),
            Standing::Anyone => {
                let (_, bucket) = self.others.entry(Key::of(source), ANYONE.1, now);
                let passes = bucket.take(ANYONE.0, ANYONE.1, now)
                    && self.all_anyone.take(ALL_ANYONE.0, ALL_ANYONE.1, now);
                if passes {
                    Verdict::Stranger
                } else {
                    Verdict::Drop(Why::Share)
                }
            }
            Standing::Stranger => self.judge_stranger(source, message, now),
        }
    }

    fn judge_stranger(&mut self, source: IpAddr, message: &impl Sight, now: Instant) -> Verdict {
        let floods = self.flood_until.is_some_and(|until| now < until);
        let size = if floods {
            STRANGER_IN_FLOOD
        } else {
            STRANGER.1
        };
        let (record, bucket) = self.others.entry(Key::of(source), size, now);
        if record.is_banned(now) {
            return Verdict::Drop(Why::Banned);
        }
        let why = if message.is_scanners() {
            Why::Scanner
        } else if bucket.take(STRANGER.0, size, now) {
            if self
                .all_strangers
                .take(ALL_STRANGERS.0, ALL_STRANGERS.1, now)
            {
                return Verdict::Stranger;
            }
            self.flood_until = Some(now + FLOOD_LASTS);
            return Verdict::Drop(Why::Flood);
        } else {
            Why::Flood
        };
        if may_be_banned(&self.known, source) {
            let (reason, lasts) = (why.reason(), record.ban(now));
            self.latest = Some(Ban {
                source,
                reason,
                lasts,
            });
            self.changed = true;
        }
        Verdict::Drop(why)
    }

    /// Somebody at this address gave a wrong user name or password; after several such a stranger is shut out.
    pub fn offended(&mut self, source: IpAddr, now: Instant) {
        let source = source.to_canonical();
        if !may_be_banned(&self.known, source) {
            return;
        }
        let (record, _) = self.others.entry(Key::of(source), STRANGER.1, now);
        if record.guess(now) && !record.is_banned(now) {
            let (reason, lasts) = (Reason::CredentialsRefused, record.ban(now));
            self.latest = Some(Ban {
                source,
                reason,
                lasts,
            });
            self.changed = true;
        }
    }

    /// The latest source that was shut out, if one was since the last time.
    pub fn take_ban(&mut self) -> Option<Ban> {
        self.latest.take()
    }

    /// The sources that are shut out, if they have changed since the last time: sorted IPv4 addresses, and the upper halves of IPv6
    /// ones.
    pub fn take_banned(&mut self, now: Instant) -> Option<Banned> {
        if !self.changed && self.next_end.is_none_or(|end| now < end) {
            return None;
        }
        (self.changed, self.next_end) = (false, None);
        let mut banned = Banned::default();
        for (key, record) in self.others.iter_mut() {
            let Some(until) = record.banned_until.filter(|until| now < *until) else {
                continue;
            };
            self.next_end = Some(self.next_end.map_or(until, |end| end.min(until)));
            match key.address() {
                IpAddr::V4(address) => banned.v4.push(address),
                IpAddr::V6(address) => banned.v6.push(upper_half(address)),
            }
        }
        banned.v4.sort_unstable();
        banned.v6.sort_unstable();
        Some(banned)
    }
}

/// The sources that are shut out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Banned {
    /// IPv4 addresses, sorted.
    pub v4: Vec<Ipv4Addr>,
    /// The first 64 bits of IPv6 addresses, sorted.
    pub v6: Vec<u64>,
}

impl Banned {
    /// Whether an address is among them.
    pub fn holds(&self, source: IpAddr) -> bool {
        match source.to_canonical() {
            IpAddr::V4(address) => self.v4.binary_search(&address).is_ok(),
            IpAddr::V6(address) => self.v6.binary_search(&upper_half(address)).is_ok(),
        }
    }
}

/// What tells IPv6 networks of 64 bits apart.
fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

/// Whether a source is a stranger among strangers: none of its network is a carrier.
fn may_be_banned(known: &Known, source: IpAddr) -> bool {
    known.standing(source) == Standing::Stranger && !known.is_neighbour(source)
}

impl Record {
    /// Counts a wrong password; `true`: it is one too many.
    fn guess(&mut self, now: Instant) -> bool {
        let before = self
            .guesses
            .filter(|(_, last)| now < *last + GUESSES_LAST)
            .map_or(0, |(count, _)| count);
        self.guesses = Some((before + 1, now));
        before + 1 >= MAX_GUESSES
    }

    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }

    fn ban(&mut self, now: Instant) -> Duration {
        let forgiven = self
            .banned_until
            .is_some_and(|until| until + LONGEST_BAN <= now);
        if forgiven {
            self.bans = 0;
        }
        let lasts = FIRST_BAN
            .saturating_mul(1 << self.bans.min(16))
            .min(LONGEST_BAN);
        self.bans = self.bans.saturating_add(1);
        self.banned_until = Some(now + lasts);
        lasts
    }
}

#[cfg(test)]
mod tests;
