//! The UDP socket: a thread of its own that only drains it and asks the guard, so that a flood neither fills the kernel's buffer nor
//! makes the registrar busy.
//!
//! Replies leave from the same socket. What the guard shuts out, the kernel drops from then on ([`filter`]).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringwire_media::drops;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::guard::known::Known;
use super::guard::sight::Datagram as Seen;
use super::guard::{Ban, Banned, Guard, Verdict, Why, filter};

/// Receive buffer to ask for; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Carriers' datagrams that wait for the registrar; more are dropped, and carriers send them again.
const CARRIERS: usize = 4_096;

/// Strangers' datagrams that wait.
const STRANGERS: usize = 256;

/// Addresses that gave a wrong password and were not noted yet.
const OFFENDERS: usize = 64;

/// Datagrams that are read before other things get their turn.
const BATCH: usize = 256;

/// How often at most the kernel's filter is brought up to date. Between, the guard itself drops what the filter does not yet.
const FILTER_PAUSE: Duration = Duration::from_millis(50);

/// Addresses for which the kernel's filter surely has room.
const MIN_ROOM: usize = 16;

/// How often things are looked after while nothing comes in.
const TICK: Duration = Duration::from_secs(1);

/// How often at most drops and bans are logged.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// How often the kernel is asked for its count of dropped datagrams.
const KERNEL_PAUSE: Duration = Duration::from_secs(5);

/// A datagram for the edge.
pub struct Datagram {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Where it came from; IPv4 addresses as such.
    pub source: SocketAddr,
}

/// Binds the socket.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What was dropped so far.
#[derive(Debug, Default)]
struct Counts {
    guard: [AtomicU64; Why::ALL.len()],
    overflow: AtomicU64,
    kernel: AtomicU64,
}

/// What was dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// By the guard, in the order of [`Why::ALL`].
    pub guard: [u64; Why::ALL.len()],
    /// Because the registrar did not take it.
    pub overflow: u64,
    /// By the kernel: banned sources, or no room in the buffer.
    pub kernel: u64,
}

/// The registrar's end of the socket.
pub struct Udp {
    socket: UdpSocket,
    known: Arc<ArcSwap<Known>>,
    counts: Arc<Counts>,
    receive_buffer: usize,
    offenders: mpsc::Sender<IpAddr>,
    _stop: DropGuard,
}

/// What has come in, carriers' first.
pub struct Inbox {
    carriers: mpsc::Receiver<Datagram>,
    strangers: mpsc::Receiver<Datagram>,
}

impl Inbox {
    /// The next datagram; `None`: nothing will ever come.
    pub async fn recv(&mut self) -> Option<Datagram> {
        tokio::select! {
            biased;
            datagram = self.carriers.recv() => datagram,
            datagram = self.strangers.recv() => datagram,
        }
    }

    /// The next datagram if there is one.
    pub fn try_recv(&mut self) -> Option<Datagram> {
        let first = self.carriers.try_recv();
        first.or_else(|_| self.strangers.try_recv()).ok()
    }
}

impl Udp {
    /// Starts the thread, which ends with the handle. These are the carriers for now.
    pub fn start(socket: UdpSocket, known: Arc<Known>) -> io::Result<(Self, Inbox)> {
        let (carriers_in, carriers) = mpsc::channel(CARRIERS);
        let (strangers_in, strangers) = mpsc::channel(STRANGERS);
        let (offenders, offended) = mpsc::channel(OFFENDERS);
        let receive_buffer = SockRef::from(&socket).recv_buffer_size()?;
        let known = Arc::new(ArcSwap::new(known));
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let intake = Intake {
            guard: Guard::new(known.load_full(), Instant::now()),
            known: Arc::clone(&known),
            counts: Arc::clone(&counts),
            carriers: carriers_in,
            strangers: strangers_in,
            bans: None,
            told: Dropped::default(),
        };
        let received = socket.try_clone()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stopping = stop.clone();
        std::thread::Builder::new()
            .name("sip-udp".into())
            .spawn(move || runtime.block_on(intake.run(received, offended, stopping)))?;
        let udp = Self {
            socket,
            known,
            counts,
            receive_buffer,
            offenders,
            _stop: stop.drop_guard(),
        };
        Ok((
            udp,
            Inbox {
                carriers,
                strangers,
            },
        ))
    }

    /// Sends a datagram; one for which there is no room is lost, like any other.
    pub fn send(&self, bytes: &[u8], remote: SocketAddr) -> io::Result<()> {
        match self.socket.send_to(bytes, remote) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the kernel's buffer, its own overhead included.
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Somebody at this address gave a wrong user name or password.
    pub fn offended(&self, source: IpAddr) {
        // There may be too many of them: one is as good as another.
        let _ = self.offenders.try_send(source);
    }

    /// Who the carriers are from now on.
    pub fn set_known(&self, known: Arc<Known>) {
        self.known.store(known);
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        self.counts.read()
    }
}

impl Counts {
    fn read(&self) -> Dropped {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Dropped {
            guard: self.guard.each_ref().map(read),
            overflow: read(&self.overflow),
            kernel: read(&self.kernel),
        }
    }
}

/// The thread.
struct Intake {
    guard: Guard,
    known: Arc<ArcSwap<Known>>,
    counts: Arc<Counts>,
    carriers: mpsc::Sender<Datagram>,
    strangers: mpsc::Sender<Datagram>,
    /// The latest ban that was not logged yet, and how many before it were not.
    bans: Option<(Ban, u64)>,
    /// What was logged of the drops.
    told: Dropped,
}

impl Intake {
    async fn run(
        mut self,
        socket: UdpSocket,
        mut offended: mpsc::Receiver<IpAddr>,
        stop: CancellationToken,
    ) {
        let kernel = drops::inode(&socket);
        let socket = match tokio::net::UdpSocket::from_std(socket) {
            Ok(socket) => socket,
            // The registrar sees that nothing will ever come, and says so.
            Err(error) => return tracing::error!(%error, "cannot wait for the SIP socket"),
        };
        let mut buffer = vec![0; 65_535];
        let (mut filter_at, mut room) = (Instant::now(), filter::MAX_V4);
        // Of drops, and of bans.
        let mut log_at = (Instant::now(), Instant::now());
        let mut kernel_at = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Some(source) = offended.recv() => {
                    self.guard.offended(source, Instant::now());
                    // Told already, by the one who knows of it.
                    self.guard.take_ban();
                }
                ready = socket.readable() => if ready.is_ok() {
                    self.drain(&socket, &mut buffer);
                },
            }
            let now = Instant::now();
            if now >= filter_at {
                filter_at = now + FILTER_PAUSE;
                if let Some(banned) = self.guard.take_banned(now) {
                    set_filter(&SockRef::from(&socket), &banned, &mut room);
                }
            }
            if now >= log_at.0 && self.log_drops() {
                log_at.0 = now + LOG_PAUSE;
            }
            if now >= log_at.1
                && let Some((ban, others)) = self.bans.take()
            {
                log_at.1 = now + LOG_PAUSE;
                log_ban(ban, others);
            }
            if now >= kernel_at {
                kernel_at = now + KERNEL_PAUSE;
                let own = drops::all().find(|(inode, _)| Some(*inode) == kernel);
                if let Some((_, drops)) = own {
                    self.counts.kernel.store(drops, Ordering::Relaxed);
                }
            }
        }
    }

    fn drain(&mut self, socket: &tokio::net::UdpSocket, buffer: &mut [u8]) {
        self.guard.set_known(self.known.load_full());
        for _ in 0..BATCH {
            match socket.try_recv_from(buffer) {
                Ok((length, source)) => self.take(&buffer[..length], source),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier packet; the transaction finds out by itself.
                Err(error) => tracing::debug!(%error, "UDP"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], source: SocketAddr) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let lane = match self.guard.judge(source.ip(), &Seen(bytes), Instant::now()) {
            Verdict::Carrier => &self.carriers,
            Verdict::Stranger => &self.strangers,
            Verdict::Drop(why) => {
                if let Some(ban) = self.guard.take_ban() {
                    let others = self.bans.map_or(0, |(_, others)| others + 1);
                    self.bans = Some((ban, others));
                }
                self.counts.guard[why as usize].fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let datagram = Datagram {
            bytes: bytes.to_vec(),
            source,
        };
        if lane.try_send(datagram).is_err() {
            self.counts.overflow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs what was dropped since the last time, if anything was.
    fn log_drops(&mut self) -> bool {
        let now = self.counts.read();
        if now == self.told {
            return false;
        }
        let before = std::mem::replace(&mut self.told, now);
        let [scanner, flood, banned, share] =
            Why::ALL.map(|why| now.guard[why as usize] - before.guard[why as usize]);
        let (overflow, kernel) = (now.overflow - before.overflow, now.kernel - before.kernel);
        tracing::warn!(
            scanner,
            flood,
            banned,
            share,
            overflow,
            kernel,
            "SIP messages over UDP are dropped unanswered"
        );
        true
    }
}

/// Tells of a source that is shut out, and of how many others before.
pub fn log_ban(
    Ban {
        source,
        reason,
        lasts,
    }: Ban,
    others: u64,
) {
    let seconds = lasts.as_secs();
    tracing::warn!(%source, %reason, seconds, others, "a source is shut out");
}

/// Tells the kernel whose datagrams to drop. There is `room` for so many IPv4 addresses; what has no room, the guard drops by itself.
fn set_filter(socket: &SockRef<'_>, banned: &Banned, room: &mut usize) {
    loop {
        let result = match filter::program(banned, *room) {
            Some(program) => {
                let program: Vec<SockFilter> = program
                    .iter()
                    .map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k))
                    .collect();
                socket.attach_filter(&program)
            }
            None => socket.detach_filter(),
        };
        match result {
            // The socket may hold the old and the new program only together (net.core.optmem_max).
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && *room > MIN_ROOM => {
                *room /= 2;
                tracing::info!(
                    room,
                    "the kernel drops the datagrams of so many addresses at most"
                );
            }
            // There was none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return tracing::debug!(%error, "cannot set the SIP socket's filter"),
            Ok(()) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn sender(last: u8) -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::new(127, 9, 9, last), 0)).unwrap()
    }

    async fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: not within 5 s");
    }

    #[tokio::test]
    async fn a_flooding_source_is_dropped_by_the_kernel_and_another_is_heard() {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let to = socket.local_addr().unwrap();
        let (udp, mut inbox) = Udp::start(socket, Arc::default()).unwrap();
        let flooding = sender(1);
        for _ in 0..100 {
            flooding
                .send_to(b"OPTIONS sip:x SIP/2.0\r\n\r\n", to)
                .unwrap();
        }
        soon("a ban", || {
            (udp.dropped().guard[Why::Flood as usize] > 0).then_some(())
        })
        .await;
        // The guard alone would count each of these; once the filter is there its count stands still.
        soon("the filter", || {
            let banned = || udp.dropped().guard[Why::Banned as usize];
            let before = banned();
            for _ in 0..20 {
                flooding
                    .send_to(b"OPTIONS sip:x SIP/2.0\r\n\r\n", to)
                    .unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            (banned() == before).then_some(())
        })
        .await;
        let other = sender(2);
        other
            .send_to(b"OPTIONS sip:other SIP/2.0\r\n\r\n", to)
            .unwrap();
        let expected = other.local_addr().unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                let datagram = inbox.recv().await.unwrap();
                if datagram.source == expected {
                    return datagram;
                }
            }
        });
        let heard = heard.await.unwrap();
        assert_eq!(heard.bytes, b"OPTIONS sip:other SIP/2.0\r\n\r\n");
        udp.send(b"answer", expected).unwrap();
        let mut answer = [0; 6];
        let (_, from) = other.recv_from(&mut answer).unwrap();
        assert_eq!((&answer, from), (b"answer", to), "from the same socket");
    }

    #[test]
    fn the_kernel_takes_the_largest_filter_or_a_smaller_one_again_and_again() {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let mut room = filter::MAX_V4;
        for turn in 0..4 {
            let banned = Banned {
                v4: (0..100_000)
                    .map(|number| Ipv4Addr::from_bits(0xc000_0000 + turn + number))
                    .collect(),
                v6: (0..100_000).collect(),
            };
            set_filter(&SockRef::from(&socket), &banned, &mut room);
        }
        assert!(room >= 256, "{room}");
        SockRef::from(&socket).detach_filter().unwrap();
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_handle() {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (udp, mut inbox) = Udp::start(socket, Arc::default()).unwrap();
        assert!(udp.receive_buffer() > 100_000, "{}", udp.receive_buffer());
        drop(udp);
        let end = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await;
        assert!(end.unwrap().is_none());
    }
}
