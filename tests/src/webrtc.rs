//! Peers with DTLS-SRTP that no one here wrote: aiortc, driven by `tests/webrtc/peer.py`, and OpenSSL with libsrtp, driven by
//! `tests/webrtc/handshake.py`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::address::Address;
use crate::process::{self, repository, tools};
use crate::scratch::Scratch;

/// A running one.
pub struct Peer {
    child: Child,
    told: mpsc::Receiver<Value>,
    scratch: Scratch,
    _addresses: Vec<Address>,
}

/// How a peer without ICE shakes hands.
pub struct Shaking {
    /// What its offer says: `active`, `passive` or `actpass`.
    pub setup: &'static str,
    /// The key of its certificate: `ec` or `rsa`.
    pub key: &'static str,
    /// Whether its fingerprint is that of another certificate.
    pub lies: bool,
    /// Whether it offers rtcp-mux.
    pub mux: bool,
    /// What it does on its port for reports otherwise: `shake`, `clear` or `none`.
    pub reports: &'static str,
    /// How long after the answer its ports are there.
    pub late: Duration,
    /// How many of a hundred datagrams of the handshake are lost, either way, and the seed for which.
    pub loses: (u32, u32),
    /// Bytes of its datagrams.
    pub mtu: u32,
}

impl Default for Shaking {
    fn default() -> Self {
        Self {
            setup: "passive",
            key: "ec",
            lies: false,
            mux: true,
            reports: "none",
            late: Duration::ZERO,
            loses: (0, 0),
            mtu: 1_200,
        }
    }
}

impl Peer {
    /// Starts aiortc with so many addresses of its own.
    pub fn start(addresses: usize) -> Self {
        let addresses: Vec<Address> = (0..addresses).map(|_| Address::claim()).collect();
        let arguments: Vec<String> = addresses
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        Self::run("peer.py", &arguments, addresses)
    }

    /// Starts one without ICE.
    pub fn shaking(how: &Shaking) -> Self {
        let address = Address::claim();
        let options = json!({
            "address": address.ip().to_string(),
            "setup": how.setup,
            "key": how.key,
            "loses": how.loses.0,
            "seed": how.loses.1,
            "mtu": how.mtu,
            "mux": how.mux,
            "reports": how.reports,
            "fingerprint": if how.lies { "wrong" } else { "own" },
            "late": how.late.as_secs_f64(),
        });
        Self::run("handshake.py", &[options.to_string()], vec![address])
    }

    fn run(script: &str, arguments: &[String], addresses: Vec<Address>) -> Self {
        let scratch = Scratch::new("webrtc");
        let python = tools().join("webrtc-1.15.0/bin/python");
        assert!(python.is_file(), "no aiortc: run hack/setup.sh --sip");
        let mut command = process::command(python);
        let errors = File::create(scratch.path().join("errors")).unwrap();
        let mut child = command
            .arg("-B")
            .arg(repository().join("tests/webrtc").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            told,
            scratch,
            _addresses: addresses,
        }
    }

    /// Its offer.
    #[track_caller]
    pub fn offer(&self) -> String {
        let offer = self.expect(Duration::from_secs(20), "offer", |told| {
            told["offer"].is_string()
        });
        offer["offer"].as_str().unwrap().replace("\r\n", "\n")
    }

    /// Gives it the answer.
    pub fn answer(&mut self, answer: &str) {
        let line = format!("{}\n", json!({ "answer": answer }));
        let mut input = self.child.stdin.as_ref().unwrap();
        input.write_all(line.as_bytes()).unwrap();
    }

    /// Waits until it is connected.
    #[track_caller]
    pub fn connected(&self) {
        self.expect(Duration::from_secs(15), "connection", |told| {
            assert_ne!(told["state"], "failed", "{}", self.errors());
            told["state"] == "connected"
        });
    }

    /// Waits until it hears its own tone.
    #[track_caller]
    pub fn hears_itself(&self) {
        self.expect(Duration::from_secs(15), "echo", |told| {
            told["tone"].as_f64().is_some_and(|share| share > 0.9)
                && told["level"].as_f64().is_some_and(|level| level > 0.05)
        });
    }

    /// Waits until its handshake has failed.
    #[track_caller]
    pub fn failed(&self) {
        self.expect(Duration::from_secs(20), "failure", |told| {
            told["state"] == "failed"
        });
    }

    /// What went wrong there.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("errors")).unwrap_or_default()
    }

    /// Waits until it tells something.
    #[track_caller]
    pub fn expect(&self, limit: Duration, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + limit;
        let mut told = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(value) if wanted(&value) => return value,
                Ok(value) => told.push(value.to_string()),
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                    panic!(
                        "no {what}; it told: {}\nand: {}",
                        told.join("\n"),
                        self.errors()
                    )
                }
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
