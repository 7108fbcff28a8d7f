use super::*;
use proptest::prelude::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

pub(crate) fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A message with these attributes; integrity by that password and a fingerprint follow, if they are wanted.
pub(crate) fn message(
    kind: u16,
    attributes: &[(u16, &[u8])],
    password: Option<&str>,
    fingerprint: bool,
) -> Vec<u8> {
    let mut bytes = [&kind.to_be_bytes()[..], &[0; 2], &COOKIE, b"transaction!"].concat();
    let put = |bytes: &mut Vec<u8>, kind: u16, value: &[u8]| {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = (bytes.len() - HEADER_BYTES) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    };
    for (kind, value) in attributes {
        put(&mut bytes, *kind, value);
    }
    if let Some(password) = password {
        let before = bytes.len();
        put(&mut bytes, MESSAGE_INTEGRITY, &[0; INTEGRITY_BYTES]);
        let made = hmac::sign(&key(password), &bytes[..before]);
        bytes[before + 4..].copy_from_slice(made.as_ref());
    }
    if fingerprint {
        let before = bytes.len();
        put(&mut bytes, FINGERPRINT, &[0; 4]);
        let made = crc(&bytes[..before]) ^ FINGERPRINT_XOR;
        bytes[before + 4..].copy_from_slice(&made.to_be_bytes());
    }
    bytes
}

/// A check as ICE makes it.
pub(crate) fn check(ufrag: &str, password: &str, nominates: bool, priority: u32) -> Vec<u8> {
    let username = format!("{ufrag}:peer");
    let priority = priority.to_be_bytes();
    let mut attributes: Vec<(u16, &[u8])> = vec![
        (USERNAME, username.as_bytes()),
        // ICE-CONTROLLING
        (0x802A, &[7; 8]),
        (PRIORITY, &priority),
    ];
    if nominates {
        attributes.push((USE_CANDIDATE, &[]));
    }
    message(BINDING_REQUEST, &attributes, Some(password), true)
}

/// An answer's code (200 of success) and whether it has integrity.
pub(crate) fn answered(reply: &Reply) -> (u16, bool) {
    let bytes = reply.bytes();
    let message = Message::read(bytes).unwrap();
    let code = if message.kind == BINDING_SUCCESS {
        200
    } else {
        assert_eq!(message.kind, BINDING_ERROR);
        assert_eq!(bytes[20..24], [0, 9, 0, 4]);
        u16::from(bytes[26]) * 100 + u16::from(bytes[27])
    };
    (code, message.integrity.is_some())
}

/// RFC 5769 section 2.1: it is from one who wants to be controlled.
const REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73,
    0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09,
    0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14,
    0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49,
    0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

/// Sections 2.2 and 2.3: answers with `SOFTWARE`, which ours have not.
const RESPONSES: [(&str, &[u8]); 2] = [
    (
        "192.0.2.1:32853",
        &[
            0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34,
            0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74,
            0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01,
            0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99,
            0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b,
            0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
        ],
    ),
    (
        "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        &[
            0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34,
            0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74,
            0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x14, 0x00, 0x02,
            0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5,
            0xbe, 0xd2, 0xb9, 0xd9, 0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6,
            0x7b, 0xf1, 0x17, 0x84, 0xc9, 0x7c, 0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41,
            0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
        ],
    ),
];

#[test]
fn the_request_of_the_rfc_is_read() {
    let request = Message::read(&REQUEST).unwrap();
    assert!(request.is_request() && request.fingerprint && !request.nominates());
    assert_eq!(request.ufrag(), Some("evtj"));
    assert_eq!(request.priority(), 0x6e00_01ff);
    let refusal = request.verify(&key(PASSWORD));
    assert_eq!(refusal, Err(Refusal::RoleConflict), "it is authentic");
    let refusal = request.verify(&key("another"));
    assert_eq!(refusal, Err(Refusal::Unauthenticated));
    let reply = request.refuse(Refusal::RoleConflict, &key(PASSWORD));
    assert_eq!(answered(&reply), (487, true));
}

#[test]
fn answers_are_those_of_the_rfc() {
    for (address, theirs) in RESPONSES {
        let read = Message::read(theirs).unwrap();
        let (at, said) = read.integrity.unwrap();
        let made = integrity(&theirs[..at], &key(PASSWORD));
        assert_eq!(made.as_ref(), said, "{address}");
        let request = Message::read(&REQUEST).unwrap();
        let ours = request.accept(address.parse().unwrap(), &key(PASSWORD));
        let ours = ours.bytes();
        // Theirs has 16 bytes of SOFTWARE before the address, which is in what the others are made of.
        let mapped = ours.len() - HEADER_BYTES - 24 - 8;
        assert_eq!(ours[HEADER_BYTES..][..mapped], theirs[36..][..mapped]);
        assert_eq!(ours[4..HEADER_BYTES], theirs[4..HEADER_BYTES]);
        let read = Message::read(ours).unwrap();
        // What is wrong with it is only that it is no request.
        let refusal = read.verify(&key(PASSWORD));
        assert!(read.fingerprint && refusal == Err(Refusal::UnknownAttribute));
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let ours = key(PASSWORD);
    let refused = |bytes: &[u8]| {
        let request = Message::read(bytes).unwrap();
        let refusal = request.verify(&ours).unwrap_err();
        let reply = request.refuse(refusal, &ours);
        assert!(
            reply.bytes().len() <= bytes.len(),
            "it makes nothing larger"
        );
        (reply, answered(&reply))
    };
    let username: (u16, &[u8]) = (USERNAME, b"ours1234:peer");
    for fingerprint in [true, false] {
        let bare = message(BINDING_REQUEST, &[username], None, fingerprint);
        assert_eq!(refused(&bare).1, (400, false));
        let forged = message(BINDING_REQUEST, &[username], Some("guess"), fingerprint);
        assert_eq!(refused(&forged).1, (401, false));
    }
    let strange: [(u16, &[u8]); 7] = [
        username,
        (0x7001, &[1, 2, 3]),
        (0x9001, &[]),
        (0x7002, &[]),
        (0x7003, &[]),
        (0x7004, &[]),
        (0x7005, &[]),
    ];
    let strange = message(BINDING_REQUEST, &strange, Some(PASSWORD), true);
    let (reply, answered) = refused(&strange);
    assert_eq!(answered, (420, true));
    let named = [0x70, 1, 0x70, 2, 0x70, 3, 0x70, 4];
    assert_eq!(reply.bytes()[28..40], [&[0, 10, 0, 8], &named[..]].concat());
}

#[test]
fn broken_messages_are_none() {
    let whole = check("ours1234", PASSWORD, true, 1);
    assert!(Message::read(&whole).is_some());
    for length in 0..whole.len() {
        assert!(Message::read(&whole[..length]).is_none(), "{length}");
    }
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x40;
        // The fingerprint covers all, unless it is none any more.
        let read = Message::read(&broken);
        assert!(read.is_none_or(|read| !read.fingerprint), "{at}");
    }
    let behind = message(
        BINDING_REQUEST,
        &[(FINGERPRINT, &[0; 4]), (PRIORITY, &[0; 4])],
        None,
        false,
    );
    assert!(Message::read(&behind).is_none());
    let long = message(BINDING_REQUEST, &[(0x8022, &[b' '; LONGEST])], None, true);
    assert!(Message::read(&long).is_none());
}

#[test]
fn what_stands_behind_the_integrity_counts_for_nothing() {
    let before = message(
        BINDING_REQUEST,
        &[(USERNAME, b"ours1234:peer")],
        Some(PASSWORD),
        false,
    );
    let mut behind = before.clone();
    behind.extend([0, 0x25, 0, 0]);
    behind[3] += 4;
    let read = Message::read(&behind).unwrap();
    assert!(read.verify(&key(PASSWORD)).is_ok() && !read.nominates());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(message) = Message::read(&bytes) {
            let _ = (message.ufrag(), message.verify(&key("x")));
        }
    }

    #[test]
    fn no_attributes_panic(
        attributes in proptest::collection::vec((0u16..0x40, proptest::collection::vec(any::<u8>(), 0..24)), 0..8),
        known in any::<bool>(),
        from in any::<std::net::IpAddr>(),
    ) {
        let attributes: Vec<(u16, &[u8])> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let bytes = message(BINDING_REQUEST, &attributes, known.then_some(PASSWORD), true);
        if let Some(request) = Message::read(&bytes) {
            let key = key(PASSWORD);
            let reply = match request.verify(&key) {
                Ok(()) => request.accept(SocketAddr::new(from, 9), &key),
                Err(refusal) => request.refuse(refusal, &key),
            };
            prop_assert!(Message::read(reply.bytes()).is_some());
        }
    }
}
