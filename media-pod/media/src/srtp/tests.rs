mod vectors;

use proptest::prelude::*;

use super::cipher::{Cipher, derive};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn salt(text: &str) -> [u8; 14] {
    let mut salt = [0; 14];
    let bytes = hex(text);
    salt[..bytes.len()].copy_from_slice(&bytes);
    salt
}

fn key(profile: Profile) -> MasterKey {
    let length = profile.key_bytes() + profile.salt_bytes();
    let bytes: Vec<_> = (1..=length as u8).collect();
    MasterKey::new(profile, &bytes).unwrap()
}

fn pair(profile: Profile) -> (Protect, Unprotect) {
    let key = key(profile);
    (Protect::new(&key).unwrap(), Unprotect::new(&key).unwrap())
}

fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 8];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xd5; 160]);
    packet
}

fn seal(protect: &mut Protect, plain: &[u8]) -> Vec<u8> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + OVERHEAD, 0);
    let length = protect.rtp(&mut buffer, plain.len()).unwrap();
    buffer.truncate(length);
    buffer
}

fn seal_rtcp(protect: &mut Protect, plain: &[u8]) -> Vec<u8> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + OVERHEAD, 0);
    let length = protect.rtcp(&mut buffer, plain.len()).unwrap();
    buffer.truncate(length);
    buffer
}

fn open(unprotect: &mut Unprotect, packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut packet = packet.to_vec();
    let length = unprotect.rtp(&mut packet)?;
    packet.truncate(length);
    Ok(packet)
}

fn open_rtcp(unprotect: &mut Unprotect, packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut packet = packet.to_vec();
    let length = unprotect.rtcp(&mut packet)?;
    packet.truncate(length);
    Ok(packet)
}

/// RFC 3711 appendix B.3, RFC 6188 section 7.4.
#[test]
fn session_keys_are_those_of_the_rfcs() {
    for (master, master_salt, cipher, auth, session_salt) in [
        (
            "E1F97A0D3E018BE0D64FA32C06DE4139",
            "0EC675AD498AFEEBB6960B3AABE6",
            "C61E7A93744F39EE10734AFE3FF7A087",
            "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4",
            "30CBBC08863D8C85D49DB34A9AE1",
        ),
        (
            "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
            "3b04803de51ee7c96423ab5b78d2",
            "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4",
            "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
            "fa31791685ca444a9e07c6c64e93",
        ),
    ] {
        for (label, expected) in [cipher, auth, session_salt].iter().enumerate() {
            let expected = hex(expected);
            let mut derived = vec![0xff; expected.len()];
            derive(&hex(master), &hex(master_salt), label as u8, &mut derived).unwrap();
            assert_eq!(derived, expected, "label {label}");
        }
    }
}

/// RFC 3711 appendix B.2, RFC 6188 section 7.1: the key stream, here of a packet of zeros. Without SSRC and index the counter starts with
/// the salt.
#[test]
fn the_counters_key_stream_is_that_of_the_rfcs() {
    for (key, stream) in [
        (
            "2B7E151628AED2A6ABF7158809CF4F3C",
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0",
        ),
        (
            "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98",
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31",
        ),
    ] {
        let salt = salt("F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
        let cipher = Cipher::counter(&hex(key), salt, &[0; 20], 10).unwrap();
        let mut packet = [0; 58];
        cipher.seal_rtp(&mut packet, 0, 48, (0, 0)).unwrap();
        assert_eq!(packet[..48], hex(stream));
    }
}

/// RFC 7714 sections 16 and 17.
#[test]
fn gcm_makes_the_packets_of_the_rfc() {
    let plain = hex(
        "8040f17b8041f8d35501a0b2 47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573",
    );
    let salt = salt("517569642070726f2071756f");
    for (key, expected) in [
        (
            "000102030405060708090a0b0c0d0e0f",
            "8040f17b8041f8d35501a0b2 f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "8040f17b8041f8d35501a0b2 32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ] {
        let cipher = Cipher::gcm(&hex(key), salt).unwrap();
        let of = (0x5501_a0b2, 0xf17b);
        let mut packet = plain.clone();
        packet.resize(plain.len() + 16, 0);
        cipher.seal_rtp(&mut packet, 12, plain.len(), of).unwrap();
        assert_eq!(packet, hex(expected));
        assert_eq!(cipher.open_rtp(&mut packet, 12, of), Ok(plain.len()));
        assert_eq!(packet[..plain.len()], plain);
    }
    let plain = hex(
        "81c8000d4d617273 4e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
    );
    let expected = hex(
        "81c8000d4d617273 63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade 800005d4",
    );
    let cipher = Cipher::gcm(&hex("000102030405060708090a0b0c0d0e0f"), salt).unwrap();
    let of = (0x4d61_7273, 0x5d4);
    let mut packet = plain.clone();
    packet.resize(plain.len() + 20, 0);
    cipher.seal_rtcp(&mut packet, plain.len(), of).unwrap();
    assert_eq!(packet, expected);
    assert_eq!(cipher.rtcp_index(&packet), Ok(0x5d4));
    assert_eq!(cipher.open_rtcp(&mut packet, of), Ok(plain.len()));
    assert_eq!(packet[..plain.len()], plain);
}

#[test]
fn libsrtp_makes_the_same_packets() {
    for (profile, rtp, rtcp) in vectors::LIBSRTP {
        let (mut protect, mut unprotect) = pair(profile);
        for (plain, protected) in rtp {
            assert_eq!(
                seal(&mut protect, &hex(plain)),
                hex(protected),
                "{profile:?}"
            );
            assert_eq!(open(&mut unprotect, &hex(protected)), Ok(hex(plain)));
        }
        for (plain, protected) in rtcp {
            let made = seal_rtcp(&mut protect, &hex(plain));
            assert_eq!(made, hex(protected), "{profile:?}");
            assert_eq!(open_rtcp(&mut unprotect, &hex(protected)), Ok(hex(plain)));
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_refused_and_leaves_no_trace() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        let sealed = seal(&mut protect, &packet(7, 1));
        let report = hex("80c90001cafebabe81ca0003cafebabe0105616263646500");
        let sealed_report = seal_rtcp(&mut protect, &report);
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(
                open(&mut unprotect, &changed).is_err(),
                "{profile:?} bit {at}"
            );
        }
        for at in 0..sealed_report.len() * 8 {
            let mut changed = sealed_report.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(
                open_rtcp(&mut unprotect, &changed).is_err(),
                "{profile:?} bit {at}"
            );
        }
        assert_eq!(open(&mut unprotect, &sealed), Ok(packet(7, 1)));
        assert_eq!(open_rtcp(&mut unprotect, &sealed_report), Ok(report));
    }
}

#[test]
fn what_was_there_before_is_refused() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        let sealed: Vec<_> = (0..400)
            .map(|number| seal(&mut protect, &packet(7, number)))
            .collect();
        // Late, but within the window.
        for number in [0, 200, 199, 73, 150] {
            assert!(open(&mut unprotect, &sealed[number]).is_ok(), "{number}");
        }
        for number in [0, 200, 199, 73, 72, 150] {
            let again = open(&mut unprotect, &sealed[number]);
            assert_eq!(again, Err(Refused::Replayed), "{number}");
        }
        let report = seal_rtcp(&mut protect, &hex("80c90001cafebabe"));
        assert!(open_rtcp(&mut unprotect, &report).is_ok());
        assert_eq!(open_rtcp(&mut unprotect, &report), Err(Refused::Replayed));
    }
}

#[test]
fn sequence_numbers_roll_over_with_loss_and_disorder() {
    let (mut protect, mut unprotect) = pair(Profile::Aes128Sha1_80);
    let sealed: Vec<_> = (0..400_000_u32)
        .map(|number| seal(&mut protect, &packet(7, number as u16)))
        .collect();
    let mut at = 100;
    while at + 40 < sealed.len() {
        // A hole, and two that changed places.
        for number in [at + 30, at + 29] {
            assert!(open(&mut unprotect, &sealed[number]).is_ok(), "{number}");
        }
        at += 5_000;
    }
    assert_eq!(
        open(&mut unprotect, &sealed[65_536 * 5 + 129]),
        Err(Refused::Replayed),
        "the same number six roll-overs ago"
    );
}

#[test]
fn a_peers_streams_are_told_apart_and_bounded() {
    let profile = Profile::Aes256Gcm;
    let (_, mut unprotect) = pair(profile);
    let mut sealed = Vec::new();
    for ssrc in 0..9 {
        let mut protect = Protect::new(&key(profile)).unwrap();
        sealed.push(seal(&mut protect, &packet(ssrc, 65_535)));
        sealed.push(seal(&mut protect, &packet(ssrc, 0)));
    }
    for packet in &sealed {
        assert!(open(&mut unprotect, packet).is_ok());
    }
    for packet in &sealed[2..] {
        assert_eq!(open(&mut unprotect, packet), Err(Refused::Replayed));
    }
}

#[test]
fn unencrypted_reports_are_refused() {
    let (mut protect, mut unprotect) = pair(Profile::Aes128Gcm);
    let mut report = seal_rtcp(&mut protect, &hex("80c90001cafebabe"));
    let at = report.len() - 4;
    report[at] &= 0x7f;
    assert_eq!(open_rtcp(&mut unprotect, &report), Err(Refused::Forged));
}

#[test]
fn a_new_key_takes_over_with_its_first_packet_and_an_old_one_keeps_its_place() {
    for profile in Profile::ALL {
        let (ours, theirs) = (key(profile), key(profile));
        let length = profile.key_bytes() + profile.salt_bytes();
        let new = MasterKey::new(profile, &vec![9; length]).unwrap();
        let mut old_sender = Protect::new(&theirs).unwrap();
        let mut new_sender = Protect::new(&new).unwrap();
        let mut guard = Guard::new(&ours, &theirs).unwrap();
        let take = |guard: &mut Guard, mut packet: Vec<u8>| guard.unprotect_rtp(&mut packet);
        // Over a roll-over, which the same key again does not forget.
        for number in [65_534, 65_535, 0] {
            assert!(take(&mut guard, seal(&mut old_sender, &packet(7, number))).is_ok());
        }
        assert_eq!(guard.rekey(&ours, &theirs), Ok(false));
        assert!(take(&mut guard, seal(&mut old_sender, &packet(7, 1))).is_ok());
        assert_eq!(guard.rekey(&ours, &new), Ok(false));
        let on_its_way = seal(&mut old_sender, &packet(7, 2));
        assert!(take(&mut guard, on_its_way.clone()).is_ok(), "{profile:?}");
        assert!(take(&mut guard, on_its_way).is_err(), "replayed");
        let late = seal(&mut old_sender, &packet(7, 3));
        assert!(take(&mut guard, seal(&mut new_sender, &packet(7, 4))).is_ok());
        assert!(take(&mut guard, late).is_err());
        assert_eq!(guard.rekey(&new, &new), Ok(true));
    }
}

#[test]
fn no_key_is_shown() {
    let key = MasterKey::new(Profile::Aes128Gcm, &[0xab; 28]).unwrap();
    let guard = Guard::new(&key, &key).unwrap();
    let shown = format!("{key:?} {guard:?}");
    assert!(
        !shown.contains("171") && !shown.to_lowercase().contains("abab"),
        "{shown}"
    );
    assert!(MasterKey::new(Profile::Aes128Gcm, &[0; 30]).is_none());
}

proptest! {
    #[test]
    fn no_datagram_panics(
        profile in 0..6_usize,
        data in prop::collection::vec(any::<u8>(), 0..120),
        second in any::<bool>(),
    ) {
        let (mut protect, mut unprotect) = pair(Profile::ALL[profile]);
        let mut data = data;
        if let Some(first) = data.first_mut().filter(|_| second) {
            *first = 0x80 | (*first & 0x3f);
        }
        prop_assert!(open(&mut unprotect, &data).is_err());
        prop_assert!(open_rtcp(&mut unprotect, &data).is_err());
        let mut buffer = data.clone();
        for room in [0, 3, OVERHEAD] {
            buffer.resize(data.len() + room, 0);
            let _ = protect.rtp(&mut buffer, data.len());
            let _ = protect.rtcp(&mut buffer, data.len());
        }
    }

    #[test]
    fn what_was_protected_comes_back(
        profile in 0..6_usize,
        payload in prop::collection::vec(any::<u8>(), 0..400),
        sequences in prop::collection::vec(any::<u16>(), 1..5),
    ) {
        let (mut protect, mut unprotect) = pair(Profile::ALL[profile]);
        let mut start = sequences[0];
        for step in sequences {
            start = start.wrapping_add(1 + step % 30_000);
            let mut plain = packet(1, start);
            plain.truncate(12);
            plain.extend(&payload);
            prop_assert_eq!(open(&mut unprotect, &seal(&mut protect, &plain)), Ok(plain));
        }
    }
}
