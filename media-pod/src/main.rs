//! `ringwire`: the pods' roles, the embedded server and the command line.

mod board;
mod cli;
mod cluster;
mod health;
mod link;
mod logging;
mod media;
mod negotiated;
mod pod;
mod private;
mod record;
mod registrar;
mod run;
#[cfg(test)]
mod simulation;
mod streams;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use ringwire_config::shard::Role;

/// Gives the memory of ended calls back to the system, where the C library's allocator keeps most of it. `.cargo/config.toml` tunes it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What we call ourselves in SIP.
pub const USER_AGENT: &str = concat!("Ringwire/", env!("CARGO_PKG_VERSION"));

/// SIP trunks, phone numbers and voice agents as Kubernetes resources, and without Kubernetes.
#[derive(Parser)]
#[command(
    name = "ringwire",
    version,
    max_term_width = 110,
    arg_required_else_help = true
)]
#[command(
    after_help = "Try it without a phone:\n  ringwire run -f config/samples/local\n  ringwire call sip:+34911234567@127.0.0.1"
)]
struct Cli {
    /// How to log; `RINGWIRE_LOG` sets the filter, such as `debug`.
    #[arg(long, global = true, value_enum, env = logging::FORMAT_VARIABLE)]
    log_format: Option<logging::Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Call(Box<cli::call::Args>),
    Get(cli::get::Args),
    Trace(cli::trace::Args),
    Check(cli::check::Args),
    Explain(cli::explain::Args),
    Completion(cli::completion::Args),
    /// The SIP edge of a gateway, in a pod that the operator makes.
    Registrar(pod::Args),
    /// The media plane of a gateway, in a pod that the operator makes.
    Media(pod::Args),
    /// Ask the process in this pod whether it is ready; for probes.
    Health {
        /// Ask whether it is alive instead.
        #[arg(long)]
        live: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before anything can want TLS. Only a second call could fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match &cli.command {
        Command::Run(_) | Command::Registrar(_) | Command::Media(_) => {
            logging::init(cli.log_format, None);
        }
        _ => {}
    }
    if matches!(cli.command, Command::Registrar(_) | Command::Media(_)) {
        end_with_a_panic();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ringwire: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Call(args) => cli::call::run(*args).await,
            Command::Get(args) => cli::get::run(args).await,
            Command::Trace(args) => cli::trace::run(args).await,
            Command::Check(args) => cli::check::run(&args),
            Command::Explain(args) => cli::explain::run(&args),
            Command::Completion(args) => cli::completion::run(&args, Cli::command()),
            Command::Registrar(args) => pod::run(args, Role::Registrar).await,
            Command::Media(args) => pod::run(args, Role::Media).await,
            Command::Health { live } => health::probe(&health::socket_path(), live),
        }
    });
    runtime.shutdown_background();
    code
}

/// In a pod a panic outside of a call ends the process, to be started anew, rather than leaving half of it. Threads that carry calls
/// survive the panic of one call.
fn end_with_a_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let carries_calls = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("media-"));
        if !carries_calls {
            std::process::exit(101);
        }
    }));
}
