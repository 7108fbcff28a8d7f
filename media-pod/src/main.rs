//! `ringwire`: the operator, the pods' roles, the embedded server and the command line.

mod alone;
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

use std::ffi::OsString;
use std::path::Path;
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
    /// How to log; `RINGWIRE_LOG` sets the filter, such as `debug`. Default: text, of the operator json.
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
    #[command(version)]
    Operator(Box<ringwire_operator::options::Args>),
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
    let cli = Cli::parse_from(command_line(std::env::args_os()));
    // Before anything can want TLS. Only a second call could fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match &cli.command {
        Command::Run(_) | Command::Registrar(_) | Command::Media(_) => {
            logging::init(cli.log_format, &logging::PODS);
        }
        Command::Operator(_) => logging::init(cli.log_format, &logging::OPERATOR),
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
            Command::Operator(args) => ringwire_operator::run::run(*args).await,
            Command::Registrar(args) => pod::run(args, Role::Registrar).await,
            Command::Media(args) => pod::run(args, Role::Media).await,
            Command::Health { live } => health::probe(&health::socket_path(), live),
        }
    });
    runtime.shutdown_background();
    code
}

/// A name of the program by which it is the operator, for manifests that say so.
const OPERATOR: &str = "ringwire-operator";

/// The arguments to read: those given, or `ringwire operator …` if we were called by the operator's name.
fn command_line(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    let name = arguments
        .first()
        .and_then(|path| Path::new(path).file_name());
    if name.is_some_and(|name| name == OPERATOR) {
        arguments.splice(..1, ["ringwire".into(), "operator".into()]);
    }
    arguments
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(command_line(arguments.iter().map(OsString::from)))
    }

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn called_by_the_operators_name_it_is_the_operator() {
        let options = ["--namespace=system", "--log-format=text"];
        for start in [
            vec!["/ringwire", "operator"],
            vec!["/ringwire-operator"],
            vec!["ringwire-operator"],
        ] {
            let cli = read(&[start, options.to_vec()].concat()).unwrap();
            assert_eq!(cli.log_format, Some(logging::Format::Text));
            let Command::Operator(args) = cli.command else {
                panic!("not the operator");
            };
            assert_eq!(args.namespace, "system");
        }
    }

    #[test]
    fn called_by_another_name_it_reads_all_arguments() {
        for name in ["/ringwire", "/ringwire-operator/ringwire", "renamed"] {
            let cli = read(&[name, "health", "--live"]).unwrap();
            assert!(
                matches!(cli.command, Command::Health { live: true }),
                "{name}"
            );
        }
    }

    #[test]
    fn the_operator_says_its_version_under_either_name() {
        for command in [vec!["ringwire", "operator"], vec!["ringwire-operator"]] {
            let error = read(&[command, vec!["--version"]].concat()).err().unwrap();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayVersion);
            let expected = format!("ringwire-operator {}\n", env!("CARGO_PKG_VERSION"));
            assert_eq!(error.to_string(), expected);
        }
    }
}
