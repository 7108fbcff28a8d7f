//! A wire between two programs: passes TCP connections on as they are, and remembers what went through.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::wait::{self, seconds};

/// A wire to one program.
pub struct Wire {
    address: Address,
    port: u16,
    ended: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    connections: usize,
    there: Vec<u8>,
    back: Vec<u8>,
    last: Instant,
}

impl Wire {
    /// One to there: it listens at the same port of an address of its own.
    pub fn to(there: SocketAddr) -> Self {
        let (address, port) = (Address::claim(), there.port());
        let listener = TcpListener::bind(address.port(port)).unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            connections: 0,
            there: Vec::new(),
            back: Vec::new(),
            last: Instant::now(),
        }));
        let ended = Arc::new(AtomicBool::new(false));
        let (noted, end) = (Arc::clone(&seen), Arc::clone(&ended));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(there)) else {
                    continue;
                };
                noted.lock().unwrap().connections += 1;
                pass(&near, &far, &noted, |seen| &mut seen.there);
                pass(&far, &near, &noted, |seen| &mut seen.back);
            }
        });
        Self {
            address,
            port,
            ended,
            seen,
        }
    }

    /// Its near end.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Bytes that went there and back so far.
    pub fn bytes(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.there.len(), seen.back.len())
    }

    /// CRLFs outside of messages that went there and back so far, as long as the messages had no bodies and were not encrypted.
    pub fn line_feeds(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (line_feeds(&seen.there), line_feeds(&seen.back))
    }

    /// Waits until nothing has passed for half a second.
    #[track_caller]
    pub fn wait_quiet(&self) {
        wait::until(seconds(10), "the wire is quiet", || {
            let last = self.seen.lock().unwrap().last;
            (last.elapsed() > Duration::from_millis(500)).then_some(())
        });
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address.port(self.port));
    }
}

fn pass(
    from: &TcpStream,
    to: &TcpStream,
    seen: &Arc<Mutex<Seen>>,
    which: fn(&mut Seen) -> &mut Vec<u8>,
) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let seen = Arc::clone(seen);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            {
                let mut seen = seen.lock().unwrap();
                which(&mut seen).extend_from_slice(&buffer[..length]);
                seen.last = Instant::now();
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    });
}

fn line_feeds(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        if let Some(rest) = bytes.strip_prefix(b"\r\n") {
            (bytes, count) = (rest, count + 1);
        } else {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            bytes = end.map_or(&[], |end| &bytes[end + 4..]);
        }
    }
    count
}
