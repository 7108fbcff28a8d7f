//! Two endpoints over a simulated network, thousands of times: whatever is lost, doubled, late or out of order, every
//! transaction ends, is told once, and leaves nothing behind.
//!
//! A scenario is made from its seed alone. `RINGWIRE_SEED=n cargo test -p ringwire-sip --test network` runs that one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod callee;
mod caller;
mod common;
mod net;

use std::time::{Duration, Instant};

use callee::Callee;
use caller::Caller;
use common::Told;
use net::{Network, Quality, Side};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringwire_sip::message::parse_datagram;

/// More wake-ups than any scenario needs: beyond it time-outs lead nowhere.
const MOST_STEPS: u32 = 3000;

/// Says which scenario it was when a test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this scenario again: RINGWIRE_SEED={}", self.0);
        }
    }
}

#[test]
fn every_transaction_over_datagrams_ends_and_is_told_once() {
    let sum = scenarios(1200, false);
    // The scenarios are worth something only as long as all of this happens in them.
    assert!(sum.is_none_or(|sum| sum.all_happened(100)), "{sum:?}");
}

#[test]
fn every_transaction_over_a_stream_ends_and_is_told_once() {
    scenarios(800, true);
}

/// What happened in that many scenarios; `None` when only one was asked for.
fn scenarios(count: u64, reliable: bool) -> Option<Told> {
    if let Ok(seed) = std::env::var("RINGWIRE_SEED") {
        scenario(seed.parse().unwrap(), reliable);
        return None;
    }
    let mut sum = Told::default();
    for seed in 0..count {
        let failing = Seed(seed);
        sum.add(scenario(seed, reliable));
        drop(failing);
    }
    Some(sum)
}

/// Runs until nothing is under way and nothing is due, and checks on the way.
fn scenario(seed: u64, reliable: bool) -> Told {
    let mut rng = StdRng::seed_from_u64(seed);
    let quality = Quality::any(reliable, &mut rng);
    // A machine that is stopped for a while finds everything overdue.
    let jumps = rng.random_ratio(1, 4);
    let mut network = Network::new(quality);
    let mut now = Instant::now();
    let mut caller = Caller::new(reliable, now, &mut rng);
    let mut callee = Callee::new(reliable, &mut rng);
    for _ in 0..MOST_STEPS {
        loop {
            let mut quiet = true;
            while let Some(transmit) = caller.poll_transmit() {
                quiet = false;
                let message = parse_datagram(&transmit.bytes).unwrap();
                caller.check_sent(&message);
                network.send(Side::Callee, &message, now, &mut rng);
            }
            while let Some(transmit) = callee.endpoint.poll_transmit() {
                quiet = false;
                let message = parse_datagram(&transmit.bytes).unwrap();
                callee.check_sent(&message);
                network.send(Side::Caller, &message, now, &mut rng);
            }
            while let Some(event) = caller.endpoint.poll_event() {
                quiet = false;
                caller.on_event(event, now, &mut rng);
            }
            while let Some(event) = callee.endpoint.poll_event() {
                quiet = false;
                callee.on_event(event, now, &mut rng);
            }
            if quiet {
                break;
            }
        }
        let due = [network.next(), caller.poll_timeout(), callee.poll_timeout()];
        let Some(next) = due.into_iter().flatten().min() else {
            return caller.finish(callee);
        };
        now = now.max(next);
        if jumps && rng.random_ratio(1, 20) {
            now += Duration::from_secs(40).mul_f64(rng.random_range(0.0..1.0));
        }
        while let Some((to, message)) = network.arrived(now) {
            match to {
                Side::Caller => caller.receive(message, now),
                Side::Callee => callee.receive(message, now),
            }
        }
        caller.handle_timeout(now, &mut rng);
        callee.handle_timeout(now, &mut rng);
        for endpoint in [&caller.endpoint, &callee.endpoint] {
            assert!(
                endpoint.poll_timeout().is_none_or(|at| at > now),
                "still due after it was run"
            );
        }
    }
    panic!("it does not come to an end");
}
