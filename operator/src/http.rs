//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The loop passes at least every few seconds; silence for this long means that it hangs.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// How the loop is.
pub struct Health {
    started: Instant,
    last_pass_millis: AtomicU64,
    ready: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last_pass_millis: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// The loop is alive.
    pub fn beat(&self) {
        let millis = self
            .started
            .elapsed()
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX);
        self.last_pass_millis.store(millis, Ordering::Relaxed);
    }

    /// All watches were complete once, and acted on.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let last = Duration::from_millis(self.last_pass_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) < HUNG_AFTER
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Serves until `stop`.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, health });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn verdict(good: bool, bad: &'static str) -> Response {
    if good {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, bad).into_response()
    }
}

async fn alive(State(shared): State<Shared>) -> Response {
    verdict(shared.health.is_alive(), "the reconcile loop hangs\n")
}

async fn ready(State(shared): State<Shared>) -> Response {
    verdict(
        shared.health.ready.load(Ordering::Relaxed),
        "waiting for the API server\n",
    )
}
