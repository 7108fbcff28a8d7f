//! The connector against real WebSocket servers on loopback: what is good connects, what is not is named.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use http::{HeaderName, HeaderValue};
use ringwire_agent::{
    address::AddressPolicy,
    connect::{ConnectError, Connector, TcpTarget, WebSocketTarget, public_tls},
    socket::{AgentSocket, Received, SocketError},
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_async, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

fn unrestricted() -> AddressPolicy {
    AddressPolicy {
        restrict: false,
        ..AddressPolicy::default()
    }
}

fn target(url: &str) -> WebSocketTarget {
    WebSocketTarget::new(url, Vec::new(), unrestricted()).unwrap()
}

/// Names are answered by a server of the test's; without one, asking it fails.
fn connector(dns: Option<SocketAddr>, tls: Arc<ClientConfig>) -> Connector {
    let dns = dns.unwrap_or_else(|| "127.0.0.1:1".parse().unwrap());
    let mut connection = ConnectionConfig::udp();
    connection.port = dns.port();
    let server = NameServerConfig::new(dns.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec!["svc.test.".parse().unwrap()], vec![server]);
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .build()
        .unwrap();
    Connector::with_resolver(resolver, tls)
}

async fn connect(url: &str) -> Result<AgentSocket, ConnectError> {
    connect_within(url, Duration::from_secs(5)).await
}

async fn connect_within(url: &str, limit: Duration) -> Result<AgentSocket, ConnectError> {
    connector(None, public_tls().unwrap())
        .connect(&target(url), Instant::now() + limit)
        .await
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves one WebSocket connection.
async fn serve<F>(
    handler: impl FnOnce(WebSocketStream<TcpStream>) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        handler(accept_async(stream).await.unwrap()).await;
    });
    address
}

/// Answers every connection with fixed bytes after a request's header.
async fn answer(bytes: &'static [u8]) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn messages_go_both_ways_and_a_close_arrives_with_code_and_reason() {
    let address = serve(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) if text.as_str() == "bye" => {
                    let frame = CloseFrame {
                        code: 4001.into(),
                        reason: "done".into(),
                    };
                    socket.close(Some(frame)).await.unwrap();
                }
                Message::Text(_) | Message::Binary(_) => socket.send(message).await.unwrap(),
                _ => {}
            }
        }
    })
    .await;
    let socket = connect(&format!("ws://{address}/path?token=x"))
        .await
        .unwrap();
    assert_eq!(socket.peer(), Some(address));
    let (mut sender, mut receiver) = socket.split();
    sender.send_text("hello").await.unwrap();
    assert_eq!(
        receiver.receive().await.unwrap().unwrap(),
        Received::Text("hello".into())
    );
    sender.send_binary(vec![1, 2].into()).await.unwrap();
    assert_eq!(
        receiver.receive().await.unwrap().unwrap(),
        Received::Binary(vec![1, 2].into())
    );
    sender.send_text("bye").await.unwrap();
    let closed = Received::Closed {
        code: 4001,
        reason: "done".into(),
    };
    assert_eq!(receiver.receive().await.unwrap().unwrap(), closed);
    assert!(receiver.receive().await.is_none());
}

#[tokio::test]
async fn pings_are_answered_while_receiving() {
    let address = serve(|mut socket| async move {
        socket.send(Message::Ping(vec![7].into())).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::Pong(vec![7].into())
        );
        socket.send(Message::text("answered")).await.unwrap();
    })
    .await;
    let (_sender, mut receiver) = connect(&format!("ws://{address}")).await.unwrap().split();
    assert_eq!(
        receiver.receive().await.unwrap().unwrap(),
        Received::Text("answered".into())
    );
}

#[tokio::test]
async fn our_close_reaches_the_agent_with_its_code() {
    let (told, hears) = tokio::sync::oneshot::channel();
    let address = serve(|mut socket| async move {
        if let Some(Ok(Message::Close(Some(frame)))) = socket.next().await {
            told.send((u16::from(frame.code), frame.reason.to_string()))
                .unwrap();
        }
    })
    .await;
    let (mut sender, _receiver) = connect(&format!("ws://{address}")).await.unwrap().split();
    sender.close(1000, &"é".repeat(100)).await.unwrap();
    assert_eq!(hears.await.unwrap(), (1000, "é".repeat(61)));
}

#[tokio::test]
async fn a_message_above_one_mebibyte_ends_the_connection() {
    let address = serve(|mut socket| async move {
        let _ = socket.send(Message::text("x".repeat((1 << 20) + 1))).await;
        let _ = socket.next().await;
    })
    .await;
    let (_sender, mut receiver) = connect(&format!("ws://{address}")).await.unwrap().split();
    assert!(matches!(
        receiver.receive().await,
        Some(Err(SocketError::TooLarge))
    ));
    assert!(receiver.receive().await.is_none());
}

#[tokio::test]
async fn an_agent_that_vanishes_is_a_lost_connection() {
    let address = serve(|socket| async move { drop(socket) }).await;
    let (_sender, mut receiver) = connect(&format!("ws://{address}")).await.unwrap().split();
    assert!(matches!(
        receiver.receive().await,
        Some(Err(SocketError::Lost(_)))
    ));
}

#[tokio::test]
async fn headers_are_sent_and_never_shown() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut seen = None;
        // The callback's error type is the library's.
        #[allow(clippy::result_large_err)]
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            seen = request.headers().get("authorization").cloned();
            Ok(response)
        };
        accept_hdr_async(stream, callback).await.unwrap();
        seen
    });
    let headers = vec![(
        http::header::AUTHORIZATION,
        HeaderValue::from_static("Bearer s3cret"),
    )];
    let target = WebSocketTarget::new(
        &format!("ws://{address}/t0ken?key=k3y"),
        headers,
        unrestricted(),
    )
    .unwrap();
    let shown = format!("{target} {target:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("t0ken") && !shown.contains("k3y"),
        "{shown}"
    );
    let connector = connector(None, public_tls().unwrap());
    connector
        .connect(&target, Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(server.await.unwrap().unwrap(), "Bearer s3cret");
}

#[tokio::test]
async fn a_closed_port_is_named_as_refused() {
    let (listener, address) = listen().await;
    drop(listener);
    let error = connect(&format!("ws://{address}/?token=x"))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert_eq!(error.reason(), "AgentUnreachable");
    assert!(
        error.to_string().contains(&address.to_string()) && !error.to_string().contains("token")
    );
}

#[tokio::test]
async fn an_http_status_is_named_with_advice() {
    for (response, status, advice) in [
        (
            &b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"[..],
            401,
            "headers Secret",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            404,
            "path",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            302,
            "redirects",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "URL"),
    ] {
        let address = answer(response).await;
        let error = connect(&format!("ws://{address}")).await.unwrap_err();
        assert_eq!(
            error,
            ConnectError::Status {
                target: format!("ws://{address}"),
                status
            }
        );
        assert_eq!(error.reason(), "AgentUnreachable");
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test]
async fn something_else_than_http_is_named() {
    let address = answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let error = connect(&format!("ws://{address}")).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotWebSocket { .. }),
        "{error}"
    );
    let error = connect(&format!("wss://{address}")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn an_agent_that_accepts_and_says_nothing_is_a_timeout() {
    let (_listener, address) = listen().await;
    for (scheme, stage) in [("ws", "waiting for 101"), ("wss", "negotiating TLS")] {
        let error = connect_within(&format!("{scheme}://{address}"), Duration::from_millis(100))
            .await
            .unwrap_err();
        assert_eq!(error.reason(), "AgentTimeout");
        assert!(error.to_string().contains(stage), "{error}");
    }
}

fn self_signed() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[tokio::test]
async fn tls_works_with_a_trusted_certificate_and_is_refused_otherwise() {
    let (server, client) = self_signed();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(server);
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let mut socket = accept_async(stream).await.unwrap();
                socket.send(Message::text("over TLS")).await.unwrap();
            }
        }
    });
    let url = format!("wss://{address}");
    let deadline = Instant::now() + Duration::from_secs(5);
    let socket = connector(None, client)
        .connect(&target(&url), deadline)
        .await
        .unwrap();
    let (_sender, mut receiver) = socket.split();
    assert_eq!(
        receiver.receive().await.unwrap().unwrap(),
        Received::Text("over TLS".into())
    );
    let error = connect(&url).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::TlsUntrusted { .. }),
        "{error}"
    );
    assert_eq!(error.reason(), "AgentUnreachable");
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let address = serve(|_| async {}).await;
    let url = format!("ws://{address}");
    let connector = connector(None, public_tls().unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = WebSocketTarget::new(&url, Vec::new(), AddressPolicy::default()).unwrap();
    let error = connector.connect(&refused, deadline).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::AddressNotAllowed { .. }),
        "{error}"
    );
    let policy = AddressPolicy {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        ..AddressPolicy::default()
    };
    let allowed = WebSocketTarget::new(&url, Vec::new(), policy).unwrap();
    connector.connect(&allowed, deadline).await.unwrap();
}

/// A name server that knows `agent.svc.test.` at `addresses`, and nothing else.
async fn name_server(addresses: &'static [[u8; 4]]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let question_end = 12
                + query[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap()
                + 5;
            let question = &query[12..question_end];
            let known = question
                .to_ascii_lowercase()
                .starts_with(b"\x05agent\x03svc\x04test\0");
            let wants_v4 = question[question.len() - 3] == 1;
            let answers = if known && wants_v4 { addresses } else { &[] };
            let code = if known { 0 } else { 3 };
            let mut reply = vec![
                query[0],
                query[1],
                0x84,
                0x80 | code,
                0,
                1,
                0,
                answers.len() as u8,
                0,
                0,
                0,
                0,
            ];
            reply.extend(question);
            for address in answers {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                reply.extend(address);
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    address
}

async fn connect_by_name(
    addresses: &'static [[u8; 4]],
    host: &str,
    port: u16,
    policy: AddressPolicy,
) -> Result<AgentSocket, ConnectError> {
    let dns = name_server(addresses).await;
    let target = WebSocketTarget::new(&format!("ws://{host}:{port}"), Vec::new(), policy).unwrap();
    connector(Some(dns), public_tls().unwrap())
        .connect(&target, Instant::now() + Duration::from_secs(5))
        .await
}

#[tokio::test]
async fn a_short_name_is_found_through_the_search_domain() {
    let address = serve(|_| async {}).await;
    connect_by_name(&[[127, 0, 0, 1]], "agent", address.port(), unrestricted())
        .await
        .unwrap();
}

#[tokio::test]
async fn every_address_is_tried() {
    let address = serve(|_| async {}).await;
    let socket = connect_by_name(
        &[[127, 0, 0, 77], [127, 0, 0, 1]],
        "agent",
        address.port(),
        unrestricted(),
    )
    .await;
    assert_eq!(
        socket.unwrap().peer().unwrap().ip(),
        "127.0.0.1".parse::<IpAddr>().unwrap()
    );
}

#[tokio::test]
async fn a_name_that_resolves_to_a_refused_address_is_not_connected_to() {
    let address = serve(|_| async {}).await;
    let error = connect_by_name(
        &[[127, 0, 0, 1]],
        "agent",
        address.port(),
        AddressPolicy::default(),
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error, ConnectError::AddressNotAllowed { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_name_is_named() {
    let error = connect_by_name(&[], "nobody", 80, unrestricted())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NameNotFound { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("nobody"));
}

#[test]
fn unusable_urls_and_headers_are_refused_with_the_reason() {
    for (url, part) in [
        ("http://a", "ws://"),
        ("agent:8080", "ws://"),
        ("ws://", "parse"),
        ("ws://user:pass@a/", "user name"),
        ("ws://a:99999/", "port"),
        ("ws://a:0/", "port"),
    ] {
        let error = WebSocketTarget::new(url, Vec::new(), unrestricted())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(part) && !error.contains("pass"),
            "{url}: {error}"
        );
    }
    let header = vec![(
        HeaderName::from_static("sec-websocket-key"),
        HeaderValue::from_static("x"),
    )];
    assert!(matches!(
        WebSocketTarget::new("ws://a", header, unrestricted()),
        Err(ConnectError::Header(_))
    ));
    assert_eq!(
        target("wss://[2001:db8::1]/x").to_string(),
        "wss://[2001:db8::1]:443"
    );
}

async fn connect_tcp(
    dns: Option<SocketAddr>,
    address: &str,
    policy: AddressPolicy,
    limit: Duration,
) -> Result<(), ConnectError> {
    let target = TcpTarget::new(address, policy)?;
    let connected = connector(dns, public_tls().unwrap())
        .connect_tcp(&target, Instant::now() + limit)
        .await;
    connected.map(drop)
}

#[tokio::test]
async fn tcp_agents_are_connected_to_under_the_same_rules() {
    const LIMIT: Duration = Duration::from_secs(5);
    let (listener, address) = listen().await;
    let port = address.port();
    let text = address.to_string();
    connect_tcp(None, &text, unrestricted(), LIMIT)
        .await
        .unwrap();
    // By name; the first address does not answer.
    let dns = name_server(&[[127, 0, 0, 77], [127, 0, 0, 1]]).await;
    let by_name = format!("agent:{port}");
    connect_tcp(Some(dns), &by_name, unrestricted(), LIMIT)
        .await
        .unwrap();
    for (dns, address) in [(None, &text), (Some(dns), &by_name)] {
        let error = connect_tcp(dns, address, AddressPolicy::default(), LIMIT)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::AddressNotAllowed { .. }),
            "{error}"
        );
    }
    let error = connect_tcp(Some(dns), "nobody:9092", unrestricted(), LIMIT)
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("nobody:9092: no address"),
        "{error}"
    );
    drop(listener);
    let error = connect_tcp(None, &text, unrestricted(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert_eq!(error.reason(), "AgentUnreachable");
    assert!(error.to_string().starts_with(&text), "{error}");
}

#[tokio::test]
async fn a_tcp_agent_that_does_not_answer_is_a_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Whoever does not fit into its queue gets no answer.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(200);
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(limit, TcpStream::connect(address)).await {
        held.push(stream);
    }
    let error = connect_tcp(None, &address.to_string(), unrestricted(), limit)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "AgentTimeout");
    assert!(error.to_string().contains("while connecting"), "{error}");
}

#[test]
fn unusable_addresses_are_refused_with_the_reason() {
    for (address, part) in [
        ("tcp://agent:9092", "URL"),
        ("agent", "port"),
        ("agent:", "port"),
        ("agent:0", "port"),
        ("agent:65536", "port"),
        ("agent:9092/media", "HOST:PORT"),
        ("user@agent:9092", "HOST:PORT"),
        (":9092", "HOST:PORT"),
        ("", "HOST:PORT"),
        ("an agent:9092", "HOST:PORT"),
    ] {
        let error = TcpTarget::new(address, unrestricted()).unwrap_err();
        assert!(error.to_string().contains(part), "{address}: {error}");
    }
    let target = TcpTarget::new("[2001:db8::1]:9092", unrestricted()).unwrap();
    assert_eq!(target.to_string(), "[2001:db8::1]:9092");
}
