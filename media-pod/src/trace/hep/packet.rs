//! A HEP3 packet: what a collector is told of one message.
//!
//! HEP3 (EEP) is `HEP3`, the length of all, and chunks: vendor (0: generic), type, length with this header, value; all numbers
//! big-endian. A packet has one address family.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use ringwire_sip::transaction::Transport;

/// The largest that fits into a UDP datagram over IPv4.
const MAX_PACKET: usize = 65_507;

/// Types of generic chunks.
mod chunk {
    /// `AF_INET` or `AF_INET6` as Linux numbers them, one byte.
    pub const FAMILY: u16 = 0x01;
    /// As in the IP header, one byte.
    pub const PROTOCOL: u16 = 0x02;
    pub const IPV4_SOURCE: u16 = 0x03;
    pub const IPV4_DESTINATION: u16 = 0x04;
    pub const IPV6_SOURCE: u16 = 0x05;
    pub const IPV6_DESTINATION: u16 = 0x06;
    pub const SOURCE_PORT: u16 = 0x07;
    pub const DESTINATION_PORT: u16 = 0x08;
    pub const SECONDS: u16 = 0x09;
    pub const MICROSECONDS: u16 = 0x0a;
    /// What the payload is, one byte.
    pub const PAYLOAD_TYPE: u16 = 0x0b;
    pub const CAPTURE_ID: u16 = 0x0c;
    pub const PASSWORD: u16 = 0x0e;
    pub const PAYLOAD: u16 = 0x0f;
    /// What messages of one call have in common.
    pub const CORRELATION_ID: u16 = 0x11;
    /// Which of the senders with the same capture ID.
    pub const NODE: u16 = 0x13;
}

const SIP: u8 = 1;

/// A message and how it went.
pub struct Packet<'a> {
    /// When.
    pub at: Timestamp,
    /// Over what.
    pub transport: Transport,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// By which the collector knows the gateway.
    pub capture_id: u32,
    /// What the collector asks for.
    pub password: Option<&'a str>,
    /// The pod.
    pub node: &'a str,
    /// The Call-ID.
    pub call_id: &'a str,
    /// The message.
    pub message: &'a [u8],
}

impl Packet<'_> {
    /// The bytes; `None` if they fit into no datagram.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(256 + self.message.len());
        out.extend_from_slice(b"HEP3\0\0");
        self.addresses(&mut out)?;
        let protocol = match self.transport {
            Transport::Udp => 17,
            // What is inside of TLS has no number of its own.
            Transport::Tcp | Transport::Tls => 6,
        };
        put(&mut out, chunk::PROTOCOL, &[protocol])?;
        put(
            &mut out,
            chunk::SOURCE_PORT,
            &self.source.port().to_be_bytes(),
        )?;
        put(
            &mut out,
            chunk::DESTINATION_PORT,
            &self.destination.port().to_be_bytes(),
        )?;
        let seconds = u32::try_from(self.at.as_second()).unwrap_or_default();
        let microseconds = u32::try_from(self.at.subsec_microsecond()).unwrap_or_default();
        put(&mut out, chunk::SECONDS, &seconds.to_be_bytes())?;
        put(&mut out, chunk::MICROSECONDS, &microseconds.to_be_bytes())?;
        put(&mut out, chunk::PAYLOAD_TYPE, &[SIP])?;
        put(&mut out, chunk::CAPTURE_ID, &self.capture_id.to_be_bytes())?;
        put(&mut out, chunk::NODE, self.node.as_bytes())?;
        if let Some(password) = self.password {
            put(&mut out, chunk::PASSWORD, password.as_bytes())?;
        }
        put(&mut out, chunk::CORRELATION_ID, self.call_id.as_bytes())?;
        put(&mut out, chunk::PAYLOAD, self.message)?;
        if out.len() > MAX_PACKET {
            return None;
        }
        let length = u16::try_from(out.len()).ok()?;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        Some(out)
    }

    fn addresses(&self, out: &mut Vec<u8>) -> Option<()> {
        if let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.source.ip(), self.destination.ip())
        {
            put(out, chunk::FAMILY, &[2])?;
            put(out, chunk::IPV4_SOURCE, &source.octets())?;
            return put(out, chunk::IPV4_DESTINATION, &destination.octets());
        }
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V6(address) => address.octets(),
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        };
        put(out, chunk::FAMILY, &[10])?;
        put(out, chunk::IPV6_SOURCE, &octets(self.source))?;
        put(out, chunk::IPV6_DESTINATION, &octets(self.destination))
    }
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) -> Option<()> {
    let length = u16::try_from(value.len() + 6).ok()?;
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet<'a>(source: &str, destination: &str, message: &'a [u8]) -> Packet<'a> {
        Packet {
            at: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            transport: Transport::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            capture_id: 2001,
            password: Some("pw"),
            node: "r-0",
            call_id: "a@h",
            message,
        }
    }

    /// The values of chunks by type.
    fn chunks(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(&bytes[..4], b"HEP3");
        assert_eq!(usize::from(number(4)), bytes.len());
        let (mut at, mut found) = (6, Vec::new());
        while at < bytes.len() {
            assert_eq!(number(at), 0, "vendor");
            let length = usize::from(number(at + 4));
            found.push((number(at + 2), bytes[at + 6..at + length].to_vec()));
            at += length;
        }
        found
    }

    #[test]
    fn tells_everything_of_a_message() {
        let bytes = packet("203.0.113.5:5062", "192.0.2.1:5060", b"BYE")
            .encode()
            .unwrap();
        let expected: [(u16, &[u8]); 14] = [
            (0x01, &[2]),
            (0x03, &[203, 0, 113, 5]),
            (0x04, &[192, 0, 2, 1]),
            (0x02, &[17]),
            (0x07, &5062_u16.to_be_bytes()),
            (0x08, &5060_u16.to_be_bytes()),
            (0x09, &1_767_323_045_u32.to_be_bytes()),
            (0x0a, &678_901_u32.to_be_bytes()),
            (0x0b, &[1]),
            (0x0c, &2001_u32.to_be_bytes()),
            (0x13, b"r-0"),
            (0x0e, b"pw"),
            (0x11, b"a@h"),
            (0x0f, b"BYE"),
        ];
        let expected = expected.map(|(kind, value)| (kind, value.to_vec()));
        assert_eq!(chunks(&bytes), expected);
    }

    #[test]
    fn both_addresses_are_of_one_family() {
        let bytes = packet("[2001:db8::5]:5060", "192.0.2.1:5060", b"BYE")
            .encode()
            .unwrap();
        let all = chunks(&bytes);
        let find = |kind| &all.iter().find(|(found, _)| *found == kind).unwrap().1;
        assert_eq!(find(0x01), &[10]);
        assert_eq!(
            find(0x06)[10..],
            [0xff, 0xff, 192, 0, 2, 1],
            "IPv4-mapped (RFC 4291 section 2.5.5.2)"
        );
        assert_eq!(find(0x05).len(), 16);
    }

    #[test]
    fn what_fits_into_no_datagram_is_not_sent() {
        let packet = |message| packet("203.0.113.5:5060", "192.0.2.1:5060", message).encode();
        assert!(packet(&vec![0; 65_000]).is_some());
        assert!(packet(&vec![0; 65_500]).is_none());
        assert!(packet(&vec![0; 70_000]).is_none());
    }
}
