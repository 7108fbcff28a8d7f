//! One GET to the running server: plain HTTP/1.1, one connection each.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::cli::resolve::{self, ResolveError};

/// Largest answer that is read.
const MAX_BYTES: usize = 64 << 20;
/// The whole exchange has so long.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0:?} is no address of a server: expected http://HOST:PORT")]
    Address(String),
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Nobody listens there.
    #[error("nothing listens at {0} (is `ringwire run` running?)")]
    Refused(String),
    /// The connection failed.
    #[error("cannot reach {server}: {source}")]
    Connect {
        /// The server.
        server: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{0} does not answer")]
    Silent(String),
    /// It is not HTTP, or broke off.
    #[error("{server} does not speak HTTP as `ringwire run` does: {cause}")]
    Http {
        /// The server.
        server: String,
        /// What is wrong.
        cause: String,
    },
    /// It has no status for us.
    #[error("{server} answered {status} to GET {path}; is it `ringwire run`?")]
    Status {
        /// The server.
        server: String,
        /// What it was asked for.
        path: &'static str,
        /// Its answer.
        status: StatusCode,
    },
    /// The answer is not what it should be.
    #[error(
        "{server} answered something else than was asked for; is it `ringwire run` of this version?"
    )]
    Content {
        /// The server.
        server: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// A server's base address.
#[derive(Clone, Debug)]
pub struct Server {
    text: String,
    host: String,
    port: u16,
    prefix: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

#[derive(Deserialize)]
struct Traces {
    socket: PathBuf,
}

impl Server {
    /// Reads `http://HOST:PORT`; the scheme may be left out.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(text.to_owned());
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?
            .to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            host,
            port: uri.port_u16().unwrap_or(80),
            prefix,
        })
    }

    /// All objects with their status.
    pub async fn objects(&self) -> Result<Vec<Value>, ClientError> {
        let body = tokio::time::timeout(LIMIT, self.get("/status"))
            .await
            .map_err(|_| ClientError::Silent(self.text.clone()))??;
        let list: List = serde_json::from_slice(&body).map_err(|source| ClientError::Content {
            server: self.text.clone(),
            source,
        })?;
        Ok(list.items)
    }

    /// Where the server shows its SIP messages: a file on the server's machine.
    pub async fn trace_socket(&self) -> Result<PathBuf, ClientError> {
        let body = tokio::time::timeout(LIMIT, self.get("/trace"))
            .await
            .map_err(|_| ClientError::Silent(self.text.clone()))??;
        let traces: Traces =
            serde_json::from_slice(&body).map_err(|source| ClientError::Content {
                server: self.text.clone(),
                source,
            })?;
        Ok(traces.socket)
    }

    async fn connect(&self) -> Result<TcpStream, ClientError> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in resolve::addresses(&self.host).await? {
            match TcpStream::connect(SocketAddr::new(address, self.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        let server = self.text.clone();
        Err(match last.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::Refused(server),
            _ => ClientError::Connect {
                server,
                source: last,
            },
        })
    }

    async fn get(&self, path: &'static str) -> Result<Vec<u8>, ClientError> {
        let broken = |cause: String| ClientError::Http {
            server: self.text.clone(),
            cause,
        };
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        // Ends with the sender; its errors come out of the request too.
        let driving = tokio::spawn(connection);
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(ACCEPT, "application/json")
            .body(String::new())
            .map_err(|error| broken(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.to_string()))?;
        let status = response.status();
        if status != StatusCode::OK {
            driving.abort();
            return Err(ClientError::Status {
                server: self.text.clone(),
                path,
                status,
            });
        }
        let body = axum::body::Body::new(response.into_body());
        let bytes = axum::body::to_bytes(body, MAX_BYTES)
            .await
            .map_err(|error| broken(error.to_string()))?;
        driving.abort();
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    async fn serve(app: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn reads_the_objects_of_a_server() {
        let list = json!({"items": [{"kind": "SipProvider"}, {"kind": "VoiceAgent"}]});
        let server = serve(Router::new().route("/status", get(|| async { Json(list) }))).await;
        let objects = Server::parse(&server).unwrap().objects().await.unwrap();
        assert_eq!(objects[1]["kind"], "VoiceAgent");
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_server() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let other = serve(Router::new().route("/status", get(|| async { "hello" }))).await;
        let stranger = serve(Router::new()).await;
        for (server, expected) in [
            (format!("{free}"), "(is `ringwire run` running?)"),
            (other, "something else than was asked for"),
            (stranger, "404 Not Found"),
        ] {
            let error = Server::parse(&server)
                .unwrap()
                .objects()
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn takes_an_address_with_or_without_scheme() {
        for (text, host, port) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("localhost:9", "localhost", 9),
            ("http://[::1]:7/", "[::1]", 7),
            ("example.com", "example.com", 80),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
        }
        for text in ["https://x", "", "http://", "a b"] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }
}
