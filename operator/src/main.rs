//! `ringwire-operator`: starts everything and stops it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use ringwire_operator::failure::chain;
use ringwire_operator::http::{self, Health};
use ringwire_operator::leader::Election;
use ringwire_operator::logging;
use ringwire_operator::metrics::Metrics;
use ringwire_operator::options::{Args, Candidacy, Options};
use ringwire_operator::reconcile::Reconciler;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("no configuration of the API server: neither in a cluster nor a kubeconfig")]
    Config(#[from] kube::config::InferConfigError),
    #[error("no client of the API server")]
    Client(#[from] kube::Error),
    #[error("cannot catch signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot serve metrics at {address}")]
    Metrics {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    // First of all: several crates bring a provider, and rustls refuses to guess.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("a rustls provider is installed already");
        return ExitCode::FAILURE;
    }
    let args = Args::parse();
    logging::start(args.log_format);
    logging::exit_on_panic();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(args));
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "the operator cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), StartError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;

    let client = Client::try_from(Config::infer().await?)?;
    let options = Options::from(&args);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        default_gateway = %options.settings.default_gateway,
        scope = ?options.scope,
        image = options.pods.image,
        "the operator starts"
    );
    let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
    let reporter = Reporter {
        controller: "ringwire-operator".into(),
        instance: std::env::var("POD_NAME").ok(),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let serving = http::serve(
        args.metrics_address,
        Arc::clone(&metrics),
        Arc::clone(&health),
        stop.clone(),
    );
    let Candidacy { lease, identity } = &options.candidacy;
    let owner = args.deployment_name.clone().filter(|name| !name.is_empty());
    let (election, term) = Election::new(client.clone(), &args.namespace, lease, identity, owner);
    let election = tokio::spawn(election.run(stop.clone()));
    let reconciler = Reconciler::new(client, options, term, metrics, health, recorder);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("the operator stops"),
        _ = interrupt.recv() => tracing::info!("the operator stops"),
        () = reconciler.run(stop.clone()) => {}
        served = serving => {
            stop.cancel();
            return served.map_err(|source| StartError::Metrics { address: args.metrics_address, source });
        }
    }
    // By now the reconciler is gone, and all that it was about to write.
    stop.cancel();
    if let Ok(election) = election.await {
        election.resign().await;
    }
    Ok(())
}
