use std::time::Duration;

use super::*;

const BUFFER: usize = 425_984;

/// A book whose ports can all be opened.
struct Bench {
    book: Book,
    now: Instant,
    next: u16,
}

fn wanted(remote: &str, signalling: &str) -> Wanted {
    Wanted {
        bind: IpAddr::from([127, 0, 0, 1]),
        range: (20_000, 20_999),
        remote: remote.parse().ok(),
        signalling: signalling.parse().ok(),
        networks: Networks::default(),
        thread: None,
    }
}

impl Bench {
    fn new(threads: usize) -> Self {
        Self {
            book: Book::new(threads),
            now: Instant::now(),
            next: 20_000,
        }
    }

    fn seat(&mut self, wanted: &Wanted) -> Place {
        match self.book.choose(wanted, self.now) {
            Choice::Here(place) => place,
            Choice::Open { instead, thread } => {
                let pair = if self.next < wanted.range.1 {
                    let port = self.next;
                    self.next += 2;
                    self.book.add(wanted.bind, port, thread, BUFFER)
                } else {
                    instead.unwrap()
                };
                self.book.sit(pair, wanted)
            }
        }
    }

    /// A call whose packets are carried, and heard from where its SDP says.
    fn talk(&mut self, remote: &str, signalling: &str) -> Place {
        let place = self.answer(remote, signalling);
        let remote = remote.parse().ok();
        self.book.note(place, remote, remote, self.now);
        place
    }

    /// The same without a packet yet.
    fn answer(&mut self, remote: &str, signalling: &str) -> Place {
        let place = self.seat(&wanted(remote, signalling));
        self.book.note(place, remote.parse().ok(), None, self.now);
        place
    }

    fn count(&self) -> usize {
        self.book.pairs().count()
    }
}

#[test]
fn a_thousand_calls_of_one_carrier_fit_on_few_ports() {
    let mut bench = Bench::new(2);
    for call in 0..1000 {
        bench.talk(&format!("192.0.2.1:{}", 10_000 + 2 * call), "192.0.2.9");
    }
    assert_eq!(calls_per_port(BUFFER), 46);
    assert_eq!(bench.count(), 1000_usize.div_ceil(46));
    let loads: Vec<usize> = (0..2)
        .map(|thread| {
            let pairs = bench.book.pairs().filter(|pair| pair.thread == thread);
            pairs.map(Pair::calls).sum()
        })
        .collect();
    assert!(loads[0].abs_diff(loads[1]) <= SLACK + 1, "{loads:?}");
    // A buffer as asked for.
    assert_eq!(calls_per_port(8 << 20), MOST);
    assert_eq!(calls_per_port(0), 1);
}

#[test]
fn the_same_remote_address_and_port_are_never_together() {
    let mut bench = Bench::new(1);
    let first = bench.talk("192.0.2.1:4000", "192.0.2.1");
    let second = bench.talk("192.0.2.1:4000", "192.0.2.1");
    assert_ne!(first.pair, second.pair);
    // Nor where only the packets come from there.
    let natted = bench.answer("10.0.0.5:4000", "192.0.2.7");
    let source = "192.0.2.7:61000".parse().ok();
    bench
        .book
        .note(natted, "10.0.0.5:4000".parse().ok(), source, bench.now);
    let third = bench.talk("192.0.2.7:61000", "192.0.2.20");
    assert_ne!(natted.pair, third.pair);
    // Not even when the range is used up.
    bench.next = 21_000;
    let choice = bench
        .book
        .choose(&wanted("192.0.2.1:4000", "192.0.2.1"), bench.now);
    assert!(!matches!(choice, Choice::Here(_)));
    bench.book.pairs.iter().for_each(|(index, pair)| {
        let Choice::Open { instead, .. } = choice else {
            return;
        };
        assert!(
            instead != Some(index)
                || !pair
                    .seats
                    .iter()
                    .any(|(_, seat)| seat.uses("192.0.2.1:4000".parse().unwrap()))
        );
    });
}

#[test]
fn a_call_that_could_be_mistaken_sits_elsewhere_until_its_source_is_known() {
    let mut bench = Bench::new(1);
    let first = bench.answer("10.0.0.5:4000", "192.0.2.7");
    let second = bench.seat(&wanted("10.0.0.6:4000", "192.0.2.7"));
    assert_ne!(first.pair, second.pair, "the same signalling address");
    let third = bench.seat(&wanted("10.0.0.5:4002", "192.0.2.8"));
    assert_ne!(first.pair, third.pair, "the same media address");
    let other = bench.seat(&wanted("192.0.2.30:4000", "192.0.2.31"));
    assert_eq!(first.pair, other.pair, "nothing in common");
    let source = "192.0.2.7:61000".parse().ok();
    bench
        .book
        .note(first, "10.0.0.5:4000".parse().ok(), source, bench.now);
    let next = bench.seat(&wanted("10.0.0.7:4000", "192.0.2.7"));
    assert_eq!(first.pair, next.pair);
}

#[test]
fn two_calls_that_one_machine_could_send_for_sit_apart_until_one_is_known() {
    let of = |remote, signalling, networks: &[&str]| Wanted {
        networks: Networks::new(networks.iter().map(|network| network.parse().unwrap())),
        ..wanted(remote, signalling)
    };
    for (other, is_alike, why) in [
        (of("10.0.0.6:4000", "203.0.113.9", &[]), true, "signalling"),
        (of("203.0.113.9:4000", "192.0.2.8", &[]), true, "media"),
        (
            of("10.0.0.7:4000", "192.0.2.8", &["203.0.113.8/29"]),
            true,
            "networks",
        ),
        (
            of("10.0.0.7:4000", "192.0.2.8", &["10.0.0.0/24"]),
            true,
            "its networks have the other's media",
        ),
        (
            of("10.0.0.7:4000", "192.0.2.8", &["203.0.113.16/28"]),
            false,
            "nothing",
        ),
    ] {
        let mut bench = Bench::new(1);
        let first = bench.seat(&of("10.0.0.5:4000", "192.0.2.7", &["203.0.113.0/28"]));
        let remote = "10.0.0.5:4000".parse().ok();
        bench.book.note(first, remote, None, bench.now);
        let place = bench.seat(&other);
        assert_eq!(place.pair != first.pair, is_alike, "{why}");
        bench.book.leave(place, bench.now);
        // Once its source is known it is mistaken for nobody.
        let mut bench = Bench::new(1);
        let first = bench.seat(&of("10.0.0.5:4000", "192.0.2.7", &["203.0.113.0/28"]));
        bench.book.note(first, remote, remote, bench.now);
        assert_eq!(bench.seat(&other).pair, first.pair, "{why}");
    }
}

#[test]
fn calls_that_never_send_do_not_block_new_ones() {
    let mut bench = Bench::new(1);
    bench.answer("10.0.0.5:4000", "192.0.2.7");
    bench.now += CANDIDATE_FOR;
    bench.answer("10.0.0.6:4000", "192.0.2.7");
    assert_eq!(bench.count(), 1, "the first one is no candidate any more");
    // As many as there are ports, at once, and one more.
    let mut bench = Bench::new(2);
    for call in 0..501 {
        bench.answer(
            &format!("10.0.{}.{}:4000", call / 250, call % 250),
            "192.0.2.7",
        );
    }
    assert_eq!(bench.count(), 500);
    let calls: usize = bench.book.pairs().map(Pair::calls).sum();
    assert_eq!(calls, 501);
}

#[test]
fn a_call_without_a_remote_address_has_a_port_alone_until_it_is_known() {
    let mut bench = Bench::new(1);
    bench.talk("192.0.2.1:4000", "192.0.2.1");
    let alone = bench.seat(&wanted("", "192.0.2.9"));
    let other = bench.talk("192.0.2.2:4000", "192.0.2.2");
    assert_ne!(alone.pair, other.pair);
    assert_eq!(bench.count(), 2);
    let remote = "192.0.2.9:4000".parse().ok();
    bench.book.note(alone, remote, remote, bench.now);
    bench.book.leave(other, bench.now);
    let next = bench.talk("192.0.2.3:4000", "192.0.2.3");
    let next_but_one = bench.talk("192.0.2.4:4000", "192.0.2.4");
    assert_eq!(bench.count(), 2, "its port is shared now");
    assert!([next.pair, next_but_one.pair].contains(&alone.pair));
}

#[test]
fn the_next_call_from_the_same_place_sits_elsewhere_for_a_while() {
    let mut bench = Bench::new(1);
    let first = bench.talk("192.0.2.1:4000", "192.0.2.1");
    bench.book.leave(first, bench.now);
    let second = bench.talk("192.0.2.1:4000", "192.0.2.1");
    assert_ne!(first.pair, second.pair);
    bench.book.leave(second, bench.now);
    // Where there is no other port it is taken all the same.
    bench.next = 21_000;
    let third = bench.talk("192.0.2.1:4000", "192.0.2.1");
    bench.book.leave(third, bench.now);
    bench.now += STRAYS_FOR;
    bench.next = 20_500;
    bench.talk("192.0.2.1:4000", "192.0.2.1");
    assert_eq!(bench.count(), 2);
}

#[test]
fn a_call_that_has_to_be_in_a_thread_gets_a_port_there() {
    let mut bench = Bench::new(3);
    for thread in [2, 0, 2, 1] {
        let wanted = Wanted {
            thread: Some(thread),
            ..wanted("192.0.2.1:4000", "192.0.2.1")
        };
        let place = bench.seat(&wanted);
        assert_eq!(bench.book.pair(place.pair).unwrap().thread, thread);
    }
}

#[test]
fn ports_that_are_not_of_the_range_any_more_are_given_up_when_they_are_empty() {
    let mut bench = Bench::new(1);
    let place = bench.talk("192.0.2.1:4000", "192.0.2.1");
    let moved = Wanted {
        range: (25_000, 25_099),
        ..wanted("192.0.2.2:4000", "192.0.2.2")
    };
    assert!(matches!(
        bench.book.choose(&moved, bench.now),
        Choice::Open { instead: None, .. }
    ));
    assert!(bench.book.take_unused(&moved, bench.now).is_empty());
    bench.book.leave(place, bench.now);
    let unused = bench.book.take_unused(&moved, bench.now);
    assert_eq!(unused[0].port, 20_000);
    assert_eq!(bench.count(), 0);
}

#[test]
fn what_a_burst_has_opened_is_closed_when_it_is_not_needed_for_a_while() {
    let mut bench = Bench::new(1);
    // The same remote address and port: each has a pair of its own.
    let calls: Vec<Place> = (0..20)
        .map(|_| bench.talk("192.0.2.1:4000", "192.0.2.1"))
        .collect();
    assert_eq!(bench.count(), 20);
    let (stays, go) = calls.split_first().unwrap();
    for call in go {
        bench.book.leave(*call, bench.now);
    }
    let next = wanted("192.0.2.2:4000", "192.0.2.2");
    let millisecond = Duration::from_millis(1);
    bench.now += IDLE_FOR.saturating_sub(millisecond);
    assert!(bench.book.take_unused(&next, bench.now).is_empty());
    let used = bench.seat(&next);
    bench.now += millisecond;
    let unused = bench.book.take_unused(&next, bench.now).len();
    let shared = usize::from(used.pair != stays.pair);
    assert_eq!(unused, 19 - shared, "but for those that have a call");
    assert_eq!(bench.count(), 1 + shared);
}

#[test]
fn the_place_of_a_call_on_hold_stays_taken() {
    let mut bench = Bench::new(1);
    let held = bench.talk("192.0.2.1:4000", "192.0.2.1");
    for hold in [None, "0.0.0.0:4000".parse().ok()] {
        bench.book.note(held, hold, None, bench.now);
        bench.now += CANDIDATE_FOR;
        let other = bench.seat(&wanted("192.0.2.1:4000", "192.0.2.1"));
        assert_ne!(held.pair, other.pair);
    }
}

#[test]
fn a_seat_is_free_again_after_its_call() {
    let mut bench = Bench::new(1);
    for call in 0..2000_u16 {
        let place = bench.talk(&format!("192.0.2.1:{}", 10_000 + call), "192.0.2.9");
        bench.book.leave(place, bench.now);
        bench.now += Duration::from_millis(10);
    }
    assert_eq!(bench.count(), 1);
    let (_, pair) = bench.book.pairs.iter().next().unwrap();
    assert!(pair.strays.len() <= 1100, "{}", pair.strays.len());
}
