//! Peers with DTLS-SRTP that no one here wrote: aiortc, driven by `tests/webrtc/peer.py`, and OpenSSL with libsrtp, driven by
//! `tests/webrtc/handshake.py`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::address::Address;
use crate::process::{self, repository, tools};
use crate::scratch::Scratch;
use crate::script::Script;

/// A running one.
pub struct Peer {
    script: Script,
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
        let python = tools().join("webrtc-1.15.0/bin/python");
        assert!(python.is_file(), "no aiortc: run hack/setup.sh --sip");
        let mut command = process::command(python);
        command
            .arg("-B")
            .arg(repository().join("tests/webrtc").join(script))
            .args(arguments);
        Self {
            script: Script::start(command, Scratch::new("webrtc")),
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
        self.script.say(&json!({ "answer": answer }));
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
        self.script.errors()
    }

    /// Waits until it tells something.
    #[track_caller]
    pub fn expect(&self, limit: Duration, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.script.expect(limit, what, wanted)
    }
}
