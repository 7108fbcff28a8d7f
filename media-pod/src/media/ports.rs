//! RTP sockets: even ports of the configured range, one for each call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UdpSocket;

/// Hands out ports in turn, so that a port rests as long as possible after a call and stray packets find nobody.
#[derive(Debug, Default)]
pub struct Ports {
    next: AtomicU32,
}

impl Ports {
    /// Starts at a random place: a pod that took over a node's address doesn't begin where its predecessor did.
    pub fn new() -> Self {
        Self {
            next: AtomicU32::new(rand::random()),
        }
    }

    /// Binds an even port of `range` (first and last) at `address`. An error when all are taken.
    pub fn bind(&self, address: IpAddr, (first, last): (u16, u16)) -> io::Result<UdpSocket> {
        let first = u32::from(first) + u32::from(first % 2);
        // A pair for each call: RTP on the even port, the odd one is RTCP's (RFC 3550 section 11).
        let pairs = (u32::from(last) + 1).saturating_sub(first) / 2;
        for _ in 0..pairs {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % pairs;
            let Ok(port) = u16::try_from(first + turn * 2) else {
                continue;
            };
            match std::net::UdpSocket::bind(SocketAddr::new(address, port)) {
                Ok(socket) => {
                    socket.set_nonblocking(true)?;
                    return UdpSocket::from_std(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "every RTP port is taken",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hands_out_each_even_port_once() {
        let ports = Ports::new();
        let address = IpAddr::from([127, 0, 0, 1]);
        let sockets: Vec<UdpSocket> = (0..3)
            .map(|_| ports.bind(address, (21_001, 21_007)).unwrap())
            .collect();
        let mut numbers: Vec<u16> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [21_002, 21_004, 21_006]);
        assert!(ports.bind(address, (21_001, 21_007)).is_err());
    }
}
