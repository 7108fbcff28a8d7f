//! Good calls beside 50,000 hostile packets a second. Each test takes the whole machine, so one at a time:
//!
//! ```text
//! cargo test -p ringwire-tests --test flood -- --test-threads 1 --nocapture
//! ```
//!
//! The flooder takes most of a processor itself, as it would not on a network.
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

/// How long each part takes.
const LASTS: Duration = Duration::from_secs(10);

/// A gateway that takes calls from this caller alone.
fn gateway(caller: &Caller) -> Gateway {
    let set = [
        static_trunk(caller.ip(), "codecs: [PCMA]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n"))])
}

/// The calls without and with a flood from so many sources.
fn measure(sources: u32) -> (Outcome, Outcome) {
    let mut caller = Caller::new();
    let gateway = gateway(&caller);
    // What is slow the first time only is not the flood's doing.
    caller.run(gateway.sip(), CALLS, seconds(1));
    let calm = caller.run(gateway.sip(), CALLS, LASTS);
    println!("without flood: {calm}");
    let flood = Flood::start(gateway.sip(), sources, HOSTILE);
    let flooded = caller.run(gateway.sip(), CALLS, LASTS);
    println!(
        "beside {:.0} packets/s from {sources} sources: {flooded}",
        flood.rate()
    );
    assert!(flood.rate() > 0.9 * f64::from(HOSTILE), "{}", flood.rate());
    drop(flood);
    wait::until(seconds(10), "the flood is in the metrics", || {
        let (_, page) = gateway.http("/metrics").unwrap();
        let told = page.lines().filter(|line| {
            line.starts_with("ringwire_sip_") || line.starts_with("ringwire_refusals_total")
        });
        let told: Vec<&str> = told.collect();
        let is_there = told.iter().any(|line| line.contains("FloodIgnored"));
        is_there.then(|| println!("{}", told.join("\n")))
    });
    assert_eq!(calm.failed, Vec::<String>::new());
    assert_eq!(flooded.failed, Vec::<String>::new());
    (calm, flooded)
}

#[track_caller]
fn assert_delayed_at_most(limit: Duration, calm: &Outcome, flooded: &Outcome) {
    let (before, beside) = (calm.percentile(0.99), flooded.percentile(0.99));
    assert!(
        beside <= before + limit,
        "p99 went from {before:?} to {beside:?}"
    );
}

#[test]
fn a_flood_from_one_source_delays_good_calls_by_twenty_milliseconds_at_most() {
    let (calm, flooded) = measure(1);
    assert_delayed_at_most(Duration::from_millis(20), &calm, &flooded);
}

#[test]
fn a_flood_from_a_thousand_sources_delays_good_calls_by_a_hundred_milliseconds_at_most() {
    let (calm, flooded) = measure(1_000);
    assert_delayed_at_most(Duration::from_millis(100), &calm, &flooded);
}
