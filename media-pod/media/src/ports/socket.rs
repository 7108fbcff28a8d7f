//! Sockets for RTP and RTCP.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::drops;

/// Receive buffer to ask for; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Expedited forwarding (RFC 3246), as the whole byte.
const EXPEDITED: u32 = 0xb8;

/// A pair of sockets that do not wait.
#[derive(Debug)]
pub struct Sockets {
    /// The even port, for RTP.
    pub rtp: UdpSocket,
    /// The odd one after it, for RTCP.
    pub reports: UdpSocket,
    /// Bytes that the kernel keeps for RTP, its own overhead included.
    pub receive_buffer: usize,
    /// By what the kernel calls the one for RTP in its tables.
    pub inode: Option<u64>,
}

impl Sockets {
    /// Binds a port that is even and the one after it (RFC 3550 section 11).
    pub fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let rtp = open(SocketAddr::new(address, port))?;
        let reports = open(SocketAddr::new(address, port.saturating_add(1)))?;
        Ok(Self {
            receive_buffer: SockRef::from(&rtp).recv_buffer_size()?,
            inode: drops::inode(&rtp),
            rtp,
            reports,
        })
    }
}

/// Has the kernel note when datagrams come in on a socket. Without, what came is as late as it is read.
pub fn note_times(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    // What is marked goes faster where networks look at it; without, it still goes.
    if address.is_ipv6() {
        let _ = socket.set_tclass_v6(EXPEDITED);
    }
    let _ = socket.set_tos_v4(EXPEDITED);
    let _ = note_times(&socket);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_marked_for_expedited_forwarding_in_both_families() {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let bound = (21_400..21_500)
                .step_by(2)
                .find_map(|port| Sockets::bind(address, port).ok());
            let sockets = bound.unwrap();
            for socket in [&sockets.rtp, &sockets.reports] {
                let socket = SockRef::from(socket);
                let mark = if address.is_ipv4() {
                    socket.tos_v4()
                } else {
                    socket.tclass_v6()
                };
                assert_eq!(mark.unwrap(), EXPEDITED);
            }
            let ports = [&sockets.rtp, &sockets.reports].map(|s| s.local_addr().unwrap().port());
            assert_eq!(ports[0] % 2, 0);
            assert_eq!(ports[0] + 1, ports[1]);
            assert!(sockets.receive_buffer >= 212_992);
        }
    }

    #[test]
    fn what_has_no_room_is_counted_by_the_kernel() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let bound = (21_500..21_600)
            .step_by(2)
            .find_map(|port| Sockets::bind(address, port).ok());
        let sockets = bound.unwrap();
        SockRef::from(&sockets.rtp).set_recv_buffer_size(0).unwrap();
        let sender = UdpSocket::bind((address, 0)).unwrap();
        for _ in 0..100 {
            let to = sockets.rtp.local_addr().unwrap();
            sender.send_to(&[0; 172], to).unwrap();
        }
        let mut drops = drops::all();
        let (_, dropped) = drops
            .find(|(inode, _)| Some(*inode) == sockets.inode)
            .unwrap();
        assert!((1..100).contains(&dropped), "{dropped}");
    }
}
