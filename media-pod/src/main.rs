//! `ringwire`: the pods' roles, the embedded server and the command line.

mod link;
mod media;
mod private;
mod record;
mod registrar;
mod run;
mod streams;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What we call ourselves in SIP.
pub const USER_AGENT: &str = concat!("Ringwire/", env!("CARGO_PKG_VERSION"));

#[derive(Parser)]
#[command(name = "ringwire", version, about = "SIP trunks, phone numbers and voice agents", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
        }
    })
}
