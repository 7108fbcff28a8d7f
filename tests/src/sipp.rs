//! sipp, with the scenarios of `tests/sipp`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
    ip: IpAddr,
    _address: Option<Address>,
}

/// Runs a scenario of `tests/sipp` against `remote` to its end; panics unless all its calls succeeded.
#[track_caller]
pub fn run(scenario: &str, remote: SocketAddr, arguments: &[&str]) {
    start(scenario, remote, arguments).end();
}

/// Starts a scenario: one call from an address of its own to [`NUMBER`], unless the arguments say otherwise.
pub fn start(scenario: &str, remote: SocketAddr, arguments: &[&str]) -> Sipp {
    // There is one loopback address of IPv6 only: the server has its usual port.
    let (address, port) = if remote.is_ipv4() {
        (Some(Address::claim()), "5060")
    } else {
        (None, "5070")
    };
    let ip = address
        .as_ref()
        .map_or(IpAddr::from(Ipv6Addr::LOCALHOST), Address::ip);
    start_at((ip, address), port, scenario, remote, arguments)
}

/// As [`start`], from an address that the machine has.
pub fn start_from(ip: IpAddr, scenario: &str, remote: SocketAddr, arguments: &[&str]) -> Sipp {
    start_at((ip, None), "5060", scenario, remote, arguments)
}

fn start_at(
    (ip, address): (IpAddr, Option<Address>),
    port: &str,
    scenario: &str,
    remote: SocketAddr,
    arguments: &[&str],
) -> Sipp {
    let scratch = Scratch::new("sipp");
    let file = repository().join("tests/sipp").join(scenario);
    let mut command = process::command("sipp");
    command
        .arg(remote.to_string())
        .arg("-sf")
        .arg(file)
        .current_dir(scratch.path());
    command.args(["-i", &ip.to_string(), "-mi", &ip.to_string()]);
    command.args(["-p", port, "-mp", "6000", "-nostdin", "-max_socket", "4000"]);
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
        ip,
        _address: address,
    }
}

impl Sipp {
    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

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
