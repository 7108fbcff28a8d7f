//! Thousands of trunks in one registrar: how soon all are registered, how evenly their REGISTERs come, and what it costs to keep them.
//!
//! `hack/bench-registrations.sh` runs it as a benchmark. `RINGWIRE_TRUNKS` sets how many there are (5,000),
//! `RINGWIRE_EXPIRY_SECONDS` how long a binding lasts (60), `RINGWIRE_STEADY_SECONDS` how long they are watched once all are registered
//! (25), and `RINGWIRE_CALLS_PER_SECOND` how many calls begin in a second of a further such time (0: there is none).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringwire_tests::carrier::{Carrier, Counters};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{self, NUMBER, echo, number, static_trunk};
use ringwire_tests::sipp;
use ringwire_tests::wait::seconds;

/// Memory that the server may hold, in MiB.
const MEMORY: u64 = 300;

/// REGISTERs that begin in a second; each is sent twice where the carrier challenges it.
const PACE: f64 = 500.0;

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Users of the carrier, as `hack/carrier.sh` takes them.
fn users(trunks: u32) -> String {
    let mut list = String::new();
    for trunk in 0..trunks {
        write!(list, "t{trunk}:p{trunk} ").unwrap();
    }
    list
}

/// So many providers, each with a Secret and a number of its own.
fn manifests(trunks: u32, carrier: &Carrier, expiry: u32) -> String {
    let mut set = vec![
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    for trunk in 0..trunks {
        let name = format!("t{trunk}");
        let spec = format!(
            "{{server: {}, transport: UDP, credentialsSecretRef: {{name: {name}}}, registration: {{expirySeconds: {expiry}}}}}",
            carrier.ip()
        );
        set.push(manifests::object("SipProvider", &name, &spec));
        set.push(format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{username: {name}, password: p{trunk}}}\n"
        ));
        set.push(number(&name, &format!("+3480{trunk:07}"), &name, "bot"));
    }
    set.join("---\n")
}

/// What the process has used so far.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    /// Seconds of processor time.
    cpu: f64,
    /// KiB, now and at most.
    memory: u64,
    peak: u64,
}

impl Used {
    fn of(process: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap();
        let (stat, status) = (read("stat"), read("status"));
        // proc(5): fields 14 and 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
        let kib = |key: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self {
            at: Instant::now(),
            cpu: (ticks(11) + ticks(12)) / 100.0,
            memory: kib("VmRSS:"),
            peak: kib("VmHWM:"),
        }
    }

    /// Share of one core since then, in percent.
    fn percent_since(&self, before: &Self) -> f64 {
        (self.cpu - before.cpu) / (self.at - before.at).as_secs_f64() * 100.0
    }
}

/// How many REGISTERs have come to the carrier, and when.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<(Instant, u64)>>,
}

impl Watch {
    fn start(counters: Counters) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.push((Instant::now(), counters.registers()));
                std::thread::sleep(Duration::from_millis(100));
            }
            seen
        });
        Self { stop, thread }
    }

    fn end(self) -> Arrivals {
        self.stop.store(true, Ordering::Relaxed);
        Arrivals(self.thread.join().unwrap())
    }
}

struct Arrivals(Vec<(Instant, u64)>);

impl Arrivals {
    /// The most per second in any `window` from `begin` to `end`, and the mean. A carrier that has to wait for the processor takes what has
    /// come meanwhile at once: the longer the window, the less that matters.
    fn rates(&self, window: Duration, begin: Instant, end: Instant) -> (f64, f64) {
        let within = self.0.iter();
        let within: Vec<_> = within
            .filter(|(at, _)| (begin..=end).contains(at))
            .collect();
        let rate = |(from, before): &(Instant, u64), (to, after): &(Instant, u64)| {
            (after - before) as f64 / (*to - *from).as_secs_f64()
        };
        let mut largest = 0.0_f64;
        for (index, first) in within.iter().enumerate() {
            let last = within[index..]
                .iter()
                .find(|(at, _)| *at >= first.0 + window);
            largest = last.map_or(largest, |last| largest.max(rate(first, last)));
        }
        (largest, rate(within[0], within[within.len() - 1]))
    }

    /// Second by second from `begin`.
    fn histogram(&self, begin: Instant) -> String {
        let mut counts = Vec::new();
        let mut before = self.0[0].1;
        let mut next = begin + seconds(1);
        for (at, count) in &self.0 {
            if *at >= next {
                counts.push((count - before).to_string());
                (before, next) = (*count, next + seconds(1));
            }
        }
        counts.join(" ")
    }
}

#[test]
fn thousands_of_trunks_register_evenly_and_cost_little() {
    let trunks = setting("RINGWIRE_TRUNKS", 5_000);
    let expiry = setting("RINGWIRE_EXPIRY_SECONDS", 60);
    let steady = seconds(setting("RINGWIRE_STEADY_SECONDS", 25).into());
    let calls = setting("RINGWIRE_CALLS_PER_SECOND", 0);
    let limit = seconds(setting("RINGWIRE_LIMIT_SECONDS", 30).into());
    let checks = std::env::var_os("RINGWIRE_MEASURE_ONLY").is_none();

    let carrier = Carrier::start(&["--users", &users(trunks), "--children", "2"]);
    let counters = carrier.counters();
    let watch = Watch::start(carrier.counters());
    let began = Instant::now();
    let mut gateway = Gateway::start(&[("all.yaml", &manifests(trunks, &carrier, expiry))]);
    let ready = Instant::now();
    let process = gateway.process().id();
    let mut registered = 0;
    while registered < u64::from(trunks) && ready.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(100));
        registered = counters.contacts();
    }
    let all = Instant::now();
    let at_first = Used::of(process);
    println!("{trunks} trunks, bindings of {expiry} s");
    println!(
        "ready                {:.1} s after the start",
        (ready - began).as_secs_f64()
    );
    println!(
        "{registered} registered      {:.1} s later; {:.1} s of CPU and {} MiB (at most {}) until then",
        (all - ready).as_secs_f64(),
        at_first.cpu,
        at_first.memory >> 10,
        at_first.peak >> 10,
    );
    if checks {
        assert_eq!(registered, u64::from(trunks), "registered within {limit:?}");
    }

    // What the last of them has to tell is told; a benchmark waits for the first refreshes, too.
    std::thread::sleep(seconds(setting("RINGWIRE_SETTLE_SECONDS", 2).into()));
    let before = Used::of(process);
    std::thread::sleep(steady);
    let after = Used::of(process);
    let percent = after.percent_since(&before);
    println!(
        "steady state         {percent:.1} % of a core over {} s, {} MiB (at most {})",
        steady.as_secs(),
        after.memory >> 10,
        after.peak >> 10,
    );
    if calls > 0 {
        let count = (u64::from(calls) * steady.as_secs()).to_string();
        let rate = calls.to_string();
        let arguments = [
            "-m", &count, "-r", &rate, "-l", "2000", "-d", "1000", "-timeout", "390s",
        ];
        let running = sipp::start("call.xml", gateway.sip(), &arguments);
        let before = Used::of(process);
        running.end();
        let with = Used::of(process);
        println!(
            "with {calls} calls/s of 1 s  {:.1} % of a core, {} MiB",
            with.percent_since(&before),
            with.memory >> 10
        );
    }
    let held = counters.contacts();
    let arrivals = watch.end();
    let end = Instant::now();
    let (burst, _) = arrivals.rates(seconds(1), began, all);
    let (peak, mean) = arrivals.rates(seconds(1), all, end);
    println!("REGISTERs per second until all are registered: at most {burst:.0}");
    println!("REGISTERs per second after that: at most {peak:.0}, {mean:.0} in the mean");
    println!("second by second     {}", arrivals.histogram(began));
    println!("still bound          {held}");

    if !checks {
        return;
    }
    assert_eq!(held, u64::from(trunks), "a binding has lapsed");
    assert!(after.peak >> 10 <= MEMORY, "{} KiB", after.peak);
    let (burst, _) = arrivals.rates(seconds(3), began, all);
    assert!(
        burst <= PACE * 2.0 * 1.2,
        "{burst} REGISTERs per second at first"
    );
    // Were they not spread, all would come within a tenth of the interval.
    let (peak, _) = arrivals.rates(seconds(3), all, end);
    let even = f64::from(trunks) / f64::from(expiry);
    assert!(
        peak <= even * 5.0,
        "{peak} REGISTERs per second, where {even:.0} were even"
    );
    // Others use the processor, too: what counts is measured by the benchmark.
    assert!(percent <= 25.0, "{percent} % of a core");
}
