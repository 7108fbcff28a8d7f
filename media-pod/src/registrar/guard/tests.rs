use std::borrow::Cow;

use ringwire_config::fixture;
use ringwire_config::gateway::{AllowedSource, Provider};
use ringwire_config::token::{Incarnation, TokenKey};

use super::sight::Datagram;
use super::*;

const CARRIER_ADDRESS: [u8; 4] = [203, 0, 113, 5];

struct Sighted {
    user: Option<String>,
    agent: &'static str,
}

impl Sight for Sighted {
    fn user(&self) -> Option<Cow<'_, str>> {
        self.user.as_deref().map(Cow::Borrowed)
    }

    fn user_agent(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.agent))
    }
}

fn plain() -> Sighted {
    Sighted {
        user: Some("100".into()),
        agent: "Asterisk",
    }
}

fn key() -> TokenKey {
    fixture::settings().token_keys.remove(0)
}

/// A configuration with one provider that takes calls from these networks, and the server's address.
fn known(allowed: &[&str]) -> Arc<Known> {
    let allowed = allowed.iter().map(|net| net.parse().unwrap());
    let provider = Provider {
        contact_user: "secretuser".to_owned(),
        allowed_sources: allowed.map(AllowedSource::Net).collect(),
        ..fixture::provider("trunk")
    };
    let resolved = [(provider.id.clone(), vec![IpAddr::from(CARRIER_ADDRESS)])].into();
    let config = fixture::registrar([provider]);
    Arc::new(Known::new(&config, &resolved, std::iter::empty()))
}

fn guard(allowed: &[&str], now: Instant) -> Guard {
    Guard::new(known(allowed), now)
}

fn is_banned(guard: &mut Guard, source: IpAddr, now: Instant) -> bool {
    guard.changed = true;
    guard.take_banned(now).unwrap().holds(source)
}

fn stranger(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_stranger_that_sends_too_much_is_shut_out_for_longer_each_time() {
    let start = Instant::now();
    let mut guard = guard(&[], start);
    let mut now = start;
    let mut bans = Vec::new();
    for _ in 0..12 {
        let mut passed = 0;
        while guard.judge(stranger(1), &plain(), now) == Verdict::Stranger {
            passed += 1;
        }
        assert!(passed <= 20, "{passed}");
        let ban = guard.take_ban().unwrap();
        assert_eq!(
            (ban.source, ban.reason),
            (stranger(1), Reason::FloodIgnored)
        );
        bans.push(ban.lasts.as_secs());
        assert!(is_banned(&mut guard, stranger(1), now));
        let almost = now + ban.lasts.saturating_sub(Duration::from_millis(1));
        assert_eq!(
            guard.judge(stranger(1), &plain(), almost),
            Verdict::Drop(Why::Banned)
        );
        now += ban.lasts;
        assert!(!is_banned(&mut guard, stranger(1), now));
    }
    assert_eq!(
        bans,
        [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    );
    now += LONGEST_BAN;
    while guard.judge(stranger(1), &plain(), now) == Verdict::Stranger {}
    assert_eq!(guard.take_ban().unwrap().lasts, FIRST_BAN, "forgiven");
}

#[test]
fn a_stranger_that_asks_now_and_then_is_heard() {
    let start = Instant::now();
    let mut guard = guard(&[], start);
    for turn in 0..10_000 {
        let now = start + Duration::from_millis(110) * turn;
        assert_eq!(
            guard.judge(stranger(1), &plain(), now),
            Verdict::Stranger,
            "{turn}"
        );
    }
}

#[test]
fn a_carrier_is_never_shut_out_whatever_comes_from_its_address() {
    let now = Instant::now();
    let mut guard = guard(&["198.51.100.0/24", "2001:db8:5::/48"], now);
    let scanner = Sighted {
        user: None,
        agent: "friendly-scanner",
    };
    for address in [
        "203.0.113.5",
        "198.51.100.77",
        "::ffff:198.51.100.78",
        "2001:db8:5:1::9",
    ] {
        let address: IpAddr = address.parse().unwrap();
        let verdicts: Vec<Verdict> = (0..100_000)
            .map(|_| guard.judge(address, &scanner, now))
            .collect();
        let first = verdicts.iter().filter(|v| **v == Verdict::Carrier).count();
        let behind = verdicts.iter().filter(|v| **v == Verdict::Stranger).count();
        assert_eq!((first, behind), (20_000, 80_000), "{address}");
    }
    assert_eq!(guard.take_banned(now), None);
}

#[test]
fn a_scanner_gets_no_answer_and_is_shut_out() {
    let now = Instant::now();
    let mut guard = guard(&[], now);
    let options =
        Datagram(b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n");
    assert_eq!(
        guard.judge(stranger(1), &options, now),
        Verdict::Drop(Why::Scanner)
    );
    assert_eq!(
        guard.judge(stranger(1), &plain(), now),
        Verdict::Drop(Why::Banned)
    );
}

#[test]
fn an_address_that_is_found_is_a_carriers_at_once_without_going_through_all() {
    let now = Instant::now();
    let mut guard = guard(&["0.0.0.0/0"], now);
    let known = Arc::clone(&guard.known);
    let v6: IpAddr = "2001:db8:1:2::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8:1:2::2".parse().unwrap();
    assert!(known.with([CARRIER_ADDRESS.into()].iter()).is_none());
    let more = known.with([stranger(1), v6].iter()).unwrap();
    assert_eq!(more.found_since(), 2);
    assert!(more.is_neighbour(neighbour) && !known.is_neighbour(neighbour));
    assert_eq!(more.standing(neighbour), Standing::Anyone);
    assert_eq!(more.standing(CARRIER_ADDRESS.into()), Standing::Carrier);
    assert_eq!(guard.judge(stranger(1), &plain(), now), Verdict::Stranger);
    guard.set_known(Arc::new(more));
    assert_eq!(guard.judge(stranger(1), &plain(), now), Verdict::Carrier);
}

#[test]
fn a_stranger_that_guesses_passwords_is_shut_out_and_a_carrier_never() {
    let start = Instant::now();
    let mut guard = guard(&[], start);
    for turn in 1..=4 {
        guard.offended(stranger(1), start);
        // One now and then is no guessing.
        guard.offended(stranger(2), start + GUESSES_LAST * turn);
        guard.offended(CARRIER_ADDRESS.into(), start);
    }
    assert!(!is_banned(&mut guard, stranger(1), start));
    guard.offended(stranger(1), start);
    guard.offended(stranger(2), start + GUESSES_LAST * 5);
    guard.offended(CARRIER_ADDRESS.into(), start);
    let ban = guard.take_ban().unwrap();
    assert_eq!(ban.reason, Reason::CredentialsRefused);
    assert!(is_banned(&mut guard, stranger(1), start));
    assert!(!is_banned(
        &mut guard,
        stranger(2),
        start + GUESSES_LAST * 5
    ));
    assert!(!is_banned(&mut guard, CARRIER_ADDRESS.into(), start));
}

#[test]
fn whoever_knows_a_secret_of_ours_is_heard_wherever_he_is() {
    let now = Instant::now();
    let mut guard = guard(&[], now);
    while guard.judge(stranger(1), &plain(), now) == Verdict::Stranger {}
    for user in ["SecretUser".to_owned(), key().sign(Incarnation(5))] {
        let message = Sighted {
            user: Some(user),
            agent: "",
        };
        assert_eq!(guard.judge(stranger(1), &message, now), Verdict::Carrier);
    }
    let forged = Sighted {
        user: Some("a".repeat(40)),
        agent: "",
    };
    assert_eq!(
        guard.judge(stranger(1), &forged, now),
        Verdict::Drop(Why::Banned)
    );
}

#[test]
fn forged_sources_without_end_reach_the_edge_seldom_and_fill_no_memory() {
    let start = Instant::now();
    let mut guard = guard(&[], start);
    let mut heard = 0;
    // 50,000 a second for two seconds, each from another address.
    for packet in 0..100_000u32 {
        let now = start + Duration::from_micros(20) * packet;
        if guard.judge(stranger(packet), &plain(), now) == Verdict::Stranger {
            heard += 1;
        }
    }
    assert!((700..=800).contains(&heard), "{heard}");
    assert_eq!(guard.others.len(), MAX_SOURCES);
    let carrier = IpAddr::from(CARRIER_ADDRESS);
    let end = start + seconds(2);
    assert_eq!(guard.judge(carrier, &plain(), end), Verdict::Carrier);
}

#[test]
fn a_thousand_flooding_sources_are_all_shut_out_within_half_a_second() {
    let start = Instant::now();
    let mut guard = guard(&[], start);
    let mut last = start;
    for packet in 0..25_000u32 {
        last = start + Duration::from_micros(20) * packet;
        guard.judge(stranger(packet % 1_000), &plain(), last);
    }
    let banned = guard.take_banned(last).unwrap();
    assert_eq!(banned.v4.len(), 1_000);
    assert!(filter::program(&banned, filter::MAX_V4).is_some());
}

#[test]
fn the_banned_are_told_when_they_change_and_when_a_ban_ends() {
    let now = Instant::now();
    let mut guard = guard(&[], now);
    assert_eq!(guard.take_banned(now), None);
    while guard.judge(stranger(1), &plain(), now) == Verdict::Stranger {}
    let banned = guard.take_banned(now).unwrap();
    assert_eq!(banned.v4, [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(guard.take_banned(now + seconds(9)), None);
    assert_eq!(
        guard.take_banned(now + seconds(10)),
        Some(Banned::default())
    );
    assert_eq!(guard.take_banned(now + seconds(60)), None);
}

#[test]
fn a_source_that_becomes_a_carrier_is_let_in_at_once() {
    let now = Instant::now();
    let mut guard = guard(&[], now);
    while guard.judge(stranger(1), &plain(), now) == Verdict::Stranger {}
    guard.take_banned(now);
    guard.set_known(known(&["10.0.0.0/8"]));
    assert_eq!(guard.take_banned(now), Some(Banned::default()));
    assert_eq!(guard.judge(stranger(1), &plain(), now), Verdict::Carrier);
    guard.set_known(known(&[]));
    let later = now + seconds(1);
    assert_eq!(guard.judge(stranger(1), &plain(), later), Verdict::Stranger);
}

#[test]
fn a_network_of_ipv6_is_one_source_unless_a_carrier_lives_there() {
    let now = Instant::now();
    let mut guard = guard(&["2001:db8:9:9::5/128"], now);
    let host = |network: u128, host: u128| {
        IpAddr::from(std::net::Ipv6Addr::from_bits(network << 64 | host))
    };
    let flooding = 0x2001_0db8_0001_0001;
    let heard = (0..1_000)
        .filter(|number| guard.judge(host(flooding, *number), &plain(), now) == Verdict::Stranger)
        .count();
    assert_eq!(heard, 20);
    assert_eq!(guard.take_banned(now).unwrap().v6, [0x2001_0db8_0001_0001]);
    let shared = 0x2001_0db8_0009_0009;
    for number in 100..1_000 {
        guard.judge(host(shared, number), &plain(), now);
    }
    assert_eq!(
        guard.judge(host(shared, 5), &plain(), now),
        Verdict::Carrier
    );
    assert!(!is_banned(&mut guard, host(shared, 6), now));
}

#[test]
fn where_everyone_may_call_nobody_is_shut_out_but_each_has_his_share() {
    let start = Instant::now();
    let mut guard = guard(&["0.0.0.0/0"], start);
    let heard = |guard: &mut Guard, number, now| {
        (0..1_000)
            .filter(|_| guard.judge(stranger(number), &plain(), now) == Verdict::Stranger)
            .count()
    };
    assert_eq!(heard(&mut guard, 1, start), 200);
    assert_eq!(heard(&mut guard, 1, start + seconds(1)), 100);
    assert_eq!(heard(&mut guard, 2, start + seconds(1)), 200);
    let scanner = Sighted {
        user: None,
        agent: "friendly-scanner",
    };
    let verdict = guard.judge(stranger(3), &scanner, start);
    assert_eq!(verdict, Verdict::Drop(Why::Scanner));
    assert!(!is_banned(&mut guard, stranger(3), start));
    assert!(!is_banned(&mut guard, stranger(1), start));
}

#[test]
fn what_was_learned_is_bounded_and_the_oldest_is_forgotten_first() {
    let mut learned = known::Learned::default();
    assert!(learned.note(stranger(0)));
    assert!(!learned.note(stranger(0)));
    for number in 1..=1_024 {
        assert!(learned.note(stranger(number)));
    }
    assert_eq!(learned.iter().count(), 1_024);
    assert!(!learned.iter().any(|address| *address == stranger(0)));
}
