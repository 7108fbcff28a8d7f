//! Reads many datagrams with one system call, and says when the kernel got each of them: a thread that is late must not take its own
//! lateness for the network's.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6, SockaddrLike,
    recvmmsg,
};
use nix::sys::time::TimeSpec;

/// Datagrams that are read at a time.
pub const BATCH: usize = 16;

/// Memory for each: more than any with RTP.
const DATAGRAM: usize = 4 << 10;

/// What waited longer, by a clock that may be set at any time, did not.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A datagram that was read.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    length: usize,
    /// Where it comes from, IPv4 addresses as such.
    pub from: SocketAddr,
    /// When the kernel got it.
    pub at: Instant,
}

/// Memory for what is read at a time.
pub struct Inbox {
    // What the kernel writes into these differs in length between the families, and is never made longer again.
    v4: MultiHeaders<SockaddrIn>,
    v6: MultiHeaders<SockaddrIn6>,
    memory: Box<[u8]>,
    arrivals: Vec<Arrival>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        let control = || Some(nix::cmsg_space!(TimeSpec));
        Self {
            v4: MultiHeaders::preallocate(BATCH, control()),
            v6: MultiHeaders::preallocate(BATCH, control()),
            memory: vec![0; BATCH * DATAGRAM].into(),
            arrivals: Vec::with_capacity(BATCH),
        }
    }

    /// Reads what a socket that does not wait has, at most [`BATCH`] datagrams: how many. Fewer than these were all there were.
    pub fn fill(&mut self, socket: &impl AsRawFd, is_ipv4: bool) -> usize {
        let Self {
            v4,
            v6,
            memory,
            arrivals,
        } = self;
        let fd = socket.as_raw_fd();
        arrivals.clear();
        loop {
            let read = if is_ipv4 {
                read(fd, v4, memory, arrivals)
            } else {
                read(fd, v6, memory, arrivals)
            };
            match read {
                // Some caller's machine says that nobody listens there (any more).
                Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
                // Nothing is left, or nothing can be read now: the next datagram tells.
                Ok(()) | Err(_) => return arrivals.len(),
            }
        }
    }

    /// A datagram of those that were read last, and what is known of it.
    pub fn get(&mut self, index: usize) -> Option<(Arrival, &mut [u8])> {
        let arrival = *self.arrivals.get(index)?;
        let begin = index * DATAGRAM;
        let datagram = self.memory.get_mut(begin..begin + arrival.length)?;
        Some((arrival, datagram))
    }
}

fn read<S>(
    fd: RawFd,
    headers: &mut MultiHeaders<S>,
    memory: &mut [u8],
    arrivals: &mut Vec<Arrival>,
) -> nix::Result<()>
where
    S: SockaddrLike + Copy + Into<SocketAddr>,
{
    let mut parts = memory.chunks_exact_mut(DATAGRAM);
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
        std::array::from_fn(|_| [IoSliceMut::new(parts.next().unwrap_or_default())]);
    let results = recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
    // Both clocks at once: what is between them is how long each datagram has waited.
    let (now, clock) = (Instant::now(), SystemTime::now());
    arrivals.extend(results.filter_map(|message| arrival(&message, now, clock)));
    Ok(())
}

fn arrival<S: Copy + Into<SocketAddr>>(
    message: &RecvMsg<'_, '_, S>,
    now: Instant,
    clock: SystemTime,
) -> Option<Arrival> {
    let from: SocketAddr = message.address?.into();
    Some(Arrival {
        length: message.bytes,
        from: SocketAddr::new(from.ip().to_canonical(), from.port()),
        at: now.checked_sub(waited(message, clock)).unwrap_or(now),
    })
}

/// How long the kernel has had it; no time if it does not say so.
fn waited<S>(message: &RecvMsg<'_, '_, S>, clock: SystemTime) -> Duration {
    let mut said = message.cmsgs().into_iter().flatten();
    let got = said.find_map(|said| match said {
        ControlMessageOwned::ScmTimestampns(got) => Some(Duration::from(got)),
        _ => None,
    });
    got.and_then(|got| clock.duration_since(SystemTime::UNIX_EPOCH + got).ok())
        .filter(|waited| *waited <= LONGEST_WAIT)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Sockets;

    fn sockets(address: &str, ports: std::ops::Range<u16>) -> Sockets {
        let address = address.parse().unwrap();
        let mut ports = ports.step_by(2);
        ports
            .find_map(|port| Sockets::bind(address, port).ok())
            .unwrap()
    }

    /// The kernel notes times from a moment after the first socket is there that asks for them.
    fn wait_for_times(inbox: &mut Inbox) -> Sockets {
        let sockets = sockets("127.0.0.1", 21_550..21_600);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender
                .send_to(b"x", sockets.rtp.local_addr().unwrap())
                .unwrap();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(inbox.fill(&sockets.rtp, true), 1);
            if inbox.get(0).unwrap().0.at.elapsed() > Duration::from_millis(40) {
                return sockets;
            }
        }
        panic!("the kernel notes no times");
    }

    #[test]
    fn each_datagram_says_who_sent_it_and_when_it_came_in_whichever_family() {
        let mut inbox = Inbox::new();
        let _noting = wait_for_times(&mut inbox);
        // One after the other and back again: what one leaves behind must not harm the next.
        for round in 0..2_u16 {
            for (address, ports) in [("127.0.0.1", 21_600), ("::1", 21_700), ("::", 21_800)] {
                let begin = ports + round * 50;
                let sockets = sockets(address, begin..begin + 50);
                let to = sockets.rtp.local_addr().unwrap();
                let host = if address == "::1" {
                    address
                } else {
                    "127.0.0.1"
                };
                let host: std::net::IpAddr = host.parse().unwrap();
                let sender = std::net::UdpSocket::bind((host, 0)).unwrap();
                let begun = Instant::now();
                sender.send_to(b"one", (host, to.port())).unwrap();
                std::thread::sleep(Duration::from_millis(60));
                sender.send_to(b"second", (host, to.port())).unwrap();
                std::thread::sleep(Duration::from_millis(30));
                assert_eq!(inbox.fill(&sockets.rtp, to.is_ipv4()), 2);
                let read = Instant::now();
                let (first, text) = inbox.get(0).unwrap();
                assert_eq!(
                    (&*text, first.from),
                    (&b"one"[..], sender.local_addr().unwrap())
                );
                let (second, text) = inbox.get(1).unwrap();
                assert_eq!((&*text, second.from), (&b"second"[..], first.from));
                let millis = |from: Instant, to: Instant| {
                    assert!(from <= to);
                    to.duration_since(from).as_millis()
                };
                // The two clocks are read one after the other.
                assert!(
                    millis(begun, first.at + Duration::from_millis(1)) < 50,
                    "{first:?}"
                );
                assert!((50..).contains(&millis(first.at, second.at)), "{second:?}");
                assert!((25..).contains(&millis(second.at, read)), "{second:?}");
                assert_eq!(inbox.fill(&sockets.rtp, to.is_ipv4()), 0);
                assert!(inbox.get(0).is_none());
            }
        }
    }

    #[test]
    fn what_does_not_fit_in_one_reading_is_left_for_the_next() {
        let sockets = sockets("127.0.0.1", 21_900..21_950);
        let to = sockets.rtp.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..=BATCH {
            sender.send_to(&vec![7; number], to).unwrap();
        }
        let mut inbox = Inbox::new();
        assert_eq!(inbox.fill(&sockets.rtp, true), BATCH);
        assert_eq!(inbox.get(BATCH - 1).unwrap().1, [7; BATCH - 1]);
        assert_eq!(inbox.fill(&sockets.rtp, true), 1);
        assert_eq!(inbox.get(0).unwrap().1, [7; BATCH]);
    }

    #[test]
    fn a_longer_datagram_than_any_is_cut_and_harms_no_other() {
        let sockets = sockets("127.0.0.1", 21_950..21_999);
        let to = sockets.rtp.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&vec![1; 3 * DATAGRAM], to).unwrap();
        sender.send_to(&[2; 3], to).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.fill(&sockets.rtp, true), 2);
        assert_eq!(inbox.get(0).unwrap().1.len(), DATAGRAM);
        assert_eq!(inbox.get(1).unwrap().1, [2; 3]);
    }
}
