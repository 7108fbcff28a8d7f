//! RTP and RTCP sockets: pairs of ports of the configured range, one for each call.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

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

    /// Binds a pair of `range` (first and last port) at `address`: the even port for RTP, the odd one after it for RTCP (RFC 3550
    /// section 11). An error when all are taken.
    pub fn bind(
        &self,
        address: IpAddr,
        (first, last): (u16, u16),
    ) -> io::Result<(UdpSocket, UdpSocket)> {
        let first = u32::from(first) + u32::from(first % 2);
        let pairs = (u32::from(last) + 1).saturating_sub(first) / 2;
        for _ in 0..pairs {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % pairs;
            let Ok(port) = u16::try_from(first + turn * 2) else {
                continue;
            };
            let pair = open(address, port).and_then(|rtp| Ok((rtp, open(address, port + 1)?)));
            match pair {
                Ok(pair) => return Ok(pair),
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

fn open(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_each_pair_once() {
        let ports = Ports::new();
        let address = IpAddr::from([127, 0, 0, 1]);
        let pairs: Vec<(UdpSocket, UdpSocket)> = (0..3)
            .map(|_| ports.bind(address, (21_001, 21_007)).unwrap())
            .collect();
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let mut numbers: Vec<(u16, u16)> = pairs
            .iter()
            .map(|(rtp, rtcp)| (port(rtp), port(rtcp)))
            .collect();
        numbers.sort_unstable();
        assert_eq!(
            numbers,
            [(21_002, 21_003), (21_004, 21_005), (21_006, 21_007)]
        );
        assert!(ports.bind(address, (21_001, 21_007)).is_err());
    }
}
