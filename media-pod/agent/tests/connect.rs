//! The connector against real WebSocket servers on loopback: what is good connects, what is not is named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use http::{HeaderName, HeaderValue, header};
use ringwire_agent::{
    address::AddressPolicy,
    connect::{ConnectError, Connector, TcpTarget, WebSocketTarget, public_tls},
    socket::{AgentSocket, MAX_MESSAGE_BYTES, Received, SocketError},
    stream::{STUCK_AFTER, StreamError},
    websocket::FrameError,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_async, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::{
            derive_accept_key,
            server::{ErrorResponse, Request, Response},
        },
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

/// Longest wait for something that is to come.
const LIMIT: Duration = Duration::from_secs(10);
/// What may wait for an agent that does not read.
const MOST: usize = 64 << 10;

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

/// A test's copy of what was received.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, String),
}

impl From<Received<'_>> for Heard {
    fn from(received: Received<'_>) -> Self {
        match received {
            Received::Text(text) => Self::Text(text.to_owned()),
            Received::Binary(data) => Self::Binary(data.to_owned()),
            Received::Ping(payload) => panic!("pings are not told: {payload:?}"),
            Received::Closed { code, reason } => Self::Closed(code, reason.to_owned()),
        }
    }
}

/// Wakes the socket until `check` has found something.
async fn until<T>(
    socket: &mut AgentSocket,
    what: &str,
    mut check: impl FnMut(&mut AgentSocket) -> Option<T>,
) -> T {
    let check = async {
        loop {
            if let Some(found) = check(socket) {
                return found;
            }
            sleep(Duration::from_millis(1)).await;
            socket.wake(false);
        }
    };
    timeout(LIMIT, check).await.expect(what)
}

/// Receives `count` messages.
async fn hear(socket: &mut AgentSocket, count: usize) -> Result<Vec<Heard>, SocketError> {
    let mut heard = Vec::new();
    let mut scratch = [0; 4096];
    until(socket, "messages", |socket| {
        let received = socket.receive(&mut scratch, &mut |received| heard.push(received.into()));
        // The connection's end may come with the last message.
        if heard.len() >= count {
            return Some(Ok(()));
        }
        received.err().map(Err)
    })
    .await?;
    assert_eq!(heard.len(), count, "{heard:?}");
    Ok(heard)
}

async fn hear_text(socket: &mut AgentSocket) -> String {
    match hear(socket, 1).await.unwrap().remove(0) {
        Heard::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn say(socket: &mut AgentSocket, text: &str) {
    assert!(socket.send_text(MOST, |out| out.extend_from_slice(text.as_bytes())));
}

/// Reads on until the agent has closed as well.
async fn part(mut socket: AgentSocket) {
    let mut scratch = [0; 4096];
    until(&mut socket, "the agent closes", |socket| {
        socket.read_on(&mut scratch).then_some(())
    })
    .await;
}

#[tokio::test]
async fn messages_go_both_ways_and_a_close_arrives_with_code_and_reason() {
    let (told, hears) = oneshot::channel();
    let address = serve(|mut socket| async move {
        let mut frames = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            match &message {
                Message::Text(text) if text.as_str() == "bye" => {
                    let frame = CloseFrame {
                        code: 4001.into(),
                        reason: "done".into(),
                    };
                    socket.close(Some(frame)).await.unwrap();
                }
                Message::Text(text) if text.as_str() == "binary" => {
                    let binary = Message::binary(vec![1, 2]);
                    socket.send(binary).await.unwrap();
                }
                Message::Text(_) => socket.send(message.clone()).await.unwrap(),
                _ => {}
            }
            frames.push(message);
        }
        told.send(frames.pop().unwrap()).unwrap();
    })
    .await;
    let mut socket = connect(&format!("ws://{address}/path?token=x"))
        .await
        .unwrap();
    for text in ["hello", "", &"é".repeat(500), &"long".repeat(20_000)] {
        say(&mut socket, text);
        assert_eq!(hear_text(&mut socket).await, text);
    }
    say(&mut socket, "binary");
    let binary = Heard::Binary(vec![1, 2]);
    assert_eq!(hear(&mut socket, 1).await.unwrap(), [binary]);
    say(&mut socket, "bye");
    let closed = Heard::Closed(4001, "done".to_owned());
    assert_eq!(hear(&mut socket, 1).await.unwrap(), [closed]);
    // Nothing follows, neither here nor there.
    assert!(socket.send_text(MOST, |_| panic!("it is closing")));
    let error = hear(&mut socket, 1).await.unwrap_err();
    assert!(matches!(error, SocketError::Stream(StreamError::Closed)));
    socket.close(1000, "too late");
    part(socket).await;
    // The last it heard is its own code.
    let answer = Message::Close(Some(CloseFrame {
        code: 4001.into(),
        reason: "".into(),
    }));
    assert_eq!(timeout(LIMIT, hears).await.unwrap().unwrap(), answer);
}

#[tokio::test]
async fn pings_are_answered_while_receiving() {
    let address = serve(|mut socket| async move {
        let longest = vec![7; 125];
        for payload in [vec![7], vec![], longest] {
            let ping = Message::Ping(payload.clone().into());
            socket.send(ping).await.unwrap();
            let pong = Message::Pong(payload.into());
            assert_eq!(socket.next().await.unwrap().unwrap(), pong);
        }
        socket.send(Message::text("answered")).await.unwrap();
    })
    .await;
    let mut socket = connect(&format!("ws://{address}")).await.unwrap();
    assert_eq!(hear_text(&mut socket).await, "answered");
}

#[tokio::test]
async fn our_close_reaches_the_agent_with_its_code() {
    let (told, hears) = oneshot::channel();
    let address = serve(|mut socket| async move {
        // It talks on until it is told.
        for _ in 0..100 {
            socket.send(Message::text("x".repeat(1000))).await.unwrap();
        }
        if let Some(Ok(Message::Close(Some(frame)))) = socket.next().await {
            told.send((u16::from(frame.code), frame.reason.to_string()))
                .unwrap();
        }
    })
    .await;
    let mut socket = connect(&format!("ws://{address}")).await.unwrap();
    socket.close(1000, &"é".repeat(100));
    assert!(socket.send_text(MOST, |_| panic!("nothing is sent after it")));
    part(socket).await;
    let told = timeout(LIMIT, hears).await.unwrap().unwrap();
    assert_eq!(told, (1000, "é".repeat(61)));
}

/// Receives from an agent that breaks the rules: our error, and the close code that it is told.
async fn broken(messages: Vec<Message>) -> (SocketError, u16) {
    let (told, hears) = oneshot::channel();
    let address = serve(|mut socket| async move {
        for message in messages {
            let _ = socket.send(message).await;
        }
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                told.send(u16::from(frame.code)).unwrap();
                break;
            }
        }
    })
    .await;
    let mut socket = connect(&format!("ws://{address}")).await.unwrap();
    let error = hear(&mut socket, 1).await.unwrap_err();
    // What still comes of it is no message.
    let mut scratch = [0; 4096];
    for _ in 0..10 {
        let again = socket.receive(&mut scratch, &mut |received| panic!("{received:?}"));
        drop(again);
        socket.wake(false);
    }
    socket.close(1000, "");
    part(socket).await;
    (error, timeout(LIMIT, hears).await.unwrap().unwrap())
}

#[tokio::test]
async fn a_message_above_one_mebibyte_ends_the_connection() {
    let long = Message::text("x".repeat(MAX_MESSAGE_BYTES + 1));
    let (error, code) = broken(vec![long]).await;
    assert!(matches!(error, SocketError::Frame(FrameError::TooLarge)));
    assert!(error.to_string().contains("1 MiB"));
    assert_eq!(code, 1009);
    // Just as much is heard.
    let most = "x".repeat(MAX_MESSAGE_BYTES);
    let message = Message::text(most.as_str());
    let address = serve(|mut socket| async move {
        socket.send(message).await.unwrap();
        let _ = socket.next().await;
    })
    .await;
    let mut socket = connect(&format!("ws://{address}")).await.unwrap();
    assert!(hear_text(&mut socket).await == most);
}

#[tokio::test]
async fn an_agent_that_breaks_the_protocol_is_told_its_code() {
    let frame = |opcode, payload: &[u8]| {
        let frame = Frame::message(payload.to_vec(), OpCode::Data(opcode), true);
        Message::Frame(frame)
    };
    let (error, code) = broken(vec![frame(Data::Continue, b"of nothing")]).await;
    assert!(matches!(error, SocketError::Frame(FrameError::Protocol(_))));
    assert_eq!(code, 1002);
    let (error, code) = broken(vec![frame(Data::Text, b"\xff")]).await;
    assert!(matches!(error, SocketError::Frame(FrameError::NotUtf8)));
    assert_eq!(code, 1007);
}

#[tokio::test]
async fn an_agent_that_vanishes_is_a_lost_connection() {
    let address = serve(|socket| async move { drop(socket) }).await;
    let mut socket = connect(&format!("ws://{address}")).await.unwrap();
    let error = hear(&mut socket, 1).await.unwrap_err();
    assert!(
        matches!(error, SocketError::Stream(StreamError::Closed)),
        "{error}"
    );
}

#[tokio::test]
async fn what_an_agent_does_not_read_is_bounded_and_what_was_taken_arrives_whole() {
    for with_tls in [false, true] {
        let (reads, may_read) = oneshot::channel::<()>();
        let (told, hears) = oneshot::channel();
        let (address, client) = serve_tls(with_tls, |mut socket| async move {
            may_read.await.unwrap();
            let mut texts = Vec::new();
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                texts.push(text.to_string());
            }
            told.send(texts).unwrap();
        })
        .await;
        let url = format!("{}://{address}", if with_tls { "wss" } else { "ws" });
        let mut socket = connector(None, client)
            .connect(&target(&url), Instant::now() + LIMIT)
            .await
            .unwrap();
        let message = |number: usize| format!("{number} {}", "x".repeat(10_000));
        let send = |socket: &mut AgentSocket, number| {
            socket.send_text(MOST, |out| {
                out.extend_from_slice(message(number).as_bytes());
            })
        };
        // Loopback's own buffers take some megabytes.
        let taken = (0..10_000).find(|number| !send(&mut socket, *number));
        let taken = taken.expect("there is a bound");
        assert!(!socket.is_stuck(std::time::Instant::now()));
        assert!(socket.is_stuck(std::time::Instant::now() + 2 * STUCK_AFTER));
        reads.send(()).unwrap();
        socket.close(1000, "");
        part(socket).await;
        let heard: Vec<String> = timeout(LIMIT, hears).await.unwrap().unwrap();
        assert_eq!(heard.len(), taken);
        assert!((0..taken).map(message).eq(heard), "in their order");
    }
}

/// As [`serve`], with TLS if so; and what its certificate is trusted with.
async fn serve_tls<F>(
    with_tls: bool,
    handler: impl FnOnce(WebSocketStream<Box<dyn Stream>>) -> F + Send + 'static,
) -> (SocketAddr, Arc<ClientConfig>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (server, client) = self_signed();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream: Box<dyn Stream> = if with_tls {
            Box::new(TlsAcceptor::from(server).accept(stream).await.unwrap())
        } else {
            Box::new(stream)
        };
        handler(accept_async(stream).await.unwrap()).await;
    });
    (address, client)
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Reads a request, and makes the answer that accepts it, with further headers.
async fn accepting(stream: &mut dyn Stream, headers: &str) -> Vec<u8> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    let request = String::from_utf8(request).unwrap();
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = derive_accept_key(key.unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
    );
    answer.into_bytes()
}

#[tokio::test]
async fn what_comes_together_with_101_is_not_lost() {
    // Two messages and the beginning of a third.
    const TOGETHER: &[u8] = b"\x81\x05first\x82\x01\xff\x81\x05thi";
    let expected = [Heard::Text("first".to_owned()), Heard::Binary(vec![0xff])];
    for (with_tls, records) in [(false, 1), (true, 1), (true, 2)] {
        let (server, client) = self_signed();
        let (listener, address) = listen().await;
        let (told, heard_them) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            if with_tls {
                let mut stream = TlsAcceptor::from(server).accept(stream).await.unwrap();
                let answer = accepting(&mut stream, "").await;
                // All in one segment, in one record or in two.
                let (mut wire, mut tls) = stream.into_inner();
                let all = [&answer, TOGETHER].concat();
                let at = if records == 1 {
                    all.len()
                } else {
                    answer.len()
                };
                let mut segment = Vec::new();
                for part in [&all[..at], &all[at..]] {
                    tls.writer().write_all(part).unwrap();
                    while tls.wants_write() {
                        tls.write_tls(&mut segment).unwrap();
                    }
                }
                wire.write_all(&segment).await.unwrap();
                heard_them.await.unwrap();
                segment.clear();
                tls.writer().write_all(b"rd").unwrap();
                tls.write_tls(&mut segment).unwrap();
                wire.write_all(&segment).await.unwrap();
                let _ = wire.read(&mut segment).await;
            } else {
                let answer = accepting(&mut stream, "").await;
                let all = [&answer, TOGETHER].concat();
                stream.write_all(&all).await.unwrap();
                heard_them.await.unwrap();
                stream.write_all(b"rd").await.unwrap();
                let _ = stream.read(&mut [0; 16]).await;
            }
        });
        let url = format!("{}://{address}", if with_tls { "wss" } else { "ws" });
        let mut socket = connector(None, client)
            .connect(&target(&url), Instant::now() + LIMIT)
            .await
            .unwrap();
        // It is there already: nothing on the wire would tell.
        let mut heard: Vec<Heard> = Vec::new();
        let mut scratch = [0; 4096];
        let received = socket.receive(&mut scratch, &mut |received| heard.push(received.into()));
        assert!(!received.unwrap(), "it has all been read");
        assert_eq!(heard, expected, "TLS: {with_tls}, records: {records}");
        told.send(()).unwrap();
        assert_eq!(hear_text(&mut socket).await, "third");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_agree_is_refused() {
    let protocol = || {
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("a, b"),
        )
    };
    for (asked, headers, refused) in [
        (vec![], "X-Agent: 1\r\n", None),
        (vec![protocol()], "Sec-WebSocket-Protocol: b\r\n", None),
        (vec![protocol()], "", None),
        (
            vec![protocol()],
            "Sec-WebSocket-Protocol: c\r\n",
            Some("subprotocol"),
        ),
        (vec![], "Sec-WebSocket-Protocol: b\r\n", Some("subprotocol")),
        (
            vec![],
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            Some("extension"),
        ),
    ] {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = accepting(&mut stream, headers).await;
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
        });
        let url = format!("ws://{address}");
        let target = WebSocketTarget::new(&url, asked, unrestricted()).unwrap();
        let connector = connector(None, public_tls().unwrap());
        let connected = connector.connect(&target, Instant::now() + LIMIT).await;
        match (connected, refused) {
            (Ok(_), None) => {}
            (Err(error @ ConnectError::NotWebSocket { .. }), Some(part)) => {
                assert!(error.to_string().contains(part), "{error}");
            }
            (other, _) => panic!("{headers:?}: {other:?}"),
        }
    }
    let endless = format!("HTTP/1.1 101 OK\r\nX: {}", "x".repeat(17 << 10));
    let endless: &'static [u8] = endless.leak().as_bytes();
    for (answered, part) in [
        (&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], "Upgrade"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "Upgrade",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "Accept",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "Accept",
        ),
        (b"HTTP/1.1 101 Swit", "closed"),
        (endless, "no end"),
    ] {
        let address = answer(answered).await;
        let error = connect(&format!("ws://{address}")).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotWebSocket { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
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
    let mut socket = connector(None, client)
        .connect(&target(&url), deadline)
        .await
        .unwrap();
    assert_eq!(hear_text(&mut socket).await, "over TLS");
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
    // The first does not answer.
    let address = serve(|mut socket| async move {
        let here = socket.get_ref().local_addr().unwrap().ip();
        socket.send(Message::text(here.to_string())).await.unwrap();
    })
    .await;
    let socket = connect_by_name(
        &[[127, 0, 0, 77], [127, 0, 0, 1]],
        "agent",
        address.port(),
        unrestricted(),
    )
    .await;
    assert_eq!(hear_text(&mut socket.unwrap()).await, "127.0.0.1");
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
