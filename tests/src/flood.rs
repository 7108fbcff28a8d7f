//! A bounded flood of hostile SIP over UDP, from as many loopback addresses as are wanted: to see what good calls feel of it.
//!
//! For loopback only: a target elsewhere is refused.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets go out in bunches of so long.
const BUNCH: Duration = Duration::from_millis(1);

/// Different ones, made beforehand: the flooder shares the machine with what it floods.
const PACKETS: u64 = 9_973;

/// A flood ends by itself after so long.
const LONGEST: Duration = Duration::from_secs(60);

/// A flood that goes on until it is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    /// Nanoseconds of a processor.
    cost: Arc<AtomicU64>,
    begun: Instant,
    sending: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends so many packets a second to `target`, from so many addresses of 127.230.0.0/15.
    pub fn start(target: SocketAddr, sources: u32, per_second: u32) -> Self {
        assert!(target.ip().is_loopback(), "{target} is not on this machine");
        assert!((1..=60_000).contains(&sources));
        let (stop, sent, cost) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let sockets: Vec<UdpSocket> = (0..sources)
            .map(|number| {
                let base = Ipv4Addr::new(127, 230, 0, 1).to_bits();
                let address = Ipv4Addr::from_bits(base + number);
                UdpSocket::bind((address, 0)).unwrap()
            })
            .collect();
        let (stopping, counts) = (Arc::clone(&stop), (Arc::clone(&sent), Arc::clone(&cost)));
        let sending = std::thread::spawn(move || {
            send(target, &sockets, per_second, &stopping, &counts);
        });
        Self {
            stop,
            sent,
            cost,
            begun: Instant::now(),
            sending: Some(sending),
        }
    }

    /// Packets per second that really went out so far.
    pub fn rate(&self) -> f64 {
        let sent = u32::try_from(self.sent.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        f64::from(sent) / self.begun.elapsed().as_secs_f64()
    }

    /// The part of a processor that sending takes: what the kernel does with a packet on loopback is the sender's time.
    pub fn load(&self) -> f64 {
        let spent = Duration::from_nanos(self.cost.load(Ordering::Relaxed));
        spent.as_secs_f64() / self.begun.elapsed().as_secs_f64()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sending) = self.sending.take() {
            let _ = sending.join();
        }
    }
}

fn send(
    target: SocketAddr,
    sockets: &[UdpSocket],
    per_second: u32,
    stop: &AtomicBool,
    (sent, cost): &(Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let packets: Vec<String> = (0..PACKETS).map(|number| packet(number, target)).collect();
    let begun = Instant::now();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        let due = begun.elapsed().as_secs_f64() * f64::from(per_second);
        while (number as f64) < due {
            let socket = &sockets[(number % sockets.len() as u64) as usize];
            // What is lost on the way is lost: so it is with floods.
            let packet = &packets[(number % PACKETS) as usize];
            let _ = socket.send_to(packet.as_bytes(), target);
            number += 1;
        }
        sent.store(number, Ordering::Relaxed);
        cost.store(thread_time(), Ordering::Relaxed);
        std::thread::sleep(BUNCH);
    }
}

/// Nanoseconds that this thread has had of a processor.
fn thread_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

/// What scanners send, by turns; each is another transaction.
fn packet(number: u64, target: SocketAddr) -> String {
    let method = ["INVITE", "OPTIONS", "REGISTER", "SUBSCRIBE"][(number % 4) as usize];
    let user = 100 + number % 900;
    format!(
        "{method} sip:{user}@{target} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{number:x}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{user}@192.0.2.1>;tag={number:x}\r\nTo: <sip:{user}@{target}>\r\n\
         Call-ID: {number:x}@192.0.2.1\r\nCSeq: 1 {method}\r\nContact: <sip:{user}@192.0.2.1>\r\n\
         User-Agent: PBX 2.1\r\nContent-Length: 0\r\n\r\n"
    )
}
