//! Runs the parts, measures them, and compares.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use ringwire_tests::address::Address;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, media_gateway, number, object, static_trunk, web_socket};
use ringwire_tests::process::{self, Process};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};

use crate::caller::{self, Heard, Moment, Plan, Target};
use crate::chart;
use crate::protocol::Protocol;
use crate::report::{self, Row, What};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Agents' protocols.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "twilio")]
    protocols: Vec<Protocol>,
    /// Calls at the same time, for one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "100,200,400")]
    calls: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often all is measured; the medians are shown.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// New calls in a second while calls are put up.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Also measure calls of one second each, so many new ones in a second.
    #[arg(long, value_delimiter = ',', default_value = "")]
    churn: Vec<String>,
    /// Find the highest number of calls, and of new calls in a second, that stay clean.
    #[arg(long)]
    search: bool,
    /// The agents' `cushionMillis`, if the program knows it.
    #[arg(long)]
    cushion: Option<u32>,
    /// Without delays of ours: `cushionMillis: 0` and `callerAudio: OnArrival`.
    #[arg(long, conflicts_with = "cushion")]
    on_arrival: bool,
    /// Leave the floor out.
    #[arg(long)]
    no_floor: bool,
    /// Folder for `media.json` and `media.svg`.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Who is measured.
struct Bed {
    agent: Process,
    subject: Subject,
    from: Address,
    _scratch: Scratch,
    /// Of agent and floor.
    parts: Address,
}

enum Subject {
    Gateway(Box<Gateway>),
    Floor(Process),
}

impl Subject {
    fn process(&mut self) -> &mut Process {
        match self {
            Self::Gateway(gateway) => gateway.process(),
            Self::Floor(process) => process,
        }
    }
}

/// Runs everything. False if a call failed.
pub fn run(options: &Options) -> bool {
    let mut rows = Vec::new();
    for round in 0..options.rounds {
        for protocol in &options.protocols {
            for calls in &options.calls {
                if !options.no_floor {
                    rows.push(steady(What::Floor, *protocol, *calls, options));
                }
                rows.push(steady(What::Ringwire, *protocol, *calls, options));
            }
            for rate in options.churn.iter().filter_map(|rate| rate.parse().ok()) {
                rows.push(churn(*protocol, rate, options));
            }
        }
        eprintln!("round {} of {} is done", round + 1, options.rounds);
    }
    if options.search {
        for protocol in &options.protocols {
            for what in [What::Floor, What::Ringwire] {
                rows.extend(search(what, *protocol, options));
            }
        }
    }
    let rows = report::medians(&rows);
    println!("{}", report::table(&rows));
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("media.json"), report::json(&rows)).unwrap();
        std::fs::write(folder.join("media.svg"), chart::draw(&rows)).unwrap();
    }
    let failed = rows
        .iter()
        .filter(|row| !row.searching && !row.heard.failed.is_empty());
    failed.count() == 0
}

fn agent_of(protocol: Protocol, address: SocketAddr, options: &Options) -> String {
    let more = match options.cushion {
        Some(millis) => format!("cushionMillis: {millis}"),
        None if options.on_arrival => "cushionMillis: 0, callerAudio: OnArrival".to_owned(),
        None => String::new(),
    };
    match protocol {
        Protocol::Twilio => web_socket("bot", &format!("ws://{address}/media"), &more),
        Protocol::AudioSocket => object(
            "VoiceAgent",
            "bot",
            &format!("{{audioSocket: {{address: \"{address}\"}}, {more}}}"),
        ),
    }
}

/// This program as another part.
fn part(name: &str, arguments: &[String], folder: &Path) -> Process {
    let mut command = process::command(std::env::current_exe().unwrap());
    command.arg(name).args(arguments);
    Process::start(name, command, folder)
}

fn protocol_argument(protocol: Protocol) -> String {
    clap::ValueEnum::to_possible_value(&protocol)
        .unwrap()
        .get_name()
        .to_owned()
}

impl Bed {
    fn make(what: What, protocol: Protocol, calls: usize, options: &Options) -> Self {
        let (address, scratch) = (Address::claim(), Scratch::new("load"));
        let listen = address.port(9000);
        let spoken = protocol_argument(protocol);
        let arguments = ["--listen", &listen.to_string(), "--protocol", &spoken].map(str::to_owned);
        let agent = part("agent", &arguments, scratch.path());
        wait::until(seconds(5), "the agent listens", || {
            std::net::TcpStream::connect(listen).ok().map(drop)
        });
        let subject = match what {
            What::Floor => {
                let first = address.port(20_000);
                let arguments = [
                    "--agent",
                    &listen.to_string(),
                    "--protocol",
                    &spoken,
                    "--first",
                    &first.to_string(),
                    "--calls",
                    &calls.to_string(),
                ];
                let floor = part("floor", &arguments.map(str::to_owned), scratch.path());
                wait::until(seconds(30), "the floor is ready", || {
                    floor.log().contains("ready").then_some(())
                });
                Subject::Floor(floor)
            }
            What::Ringwire => {
                let set = [
                    static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8], codecs: [PCMU]"),
                    number("main", NUMBER, "trunk", "bot"),
                    agent_of(protocol, listen, options),
                    media_gateway("{rtp: {portRange: 10000-19998}}"),
                ];
                Subject::Gateway(Box::new(Gateway::start(&[(
                    "all.yaml",
                    &set.join("---\n"),
                )])))
            }
        };
        Self {
            agent,
            subject,
            from: Address::claim(),
            _scratch: scratch,
            parts: address,
        }
    }

    fn target(&self) -> Target {
        match &self.subject {
            Subject::Gateway(gateway) => Target::Sip(gateway.sip(), NUMBER.to_owned()),
            Subject::Floor(_) => Target::Floor(self.parts.port(20_000)),
        }
    }

    /// Processor time so far of the subject, the agent and ourselves.
    fn cpu(&mut self) -> [Duration; 3] {
        let own = process::cpu_of(std::process::id());
        [self.subject.process().cpu(), self.agent.cpu(), own]
    }

    /// That of the subject, and the part of it that has nothing to do with packets of audio.
    fn cpu_and_signalling(&mut self) -> [Duration; 2] {
        let process = self.subject.process();
        let signalling = process::cpu_of_threads(process.id(), |name| !name.starts_with("rtp-"));
        [process.cpu(), signalling]
    }

    fn memory(&mut self) -> u64 {
        self.subject.process().memory()
    }
}

/// Calls that are all up at the same time.
fn steady(what: What, protocol: Protocol, calls: usize, options: &Options) -> Row {
    let mut bed = Bed::make(what, protocol, calls, options);
    let plan = Plan {
        target: bed.target(),
        from: bed.from.ip(),
        calls,
        rate: options.rate,
        hold: None,
        duration: Duration::from_secs(options.seconds),
    };
    let (mut cpu, mut memory, mut wall) = ([Duration::ZERO; 3], (0, 0), Duration::ZERO);
    let mut begun = Instant::now();
    let heard = caller::run(plan, &mut |moment| match moment {
        Moment::Before => memory.0 = bed.memory(),
        Moment::Begin => (cpu, begun) = (bed.cpu(), Instant::now()),
        Moment::End => {
            wall = begun.elapsed();
            let before = cpu;
            cpu = bed.cpu();
            for (now, before) in cpu.iter_mut().zip(before) {
                *now -= before;
            }
            memory.1 = bed.memory();
        }
        Moment::After => {}
    });
    let heard = heard.unwrap();
    let share = |used: Duration| 100.0 * used.as_secs_f64() / wall.as_secs_f64() / calls as f64;
    let row = Row {
        what,
        protocol,
        calls,
        rate: None,
        percent: cpu.map(share),
        millis_per_call: None,
        signalling_millis_per_call: None,
        memory_per_call: memory.1.saturating_sub(memory.0) as f64 / calls as f64,
        searching: false,
        heard,
    };
    eprintln!("{}", report::line(&row));
    row
}

/// Calls of one second each.
fn churn(protocol: Protocol, rate: f64, options: &Options) -> Row {
    let lines = (rate * 2.0) as usize + 20;
    let mut bed = Bed::make(What::Ringwire, protocol, lines, options);
    let plan = Plan {
        target: bed.target(),
        from: bed.from.ip(),
        calls: lines,
        rate,
        hold: Some(Duration::from_secs(1)),
        duration: Duration::from_secs(options.seconds),
    };
    let mut cpu = [Duration::ZERO; 2];
    let heard = caller::run(plan, &mut |moment| match moment {
        Moment::Before => cpu = bed.cpu_and_signalling(),
        Moment::Begin | Moment::End => {}
        Moment::After => {
            let before = cpu;
            cpu = bed.cpu_and_signalling();
            for (now, before) in cpu.iter_mut().zip(before) {
                *now -= before;
            }
        }
    });
    let heard: Heard = heard.unwrap();
    let millis = cpu.map(|used| 1000.0 * used.as_secs_f64() / heard.answered.max(1) as f64);
    let row = Row {
        what: What::Ringwire,
        protocol,
        calls: rate as usize,
        rate: Some(rate),
        percent: [0.0; 3],
        millis_per_call: Some(millis[0]),
        signalling_millis_per_call: Some(millis[1]),
        memory_per_call: 0.0,
        searching: false,
        heard,
    };
    eprintln!("{}", report::line(&row));
    row
}

/// More and more calls until they are not clean any more, then the same with new calls in a second.
fn search(what: What, protocol: Protocol, options: &Options) -> Vec<Row> {
    let mut rows = climb(200, 4000, |calls| steady(what, protocol, calls, options));
    // The floor has no calls that begin and end.
    if what == What::Ringwire {
        rows.extend(climb(100, 2000, |rate| {
            churn(protocol, rate as f64, options)
        }));
    }
    rows
}

/// Goes up in steps as long as it is clean, then looks in between, down to an eighth of a step.
fn climb(step: usize, most: usize, mut measure: impl FnMut(usize) -> Row) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut is_clean = |level| {
        let mut row = measure(level);
        row.searching = true;
        let heard = &row.heard;
        let clean = heard.is_clean() && heard.late == 0;
        rows.push(row);
        clean
    };
    let (mut clean, mut not) = (0, step);
    while not <= most && is_clean(not) {
        (clean, not) = (not, not + step);
    }
    while not <= most && not - clean > step / 8 {
        let middle = usize::midpoint(clean, not);
        if is_clean(middle) {
            clean = middle;
        } else {
            not = middle;
        }
    }
    rows
}
