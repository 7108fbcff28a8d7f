//! The commands of `ringwire` that people type: place a test call, look at objects, follow messages, check files, explain
//! a reason.
//!
//! Each module has the `Args` that clap reads and a `run` that gives the exit code: 0 done, 1 failed, 2 wrong usage. Nothing here
//! serves calls; that is `run`, `registrar` and `media`.

pub mod call;
pub mod check;
pub mod completion;
pub mod explain;
pub mod get;
mod resolve;
pub mod trace;

use std::io::Write;

/// Exit code for options or files that make no sense, as clap's own.
const USAGE: u8 = 2;

/// Writes to standard output. Whoever reads may have gone (`| head`): that is no error of ours.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error, with the same indulgence.
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An error with its causes, on one line. A source whose text stands in the error already is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
