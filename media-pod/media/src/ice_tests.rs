use super::*;
use crate::stun::tests::{answered, check, message};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBtab";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn agent() -> Agent {
    Agent::new(&Terms {
        ufrag: "ours1234".to_owned(),
        password: Zeroizing::new(PASSWORD.to_owned()),
        muxed: true,
    })
}

fn ask(agent: &mut Agent, bytes: &[u8], now: Instant) -> (Option<(u16, bool)>, Option<Proof>) {
    let request = Message::read(bytes).unwrap();
    let (reply, proof) = agent.check(&request, address("192.0.2.1:5000"), now);
    (reply.map(|reply| answered(&reply)), proof)
}

#[test]
fn whoever_has_the_password_is_answered() {
    let (mut agent, now) = (agent(), Instant::now());
    for nominates in [false, true] {
        let bytes = check("ours1234", PASSWORD, nominates, 99);
        let priority = 99;
        let proof = Some(Proof {
            priority,
            nominates,
        });
        assert_eq!(ask(&mut agent, &bytes, now), (Some((200, true)), proof));
    }
}

#[test]
fn a_stranger_gets_no_answer_and_one_who_guesses_few() {
    let (mut agent, now) = (agent(), Instant::now());
    let theirs = [
        check("theirs12", PASSWORD, true, 1),
        message(1, &[], None, true),
    ];
    for stranger in theirs {
        assert_eq!(ask(&mut agent, &stranger, now), (None, None));
    }
    let guess = check("ours1234", "guess", true, 1);
    let answers = (0..10_000).filter(|_| {
        let (answer, proof) = ask(&mut agent, &guess, now);
        assert_eq!(proof, None);
        assert!(answer.is_none_or(|answer| answer == (401, false)));
        answer.is_some()
    });
    assert_eq!(answers.count(), 5, "half of those of a second");
    // That does not shut out the peer.
    let good = check("ours1234", PASSWORD, true, 1);
    assert!(ask(&mut agent, &good, now).1.is_some());
}

#[test]
fn indications_and_answers_are_not_answered() {
    let (mut agent, now) = (agent(), Instant::now());
    for kind in [0x0011, 0x0101, 0x0111, 0x0003] {
        let bytes = message(kind, &[(6, b"ours1234:peer")], Some(PASSWORD), true);
        assert_eq!(ask(&mut agent, &bytes, now), (None, None));
    }
}

struct Bench {
    paths: Paths,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            paths: Paths::default(),
            now: Instant::now(),
        }
    }

    fn note(&mut self, from: &str, priority: u32, nominates: bool) -> String {
        let proof = Proof {
            priority,
            nominates,
        };
        self.paths.note(address(from), proof, self.now);
        self.paths.chosen().unwrap().to_string()
    }
}

const A: &str = "192.0.2.1:5000";
const B: &str = "192.0.2.2:6000";
const C: &str = "192.0.2.3:7000";

#[test]
fn packets_go_where_the_first_check_came_from_until_another_is_nominated() {
    let mut bench = Bench::new();
    assert!(!bench.paths.is_known());
    assert_eq!(bench.note(A, 1, false), A);
    assert_eq!(bench.note(B, 9, false), A);
    assert_eq!(bench.note(C, 5, true), C);
    assert_eq!(bench.note(B, 9, false), C);
    for from in [A, B, C] {
        assert!(bench.paths.has(address(from), bench.now));
    }
    assert!(!bench.paths.has(address("192.0.2.1:5001"), bench.now));
}

#[test]
fn a_later_nomination_moves_the_call() {
    let mut bench = Bench::new();
    assert_eq!(bench.note(A, 9, true), A);
    // Another network, which is worse.
    assert_eq!(bench.note(B, 1, true), B);
    // And back.
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.note(A, 9, true), A);
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.note(B, 1, true), B);
}

#[test]
fn of_all_that_are_nominated_at_once_the_best_is_kept() {
    let mut bench = Bench::new();
    bench.note(A, 9, true);
    bench.note(B, 1, true);
    assert_eq!(bench.note(A, 9, true), A);
    for _ in 0..20 {
        bench.now += Duration::from_secs(2);
        assert_eq!(bench.note(B, 1, true), A);
        assert_eq!(bench.note(A, 9, true), A);
    }
    // Then only the worse one.
    bench.now += Duration::from_secs(6);
    assert_eq!(bench.note(B, 1, true), B);
}

#[test]
fn an_address_without_checks_is_forgotten_unless_it_is_in_use() {
    let mut bench = Bench::new();
    bench.note(A, 1, false);
    bench.note(B, 1, true);
    bench.now += Duration::from_secs(31);
    assert!(!bench.paths.has(address(A), bench.now));
    assert!(bench.paths.has(address(B), bench.now));
}

#[test]
fn a_restart_moves_nothing_before_its_nomination() {
    let mut bench = Bench::new();
    bench.note(A, 1, true);
    bench.paths.restart();
    assert_eq!(bench.note(B, 9, false), A);
    assert!(bench.paths.has(address(A), bench.now));
    assert_eq!(bench.note(B, 9, true), B);
    assert!(!bench.paths.has(address(A), bench.now));
}

#[test]
fn only_so_many_addresses_are_kept_and_the_one_in_use_is() {
    let mut bench = Bench::new();
    bench.note(A, 1, true);
    for port in 1..=100 {
        bench.now += Duration::from_millis(1);
        bench.note(&format!("192.0.2.9:{port}"), 1, false);
    }
    assert_eq!(bench.paths.all.len(), MAX_PATHS);
    assert_eq!(bench.note("192.0.2.9:100", 1, false), A);
    let known = |port| {
        bench
            .paths
            .has(SocketAddr::new([192, 0, 2, 9].into(), port), bench.now)
    };
    assert!(known(100) && known(94) && !known(93));
}

#[test]
fn a_password_is_not_shown() {
    assert!(!format!("{:?}", agent()).contains(PASSWORD));
}

#[test]
fn a_peer_that_moves_to_and_fro_is_followed_a_few_times_a_second() {
    let mut bench = Bench::new();
    let (mut moves, mut before) = (0, bench.note(A, 1, true));
    for number in 0..1000 {
        bench.now += Duration::from_millis(1);
        let chosen = bench.note(if number % 2 == 0 { B } else { A }, 1, true);
        moves += u32::from(chosen != before);
        before = chosen;
    }
    assert!((4..=14).contains(&moves), "{moves} moves in a second");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.note(C, 1, true), C, "whoever means it gets there");
}
