//! Records of DTLS 1.2 and the fragments of handshake messages in them (RFC 6347 section 4), as far as they can be read in the clear.

/// Bytes of a record's header.
pub const HEADER: usize = 13;
/// Bytes of the header of a handshake message or its fragment.
const MESSAGE: usize = 12;

pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;

/// A record that can be of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Under keys: a handshake message or an alert, header included.
    Sealed(&'a [u8]),
    ChangeCipherSpec,
    /// In the clear; its number (RFC 5246 section 7.2).
    FatalAlert(u8),
    /// Messages or fragments in the clear.
    Handshake(&'a [u8]),
}

/// A part of a handshake message, or all of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    pub kind: u8,
    /// Which of the messages that its side sends.
    pub number: u16,
    /// Bytes of the whole message.
    pub whole: usize,
    pub offset: usize,
    pub data: &'a [u8],
}

/// The records of a datagram, up to the first that cannot be read. Data, and alerts that end nothing, are passed over.
pub fn of(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (header, behind) = rest.split_at_checked(HEADER)?;
            let &[kind, 0xfe, 0xfd | 0xff, epoch, epoch_low, .., high, low] = header else {
                return None;
            };
            let clear = [epoch, epoch_low] == [0, 0];
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (body, next) = behind.split_at_checked(length)?;
            let (record, _) = rest.split_at_checked(HEADER + length)?;
            rest = next;
            let found = match (kind, clear, body) {
                (ALERT | HANDSHAKE, false, _) => Record::Sealed(record),
                (CHANGE_CIPHER_SPEC, true, [1]) => Record::ChangeCipherSpec,
                (ALERT, true, &[FATAL, description]) => Record::FatalAlert(description),
                (HANDSHAKE, true, _) => Record::Handshake(body),
                _ => continue,
            };
            return Some(found);
        }
        None
    })
}

/// The fragments in a record, up to the first that cannot be read.
pub fn fragments(body: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_at_checked(MESSAGE)?;
        let &[kind, ref sizes @ ..] = header else {
            return None;
        };
        let number = |at: usize| {
            let bytes = sizes.get(at..at + 3)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
            )
        };
        let &[_, _, _, high, low, ..] = sizes else {
            return None;
        };
        let (whole, offset, length) = (number(0)?, number(5)?, number(8)?);
        let (data, next) = behind.split_at_checked(length)?;
        rest = next;
        (offset + length <= whole).then_some(Fragment {
            kind,
            number: u16::from_be_bytes([high, low]),
            whole,
            offset,
            data,
        })
    })
}

/// The header of a record in the clear. Lengths here are those of what [`Fragment`]s were put together to, and fit.
pub fn header(kind: u8, number: u32, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = number.to_be_bytes();
    let [.., high, low] = length.to_be_bytes();
    [kind, 0xfe, 0xfd, 0, 0, 0, 0, a, b, c, d, high, low]
}

/// The header of a message that is in one piece.
pub fn message_header(kind: u8, number: u16, length: usize) -> [u8; MESSAGE] {
    let [.., a, b, c] = length.to_be_bytes();
    let [high, low] = number.to_be_bytes();
    [kind, a, b, c, high, low, 0, 0, 0, a, b, c]
}
