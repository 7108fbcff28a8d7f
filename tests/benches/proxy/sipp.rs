//! Callers and callee: sipp on both sides.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use ringwire_tests::address::Address;
use ringwire_tests::process::{self, Process, repository};
use ringwire_tests::scratch::Scratch;

use crate::NUMBER;

fn sipp(scenario: &str, address: &Address) -> Command {
    let mut command = process::command("sipp");
    command
        .arg("-sf")
        .arg(repository().join("tests/benches/proxy").join(scenario))
        .args(["-i", &address.to_string(), "-mi", &address.to_string()])
        .args(["-nostdin", "-max_socket", "4000", "-trace_err"]);
    command
}

/// The callee.
pub struct Answering {
    process: Process,
    _scratch: Scratch,
}

impl Answering {
    /// Answers on port 5060 of this address, with this Contact.
    pub fn start(address: &Address, transport: &str, contact: &str) -> Self {
        let scratch = Scratch::new("callee");
        let mut command = sipp("uas.xml", address);
        command
            .args(["-p", "5060", "-t", transport, "-key", "contact", contact])
            .current_dir(scratch.path());
        Self {
            process: Process::start("callee", command, scratch.path()),
            _scratch: scratch,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // It waits for its last calls otherwise.
        self.process.signal("KILL");
    }
}

/// Calls that are being placed.
pub struct Calls {
    process: Process,
    scratch: Scratch,
    count: u32,
    rate: u32,
}

/// What became of them.
pub struct Done {
    pub good: u64,
    pub failed: u64,
    /// INVITE to 180: half of the calls, and 95 of 100.
    pub ringing: (Duration, Duration),
}

impl Calls {
    /// Begins with so many calls at that rate, over UDP.
    pub fn begin(proxy: SocketAddr, address: &Address, rate: u32, count: u32) -> Self {
        let scratch = Scratch::new("callers");
        let mut command = sipp("uac.xml", address);
        command
            .arg(proxy.to_string())
            .args([
                "-p",
                "5070",
                "-s",
                NUMBER,
                "-trace_rtt",
                "-rtt_freq",
                "1000",
            ])
            .args(["-trace_stat", "-stf", "stat.csv", "-fd", "1"])
            .args(["-r", &rate.to_string(), "-m", &count.to_string()])
            .args(["-recv_timeout", "10000", "-timeout", "120s"])
            .current_dir(scratch.path());
        Self {
            process: Process::start("callers", command, scratch.path()),
            scratch,
            count,
            rate,
        }
    }

    /// Waits for their end.
    pub fn end(mut self) -> Done {
        let limit = Duration::from_secs(u64::from(self.count / self.rate) + 60);
        self.process.wait(limit);
        let text = std::fs::read_to_string(self.scratch.path().join("stat.csv")).unwrap();
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap().split(';').collect();
        let last: Vec<&str> = lines.last().unwrap().split(';').collect();
        self.tell_errors();
        let value = |name: &str| -> u64 {
            let at = names.iter().position(|found| *found == name);
            last[at.unwrap_or_else(|| panic!("no {name} in {names:?}"))]
                .parse()
                .unwrap()
        };
        Done {
            good: value("SuccessfulCall(C)"),
            failed: value("FailedCall(C)"),
            ringing: self.ringing(),
        }
    }

    /// What went wrong, in sipp's own words.
    fn tell_errors(&self) {
        for entry in std::fs::read_dir(self.scratch.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with("_errors.log") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                for line in text.lines().filter(|line| !line.is_empty()).take(3) {
                    eprintln!("sipp: {line}");
                }
            }
        }
    }

    fn ringing(&self) -> (Duration, Duration) {
        let mut times: Vec<f64> = Vec::new();
        for entry in std::fs::read_dir(self.scratch.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with("_rtt.csv") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let values = text
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split(';').nth(1));
                times.extend(values.filter_map(|value| value.parse::<f64>().ok()));
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let millis = times.get((times.len() as f64 * share) as usize);
            Duration::from_secs_f64(millis.copied().unwrap_or_default() / 1e3)
        };
        (at(0.5), at(0.95))
    }
}
