//! HTTP on the control port: `/state` streams the pod's state.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream::{self, Stream};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ringwire_config::state::{HEARTBEAT, PodState};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::report::Reporter;

/// Changes within this time go out together.
const GATHER: Duration = Duration::from_millis(20);

/// Serves one connection.
pub async fn serve<S>(stream: S, reporter: Reporter, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = Router::new()
        .route("/state", get(stream_state))
        .with_state(reporter);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        () = stop.cancelled() => {}
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "control connection ended");
        }
    }
}

async fn stream_state(State(reporter): State<Reporter>) -> Response {
    let lines = lines(reporter);
    (
        [(http::header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

/// The whole state, then merge patches; an empty patch as heartbeat.
pub fn lines(reporter: Reporter) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let changes = reporter.subscribe();
    stream::unfold(
        (reporter, changes, None::<PodState>),
        |(reporter, mut changes, sent)| async move {
            if sent.is_some()
                && tokio::time::timeout(HEARTBEAT, changes.changed())
                    .await
                    .is_ok()
            {
                tokio::time::sleep(GATHER).await;
            }
            changes.borrow_and_update();
            let now = reporter.snapshot();
            let line = match &sent {
                None => serde_json::to_value(&now).unwrap_or_default(),
                Some(sent) => now
                    .patch_from(sent)
                    .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            };
            let mut text = line.to_string();
            text.push('\n');
            Some((Ok(Bytes::from(text)), (reporter, changes, Some(now))))
        },
    )
}
