//! What a datagram of a handshake must look like before the DTLS library gets it.
//!
//! Until there are keys, anybody who can send to the port can send records. The library answers one that it cannot read with a fatal alert, keeps
//! handshake messages until they are whole, and joins their fragments one within the other. So what cannot be read is dropped here, which
//! is what RFC 6347 section 4.1.2.7 asks for, and there is an end to what an association keeps.

/// Bytes of a record's header (RFC 6347 section 4.1).
const RECORD: usize = 13;
/// Bytes of the header of a handshake message or its fragment (RFC 6347 section 4.2.2).
const MESSAGE: usize = 12;
/// The longest handshake message: a chain of large certificates.
const LONGEST: usize = 16 << 10;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;

/// Records and fragments that an association takes. A handshake has some ten, its repetitions within 15 s some hundred.
#[derive(Debug)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Self(512)
    }
}

/// What a datagram has that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The number of a fatal alert that can be read (RFC 5246 section 7.2).
    pub refusal: Option<u8>,
}

impl Budget {
    /// Whether the library may have that datagram, and what is in it.
    pub fn admit(&mut self, datagram: &[u8]) -> Option<Seen> {
        let mut seen = Seen::default();
        let mut rest = datagram;
        let mut parts = 0;
        while !rest.is_empty() {
            let (header, behind) = rest.split_at_checked(RECORD)?;
            let &[kind, 0xfe, 0xfd | 0xff, epoch, epoch_low, .., high, low] = header else {
                return None;
            };
            let clear = [epoch, epoch_low] == [0, 0];
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (body, next) = behind.split_at_checked(length)?;
            parts += match kind {
                CHANGE_CIPHER_SPEC => (body == [1]).then_some(1)?,
                ALERT | HANDSHAKE if !clear => 1,
                ALERT => {
                    // A warning ends nothing, and closing what has not begun neither.
                    let &[FATAL, description] = body else {
                        return None;
                    };
                    seen.refusal = Some(description);
                    1
                }
                HANDSHAKE => fragments(body)?,
                // Data: there is none beside media.
                _ => return None,
            };
            rest = next;
        }
        self.0 = self.0.checked_sub(parts)?;
        (parts > 0).then_some(seen)
    }
}

/// How many messages or fragments a record has.
fn fragments(mut body: &[u8]) -> Option<u32> {
    let mut count = 0;
    while !body.is_empty() {
        let (header, behind) = body.split_at_checked(MESSAGE)?;
        let number = |at: usize| {
            let bytes = header.get(at..at + 3)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
            )
        };
        let (whole, offset, length) = (number(1)?, number(6)?, number(9)?);
        if whole > LONGEST || offset + length > whole || (length == 0 && whole > 0) {
            return None;
        }
        body = behind.get(length..)?;
        count += 1;
    }
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0];
        record.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend_from_slice(body);
        record
    }

    fn fragment(whole: u32, offset: u32, length: usize) -> Vec<u8> {
        let number = |number: u32| number.to_be_bytes()[1..].to_vec();
        let length_bytes = number(u32::try_from(length).unwrap());
        let header = [
            vec![1],
            number(whole),
            vec![0, 0],
            number(offset),
            length_bytes,
        ];
        [header.concat(), vec![7; length]].concat()
    }

    #[test]
    fn what_cannot_be_read_is_dropped() {
        let good = record(HANDSHAKE, 0, &fragment(80, 0, 80));
        let cases = [
            vec![],
            vec![HANDSHAKE; 12],
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            [&[HANDSHAKE, 3, 3], &good[3..]].concat(),
            record(CHANGE_CIPHER_SPEC, 0, &[]),
            record(CHANGE_CIPHER_SPEC, 0, &[2]),
            record(ALERT, 0, &[1, 0]),
            record(ALERT, 0, &[2]),
            record(23, 0, b"data"),
            record(23, 1, b"data"),
            record(HANDSHAKE, 0, &[]),
            record(HANDSHAKE, 0, &fragment(80, 0, 80)[..11]),
            record(HANDSHAKE, 0, &fragment(80, 0, 81)),
            record(HANDSHAKE, 0, &fragment(80, 70, 20)),
            record(HANDSHAKE, 0, &fragment(200, 100, 0)),
            record(HANDSHAKE, 0, &fragment(0x4001, 0, 100)),
        ];
        for case in cases {
            assert_eq!(Budget::default().admit(&case), None, "{case:?}");
        }
    }

    #[test]
    fn what_a_handshake_has_is_admitted() {
        let cases = [
            record(HANDSHAKE, 0, &fragment(80, 0, 80)),
            record(HANDSHAKE, 0, &fragment(0, 0, 0)),
            record(HANDSHAKE, 0, &fragment(200, 0, 1)),
            record(HANDSHAKE, 0, &fragment(200, 190, 10)),
            record(
                HANDSHAKE,
                0,
                &[fragment(0, 0, 0), fragment(64, 0, 64)].concat(),
            ),
            record(CHANGE_CIPHER_SPEC, 0, &[1]),
            record(HANDSHAKE, 1, b"sealed"),
            record(ALERT, 1, b"sealed"),
            [
                record(CHANGE_CIPHER_SPEC, 0, &[1]),
                record(HANDSHAKE, 1, b"sealed"),
            ]
            .concat(),
        ];
        for case in cases {
            assert_eq!(
                Budget::default().admit(&case),
                Some(Seen::default()),
                "{case:?}"
            );
        }
        let refusal = Budget::default()
            .admit(&record(ALERT, 0, &[2, 40]))
            .unwrap();
        assert_eq!(refusal.refusal, Some(40));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut budget = Budget::default();
        let two = [fragment(80, 0, 80), fragment(80, 0, 80)].concat();
        let datagram = record(HANDSHAKE, 0, &two);
        let admitted = (0..1_000).filter(|_| budget.admit(&datagram).is_some());
        assert_eq!(admitted.count(), 256);
    }
}
