//! Programs of other people's that a Python script of ours drives: it is told what to do and tells what happens in JSON, an object a line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scratch::Scratch;

/// A running one.
pub struct Script {
    child: Child,
    told: mpsc::Receiver<Value>,
    scratch: Scratch,
}

impl Script {
    /// Starts a [`crate::process::command`], whose files are in this folder.
    pub fn start(mut command: Command, scratch: Scratch) -> Self {
        let errors = File::create(scratch.path().join("errors")).unwrap();
        let mut child = command
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
        }
    }

    /// Tells it something.
    pub fn say(&self, what: &Value) {
        let mut input = self.child.stdin.as_ref().unwrap();
        input.write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// What it has told so far is not waited for.
    pub fn forget(&self) {
        while self.told.try_recv().is_ok() {}
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

    /// What went wrong there.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("errors")).unwrap_or_default()
    }

    /// Its files.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
