//! What it costs to bring a call to whoever answers it: Ringwire's registrar beside Kamailio, in turns, with the same callers and the
//! same callee (sipp).
//!
//! `make bench-proxy`, or `cargo bench -p ringwire-tests --bench proxy -- [--rate N] [--seconds N] [--rounds N]`. What is measured is
//! processor time of the proxy's processes alone, user and system, by the calls that went through: INVITE, 100, 180, 200, ACK, BYE, 200
//! on both sides of it. That of callers and callee does not count. `docs/performance.md` says what the two do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark fails by panicking"
)]

mod kamailio;
mod kubernetes;
mod registrar;
mod sipp;

use std::time::{Duration, Instant};

use ringwire_tests::address::Address;

use self::sipp::{Answering, Calls};

/// The number that is called.
const NUMBER: &str = "+34911234567";

/// A proxy that runs.
trait Proxy {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Its process group.
    fn group(&self) -> u32;
    /// Where it takes calls.
    fn sip(&self) -> std::net::SocketAddr;
    /// Panics with what it has to say if it is not well.
    fn check(&mut self);
}

struct Options {
    rate: u32,
    seconds: u32,
    rounds: usize,
}

impl Options {
    fn read() -> Option<Self> {
        let mut options = Self {
            rate: 1000,
            seconds: 15,
            rounds: 3,
        };
        let mut benches = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next().and_then(|text| text.parse().ok());
                value.unwrap_or_else(|| panic!("a number after {argument}"))
            };
            match argument.as_str() {
                "--bench" => benches = true,
                "--rate" => options.rate = value(),
                "--seconds" => options.seconds = value(),
                "--rounds" => options.rounds = value() as usize,
                other => panic!("unknown option {other}"),
            }
        }
        // `cargo test --all-targets` runs benches too, and this one takes minutes.
        benches.then_some(options)
    }
}

/// What one round showed.
struct Round {
    /// Processor time by call.
    cpu: Duration,
    /// INVITE to 180, at the caller: p50 and p95.
    ringing: (Duration, Duration),
    failed: u64,
}

/// Processor time of all processes of a group so far. What has ended counts at its parent, which is in the group as well.
fn cpu_time(group: u32) -> Duration {
    // A hundredth of a second everywhere on Linux.
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // Behind the name, which may hold anything: state, parent, group, …, user and system time at 11 and 12.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        if fields.get(2).and_then(|field| field.parse().ok()) == Some(group) {
            ticks += fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
        }
    }
    TICK * ticks
}

fn measure(proxy: &mut dyn Proxy, caller: &Address, options: &Options) -> Round {
    // The first calls find everything empty: tables, caches, memory.
    Calls::begin(proxy.sip(), caller, options.rate, options.rate * 2).end();
    let before = cpu_time(proxy.group());
    let count = options.rate * options.seconds;
    let calls = Calls::begin(proxy.sip(), caller, options.rate, count).end();
    let used = cpu_time(proxy.group()).saturating_sub(before);
    proxy.check();
    Round {
        cpu: used / u32::try_from(calls.good.max(1)).unwrap(),
        ringing: calls.ringing,
        failed: calls.failed,
    }
}

fn median<T: Copy + Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() {
    let Some(options) = Options::read() else {
        return;
    };
    let begun = Instant::now();
    let caller = Address::claim();
    println!(
        "{} calls per second for {} s, {} rounds each",
        options.rate, options.seconds, options.rounds
    );
    let mut results: [(&str, Vec<Round>); 2] = [("", Vec::new()), ("", Vec::new())];
    for _ in 0..options.rounds {
        for (which, (name, rounds)) in results.iter_mut().enumerate() {
            let callee = Address::claim();
            let mut proxy: Box<dyn Proxy>;
            let _answering: Answering;
            if which == 0 {
                let registrar = registrar::Registrar::start(&callee);
                _answering = Answering::start(&callee, "t1", &registrar.contact());
                proxy = Box::new(registrar);
            } else {
                let contact = format!("sip:callee@{callee}:5060");
                _answering = Answering::start(&callee, "u1", &contact);
                proxy = Box::new(kamailio::Kamailio::start(&callee));
            }
            let round = measure(&mut *proxy, &caller, &options);
            *name = proxy.name();
            println!(
                "{name:9} {:6.0} µs of processor time a call, INVITE to 180 {:.1} ms (p50), {:.1} ms (p95), {} failed",
                round.cpu.as_secs_f64() * 1e6,
                round.ringing.0.as_secs_f64() * 1e3,
                round.ringing.1.as_secs_f64() * 1e3,
                round.failed
            );
            rounds.push(round);
        }
    }
    println!("\nmedian of {} rounds:", options.rounds);
    for (name, rounds) in &results {
        let cpu = median(rounds.iter().map(|round| round.cpu));
        let (p50, p95) = (
            median(rounds.iter().map(|round| round.ringing.0)),
            median(rounds.iter().map(|round| round.ringing.1)),
        );
        println!(
            "{name:9} {:6.0} µs a call = {:5.0} calls per second and core, INVITE to 180 p50 {:.1} ms, p95 {:.1} ms",
            cpu.as_secs_f64() * 1e6,
            1.0 / cpu.as_secs_f64(),
            p50.as_secs_f64() * 1e3,
            p95.as_secs_f64() * 1e3,
        );
    }
    println!("{:.0} s", begun.elapsed().as_secs_f64());
}
