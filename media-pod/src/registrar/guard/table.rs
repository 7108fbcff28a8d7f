//! Sources and what is known of them: a table that never grows, however many sources there seem to be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use crate::registrar::bucket::Bucket;

/// Whether a record is worth keeping when there is no room.
pub trait Worth {
    /// It should be kept as long as others need not.
    fn is_kept(&self, now: Instant) -> bool;
}

/// A source: an IPv4 address, or an IPv6 network of 64 bits, which one host may use up as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(IpAddr);

impl Key {
    /// The source of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self(address),
            IpAddr::V6(v6) => {
                let network = v6.to_bits() >> 64 << 64;
                Self(Ipv6Addr::from_bits(network).into())
            }
        }
    }

    /// An address as it is.
    pub fn exact(address: IpAddr) -> Self {
        Self(address)
    }

    /// The address, or the first one of the network.
    pub fn address(self) -> IpAddr {
        self.0
    }
}

struct Entry<R> {
    key: Key,
    record: R,
    bucket: Bucket,
    seen: Instant,
}

/// How many entries are looked at to find one that can go.
const PROBES: usize = 8;

/// See the module.
pub struct Table<R> {
    index: HashMap<Key, usize>,
    entries: Vec<Entry<R>>,
    size: usize,
    /// Where to look next for an entry that can go.
    hand: usize,
}

impl<R: Default + Worth> Table<R> {
    /// A table for so many sources.
    pub fn new(size: usize) -> Self {
        Self {
            index: HashMap::new(),
            entries: Vec::new(),
            size,
            hand: 0,
        }
    }

    /// The record and the bucket of a source; a new one's bucket has this size. Another's place is taken if there is none left.
    pub fn entry(&mut self, key: Key, size: u32, now: Instant) -> (&mut R, &mut Bucket) {
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => self.place(key, size, now),
        };
        let entry = &mut self.entries[at];
        entry.seen = now;
        (&mut entry.record, &mut entry.bucket)
    }

    fn place(&mut self, key: Key, size: u32, now: Instant) -> usize {
        let entry = Entry {
            key,
            record: R::default(),
            bucket: Bucket::full(size, now),
            seen: now,
        };
        let at = if self.entries.len() < self.size {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let at = self.victim(now);
            self.index.remove(&self.entries[at].key);
            self.entries[at] = entry;
            at
        };
        self.index.insert(key, at);
        at
    }

    /// The least worthy of the next few: not to be kept, then seen the longest time ago.
    fn victim(&mut self, now: Instant) -> usize {
        let count = self.entries.len();
        let first = self.hand;
        self.hand = (first + PROBES) % count;
        let probed = (0..PROBES.min(count)).map(|step| (first + step) % count);
        let worth = |at: &usize| {
            let entry = &self.entries[*at];
            (entry.record.is_kept(now), entry.seen)
        };
        probed.min_by_key(worth).unwrap_or(first)
    }

    /// All sources.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut R)> {
        self.entries
            .iter_mut()
            .map(|entry| (entry.key, &mut entry.record))
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.index.len(), self.entries.len());
        self.entries.len()
    }
}
