//! Load on the media plane: many calls with audio through a gateway to agents and back, every packet checked, and what it costs each
//! process; beside it the floor, which is what the kernel alone costs for the same packets.
//!
//! `make bench` runs it all. By hand, from the repository:
//!
//! ```text
//! RINGWIRE_BIN=target/release/ringwire cargo run --release -p ringwire-tests --bin ringwire-load -- bench --calls 100,400
//! ```
//!
//! Everything is on loopback, each part a process of its own, so that the kernel says what each has used. `docs/performance.md` explains
//! the columns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a load tool that cannot measure fails by panicking"
)]

mod agent;
mod bench;
mod caller;
mod chart;
mod floor;
mod histogram;
mod marker;
mod protocol;
mod report;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use self::protocol::Protocol;

/// Load on the media plane.
#[derive(Parser)]
#[command(name = "ringwire-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start gateway, agents and floor, place calls, and print what they cost.
    Bench(bench::Options),
    /// An agent for many calls that sends back what it hears.
    Agent {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// What is spoken.
        #[arg(long, value_enum)]
        protocol: Protocol,
    },
    /// Packets to agents and back without any processing.
    Floor {
        /// Where the agent listens.
        #[arg(long)]
        agent: SocketAddr,
        /// What it speaks.
        #[arg(long, value_enum)]
        protocol: Protocol,
        /// Audio of the first call; each next one's port is two higher.
        #[arg(long)]
        first: SocketAddr,
        /// How many calls.
        #[arg(long)]
        calls: usize,
        /// Threads among which they are shared out.
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

fn main() {
    match Cli::parse().command {
        Command::Bench(options) => {
            if !bench::run(&options) {
                std::process::exit(1);
            }
        }
        Command::Agent { listen, protocol } => agent::serve(protocol, listen).unwrap(),
        Command::Floor {
            agent,
            protocol,
            first,
            calls,
            threads,
        } => {
            let plan = floor::Plan {
                protocol,
                agent,
                first,
                calls,
                threads,
            };
            floor::serve(plan, || println!("ready")).unwrap();
        }
    }
}
