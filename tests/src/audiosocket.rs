//! An AudioSocket agent made with the library of the protocol's authors (`hack/audiosocket`).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// A listening agent.
pub struct AudioSocketAgent {
    process: Process,
    _scratch: Scratch,
}

impl AudioSocketAgent {
    /// Starts one on a free port of 127.0.0.1 with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new("audiosocket");
        let mut command = process::command(program());
        command.args(arguments);
        let process = Process::start("agent", command, scratch.path());
        let agent = Self {
            process,
            _scratch: scratch,
        };
        agent.wait("listening");
        agent
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let event = self.wait("listening");
        event["address"].as_str().unwrap().parse().unwrap()
    }

    /// All events of that name.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let log = self.process.log();
        let all = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|told| told["event"] == event).collect()
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait(&self, event: &str) -> Value {
        wait::until_ok(seconds(8), &format!("the agent tells {event:?}"), || {
            let first = self.events(event).into_iter().next();
            first.ok_or_else(|| self.process.log())
        })
    }
}

fn program() -> PathBuf {
    let path = process::tools().join("audiosocket/agent");
    assert!(
        path.is_file(),
        "there is no {}: run hack/setup.sh --sip",
        path.display()
    );
    path
}
