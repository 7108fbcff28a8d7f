//! Nothing is left of calls that are over: sockets, threads and memory return to where they were.
//!
//! `RINGWIRE_SOAK_CALLS` sets how many calls there are in all (2,000).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};

const OTHER: &str = "+34911234568";

/// New calls in a second, to each of the two agents.
const RATE: &str = "50";

/// Calls with whose beginning ports are closed that are not needed any more.
const FEW: u32 = 2;
/// Calls until buffers, allocator and thread pools have their size.
const WARM_UP: u32 = 200;

/// The longest transactions are over by then (RFC 3261, timer H).
const TRANSACTIONS: Duration = Duration::from_secs(34);

/// Memory that may be gained, in KiB, however many calls there are: 3 KiB for each of 2,000, and 0.6 KiB for each of the soak's 10,000.
const ALLOWED: u64 = 6 << 10;

/// What a process holds.
#[derive(Clone, Copy)]
struct Holds {
    /// Besides those of `ports`.
    descriptors: usize,
    /// Pairs of ports for media, which calls share: how many depends on how near to each other they begin.
    ports: usize,
    threads: usize,
    tasks: usize,
    memory: u64,
}

impl Holds {
    fn of(gateway: &mut Gateway) -> Self {
        let tasks = gateway.metric("ringwire_tasks") as usize;
        let ports = gateway.metric("ringwire_rtp_port_pairs") as usize;
        let process = gateway.process().id();
        let folder = Path::new("/proc").join(process.to_string());
        let count = |name: &str| std::fs::read_dir(folder.join(name)).unwrap().count();
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
        Self {
            descriptors: count("fd").saturating_sub(2 * ports),
            ports,
            threads: count("task"),
            tasks,
            memory,
        }
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            ports,
            threads,
            tasks,
            memory,
        } = self;
        write!(
            f,
            "{ports} pairs of ports, {descriptors} other descriptors, {threads} threads, {tasks} tasks, {:.1} MiB",
            *memory as f64 / 1024.0
        )
    }
}

/// Half of the calls go to the echo, half to the WebSocket agent, side by side. sipp sends back the audio that it gets.
fn calls(gateway: &Gateway, count: u32) {
    let count = (count / 2).to_string();
    let start = |number: &str| {
        let arguments = [
            "-m",
            &count,
            "-r",
            RATE,
            "-l",
            "400",
            "-d",
            "300",
            "-s",
            number,
            "-timeout",
            "390s",
            "-recv_timeout",
            "20000",
            "-rtp_echo",
        ];
        sipp::start("call.xml", gateway.sip(), &arguments)
    };
    let (first, second) = (start(NUMBER), start(OTHER));
    first.end();
    second.end();
}

/// Waits until all transactions are over (the longest last 32 s) and what they held is back.
fn settle(gateway: &mut Gateway, agent: &Agent, goal: impl Fn(Holds) -> bool) -> Holds {
    gateway.wait_calls(0);
    wait::until_ok(
        seconds(10),
        "all connections to the agent are closed",
        || match agent.connections() {
            (_, 0) => Ok(()),
            (_, open) => Err(format!("{open} are open")),
        },
    );
    let end = Instant::now() + seconds(45);
    loop {
        let holds = Holds::of(gateway);
        if goal(holds) || Instant::now() >= end {
            return holds;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The memory of the process by kind, for the report of a failure.
fn map(process: u32) -> String {
    let path: PathBuf = ["/proc", &process.to_string(), "smaps_rollup"]
        .iter()
        .collect();
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn sockets_threads_and_memory_return_after_thousands_of_calls() {
    let total: u32 =
        std::env::var("RINGWIRE_SOAK_CALLS").map_or(2_000, |text| text.parse().unwrap());
    let agent = Agent::start(Manner {
        echoes: true,
        forgets: true,
        ..Manner::default()
    });
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "echo"),
        number("other", OTHER, "trunk", "bot"),
        echo("echo", ""),
        web_socket("bot", &agent.url(), ""),
    ];
    let mut gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    println!("at the start         {}", Holds::of(&mut gateway));
    calls(&gateway, WARM_UP);
    // What the transactions of the warm-up hold is given back, too, before it counts, and its ports with the next calls.
    let ended = Instant::now();
    settle(&mut gateway, &agent, |_| ended.elapsed() > TRANSACTIONS);
    calls(&gateway, FEW);
    let before = settle(&mut gateway, &agent, |_| true);
    println!("after {WARM_UP} calls      {before}");

    let began = Instant::now();
    calls(&gateway, total);
    let rate = f64::from(total) / began.elapsed().as_secs_f64();
    println!(
        "right after {total}     {} ({rate:.0} calls/s)",
        Holds::of(&mut gateway)
    );
    let allowed = before.memory + ALLOWED;
    let good = |holds: Holds| {
        holds.ports <= FEW as usize
            && holds.descriptors <= before.descriptors
            && holds.threads <= before.threads
            && holds.tasks <= before.tasks
            && holds.memory <= allowed
    };
    let ended = Instant::now();
    settle(&mut gateway, &agent, |_| ended.elapsed() > TRANSACTIONS);
    calls(&gateway, FEW);
    let after = settle(&mut gateway, &agent, good);
    println!("settled              {after}");
    assert!(
        good(after),
        "before {before}, after {after}\n{}",
        map(gateway.process().id())
    );
    assert_eq!(gateway.records().len() as u32, WARM_UP + total + 2 * FEW);
    let bad: Vec<_> = gateway
        .records()
        .into_iter()
        .filter(|record| record["reason"] != "CallerHungUp")
        .collect();
    assert!(
        bad.is_empty(),
        "{} calls ended otherwise, such as {}",
        bad.len(),
        bad[0]
    );
    for (kind, name) in [
        ("SipProvider", "trunk"),
        ("PhoneNumber", "main"),
        ("VoiceAgent", "bot"),
    ] {
        assert_eq!(gateway.object(kind, name)["status"]["activeCalls"], 0);
    }
}
