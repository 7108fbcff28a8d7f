//! Keeps what leaves in a turn, and sends what leaves by the same port with one system call.

use std::io::IoSlice;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{
    MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, addr::SocketAddrArg as _, sendmmsg,
    sendto,
};

use super::call::Part;
use super::pair::Pairs;
use crate::stream::PACKET_BYTES;

/// Datagrams that are kept before they are sent in any case.
pub const BATCH: usize = 16;

/// Where a datagram leaves, where it goes to, and its length.
struct Letter {
    slot: usize,
    part: Part,
    to: SocketAddrAny,
    length: usize,
}

/// See the module.
pub struct Outbox {
    letters: Vec<Letter>,
    memory: Box<[u8]>,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            letters: Vec::with_capacity(BATCH),
            memory: vec![0; BATCH * PACKET_BYTES].into(),
        }
    }

    /// Has a datagram of at most [`PACKET_BYTES`] sent by a port, after those before it.
    pub fn put(
        &mut self,
        pairs: &Pairs,
        (slot, part): (usize, Part),
        datagram: &[u8],
        to: SocketAddr,
    ) {
        let begin = self.letters.len() * PACKET_BYTES;
        let Some(room) = self.memory.get_mut(begin..begin + datagram.len()) else {
            return;
        };
        room.copy_from_slice(datagram);
        self.letters.push(Letter {
            slot,
            part,
            to: to.as_any(),
            length: datagram.len(),
        });
        if self.letters.len() == BATCH {
            self.flush(pairs);
        }
    }

    /// Sends all. What a full buffer or a peer's machine refuses is lost, as the network might lose it.
    pub fn flush(&mut self, pairs: &Pairs) {
        let mut sent = [false; BATCH];
        for first in 0..self.letters.len() {
            if sent[first] {
                continue;
            }
            let Letter { slot, part, .. } = self.letters[first];
            let mut group = [first; BATCH];
            let mut count = 0;
            for (index, letter) in self.letters.iter().enumerate().skip(first) {
                if (letter.slot, letter.part) == (slot, part) {
                    sent[index] = true;
                    group[count] = index;
                    count += 1;
                }
            }
            self.send(pairs, (slot, part), &group[..count]);
        }
        self.letters.clear();
    }

    fn datagram(&self, index: usize) -> &[u8] {
        let begin = index * PACKET_BYTES;
        &self.memory[begin..begin + self.letters[index].length]
    }

    fn send(&self, pairs: &Pairs, (slot, part): (usize, Part), group: &[usize]) {
        let Some(socket) = pairs.get(slot).socket(part) else {
            return;
        };
        if let &[index] = group {
            let to = &self.letters[index].to;
            let _ = sendto(socket, self.datagram(index), SendFlags::DONTWAIT, to);
            return;
        }
        // Places beyond the group are not sent.
        let place = |at: usize| group.get(at).copied().unwrap_or(group[0]);
        let to: [&SocketAddrAny; BATCH] = std::array::from_fn(|at| &self.letters[place(at)].to);
        let datagrams: [[IoSlice<'_>; 1]; BATCH] =
            std::array::from_fn(|at| [IoSlice::new(self.datagram(place(at)))]);
        let mut control: [SendAncillaryBuffer<'_, '_, '_>; BATCH] = Default::default();
        let mut at = 0..BATCH;
        let mut messages = control.each_mut().map(|control| {
            let at = at.next().unwrap_or_default();
            MMsgHdr::new_with_addr(to[at], &datagrams[at], control)
        });
        let mut left = &mut messages[..group.len()];
        while !left.is_empty() {
            let done = match sendmmsg(socket, left, SendFlags::DONTWAIT) {
                Ok(sent) => sent.max(1),
                Err(Errno::INTR) => 0,
                // Nobody listens there (any more), or there is no way to him: that is this one's fault alone.
                Err(error) if error != Errno::AGAIN => 1,
                Err(_) => return,
            };
            left = &mut left[done..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Counts, Sockets};
    use mio::Poll;
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::time::Duration;

    fn pairs(addresses: &[(&str, u16)]) -> (Poll, Pairs) {
        let poll = Poll::new().unwrap();
        let mut pairs = Pairs::new(Arc::new(Counts::default()));
        for (slot, (address, first)) in addresses.iter().enumerate() {
            let sockets = (*first..first + 50)
                .step_by(2)
                .find_map(|port| Sockets::bind(address.parse().unwrap(), port).ok());
            pairs.open(poll.registry(), slot, sockets.unwrap()).unwrap();
        }
        (poll, pairs)
    }

    fn peer(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket
    }

    fn heard(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    }

    #[test]
    fn each_datagram_leaves_by_its_port_and_in_order() {
        let (_poll, pairs) = pairs(&[
            ("127.0.0.1", 22_100),
            ("::1", 22_200),
            ("127.0.0.1", 22_300),
        ]);
        let peers = [peer("127.0.0.1"), peer("::1"), peer("127.0.0.1")];
        let mut outbox = Outbox::new();
        // More than it keeps; three ports, reports too, in turns.
        for number in 0..2 * BATCH as u8 + 5 {
            for (slot, peer) in peers.iter().enumerate() {
                let part = if number % 5 == 4 {
                    Part::Reports
                } else {
                    Part::Rtp
                };
                let to = peer.local_addr().unwrap();
                outbox.put(
                    &pairs,
                    (slot, part),
                    &vec![number; 1 + usize::from(number)],
                    to,
                );
            }
        }
        outbox.flush(&pairs);
        outbox.flush(&pairs);
        for (slot, peer) in peers.iter().enumerate() {
            let mut ports = [None; 2];
            for _ in 0..2 * BATCH + 5 {
                let (text, from) = heard(peer);
                let number = text[0];
                assert_eq!(text, vec![number; 1 + usize::from(number)]);
                let reports = number % 5 == 4;
                let part = if reports { Part::Reports } else { Part::Rtp };
                let socket = pairs.get(slot).socket(part).unwrap();
                assert_eq!(from, socket.local_addr().unwrap());
                let last = ports[usize::from(reports)].replace(number);
                assert!(
                    last.is_none_or(|last| last < number),
                    "{last:?} before {number}"
                );
            }
        }
    }

    #[test]
    fn one_that_cannot_be_sent_holds_up_no_other() {
        let (_poll, pairs) = pairs(&[("127.0.0.1", 22_400)]);
        let peer = peer("127.0.0.1");
        let mut outbox = Outbox::new();
        let to = peer.local_addr().unwrap();
        // Port 0 is nobody's, and an address of the other family cannot be reached from there.
        for wrong in ["127.0.0.1:0", "[::1]:4000", "127.0.0.1:0"] {
            outbox.put(&pairs, (0, Part::Rtp), b"wrong", wrong.parse().unwrap());
            outbox.put(&pairs, (0, Part::Rtp), b"right", to);
        }
        // Of a port that is closed.
        outbox.put(&pairs, (7, Part::Rtp), b"wrong", to);
        outbox.flush(&pairs);
        for _ in 0..3 {
            assert_eq!(heard(&peer).0, b"right");
        }
    }
}
