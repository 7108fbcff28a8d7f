//! Good calls beside 50,000 hostile packets a second: what they feel is compared with the same calls right before.
//!
//! Each test takes the whole machine, so one at a time, with the programs of the image:
//!
//! ```text
//! cargo test -p ringwire-tests --test flood -- --test-threads 1 --nocapture
//! ```
//!
//! The flooder takes a part of a processor itself, as it would not on a network; it prints how much.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::time::Duration;

use ringwire_tests::calls::{Caller, Outcome};
use ringwire_tests::flood::Flood;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk};
use ringwire_tests::wait::{self, seconds};

/// Good calls a second.
const CALLS: u32 = 20;

/// Hostile packets a second.
const HOSTILE: u32 = 50_000;

/// How long the calls are placed, without the flood and beside it.
const LASTS: Duration = Duration::from_secs(8);

/// Another's work on the machine may spoil a round.
const ROUNDS: usize = 3;

/// Lines of the log about a flood: the first drops, and then once in ten seconds.
const MAX_LINES: usize = 4;

/// A gateway that takes calls from this caller alone.
fn gateway(caller: &Caller) -> Gateway {
    let set = [
        static_trunk(caller.ip(), "codecs: [PCMA]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n"))])
}

/// By how much the 99th percentile of the calls' set-up times grows beside a flood from so many sources. No call may fail.
fn delay(sources: u32) -> Duration {
    let mut caller = Caller::new();
    let mut gateway = gateway(&caller);
    // What is slow the first time only is not the flood's doing.
    caller.run(gateway.sip(), CALLS, seconds(1));
    let calm = caller.run(gateway.sip(), CALLS, LASTS);
    println!("without flood: {calm}");
    let busy = gateway.process().cpu();
    let flood = Flood::start(gateway.sip(), sources, HOSTILE);
    let flooded = caller.run(gateway.sip(), CALLS, LASTS);
    let (rate, load) = (flood.rate(), flood.load());
    let busy = gateway.process().cpu().saturating_sub(busy).as_secs_f64() / LASTS.as_secs_f64();
    println!("beside {rate:.0} packets/s from {sources} sources: {flooded}");
    println!("processors: {load:.2} to send the flood, {busy:.2} for the gateway");
    drop(flood);
    assert!(rate > 0.9 * f64::from(HOSTILE), "{rate:.0} packets/s");
    assert_eq!(calm.failed, Vec::<String>::new());
    assert_eq!(flooded.failed, Vec::<String>::new());
    assert_told(&mut gateway, &flooded);
    let p99 = |outcome: &Outcome| outcome.percentile(0.99);
    p99(&flooded).saturating_sub(p99(&calm))
}

/// The flood is counted by reason, and told in a few lines.
fn assert_told(gateway: &mut Gateway, flooded: &Outcome) {
    wait::until(seconds(10), "the flood is in the metrics", || {
        let (_, page) = gateway.http("/metrics").unwrap();
        let told = page.lines().filter(|line| {
            line.starts_with("ringwire_sip_") || line.starts_with("ringwire_refusals_total")
        });
        let told: Vec<&str> = told.collect();
        let is_there = ["FloodIgnored", "SourceBanned", "dropped_by_kernel"];
        let all = is_there
            .iter()
            .all(|name| told.iter().any(|line| line.contains(name)));
        all.then(|| println!("{}", told.join("\n")))
    });
    let log = gateway.process().log();
    let about = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let lines = about("dropped unanswered");
    assert!((1..=MAX_LINES).contains(&lines), "{lines} lines: {log}");
    let lines = about("is shut out");
    assert!((1..=MAX_LINES).contains(&lines), "{lines} lines: {log}");
    let calls = gateway.records().len() - flooded.setups.len();
    println!("{calls} records besides those of the calls");
}

fn assert_delayed_at_most(limit: Duration, sources: u32) {
    let mut delays = Vec::new();
    for _ in 0..ROUNDS {
        let delay = delay(sources);
        println!("p99 of the set-up: {:+.1} ms", delay.as_secs_f64() * 1e3);
        if delay <= limit {
            return;
        }
        delays.push(delay);
    }
    panic!("the p99 of the set-up grows by {delays:?}, {limit:?} are allowed");
}

#[test]
fn a_flood_from_one_source_delays_good_calls_by_twenty_milliseconds_at_most() {
    assert_delayed_at_most(Duration::from_millis(20), 1);
}

#[test]
fn a_flood_from_a_thousand_sources_delays_good_calls_by_a_hundred_milliseconds_at_most() {
    assert_delayed_at_most(Duration::from_millis(100), 1_000);
}
