//! Loopback addresses: each peer of each test has one of its own, so that tests run side by side with the ports that people know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait;

/// A port that nobody uses: whoever holds it holds the address.
const CLAIM_PORT: u16 = 19_999;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An address in 127.0.0.0/8 that belongs to one holder at a time, on this machine.
pub struct Address {
    ip: Ipv4Addr,
    _claim: UdpSocket,
}

impl Address {
    /// Takes a free one.
    pub fn claim() -> Self {
        for _ in 0..10_000 {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            let number =
                std::process::id().wrapping_mul(257).wrapping_add(turn) % (200 * 250 * 250);
            let part = |divisor: u32, limit: u32| (number / divisor % limit) as u8;
            let ip = Ipv4Addr::new(
                127,
                20 + part(62_500, 200),
                1 + part(250, 250),
                1 + part(1, 250),
            );
            if let Ok(claim) = UdpSocket::bind((ip, CLAIM_PORT)) {
                return Self { ip, _claim: claim };
            }
        }
        panic!("no loopback address is free");
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// With a port.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }
}

/// The only loopback address of IPv6, which belongs to one test at a time.
pub struct Loopback6 {
    _claim: UdpSocket,
}

impl Loopback6 {
    /// Waits until nobody has it.
    pub fn claim() -> Self {
        let claim = wait::until(Duration::from_secs(120), "[::1] to be free", || {
            UdpSocket::bind((Ipv6Addr::LOCALHOST, CLAIM_PORT)).ok()
        });
        Self { _claim: claim }
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::LOCALHOST.into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)
    }
}
