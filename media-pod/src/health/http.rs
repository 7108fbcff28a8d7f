//! The plain HTTP port of a pod: `/metrics`, `/healthz`, `/readyz`. Nothing secret and nothing that changes anything.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Health;

/// How many ports after the wanted one are tried if it is taken: on the host's network, pods share their node's ports.
const MORE_PORTS: u16 = 8;

/// Content type of the text format that `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds `address`, or one of the next ports if it is taken, and logs which.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let mut tried = address;
    loop {
        match TcpListener::bind(tried).await {
            Ok(listener) => {
                let bound = listener.local_addr()?;
                tracing::info!(address = %bound, "metrics and health over HTTP");
                return Ok(listener);
            }
            Err(error) => {
                let next = tried
                    .port()
                    .checked_add(1)
                    .filter(|port| port - address.port() <= MORE_PORTS);
                match next {
                    Some(port) if error.kind() == std::io::ErrorKind::AddrInUse => {
                        tried.set_port(port);
                    }
                    _ => return Err(error),
                }
            }
        }
    }
}

/// `/metrics` alone.
pub fn metrics_route<S: Clone + Send + Sync + 'static>(registry: Registry) -> Router<S> {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::new(registry))
}

/// Serves the port until `stop`.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    registry: Registry,
    stop: CancellationToken,
) {
    let metrics = metrics_route(registry);
    let router = Router::new()
        .route(
            "/healthz",
            get(|State(health): State<Health>| async move { answer(health.live()) }),
        )
        .route(
            "/readyz",
            get(|State(health): State<Health>| async move { answer(health.ready()) }),
        )
        .with_state(health)
        .merge(metrics);
    let stopped = stop.clone();
    tokio::select! {
        // A scrape that is under way may be cut off.
        () = stop.cancelled() => {}
        served = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()) => {
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP port for metrics and health has ended");
            }
        }
    }
}

fn answer(health: Result<(), String>) -> Response {
    match health {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut page = String::new();
    match text::encode(&mut page, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ringwire_config::shard::Role;
    use ringwire_config::state::PodState;
    use ringwire_config::token::Incarnation;
    use ringwire_control::Reporter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::{Need, metrics};
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_the_three_questions() {
        let listener = bind(SocketAddr::new(ADDRESS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new([Need::Configuration]);
        let registry = metrics::registry(Reporter::new(PodState::new(
            "media-0",
            Role::Media,
            Incarnation(1),
        )));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, health.clone(), registry, stop.clone()));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("configuration"),
            "{answer}"
        );
        health.met(Need::Configuration);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(
            get(address, "/metrics")
                .await
                .contains("ringwire_calls_active")
        );
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn takes_the_next_port_when_one_is_taken() {
        let taken = TcpListener::bind(SocketAddr::new(ADDRESS, 0))
            .await
            .unwrap();
        let address = taken.local_addr().unwrap();
        let next = bind(address).await.unwrap().local_addr().unwrap().port();
        assert!((1..=MORE_PORTS).contains(&(next - address.port())));
    }
}
