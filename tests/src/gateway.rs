//! `ringwire run`: the embedded server under test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::address::Address;
use crate::carrier::Carrier;
use crate::dns::Dns;
use crate::manifests::{NUMBER, account, number, registering_trunk};
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// A server with manifests of its own.
pub struct Gateway {
    process: Process,
    ip: IpAddr,
    scratch: Scratch,
    /// What stands in place of `/etc/resolv.conf`.
    resolver: Option<PathBuf>,
    _address: Option<Address>,
}

impl Gateway {
    /// Starts one on an address of its own with these files (name and content), and waits until it is ready.
    pub fn start(files: &[(&str, &str)]) -> Self {
        let address = Address::claim();
        Self::start_at(address.ip(), Some(address), files, None)
    }

    /// Starts one that asks this name server.
    pub fn start_asking(dns: &Dns, files: &[(&str, &str)]) -> Self {
        let address = Address::claim();
        Self::start_at(address.ip(), Some(address), files, Some(dns.resolver()))
    }

    /// Starts one on an address that the machine has.
    pub fn start_on(ip: IpAddr, files: &[(&str, &str)]) -> Self {
        Self::start_at(ip, None, files, None)
    }

    fn start_at(
        ip: IpAddr,
        address: Option<Address>,
        files: &[(&str, &str)],
        resolver: Option<PathBuf>,
    ) -> Self {
        let scratch = Scratch::new("gateway");
        std::fs::create_dir(scratch.path().join("manifests")).unwrap();
        for (name, text) in files {
            std::fs::write(scratch.path().join("manifests").join(name), text).unwrap();
        }
        let process = launch(ip, &scratch, resolver.as_deref());
        let gateway = Self {
            process,
            ip,
            scratch,
            resolver,
            _address: address,
        };
        gateway.wait_ready();
        gateway
    }

    /// Starts it again with the same files and state; the old process must have ended.
    pub fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "it still runs");
        self.process = launch(self.ip, &self.scratch, self.resolver.as_deref());
        self.wait_ready();
    }

    fn wait_ready(&self) {
        wait::until_ok(seconds(10), "the server is ready", || {
            match self.http("/readyz") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}; it said: {}", self.process.log())),
            }
        });
    }

    /// Where it listens for SIP.
    pub fn sip(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 5060)
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All that it has said so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its files.
    pub fn manifests(&self) -> PathBuf {
        self.scratch.path().join("manifests")
    }

    /// Writes a file anew, in one step as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.scratch.path().join("new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.manifests().join(name)).unwrap();
    }

    /// The file with its signing keys.
    pub fn signing_keys(&self) -> PathBuf {
        self.scratch.path().join("state/signing-key")
    }

    /// Takes a file away.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests().join(name)).unwrap();
    }

    /// URL of its status.
    pub fn url(&self) -> String {
        format!("http://{}:8080", self.ip)
    }

    /// GETs a path: status code and body.
    pub fn http(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect((self.ip, 8080))?;
        stream.set_read_timeout(Some(seconds(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let body = answer
            .split_once("\r\n\r\n")
            .map_or(String::new(), |(_, body)| body.to_owned());
        Ok((status, body))
    }

    /// An object with its status; null if there is none.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        let (_, body) = self.http("/status").unwrap();
        let list: Value = serde_json::from_str(&body)
            .unwrap_or_else(|error| panic!("/status is no JSON ({error}): {body}"));
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items
            .into_iter()
            .find(|item| item["kind"] == kind && item["metadata"]["name"] == name)
            .unwrap_or(Value::Null)
    }

    /// A provider's refusals for one reason, as its status has them.
    pub fn refusal(&self, provider: &str, reason: &str) -> Option<Value> {
        let provider = self.object("SipProvider", provider);
        let all = provider["status"]["refusals"].as_array().cloned();
        let mut found = all.into_iter().flatten();
        found.find(|refusal| refusal["reason"] == reason)
    }

    /// `.status.registration` of a provider.
    pub fn registration(&self, provider: &str) -> Value {
        self.object("SipProvider", provider)["status"]["registration"].clone()
    }

    /// Waits until a provider's registration has this state and reason.
    #[track_caller]
    pub fn wait_registration(
        &self,
        provider: &str,
        state: &str,
        reason: &str,
        limit: Duration,
    ) -> Value {
        wait::until_ok(limit, &format!("{provider} is {state} {reason}"), || {
            let seen = self.registration(provider);
            if seen["state"] == state && seen["reason"] == reason {
                Ok(seen)
            } else {
                Err(seen.to_string())
            }
        })
    }

    /// A metric, by its name and its labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_or_none(name)
            .unwrap_or_else(|| panic!("there is no metric {name}"))
    }

    /// A metric that is there from its first event on.
    #[track_caller]
    pub fn metric_or_none(&self, name: &str) -> Option<f64> {
        let (status, page) = self.http("/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        Some(page.lines().find_map(value)?.parse().unwrap())
    }

    /// Calls in progress, as the gateway's status has them.
    pub fn active_calls(&self) -> u64 {
        self.object("MediaGateway", "default")["status"]["activeCalls"]
            .as_u64()
            .unwrap()
    }

    /// Waits until so many calls are in progress.
    #[track_caller]
    pub fn wait_calls(&self, count: u64) {
        wait::until_ok(seconds(5), &format!("{count} calls in progress"), || {
            let seen = self.active_calls();
            if seen == count {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        });
    }

    /// The records of all calls that are over.
    pub fn records(&self) -> Vec<Value> {
        let lines = self.process.log();
        let all = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|line| line["target"] == "ringwire::call")
            .collect()
    }

    /// The record of the only call so far.
    #[track_caller]
    pub fn record(&self) -> Value {
        wait::until(seconds(5), "a call's record", || {
            self.records().into_iter().next()
        })
    }

    /// The record of a call.
    #[track_caller]
    pub fn record_of(&self, call_id: &str) -> Value {
        let find = || {
            self.records()
                .into_iter()
                .find(|record| record["call_id"] == call_id)
        };
        wait::until(seconds(5), &format!("the record of {call_id}"), find)
    }
}

fn launch(ip: IpAddr, scratch: &Scratch, resolver: Option<&Path>) -> Process {
    let mut command = match resolver {
        None => process::command(process::ringwire()),
        // In a mount namespace of its own, so that it alone sees the other file.
        Some(resolver) => {
            let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
            let mut command = process::command("unshare");
            command
                .args([
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    script,
                    "sh",
                ])
                .arg(resolver)
                .arg(process::ringwire());
            command
        }
    };
    command
        .arg("run")
        .arg("-f")
        .arg(scratch.path().join("manifests"));
    command.args([
        "--bind",
        &ip.to_string(),
        "--http",
        &SocketAddr::new(ip, 8080).to_string(),
    ]);
    command
        .arg("--state-dir")
        .arg(scratch.path().join("state"))
        .env("RINGWIRE_LOG_FORMAT", "json");
    Process::start("ringwire", command, scratch.path())
}

/// What `ringwire call --json` has to say of a test call.
pub struct TestCall {
    /// Whether it ended with exit code 0.
    pub success: bool,
    /// Its result.
    pub result: Value,
}

/// Places a call from `from` with `ringwire call` and these further arguments, and waits for its end.
#[track_caller]
pub fn call(target: &str, from: IpAddr, arguments: &[&str]) -> TestCall {
    place(target, from, arguments).end()
}

/// A call that `ringwire call` is placing.
pub struct Placed {
    process: Process,
    scratch: Scratch,
}

/// Places a call as [`call`] does, without waiting.
pub fn place(target: &str, from: IpAddr, arguments: &[&str]) -> Placed {
    let scratch = Scratch::new("call");
    let result = scratch.path().join("result");
    // The result goes to a file: standard error holds progress.
    let mut command = process::command("sh");
    command
        .args(["-c", "out=$1; shift; exec \"$@\" >\"$out\"", "sh"])
        .arg(&result)
        .arg(process::ringwire());
    command
        .args(["call", target, "--json", "--bind", &from.to_string()])
        .args(arguments);
    Placed {
        process: Process::start("call", command, scratch.path()),
        scratch,
    }
}

impl Placed {
    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> TestCall {
        let status = self.process.wait(seconds(120));
        let text = std::fs::read_to_string(self.scratch.path().join("result")).unwrap();
        let result = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "ringwire call printed no JSON ({error}): {text}{}",
                self.process.log()
            )
        });
        TestCall {
            success: status.success(),
            result,
        }
    }
}

/// Runs a command of the program under test to its end: exit code, standard output, standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(process::ringwire())
        .args(arguments)
        .current_dir(process::repository())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A server that registers with the carrier, and whose number this agent answers.
#[track_caller]
pub fn registered(
    carrier: &Carrier,
    gateway: impl FnOnce(&[(&str, &str)]) -> Gateway,
    agent: &str,
    more: &str,
) -> Gateway {
    let server = carrier.sip();
    let fields = format!("port: {}, {more}", server.port());
    let set = [
        registering_trunk("trunk", server.ip(), &fields),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        agent.to_owned(),
    ];
    let gateway = gateway(&[("all.yaml", &set.join("---\n"))]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(10));
    gateway
}
