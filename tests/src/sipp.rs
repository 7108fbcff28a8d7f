//! sipp, with the scenarios of `tests/sipp`.

use std::net::SocketAddr;

use crate::address::Address;
use crate::manifests::NUMBER;
use crate::process::{self, Process, repository};
use crate::scratch::Scratch;
use crate::wait::seconds;

/// A run of sipp.
pub struct Sipp {
    process: Process,
    scratch: Scratch,
    scenario: String,
    _address: Address,
}

/// Runs a scenario of `tests/sipp` against `remote` to its end; panics unless all its calls succeeded.
#[track_caller]
pub fn run(scenario: &str, remote: SocketAddr, arguments: &[&str]) {
    start(scenario, remote, arguments).end();
}

/// Starts a scenario: one call from an address of its own to [`NUMBER`], unless the arguments say otherwise.
pub fn start(scenario: &str, remote: SocketAddr, arguments: &[&str]) -> Sipp {
    let (address, scratch) = (Address::claim(), Scratch::new("sipp"));
    let file = repository().join("tests/sipp").join(scenario);
    let mut command = process::command("sipp");
    command
        .arg(remote.to_string())
        .arg("-sf")
        .arg(file)
        .current_dir(scratch.path());
    let ip = address.to_string();
    command.args([
        "-i",
        &ip,
        "-mi",
        &ip,
        "-p",
        "5060",
        "-mp",
        "6000",
        "-nostdin",
        "-max_socket",
        "4000",
    ]);
    for (option, value) in [
        ("-s", NUMBER),
        ("-m", "1"),
        ("-timeout", "60s"),
        ("-recv_timeout", "10000"),
    ] {
        if !arguments.contains(&option) {
            command.args([option, value]);
        }
    }
    command
        .args(["-trace_err", "-error_file", "errors.log"])
        .args(arguments);
    if !arguments.contains(&"-r") {
        command.args(["-trace_msg", "-message_file", "messages.log"]);
    }
    let process = Process::start("sipp", command, scratch.path());
    Sipp {
        process,
        scratch,
        scenario: scenario.to_owned(),
        _address: address,
    }
}

impl Sipp {
    /// Whether all calls succeeded, once they are over.
    pub fn succeeded(mut self) -> bool {
        self.process.wait(seconds(60)).success()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) {
        let status = self.process.wait(seconds(400));
        let read =
            |name| std::fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default();
        assert!(
            status.success(),
            "{} failed ({status})\n{}\n{}",
            self.scenario,
            read("errors.log"),
            read("messages.log")
        );
    }
}
