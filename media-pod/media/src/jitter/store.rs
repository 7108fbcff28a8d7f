//! Payloads that wait to be played, in the order of their timestamps.
//!
//! They lie in one piece of memory, which is tidied up when its end is reached. It begins with what a call in G.711 needs and grows a few
//! times up to a bound; beyond that, what would be played first goes.

/// Packets that wait at most: 640 ms of 10 ms packets.
const MAX_PACKETS: usize = 64;
/// Bytes at first: 250 ms of G.711.
const FIRST_BYTES: usize = 2048;
/// Bytes at most: 500 ms of 16-bit samples at 16 kHz.
const MAX_BYTES: usize = 16 << 10;
/// A larger payload is not kept; no datagram on a usual network holds more.
pub const MAX_PAYLOAD: usize = 2048;

/// One packet. Times are extended timestamps.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its first tick.
    pub start: i64,
    /// Its length in ticks.
    pub ticks: i64,
    /// RTP sequence number.
    pub sequence: u16,
    offset: u32,
    length: u32,
}

impl Entry {
    /// The tick after its last.
    pub fn end(&self) -> i64 {
        self.start + self.ticks
    }
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    /// By start.
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    /// Where the next payload goes.
    free: usize,
    /// Bytes of all entries.
    used: usize,
}

impl Store {
    pub fn new() -> Self {
        Self {
            entries: Vec::with_capacity(16),
            bytes: vec![0; FIRST_BYTES],
            free: 0,
            used: 0,
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.free = 0;
        self.used = 0;
    }

    /// The packet that is to be played first.
    pub fn first(&self) -> Option<Entry> {
        self.entries.first().copied()
    }

    /// All that wait, in the order of their timestamps.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What it says; valid until something is put in.
    pub fn payload(&self, entry: &Entry) -> &[u8] {
        let offset = entry.offset as usize;
        &self.bytes[offset..offset + entry.length as usize]
    }

    /// Takes the first packet out. Its payload can still be read until something is put in.
    pub fn pop(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let entry = self.entries.remove(0);
        self.used -= entry.length as usize;
        if self.entries.is_empty() {
            self.free = 0;
        }
    }

    /// Keeps a packet. False if one with the same timestamp is there.
    pub fn put(
        &mut self,
        start: i64,
        ticks: i64,
        sequence: u16,
        payload: impl ExactSizeIterator<Item = u8>,
    ) -> bool {
        let length = payload.len();
        let before = |entries: &[Entry]| entries.iter().rposition(|entry| entry.start <= start);
        let place = before(&self.entries);
        if place.is_some_and(|place| self.entries[place].start == start) || length > MAX_PAYLOAD {
            return false;
        }
        while self.entries.len() >= MAX_PACKETS || !self.make_room(length) {
            self.pop();
        }
        let room = &mut self.bytes[self.free..self.free + length];
        for (byte, from) in room.iter_mut().zip(payload) {
            *byte = from;
        }
        let entry = Entry {
            start,
            ticks,
            sequence,
            offset: self.free as u32,
            length: length as u32,
        };
        let place = before(&self.entries).map_or(0, |place| place + 1);
        self.entries.insert(place, entry);
        self.free += length;
        self.used += length;
        true
    }

    /// Whether there is room for so many bytes at `free` now.
    fn make_room(&mut self, length: usize) -> bool {
        if self.free + length <= self.bytes.len() {
            return true;
        }
        if self.used + length > self.bytes.len() {
            if self.bytes.len() >= MAX_BYTES {
                return false;
            }
            self.bytes.resize(self.bytes.len() * 2, 0);
        } else {
            self.tidy();
        }
        self.make_room(length)
    }

    /// Moves all payloads to the beginning, the one that lies first at first.
    fn tidy(&mut self) {
        self.free = 0;
        let mut from = 0;
        for _ in 0..self.entries.len() {
            let next = self
                .entries
                .iter_mut()
                .filter(|entry| entry.offset >= from)
                .min_by_key(|entry| entry.offset);
            let Some(entry) = next else {
                break;
            };
            let offset = entry.offset as usize;
            let length = entry.length as usize;
            from = entry.offset + entry.length;
            entry.offset = self.free as u32;
            self.bytes.copy_within(offset..offset + length, self.free);
            self.free += length;
        }
    }

    /// Memory that it holds, in bytes.
    #[cfg(test)]
    pub fn footprint(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(store: &mut Store, start: i64, length: usize) -> bool {
        store.put(start, 160, 0, std::iter::repeat_n(start as u8, length))
    }

    #[test]
    fn gives_packets_in_the_order_of_their_timestamps() {
        let mut store = Store::new();
        for start in [5, 3, 9, 4] {
            assert!(put(&mut store, start, 160));
        }
        assert!(!put(&mut store, 9, 160));
        let mut out = Vec::new();
        while let Some(entry) = store.first() {
            out.push((entry.start, store.payload(&entry)[0]));
            store.pop();
        }
        assert_eq!(out, [(3, 3), (4, 4), (5, 5), (9, 9)]);
    }

    proptest! {
        #[test]
        fn keeps_what_it_was_given_in_bounded_memory(
            steps in proptest::collection::vec((0..300i64, 1..MAX_PAYLOAD, 0..3u8), 0..400),
        ) {
            let mut store = Store::new();
            for (start, length, pops) in steps {
                put(&mut store, start, length);
                for _ in 0..pops {
                    store.pop();
                }
                let entries = store.entries.clone();
                prop_assert!(entries.is_sorted_by_key(|entry| entry.start));
                for entry in entries {
                    prop_assert!(store.payload(&entry).iter().all(|byte| *byte == entry.start as u8));
                }
                prop_assert!(store.footprint() <= MAX_BYTES + MAX_PACKETS * size_of::<Entry>());
            }
        }
    }
}
