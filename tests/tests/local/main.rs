//! The embedded server (`ringwire run`) against SIP peers and agents that no one here wrote. Each test has addresses and processes of its
//! own, so they run side by side; most of their time is waiting, so more threads than processors are good:
//!
//! ```text
//! cargo test -p ringwire-tests --test local -- --test-threads 12
//! ```
//! How good calls sound is measured by `--test audio`, one or two at a time; here, beside a dozen others, only whether an echo is one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod agents;
mod answers;
mod audiosocket;
mod changes;
mod cli;
mod dialogs;
mod dns;
mod encryption;
mod ends;
mod handshakes;
mod hep;
mod hostile;
mod ice;
mod identity;
mod keepalive;
mod limits;
mod one_way;
mod packets;
mod ports;
mod proxied;
mod realms;
mod registration;
mod tls;
mod trace;
mod transfers;
mod trunks;

use ringwire_tests::address::Loopback6;
use ringwire_tests::agent::Agent;
use ringwire_tests::audio::IS_ECHO;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, media_gateway, number, static_trunk, web_socket};

/// [`IS_ECHO`] for `ringwire call`.
const ECHO_EXPECTED: [&str; 2] = ["--min-correlation", "0.6"];

/// A trunk that takes calls from every loopback address, and who answers its number.
fn local_set(agent: &str) -> String {
    let trunk = static_trunk(
        "127.0.0.1",
        "allowedSources: [127.0.0.0/8], codecs: [PCMU, PCMA]",
    );
    [
        trunk,
        number("main", NUMBER, "trunk", "bot"),
        agent.to_owned(),
    ]
    .join("---\n")
}

/// A server whose number is answered by the built-in echo.
fn echo_gateway() -> Gateway {
    Gateway::start(&[("all.yaml", &local_set(&echo("bot", "")))])
}

/// The same over IPv6.
fn echo_gateway_on(loopback: &Loopback6) -> Gateway {
    let trunk = static_trunk("\"::1\"", "allowedSources: [\"::1\"], codecs: [PCMA]");
    let set = [
        trunk,
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start_on(loopback.ip(), &[("all.yaml", &set.join("---\n"))])
}

/// A server whose number is answered by this agent; `more` are further fields of the VoiceAgent.
fn agent_gateway(agent: &Agent, more: &str) -> Gateway {
    Gateway::start(&[(
        "all.yaml",
        &local_set(&web_socket("bot", &agent.url(), more)),
    )])
}

/// A gateway that ends its calls so many seconds after it is told to stop.
fn draining_after(seconds: u32) -> String {
    media_gateway(&format!("{{drainSeconds: {seconds}}}"))
}
