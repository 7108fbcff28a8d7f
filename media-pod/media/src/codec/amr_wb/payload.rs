//! How RTP carries frames of AMR-WB (RFC 4867 section 4): a request for the mode of the other direction, a table of contents, the frames.
//!
//! In the octet-aligned format each of these begins on an octet; in the bandwidth-efficient one nothing is padded but the end.

/// Speech bits by frame type: nine modes, and comfort noise (3GPP TS 26.201 table 2).
const FRAME_BITS: [usize; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];
/// A frame that was lost on the way to the sender, and none because of discontinuous transmission.
pub const LOST: u8 = 14;
const NO_DATA: u8 = 15;
/// No mode is asked for.
const NO_REQUEST: u8 = 15;
const HIGHEST_MODE: u8 = 8;
/// Frames of one packet that are taken: 240 ms.
pub const MAX_FRAMES: usize = 12;
/// Octets of the longest frame in the storage format: a header, and 477 bits.
pub const FRAME_BYTES: usize = 61;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Section 4.3.
    BandwidthEfficient,
    /// Section 4.4.
    OctetAligned,
}

impl Format {
    /// Bits of the request and of an entry of the table, the padding with them.
    fn header(self) -> (usize, usize) {
        match self {
            Self::BandwidthEfficient => (4, 6),
            Self::OctetAligned => (8, 8),
        }
    }

    /// Bits that so many take.
    fn room(self, bits: usize) -> usize {
        match self {
            Self::BandwidthEfficient => bits,
            Self::OctetAligned => bits.next_multiple_of(8),
        }
    }
}

/// What is in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The mode that the sender wants to get.
    pub request: Option<u8>,
    frames: [Frame; MAX_FRAMES],
    count: usize,
}

/// A frame: its type, whether it is whole, and where its bits begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    kind: u8,
    good: bool,
    begin: usize,
}

/// `count` bits from `at` on, 8 at most; beyond the end they are zero.
fn bits(payload: &[u8], at: usize, count: usize) -> u8 {
    let octet = |at: usize| u16::from(payload.get(at).copied().unwrap_or_default());
    let both = octet(at / 8) << 8 | octet(at / 8 + 1);
    let shifted = both << (at % 8) >> (16 - count);
    shifted as u8
}

/// Reads a payload. None if there is no frame, if there are too many, or one of a type that does not exist: such packets are to be left out
/// (section 4.3.2). A frame that is cut off is a bad one.
pub fn read(payload: &[u8], format: Format) -> Option<Contents> {
    let (mut at, entry) = format.header();
    let total = payload.len() * 8;
    let request = bits(payload, 0, 4);
    let mut contents = Contents {
        request: (request <= HIGHEST_MODE).then_some(request),
        frames: [Frame {
            kind: NO_DATA,
            good: true,
            begin: 0,
        }; MAX_FRAMES],
        count: 0,
    };
    loop {
        // More of them follow; the type; the quality.
        let head = bits(payload, at, 6);
        at += entry;
        let kind = head >> 1 & 15;
        if at > total || (10..LOST).contains(&kind) {
            return None;
        }
        *contents.frames.get_mut(contents.count)? = Frame {
            kind,
            good: head & 1 == 1,
            begin: 0,
        };
        contents.count += 1;
        if head & 0x20 == 0 {
            break;
        }
    }
    for frame in &mut contents.frames[..contents.count] {
        let length = FRAME_BITS
            .get(usize::from(frame.kind))
            .copied()
            .unwrap_or(0);
        frame.begin = at;
        frame.good &= at + length <= total;
        at += format.room(length);
    }
    Some(contents)
}

impl Contents {
    /// The frames, in the order in which they are played.
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.count]
    }
}

impl Frame {
    /// The frame of this payload in the storage format. One that is bad is a lost one.
    pub fn store(self, payload: &[u8]) -> [u8; FRAME_BYTES] {
        let mut stored = [0; FRAME_BYTES];
        let Self { kind, good, begin } = self;
        let kind = if good { kind } else { LOST };
        stored[0] = kind << 3 | 4;
        let length = FRAME_BITS.get(usize::from(kind)).copied().unwrap_or(0);
        for (octet, at) in stored[1..].iter_mut().zip((0..length).step_by(8)) {
            let count = (length - at).min(8);
            *octet = bits(payload, begin + at, count) << (8 - count);
        }
        stored
    }
}

/// Writes the payload of one frame of the storage format, without a request. Gives its length; 0 if there is no room, or no such frame.
pub fn write(frame: &[u8], format: Format, payload: &mut [u8]) -> usize {
    let Some((header, speech)) = frame.split_first() else {
        return 0;
    };
    let kind = header >> 3 & 15;
    let Some(length) = FRAME_BITS.get(usize::from(kind)) else {
        return 0;
    };
    let (begin, entry) = format.header();
    let octets = (begin + entry + length).div_ceil(8);
    let Some(payload) = payload
        .get_mut(..octets)
        .filter(|_| speech.len() >= length.div_ceil(8))
    else {
        return 0;
    };
    payload.fill(0);
    put(payload, 0, NO_REQUEST << 4);
    // The last of its kind, and good.
    put(payload, begin, (kind << 1 | 1) << 2);
    for (at, octet) in (0..*length).step_by(8).zip(speech) {
        let left = (length - at).min(8);
        put(
            payload,
            begin + entry + at,
            octet & (0xff00_u16 >> left) as u8,
        );
    }
    octets
}

/// Puts the octet's bits at this place, where there were none.
fn put(payload: &mut [u8], at: usize, octet: u8) {
    let [first, second] = (u16::from(octet) << 8 >> (at % 8)).to_be_bytes();
    for (place, part) in payload[at / 8..].iter_mut().zip([first, second]) {
        *place |= part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Octets of the longest payload that is made.
    const PAYLOAD_BYTES: usize = 2 + FRAME_BYTES;
    const FORMATS: [Format; 2] = [Format::BandwidthEfficient, Format::OctetAligned];

    /// A frame of this type in the storage format, with bits that differ.
    fn frame(kind: u8) -> Vec<u8> {
        let length = FRAME_BITS[usize::from(kind)];
        let mut frame = vec![kind << 3 | 4];
        frame.extend((0..length.div_ceil(8)).map(|n| (n * 37 + 201) as u8));
        // Its last octet ends in padding.
        if let Some(last) = frame.last_mut() {
            *last &= (0xff00_u16 >> ((length - 1) % 8 + 1)) as u8;
        }
        frame
    }

    #[test]
    fn one_frame_of_each_type_comes_back_in_both_formats() {
        for format in FORMATS {
            for kind in 0..=9 {
                let frame = frame(kind);
                let mut payload = [0xff; PAYLOAD_BYTES];
                let length = write(&frame, format, &mut payload);
                let payload = &payload[..length];
                let contents = read(payload, format).unwrap();
                assert_eq!(contents.request, None);
                let [found] = contents.frames() else {
                    panic!("{contents:?}");
                };
                assert_eq!(
                    found.store(payload)[..frame.len()],
                    frame,
                    "{format:?} {kind}"
                );
            }
        }
    }

    #[test]
    fn the_bits_are_where_the_drawings_of_the_rfc_have_them() {
        // RFC 4867 section 4.3.5.1: one frame, FT=6 there of AMR; here of AMR-WB in mode 0 (132 bits: 4+6+132 = 142, 2 of padding).
        let mut payload = [0; PAYLOAD_BYTES];
        let mut speech = vec![4];
        speech.extend([0xff; 17]);
        let length = write(&speech, Format::BandwidthEfficient, &mut payload);
        assert_eq!(length, 18);
        // CMR=1111, F=0, FT=0000 Q=1, then ones.
        assert_eq!(payload[0], 0b1111_0000);
        assert_eq!(payload[1], 0b0111_1111);
        assert_eq!(payload[17], 0b1111_1100);
        // Section 4.4.5.1: CMR and four reserved bits, then F, FT, Q and two of padding.
        let length = write(&speech, Format::OctetAligned, &mut payload);
        assert_eq!(length, 19);
        assert_eq!(payload[..3], [0b1111_0000, 0b0000_0100, 0xff]);
        assert_eq!(payload[18], 0xf0);
    }

    #[test]
    fn several_frames_a_request_and_frames_without_bits_are_read() {
        // CMR=2; comfort noise, none, a frame of mode 0.
        let octets = |bits: &str| -> Vec<u8> {
            let bits: Vec<u8> = bits
                .bytes()
                .filter(|b| *b != b' ')
                .map(|b| b - b'0')
                .collect();
            bits.chunks(8)
                .map(|chunk| {
                    chunk
                        .iter()
                        .enumerate()
                        .map(|(n, bit)| bit << (7 - n))
                        .sum()
                })
                .collect()
        };
        let speech = "10".repeat(66);
        let noise = "1100".repeat(10);
        let tight = octets(&format!("0010 1 1001 1 1 1111 1 0 0000 1 {noise} {speech}"));
        let aligned = octets(&format!(
            "0010 0000 1 1001 1 00 1 1111 1 00 0 0000 1 00 {noise} {speech} 0000"
        ));
        for (payload, format) in [(tight, FORMATS[0]), (aligned, FORMATS[1])] {
            let contents = read(&payload, format).unwrap();
            assert_eq!(contents.request, Some(2));
            let stored: Vec<_> = contents
                .frames()
                .iter()
                .map(|it| it.store(&payload))
                .collect();
            assert_eq!(stored.len(), 3, "{format:?}");
            assert_eq!(stored[0][..6], [9 << 3 | 4, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]);
            assert_eq!(stored[1][..2], [15 << 3 | 4, 0]);
            assert_eq!(stored[2][..2], [4, 0xaa]);
            assert_eq!(stored[2][16..19], [0xaa, 0xa0, 0]);
        }
    }

    #[test]
    fn bad_and_cut_frames_are_lost_ones_and_unknown_types_are_refused() {
        let mut payload = [0; PAYLOAD_BYTES];
        for format in FORMATS {
            let length = write(&frame(2), format, &mut payload);
            let whole = read(&payload[..length], format).unwrap().frames()[0];
            assert_eq!(whole.store(&payload[..length])[0] >> 3, 2);
            let cut = read(&payload[..length - 1], format).unwrap().frames()[0];
            assert_eq!(cut.store(&payload[..length - 1])[0] >> 3, LOST);
        }
        // Q=0.
        let bad = [0xf0, 2 << 3, 0, 0];
        let contents = read(&bad, Format::OctetAligned).unwrap();
        assert_eq!(contents.frames()[0].store(&bad)[0] >> 3, LOST);
        for kind in 10..14 {
            assert_eq!(read(&[0xf0, kind << 3 | 4, 0], Format::OctetAligned), None);
        }
        // No table, one that never ends, and one that is too long.
        assert_eq!(read(&[], Format::BandwidthEfficient), None);
        assert_eq!(read(&[0xf0], Format::OctetAligned), None);
        assert_eq!(read(&[0xff; 4], Format::OctetAligned), None);
        let mut long = vec![0xf0];
        long.extend([0x80 | 15 << 3 | 4; MAX_FRAMES]);
        long.push(15 << 3 | 4);
        assert_eq!(read(&long, Format::OctetAligned), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in FORMATS {
                if let Some(contents) = read(&payload, format) {
                    prop_assert!((1..=MAX_FRAMES).contains(&contents.frames().len()));
                    for frame in contents.frames() {
                        let kind = frame.store(&payload)[0] >> 3;
                        prop_assert!(kind <= 9 || kind >= LOST);
                    }
                }
            }
        }

        #[test]
        fn what_is_written_is_read(kind in 0_u8..=9, speech in proptest::collection::vec(any::<u8>(), 60)) {
            let mut stored = vec![kind << 3 | 4];
            stored.extend(&speech);
            for format in FORMATS {
                let mut payload = [0; PAYLOAD_BYTES];
                let length = write(&stored, format, &mut payload);
                let contents = read(&payload[..length], format).unwrap();
                let again = contents.frames()[0].store(&payload[..length]);
                let whole = FRAME_BITS[usize::from(kind)] / 8;
                prop_assert_eq!(&again[..=whole], &stored[..=whole]);
            }
        }
    }
}
