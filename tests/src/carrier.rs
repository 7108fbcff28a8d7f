//! The carrier: Kamailio by `hack/carrier.sh`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::address::Address;
use crate::process::repository;
use crate::scratch::Scratch;
use crate::wait;

/// A carrier with the account `trunk1` (password `secret1`), the number of [`crate::manifests::NUMBER`] on it, and the account `phone` (password
/// `secret2`) for somebody who calls it.
pub struct Carrier {
    ip: IpAddr,
    options: Vec<String>,
    scratch: Scratch,
    _address: Option<Address>,
}

impl Carrier {
    /// Starts one on an address of its own; `options` are further ones of the script.
    pub fn start(options: &[&str]) -> Self {
        let address = Address::claim();
        Self::start_at(address.ip(), Some(address), options)
    }

    /// Starts one on port 5070 of an address that the machine has.
    pub fn start_on(ip: IpAddr, options: &[&str]) -> Self {
        Self::start_at(ip, None, &[&["--port", "5070"], options].concat())
    }

    fn start_at(ip: IpAddr, address: Option<Address>, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let carrier = Self {
            ip,
            options,
            scratch: Scratch::new("carrier"),
            _address: address,
        };
        carrier.up();
        carrier
    }

    /// Where it speaks SIP, over UDP and TCP.
    pub fn sip(&self) -> SocketAddr {
        let port = self
            .options
            .iter()
            .position(|option| option == "--port")
            .map(|at| self.options[at + 1].parse().unwrap());
        SocketAddr::new(self.ip, port.unwrap_or(5060))
    }

    /// The certificate of the authority that vouches for its own, PEM; with the option `--tls-port`.
    pub fn authority(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("ca.crt")).unwrap()
    }

    /// What one of its programs printed: `kamailio` or `rtpengine`.
    pub fn log(&self, program: &str) -> String {
        let file = self.scratch.path().join(format!("logs/{program}.log"));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn script(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = script(self.scratch.path());
        command.args(["--netns", "none", "--address", &self.ip.to_string()]);
        if !self.options.iter().any(|option| option == "--tls-port") {
            command.args(["--tls-port", "none"]);
        }
        command.args([
            "--users",
            "trunk1:secret1 phone:secret2",
            "--numbers",
            &format!("{}:trunk1", crate::manifests::NUMBER),
        ]);
        command
            .args(["--children", "1"])
            .args(&self.options)
            .args(arguments);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Starts it again after [`Self::down`]; what it knew of registrations is lost.
    pub fn up(&self) {
        self.script(&["up"])
            .unwrap_or_else(|error| panic!("the carrier does not start: {error}"));
    }

    /// Kills it.
    pub fn down(&self) {
        let _ = self.script(&["down"]);
    }

    /// Sends a signal to all its processes: after `STOP` it says nothing any more, while its sockets stay open, until `CONT`.
    pub fn signal(&self, signal: &str) {
        let file = self.scratch.path().join("pids/kamailio");
        let text = std::fs::read_to_string(file).unwrap();
        let group = format!("-{}", text.split(' ').next().unwrap());
        let status = Command::new("kill")
            .args(["-s", signal, "--", &group])
            .status();
        assert!(status.unwrap().success(), "no signal {signal} to {group}");
    }

    /// Runs a command of the script.
    pub fn tell(&self, arguments: &[&str]) {
        self.script(arguments)
            .unwrap_or_else(|error| panic!("carrier.sh {arguments:?}: {error}"));
    }

    /// Who is registered: user, contact and expiry, a line each.
    pub fn bindings(&self) -> String {
        self.script(&["bindings"]).unwrap_or_default()
    }

    /// The Contacts that `trunk1` is registered with, without parameters that the carrier adds.
    pub fn contacts(&self) -> Vec<String> {
        let bindings = self.bindings();
        let mut contacts: Vec<String> = bindings
            .lines()
            .filter_map(|line| {
                line.strip_prefix("trunk1 ")?
                    .split(' ')
                    .next()
                    .map(str::to_owned)
            })
            .collect();
        contacts.sort();
        contacts
    }

    /// What it counts.
    pub fn counters(&self) -> Counters {
        Counters(self.scratch.path().join("ctl.sock"))
    }

    /// Waits until `trunk1` has so many Contacts.
    #[track_caller]
    pub fn wait_contacts(&self, count: usize, limit: Duration) -> Vec<String> {
        wait::until_ok(limit, &format!("{count} bindings at the carrier"), || {
            let contacts = self.contacts();
            if contacts.len() == count {
                Ok(contacts)
            } else {
                Err(format!("{contacts:?}"))
            }
        })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log("kamailio");
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "---- the carrier said:\n{}\n----",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        self.down();
    }
}

/// What a carrier counts. Cheap to ask often.
pub struct Counters(PathBuf);

impl Counters {
    /// REGISTERs that have come to it since it started.
    pub fn registers(&self) -> u64 {
        self.get("core.rcv_requests_register")
    }

    /// Contacts that are bound there.
    pub fn contacts(&self) -> u64 {
        self.get("usrloc.location_contacts")
    }

    fn get(&self, name: &str) -> u64 {
        let socket = format!("unix:{}", self.0.display());
        let output = Command::new("kamcmd")
            .args(["-s", &socket, "stats.fetchn", name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.rsplit_once(": ")
            .and_then(|(_, value)| value.trim().trim_end_matches('}').trim().parse().ok())
            .unwrap_or_else(|| panic!("the carrier has no {name}: {text}"))
    }
}

fn script(folder: &Path) -> Command {
    let mut command = Command::new(repository().join("hack/carrier.sh"));
    command.arg("--dir").arg(folder).stdin(Stdio::null());
    command
}

/// Ends the carrier whose files are in a folder that a killed test left, if there is one.
pub(crate) fn end_stale(folder: &Path) {
    if folder.join("pids/kamailio").exists() {
        let _ = script(folder).args(["--netns", "none", "down"]).output();
    }
}
