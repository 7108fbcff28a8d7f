use super::*;

const NONE: [u16; 0] = [];

fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
    let mut record = records::header(kind, 9, body.len()).to_vec();
    record[4] = epoch;
    [record, body.to_vec()].concat()
}

/// Some bytes of a message whose bytes are their places.
fn piece(kind: u8, number: u16, whole: usize, from: usize, to: usize) -> Vec<u8> {
    let mut header = records::message_header(kind, number, whole);
    header[6..9].copy_from_slice(&u32::try_from(from).unwrap().to_be_bytes()[1..]);
    header[9..12].copy_from_slice(&u32::try_from(to - from).unwrap().to_be_bytes()[1..]);
    let bytes = (from..to).map(|place| place as u8);
    header.into_iter().chain(bytes).collect()
}

fn datagram(kind: u8, number: u16, whole: usize, from: usize, to: usize) -> Vec<u8> {
    record(HANDSHAKE, 0, &piece(kind, number, whole, from, to))
}

/// The numbers of the messages that the library gets, each of which has to be whole and right.
fn given(brought: &Brought) -> Vec<u16> {
    let mut numbers = Vec::new();
    for found in records::of(&brought.records) {
        let Record::Handshake(body) = found else {
            continue;
        };
        for fragment in records::fragments(body) {
            assert_eq!((fragment.offset, fragment.data.len()), (0, fragment.whole));
            assert!(
                fragment
                    .data
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| at as u8 == *byte)
            );
            numbers.push(fragment.number);
        }
    }
    numbers
}

/// A client's hello.
fn hello(number: u16, session: &[u8], cookie: &[u8], suite: u8) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend_from_slice(&[5; 32]);
    for counted in [session, cookie] {
        body.push(counted.len() as u8);
        body.extend_from_slice(counted);
    }
    body.extend_from_slice(&[0, 2, 0xc0, suite, 1, 0]);
    let header = records::message_header(CLIENT_HELLO, number, body.len());
    record(HANDSHAKE, 0, &[&header[..], &body].concat())
}

#[test]
fn flights_are_given_whole_once_and_in_order() {
    let mut inlet = Inlet::new(true);
    let mut give = |datagram: Vec<u8>| given(&inlet.take(&datagram));
    // The first from behind, with an overlap.
    assert_eq!(give(datagram(HELLO_VERIFY_REQUEST, 0, 90, 60, 90)), NONE);
    assert_eq!(give(datagram(HELLO_VERIFY_REQUEST, 0, 90, 0, 30)), NONE);
    assert_eq!(give(datagram(HELLO_VERIFY_REQUEST, 0, 90, 20, 61)), [0]);
    // The next without its beginning, its end and a part, which come in another order.
    assert_eq!(give(datagram(CERTIFICATE, 2, 600, 0, 600)), NONE);
    let parts = [
        piece(SERVER_KEY_EXCHANGE, 3, 200, 100, 200),
        piece(CERTIFICATE_REQUEST, 4, 50, 0, 50),
    ];
    assert_eq!(give(record(HANDSHAKE, 0, &parts.concat())), NONE);
    assert_eq!(give(datagram(SERVER_HELLO_DONE, 5, 0, 0, 0)), NONE);
    assert_eq!(give(datagram(SERVER_HELLO, 1, 90, 0, 90)), NONE);
    assert_eq!(
        give(datagram(SERVER_KEY_EXCHANGE, 3, 200, 0, 100)),
        [1, 2, 3, 4, 5]
    );
    for number in 0..6 {
        assert_eq!(give(datagram(SERVER_HELLO, number, 90, 0, 90)), NONE);
    }
}

#[test]
fn a_clients_flight_is_given_with_its_signature() {
    let mut inlet = Inlet::new(false);
    for hello in [hello(0, &[], &[], 1), hello(1, &[], &[7; 20], 1)] {
        assert!(!inlet.take(&hello).records.is_empty());
    }
    let mut give = |datagram: Vec<u8>| given(&inlet.take(&datagram));
    assert_eq!(give(datagram(CERTIFICATE, 2, 600, 0, 600)), NONE);
    assert_eq!(give(datagram(CLIENT_KEY_EXCHANGE, 3, 66, 0, 66)), NONE);
    assert_eq!(give(datagram(CERTIFICATE_VERIFY, 4, 70, 0, 70)), [2, 3, 4]);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    for (kind, length) in [(CERTIFICATE, EMPTY_LIST), (CLIENT_KEY_EXCHANGE, 66)] {
        let mut inlet = Inlet::new(false);
        inlet.take(&hello(0, &[], &[], 1));
        inlet.take(&hello(1, &[], &[7; 20], 1));
        let brought = inlet.take(&datagram(kind, 2, length, 0, length));
        assert!(brought.records.is_empty());
        assert!(brought.refusal.unwrap().contains("no certificate"));
    }
}

#[test]
fn what_cannot_be_read_or_is_not_meant_is_dropped() {
    let good = datagram(HELLO_VERIFY_REQUEST, 0, 80, 0, 80);
    let cases = [
        vec![],
        vec![HANDSHAKE; 12],
        good[..good.len() - 1].to_vec(),
        [&[HANDSHAKE, 3, 3], &good[3..]].concat(),
        record(CHANGE_CIPHER_SPEC, 0, &[]),
        record(CHANGE_CIPHER_SPEC, 0, &[2]),
        record(records::ALERT, 0, &[1, 0]),
        record(records::ALERT, 0, &[2]),
        record(23, 0, b"data"),
        record(23, 1, b"data"),
        record(HANDSHAKE, 0, &[]),
        record(HANDSHAKE, 0, &piece(SERVER_HELLO, 0, 80, 0, 80)[..11]),
        datagram(SERVER_HELLO, 0, 80, 0, 81),
        datagram(SERVER_HELLO, 0, 80, 70, 90),
        datagram(CLIENT_HELLO, 0, 80, 0, 80),
        datagram(77, 0, 80, 0, 80),
        datagram(SERVER_HELLO, MESSAGES, 80, 0, 80),
        datagram(SERVER_HELLO, 0, LONG + 1, 0, 1_000),
        datagram(CERTIFICATE, 0, LONGEST + 1, 0, 1_000),
        record(HANDSHAKE, 1, &[]),
        record(HANDSHAKE, 1, &[0; 16]),
        record(HANDSHAKE, 1, &[0; 129]),
    ];
    for case in cases {
        let mut inlet = Inlet::new(true);
        assert_eq!(inlet.take(&case), Brought::default(), "{case:02x?}");
        assert_eq!(given(&inlet.take(&good)), [0], "{case:02x?}");
    }
    // What follows is not lost with data.
    let mixed = [record(23, 0, b"data"), good].concat();
    assert_eq!(given(&Inlet::new(true).take(&mixed)), [0]);
}

#[test]
fn no_record_hides_others_in_a_message_that_is_cut_off() {
    // A message of which a byte is there, and behind it one whose bytes look like many more.
    let hidden = piece(SERVER_HELLO_DONE, 0, 0, 0, 0).repeat(80);
    let mut inner = records::message_header(CERTIFICATE, 1, hidden.len()).to_vec();
    inner.extend_from_slice(&hidden);
    let body = [piece(SERVER_HELLO, 0, 13, 0, 1), inner].concat();
    let mut inlet = Inlet::new(true);
    for datagram in [
        record(HANDSHAKE, 0, &body),
        datagram(SERVER_HELLO_DONE, 2, 0, 0, 0),
    ] {
        assert_eq!(inlet.take(&datagram), Brought::default());
    }
    let brought = inlet.take(&datagram(SERVER_HELLO, 0, 13, 1, 13));
    let messages: Vec<(u8, usize)> = records::of(&brought.records)
        .flat_map(|found| match found {
            Record::Handshake(body) => records::fragments(body)
                .map(|fragment| (fragment.kind, fragment.data.len()))
                .collect(),
            _ => Vec::new(),
        })
        .collect();
    let expected = [
        (SERVER_HELLO, 13),
        (CERTIFICATE, hidden.len()),
        (SERVER_HELLO_DONE, 0),
    ];
    assert_eq!(messages, expected);
}

#[test]
fn there_is_an_end_to_all_that_is_kept_and_given() {
    for active in [true, false] {
        let mut inlet = Inlet::new(active);
        let mut bytes = 0;
        for round in 0..20_000_usize {
            let (number, from) = ((round % 20) as u16, round * 2 % 16_000);
            for datagram in [
                record(CHANGE_CIPHER_SPEC, 0, &[1]),
                record(HANDSHAKE, 1, &[0; 100]),
                record(records::ALERT, 1, &[0; 26]),
                datagram(CERTIFICATE, number, LONGEST, from, from + 1),
                datagram(CERTIFICATE, number, 100, 0, 100),
                datagram(HELLO_VERIFY_REQUEST, number, 100, 0, 100),
                hello(number, &[], &[], from as u8),
            ] {
                bytes += inlet.take(&datagram).records.len();
            }
        }
        assert!(bytes < 20_000, "{bytes}");
        assert!(inlet.pending.len() <= usize::from(MESSAGES));
        let pieces = |message: &Message| message.have.len() <= PIECES;
        assert!(inlet.pending.values().all(pieces));
    }
}

#[test]
fn too_many_pieces_do_not_keep_a_message_from_coming() {
    let mut inlet = Inlet::new(true);
    for piece in 0..200 {
        let from = piece % 100 * 2;
        inlet.take(&datagram(HELLO_VERIFY_REQUEST, 0, 300, from, from + 1));
    }
    for at in 0..6 {
        let brought = inlet.take(&datagram(
            HELLO_VERIFY_REQUEST,
            0,
            300,
            at * 50,
            at * 50 + 50,
        ));
        assert_eq!(given(&brought).is_empty(), at < 5);
    }
}

#[test]
fn behind_the_end_only_what_is_sealed_is_given() {
    let mut inlet = Inlet::new(true);
    inlet.close();
    for datagram in [
        record(CHANGE_CIPHER_SPEC, 0, &[1]),
        record(records::ALERT, 0, &[2, 40]),
        datagram(HELLO_VERIFY_REQUEST, 0, 100, 0, 100),
    ] {
        assert_eq!(inlet.take(&datagram), Brought::default());
    }
    let sealed = record(HANDSHAKE, 1, &[0; 40]);
    assert_eq!(inlet.take(&sealed).records, sealed);
}

#[test]
fn a_first_hello_is_given_again_until_the_second_comes() {
    let mut inlet = Inlet::new(false);
    let first = hello(0, &[], &[], 0x2b);
    let mut given = |datagram: &[u8]| inlet.take(datagram).records.len();
    assert_eq!(given(&first), first.len());
    for _ in 0..HELLOS {
        assert_eq!(given(&first), first.len());
    }
    assert_eq!(given(&first), 0, "there is an end to it");
    let second = hello(1, &[], &[7; 20], 0x2b);
    assert_eq!(given(&second), second.len());
    assert_eq!(given(&first), 0);
    assert_eq!(given(&second), 0);
}

#[test]
fn a_client_may_begin_anew_before_its_second_hello() {
    let mut inlet = Inlet::new(false);
    inlet.take(&hello(0, &[], &[], 0x2b));
    let other = hello(0, &[], &[], 0x2f);
    let brought = inlet.take(&other);
    assert!(brought.anew && brought.records.len() == other.len());
    let second = inlet.take(&hello(1, &[], &[7; 20], 0x2f));
    assert!(!second.anew && !second.records.is_empty());
    assert_eq!(inlet.take(&hello(0, &[], &[], 0x2b)), Brought::default());
}

#[test]
fn hellos_have_to_be_alike_and_new() {
    let refusal = |hellos: &[Vec<u8>]| {
        let mut inlet = Inlet::new(false);
        let all = hellos.iter().map(|hello| inlet.take(hello).refusal);
        all.last().unwrap().unwrap_or_default()
    };
    let first = hello(0, &[], &[], 0x2b);
    let weaker = hello(1, &[], &[7; 20], 0x2f);
    assert!(refusal(&[first, weaker]).contains("not like its first"));
    assert!(refusal(&[hello(0, &[1; 32], &[], 0x2b)]).contains("resume"));
    let short = datagram(CLIENT_HELLO, 0, 30, 0, 30);
    assert!(refusal(&[short]).contains("cannot be read"));
}

#[test]
fn a_fatal_alert_in_the_clear_is_told() {
    let brought = Inlet::new(true).take(&record(records::ALERT, 0, &[2, 40]));
    assert!(brought.refusal.unwrap().contains("alert 40"));
}
