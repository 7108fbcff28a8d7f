//! PJSIP, a phone that says and records what it is told to, in a namespace of its own: driven by `tests/pjsip/phone.py`.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::process::{repository, tools};
use crate::scratch::Scratch;
use crate::script::Script;
use crate::wait::seconds;

/// What it offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The only codec, such as `iLBC/8000/1`.
    pub codec: &'static str,
    /// Milliseconds of a frame of iLBC.
    pub millis: u32,
    /// Bits per second of G.722.1.
    pub bitrate: u32,
    /// Whether it offers ICE.
    pub ice: bool,
    /// Whether it encrypts, with keys in the session description.
    pub sdes: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            codec: "PCMU/8000/1",
            millis: 20,
            bitrate: 32_000,
            ice: false,
            sdes: false,
        }
    }
}

/// A running one. Fields are dropped in order: the phone before its network.
pub struct Pjsip {
    script: Script,
    namespace: Namespace,
}

/// What it heard while it spoke, and what it counted from the start of its stream.
pub struct Heard {
    /// Samples, 8,000 per second.
    pub samples: Vec<i16>,
    /// `sent`, `heard` and `lost` packets, those of its own that were lost on the way (`lost_there`), and all that it knows of the call (`dump`).
    pub counted: Value,
}

impl Pjsip {
    /// Starts one.
    pub fn start(offer: &Offer) -> Self {
        let namespace = Namespace::new();
        let scratch = Scratch::new("pjsip");
        let python = tools().join("pjsip-2.15.1/bin/python");
        assert!(python.is_file(), "no PJSIP: run hack/setup.sh --sip");
        let options = json!({
            "address": namespace.there().to_string(),
            "log": scratch.path().join("log"),
            "codec": offer.codec,
            "mode": offer.millis,
            "bitrate": offer.bitrate,
            "g7221": tools().join("g7221-0.1a3"),
            "ice": offer.ice,
            "sdes": offer.sdes,
        });
        let mut command = namespace.command(python.to_str().unwrap());
        command
            .arg("-B")
            .arg(repository().join("tests/pjsip/phone.py"))
            .arg(options.to_string());
        let script = Script::start(command, scratch);
        script.expect(seconds(20), "PJSIP", |told| told["ready"].is_string());
        Self { script, namespace }
    }

    /// The address at which it can reach this machine.
    pub fn here(&self) -> IpAddr {
        self.namespace.here()
    }

    /// Its own address.
    pub fn there(&self) -> IpAddr {
        self.namespace.there()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        let log = self.script.scratch().path().join("log");
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// Calls: what it says of the stream.
    #[track_caller]
    pub fn call(&self, to: &str) -> Value {
        self.script.say(&json!({ "do": "call", "to": to }));
        self.media()
    }

    /// Begins ICE anew, in the same call: what it says of the stream.
    #[track_caller]
    pub fn restart(&self) -> Value {
        self.script.forget();
        self.script.say(&json!({ "do": "restart" }));
        self.media()
    }

    /// Waits until there is sound: what it says of the stream.
    #[track_caller]
    pub fn media(&self) -> Value {
        self.script.expect(seconds(10), "sound", |told| {
            assert!(told["ended"].is_null(), "{told}: {}", self.log());
            told["media"].is_string()
        })
    }

    /// Says these samples (8 kHz), and listens for so long.
    #[track_caller]
    pub fn talk(&self, samples: &[i16], length: Duration) -> Heard {
        let folder = self.script.scratch().path();
        let (play, record) = (folder.join("play.wav"), folder.join("record.wav"));
        std::fs::write(&play, ringwire_media::wav::write(samples)).unwrap();
        let talk = json!({ "do": "talk", "play": play, "record": record });
        self.script.say(&talk);
        // It speaks for so long: nothing to poll for.
        std::thread::sleep(length);
        self.script.say(&json!({ "do": "rest" }));
        let counted = self.script.expect(seconds(5), "recording", |told| {
            told["rested"].as_bool() == Some(true)
        });
        Heard {
            samples: crate::audio::read_wav(&record),
            counted,
        }
    }

    /// Hangs up.
    #[track_caller]
    pub fn hang_up(&self) {
        self.script.say(&json!({ "do": "hang up" }));
        self.script
            .expect(seconds(5), "end", |told| told["ended"].is_number());
    }
}
