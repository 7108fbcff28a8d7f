//! STUN (RFC 8489), as far as ICE needs it of one who only answers: binding requests are read, and answered.
//!
//! What is read stays where it is: nothing here allocates, and a datagram of strangers costs one look at each of its attributes.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// Longest message that is read. Checks have some 100 bytes.
pub const LONGEST: usize = 1280;
/// Bytes of the longest answer: a refusal that names attributes, with integrity and fingerprint.
pub const REPLY_BYTES: usize = 96;

const HEADER_BYTES: usize = 20;
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_INDICATION: u16 = 0x0011;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;

const INTEGRITY_BYTES: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Attributes that a refusal names.
const NAMED: usize = 4;

/// Why a request is refused: the code of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: it has no MESSAGE-INTEGRITY.
    BadRequest = 400,
    /// 401: that was made with another password.
    Unauthenticated = 401,
    /// 420: it has attributes that have to be understood, and are not.
    UnknownAttribute = 420,
    /// 487: the sender has the role that is ours.
    RoleConflict = 487,
}

/// A message that was read.
#[derive(Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: u16,
    username: Option<&'a [u8]>,
    /// Where MESSAGE-INTEGRITY begins, and what it says.
    integrity: Option<(usize, &'a [u8])>,
    fingerprint: bool,
    priority: u32,
    nominates: bool,
    controlled: bool,
    /// Attributes that are not known and have to be: the first ones.
    unknown: [u16; NAMED],
    unknowns: usize,
}

/// Whether a datagram is of STUN, beside RTP and DTLS on one port (RFC 7983).
pub fn is_meant(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

impl<'a> Message<'a> {
    /// Reads a message. Nothing if it is none, or its fingerprint does not fit.
    pub fn read(datagram: &'a [u8]) -> Option<Self> {
        let length = datagram.len();
        if !(HEADER_BYTES..=LONGEST).contains(&length)
            || usize::from(word(datagram, 2)?) != length - HEADER_BYTES
            || !length.is_multiple_of(4)
            || datagram.get(4..8)? != COOKIE
        {
            return None;
        }
        let mut message = Self {
            bytes: datagram,
            kind: word(datagram, 0)?,
            username: None,
            integrity: None,
            fingerprint: false,
            priority: 0,
            nominates: false,
            controlled: false,
            unknown: [0; NAMED],
            unknowns: 0,
        };
        let mut at = HEADER_BYTES;
        while at < length {
            let (kind, size) = (word(datagram, at)?, usize::from(word(datagram, at + 2)?));
            let value = datagram.get(at + 4..at + 4 + size)?;
            message.take(at, kind, value)?;
            at += 4 + size.next_multiple_of(4);
        }
        Some(message)
    }

    /// Takes the attribute that begins there.
    fn take(&mut self, at: usize, kind: u16, value: &'a [u8]) -> Option<()> {
        if self.fingerprint {
            // It is the last one (section 14.7).
            return None;
        }
        if kind == FINGERPRINT {
            let said = u32::from_be_bytes(value.try_into().ok()?);
            self.fingerprint = said == crc(self.bytes.get(..at)?) ^ FINGERPRINT_XOR;
            return self.fingerprint.then_some(());
        }
        if self.integrity.is_some() {
            // Nobody vouches for what comes behind it (section 14.5).
            return Some(());
        }
        match kind {
            USERNAME => {
                self.username.get_or_insert(value);
            }
            MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => {
                self.integrity = Some((at, value));
            }
            MESSAGE_INTEGRITY => return None,
            PRIORITY => self.priority = u32::from_be_bytes(value.try_into().ok()?),
            USE_CANDIDATE => self.nominates = true,
            ICE_CONTROLLED => self.controlled = true,
            REALM | NONCE | MESSAGE_INTEGRITY_SHA256 => {}
            0..0x8000 => {
                if let Some(place) = self.unknown.get_mut(self.unknowns) {
                    *place = kind;
                    self.unknowns += 1;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Whether it asks for an answer.
    pub fn is_request(&self) -> bool {
        self.kind == BINDING_REQUEST
    }

    /// Whether it only keeps a way open.
    pub fn is_indication(&self) -> bool {
        self.kind == BINDING_INDICATION
    }

    /// Whose password it was made with: what is before the colon of its user name (RFC 8445 section 7.3).
    pub fn ufrag(&self) -> Option<&'a str> {
        let username = self.username?;
        let colon = username.iter().position(|byte| *byte == b':')?;
        std::str::from_utf8(username.get(..colon)?).ok()
    }

    /// The priority that the sender's side of this way has.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Whether packets are to go where it comes from.
    pub fn nominates(&self) -> bool {
        self.nominates
    }

    /// Whether the request is refused by one with that password, who leads nothing.
    pub fn verify(&self, key: &hmac::Key) -> Result<(), Refusal> {
        let (at, said) = self.integrity.ok_or(Refusal::BadRequest)?;
        let made = integrity(self.bytes.get(..at).unwrap_or_default(), key);
        aws_lc_rs::constant_time::verify_slices_are_equal(made.as_ref(), said)
            .map_err(|_| Refusal::Unauthenticated)?;
        if self.unknowns > 0 {
            return Err(Refusal::UnknownAttribute);
        }
        if self.controlled {
            return Err(Refusal::RoleConflict);
        }
        Ok(())
    }

    /// The answer: where the request came from, as seen here.
    pub fn accept(&self, from: SocketAddr, key: &hmac::Key) -> Reply {
        let mut reply = Reply::begin(BINDING_SUCCESS, self);
        // The mask is the cookie and the transaction, which follow each other.
        let mask = self.bytes.get(4..HEADER_BYTES).unwrap_or_default();
        let mut value = [0; 20];
        let port = from.port() ^ 0x2112;
        value[2..4].copy_from_slice(&port.to_be_bytes());
        let size = match from.ip() {
            IpAddr::V4(address) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&address.octets());
                8
            }
            IpAddr::V6(address) => {
                value[1] = 2;
                value[4..].copy_from_slice(&address.octets());
                20
            }
        };
        for (byte, mask) in value[4..size].iter_mut().zip(mask) {
            *byte ^= mask;
        }
        reply.put(XOR_MAPPED_ADDRESS, &value[..size]);
        reply.seal(key);
        reply.stamp();
        reply
    }

    /// The answer to a request that is refused. It is no longer than the request; only who has the password is given proof of ours.
    pub fn refuse(&self, refusal: Refusal, key: &hmac::Key) -> Reply {
        let mut reply = Reply::begin(BINDING_ERROR, self);
        let code = refusal as u16;
        let (class, number) = ((code / 100) as u8, (code % 100) as u8);
        reply.put(ERROR_CODE, &[0, 0, class, number]);
        if refusal == Refusal::UnknownAttribute {
            let mut names = [0; 2 * NAMED];
            for (place, name) in names.chunks_exact_mut(2).zip(self.unknown) {
                place.copy_from_slice(&name.to_be_bytes());
            }
            reply.put(UNKNOWN_ATTRIBUTES, &names[..2 * self.unknowns]);
        }
        if matches!(refusal, Refusal::UnknownAttribute | Refusal::RoleConflict) {
            reply.seal(key);
        }
        if self.fingerprint {
            reply.stamp();
        }
        reply
    }
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    bytes: [u8; REPLY_BYTES],
    length: usize,
}

impl Reply {
    fn begin(kind: u16, request: &Message<'_>) -> Self {
        let mut reply = Self {
            bytes: [0; REPLY_BYTES],
            length: HEADER_BYTES,
        };
        let cookie_and_transaction = request.bytes.get(4..HEADER_BYTES).unwrap_or_default();
        reply.bytes[..2].copy_from_slice(&kind.to_be_bytes());
        for (place, byte) in reply.bytes[4..].iter_mut().zip(cookie_and_transaction) {
            *place = *byte;
        }
        reply
    }

    /// What goes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// All that is put into an answer fits: see [`REPLY_BYTES`].
    fn put(&mut self, kind: u16, value: &[u8]) {
        let end = self.length + 4 + value.len().next_multiple_of(4);
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place[..2].copy_from_slice(&kind.to_be_bytes());
            place[2..4].copy_from_slice(&(value.len() as u16).to_be_bytes());
            place[4..4 + value.len()].copy_from_slice(value);
            self.length = end;
            self.tell_length(end);
        }
    }

    fn tell_length(&mut self, end: usize) {
        let length = (end - HEADER_BYTES) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }

    /// Adds MESSAGE-INTEGRITY.
    fn seal(&mut self, key: &hmac::Key) {
        let made = integrity(self.bytes(), key);
        self.put(MESSAGE_INTEGRITY, made.as_ref());
    }

    /// Adds FINGERPRINT; the length that it covers has it already.
    fn stamp(&mut self) {
        self.tell_length(self.length + 8);
        let made = crc(self.bytes()) ^ FINGERPRINT_XOR;
        self.put(FINGERPRINT, &made.to_be_bytes());
    }
}

/// Of what stands before MESSAGE-INTEGRITY; the length that it covers ends with it (section 14.5).
fn integrity(before: &[u8], key: &hmac::Key) -> hmac::Tag {
    let end = before.len() + 4 + INTEGRITY_BYTES;
    let length = end.saturating_sub(HEADER_BYTES) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(before.get(..2).unwrap_or_default());
    context.update(&length.to_be_bytes());
    context.update(before.get(4..).unwrap_or_default());
    context.sign()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(word))
}

/// CRC-32 of ITU-T V.42.
fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc: u32, byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let (mut value, mut bit) = (index as u32, 0);
        while bit < 8 {
            value = (value >> 1) ^ (0xEDB8_8320 & (value & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
#[path = "stun_tests.rs"]
pub(crate) mod tests;
