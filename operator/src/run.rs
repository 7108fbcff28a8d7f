//! Starts everything and stops it.

use std::process::ExitCode;
use std::sync::Arc;

use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::chain;
use crate::http::{self, Health};
use crate::leader::Election;
use crate::metrics::Metrics;
use crate::options::{Args, Candidacy, Options};
use crate::reconcile::Reconciler;

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

/// Runs until SIGTERM or Ctrl-C. The caller has started the log and chosen rustls's provider; a panic ends the process from now on.
pub async fn run(args: Args) -> ExitCode {
    exit_on_panic();
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "the operator cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process at a panic of any task or thread: half an operator would look alive and do nothing.
fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic");
        tracing::error!(place, "the operator ends: {message}");
        std::process::exit(101);
    }));
}

async fn serve(args: Args) -> Result<(), StartError> {
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
