use std::sync::Arc;

use mio::{Events, Interest, Poll, Token};
use std::io::Write as _;

use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

use super::*;

const FRAME: usize = 323;
const MOST: usize = 20 * FRAME;
/// Longest wait for something that is to come.
const LIMIT: Duration = Duration::from_secs(10);
/// What the system's buffers can hold between the two, of which little was asked.
const SYSTEM: usize = 48 << 10;

/// The other side, whatever it speaks.
trait Other: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Other for S {}

/// A connection, with small buffers if `small`, so that little has to be sent until they are full.
async fn tcp(small: bool) -> (TcpStream, TcpStream) {
    let listener = TcpSocket::new_v4().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    let bytes = if small { 4096 } else { 1 << 20 };
    listener.set_recv_buffer_size(bytes).unwrap();
    socket.set_send_buffer_size(bytes).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listener.listen(1).unwrap();
    let stream = socket.connect(listener.local_addr().unwrap());
    let stream = stream.await.unwrap();
    let (agent, _) = listener.accept().await.unwrap();
    agent.set_nodelay(true).unwrap();
    (stream, agent)
}

fn unwatched(stream: TcpStream) -> mio::net::TcpStream {
    mio::net::TcpStream::from_std(stream.into_std().unwrap())
}

fn certificates() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
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

async fn tls(small: bool) -> (AgentStream, TlsStream<TcpStream>) {
    let (stream, agent, _) = tls_over(small).await;
    (stream, agent)
}

/// With our side's socket, to look at what has come.
async fn tls_over(small: bool) -> (AgentStream, TlsStream<TcpStream>, std::net::TcpStream) {
    let (stream, agent) = tcp(small).await;
    let (server, client) = certificates();
    let name = "127.0.0.1".try_into().unwrap();
    let (ours, theirs) = tokio::join!(
        TlsConnector::from(client).connect(name, stream),
        TlsAcceptor::from(server).accept(agent),
    );
    let (stream, connection) = ours.unwrap().into_inner();
    let stream = stream.into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let stream = mio::net::TcpStream::from_std(stream);
    let transport = Transport::tls(stream, connection);
    (AgentStream::new(transport), theirs.unwrap(), socket)
}

/// By TCP alone, and with TLS.
async fn pairs(small: bool) -> [(AgentStream, Box<dyn Other>); 2] {
    let (stream, agent) = tcp(small).await;
    let plain = AgentStream::new(Transport::Plain(unwatched(stream)));
    let (stream, agent_of_tls) = tls(small).await;
    [(plain, Box::new(agent)), (stream, Box::new(agent_of_tls))]
}

fn frame(number: u8) -> [u8; FRAME] {
    [number; FRAME]
}

/// Sends until a frame is dropped; how many were taken.
fn fill(stream: &mut AgentStream) -> usize {
    (0..1000)
        .find(|number| !stream.send(&frame(*number as u8), MOST))
        .expect("the backlog has a bound")
}

fn frames(taken: usize) -> Vec<u8> {
    (0..taken).flat_map(|number| frame(number as u8)).collect()
}

/// Wakes the stream until something is there, or has come to an end.
async fn until<T>(
    stream: &mut AgentStream,
    what: &str,
    mut check: impl FnMut(&mut AgentStream) -> Option<T>,
) -> T {
    let check = async {
        loop {
            stream.wake(false);
            if let Some(found) = check(stream) {
                return found;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, check).await.expect(what)
}

/// Wakes the stream until the system has all of it, TLS nothing left. The agent says nothing meanwhile.
async fn all_out(stream: &mut AgentStream) {
    until(stream, "all has gone out", |stream| {
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), None);
        let done = stream.transport.flush().unwrap() && stream.backlog.is_empty();
        done.then_some(())
    })
    .await;
}

async fn next(stream: &mut AgentStream) -> Result<Vec<u8>, StreamError> {
    let mut buffer = [0; 1000];
    let length = until(stream, "something to read", |stream| {
        stream.read(&mut buffer).transpose()
    });
    let length = length.await?;
    Ok(buffer[..length].to_vec())
}

/// Reads until the end; what came before it.
async fn to_the_end(stream: &mut AgentStream) -> (Vec<u8>, StreamError) {
    let mut heard = Vec::new();
    loop {
        match next(stream).await {
            Ok(bytes) => heard.extend(bytes),
            Err(error) => return (heard, error),
        }
    }
}

#[tokio::test]
async fn what_waits_is_bounded_and_arrives_whole_and_in_order() {
    for (mut stream, mut agent) in pairs(true).await {
        let taken = fill(&mut stream);
        assert!(stream.backlog.len() <= MOST);
        let elsewhere = taken * FRAME - stream.backlog.len();
        assert!(elsewhere < SYSTEM, "{elsewhere} bytes are kept elsewhere");
        assert!(
            stream.send(b"key", MOST + FRAME),
            "a higher bound has room for what is not audio"
        );
        let mut expected = frames(taken);
        expected.extend(b"key");
        let mut heard = vec![0; expected.len()];
        let read = timeout(LIMIT, agent.read_exact(&mut heard));
        let (read, ()) = tokio::join!(read, all_out(&mut stream));
        read.expect("it arrives").unwrap();
        assert!(heard == expected);
        assert!(stream.backlog.is_empty() && stream.backlog.capacity() <= KEPT_CAPACITY);
    }
}

#[tokio::test]
async fn much_is_sent_over_tls_without_being_told_of_room() {
    // More than one record, more than rustls takes at once, and less than the socket does.
    const MUCH: usize = 200 << 10;
    let (mut stream, mut agent) = tls(false).await;
    let data: Vec<u8> = (0..MUCH).map(|place| (place % 251) as u8).collect();
    assert!(stream.send(&data, 0) && stream.send(b"end", MUCH));
    let mut heard = vec![0; MUCH + 3];
    let read = timeout(LIMIT, agent.read_exact(&mut heard)).await;
    read.expect("it arrives, although nobody wakes the stream")
        .unwrap();
    assert!(heard.starts_with(&data) && heard.ends_with(b"end"));
}

#[tokio::test]
async fn a_frame_that_has_begun_is_kept_whole_and_a_second_one_is_not() {
    const MUCH: usize = 2 << 20;
    for (mut stream, mut agent) in pairs(true).await {
        assert!(stream.send(&vec![1; MUCH], 0));
        assert!(stream.backlog.len() + SYSTEM > MUCH);
        assert!(!stream.send(&[2; FRAME], MOST));
        let mut heard = vec![0; MUCH];
        let read = timeout(LIMIT, agent.read_exact(&mut heard));
        let (read, ()) = tokio::join!(read, all_out(&mut stream));
        read.expect("it arrives").unwrap();
        assert!(heard.iter().all(|byte| *byte == 1));
        assert!(stream.backlog.capacity() <= KEPT_CAPACITY);
    }
}

#[tokio::test]
async fn what_the_agent_says_is_read_although_it_does_not_read() {
    for (mut stream, mut agent) in pairs(true).await {
        fill(&mut stream);
        agent.write_all(b"hello").await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn an_agent_that_never_reads_is_given_up() {
    for (mut stream, mut agent) in pairs(true).await {
        let begun = Instant::now();
        assert!(!stream.is_stuck(begun + 10 * STUCK_AFTER), "nothing waits");
        fill(&mut stream);
        // The system may still find room for some of it.
        let mut waiting = 0;
        while std::mem::replace(&mut waiting, stream.backlog.len()) != stream.backlog.len() {
            sleep(Duration::from_millis(50)).await;
            stream.wake(false);
            fill(&mut stream);
        }
        let filled = Instant::now();
        assert!(!stream.is_stuck(begun + STUCK_AFTER));
        assert!(stream.is_stuck(filled + STUCK_AFTER + Duration::from_millis(1)));
        // What is sent on top is no progress, nor is being woken.
        sleep(Duration::from_millis(20)).await;
        assert!(stream.send(b"key", MOST + FRAME));
        stream.wake(false);
        assert!(stream.is_stuck(filled + STUCK_AFTER + Duration::from_millis(1)));
        // Reading is.
        let waiting = stream.backlog.len();
        let mut heard = vec![0; waiting];
        let read = agent.read_exact(&mut heard);
        let flush = until(&mut stream, "the socket takes more", |stream| {
            (stream.backlog.len() < waiting).then_some(())
        });
        let (read, ()) = tokio::join!(timeout(LIMIT, read), flush);
        read.expect("it arrives").unwrap();
        assert!(!stream.is_stuck(filled + STUCK_AFTER + Duration::from_millis(1)));
    }
}

#[tokio::test]
async fn closing_sends_what_waits_while_the_agent_talks_on() {
    // More than is read at a time, and than the sockets hold.
    const TALK: usize = 1 << 20;
    for (mut stream, agent) in pairs(true).await {
        let taken = fill(&mut stream);
        assert!(stream.send(b"end", MOST + FRAME));
        let agent = tokio::spawn(async move {
            let (mut hears, mut says) = tokio::io::split(agent);
            // It reads only when it has said everything: nobody may have closed over that.
            says.write_all(&vec![0; TALK]).await.unwrap();
            let mut heard = Vec::new();
            hears.read_to_end(&mut heard).await.unwrap();
            heard
        });
        stream.close();
        assert!(
            stream.send(b"too late", MOST),
            "nothing follows, and nobody minds"
        );
        let mut scratch = [0; 4096];
        until(&mut stream, "the agent closes", |stream| {
            stream.read_on(&mut scratch).then_some(())
        })
        .await;
        let heard = timeout(LIMIT, agent).await.expect("the agent ends");
        let heard = heard.expect("what it said was not refused");
        assert!(heard == [&frames(taken)[..], b"end"].concat());
    }
}

#[tokio::test]
async fn an_agent_that_talks_without_end_after_the_close_is_left() {
    for (mut stream, mut agent) in pairs(true).await {
        let talk = tokio::spawn(async move { while agent.write_all(&[0; 4096]).await.is_ok() {} });
        stream.close();
        let mut scratch = [0; 4096];
        // Each turn has an end, and how many there are is the owner's to say.
        let mut unfinished = 0;
        until(&mut stream, "turns that leave something", |stream| {
            assert!(!stream.read_on(&mut scratch), "the agent is still there");
            unfinished += u32::from(!stream.is_drained());
            (unfinished >= 10).then_some(())
        })
        .await;
        drop(stream);
        let talk = timeout(LIMIT, talk).await;
        talk.expect("the agent notices").unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_closes_is_told_and_nothing_is_kept_for_it() {
    for (mut stream, agent) in pairs(true).await {
        // TLS: without close_notify.
        drop(agent);
        let error = next(&mut stream).await.unwrap_err();
        assert!(matches!(error, StreamError::Closed), "{error}");
        // The first one is answered by a reset.
        until(&mut stream, "sending fails", |stream| {
            assert!(stream.send(&frame(0), MOST));
            stream.failure.is_some().then_some(())
        })
        .await;
        assert!(stream.send(&frame(0), MOST) && stream.backlog.is_empty());
        let error = next(&mut stream).await.unwrap_err();
        assert!(matches!(error, StreamError::Lost(_)), "{error}");
    }
}

#[tokio::test]
async fn what_was_said_before_a_reset_is_heard_although_sending_fails() {
    for (mut stream, agent) in [reset(false).await, reset(true).await] {
        until(&mut stream, "sending fails", |stream| {
            stream.send(&frame(0), usize::MAX);
            stream.failure.is_some().then_some(())
        })
        .await;
        let (heard, error) = to_the_end(&mut stream).await;
        assert_eq!(heard, b"last words", "over TLS: {agent}");
        assert!(matches!(error, StreamError::Lost(_)), "{error}");
    }
}

/// An agent that has closed over what was sent to it.
async fn reset(with_tls: bool) -> (AgentStream, bool) {
    let (mut stream, mut agent): (_, Box<dyn Other>) = if with_tls {
        let (stream, agent) = tls(true).await;
        (stream, Box::new(agent))
    } else {
        let (stream, agent) = tcp(true).await;
        (
            AgentStream::new(Transport::Plain(unwatched(stream))),
            Box::new(agent),
        )
    };
    fill(&mut stream);
    agent.write_all(b"last words").await.unwrap();
    agent.flush().await.unwrap();
    drop(agent);
    (stream, with_tls)
}

#[tokio::test]
async fn over_tls_an_agent_may_close_with_or_without_close_notify() {
    for announced in [true, false] {
        let (mut stream, mut agent) = tls(true).await;
        agent.write_all(b"last words").await.unwrap();
        agent.flush().await.unwrap();
        if announced {
            agent.shutdown().await.unwrap();
        }
        drop(agent);
        let (heard, error) = to_the_end(&mut stream).await;
        assert_eq!(heard, b"last words");
        assert!(matches!(error, StreamError::Closed), "{error}");
    }
}

#[tokio::test]
async fn over_tls_our_close_is_announced_behind_what_waits() {
    let (mut stream, mut agent) = tls(true).await;
    let taken = fill(&mut stream);
    stream.close();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        // Without close_notify this is an error.
        let read = agent.read_to_end(&mut heard).await;
        read.map(|_| heard)
    });
    let mut scratch = [0; 4096];
    until(&mut stream, "the agent closes", |stream| {
        stream.read_on(&mut scratch).then_some(())
    })
    .await;
    assert!(heard.await.unwrap().unwrap() == frames(taken));
}

/// What an agent's rustls makes of it, in records of its own.
fn record(agent: &mut ServerConnection, data: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    agent.writer().write_all(data).unwrap();
    while agent.wants_write() {
        agent.write_tls(&mut record).unwrap();
    }
    record
}

#[tokio::test]
async fn a_tls_record_whose_rest_is_still_to_come_waits_for_it() {
    let (mut stream, agent) = tls(true).await;
    let (mut wire, mut agent) = agent.into_inner();
    let first = record(&mut agent, b"first");
    let second = record(&mut agent, b"second");
    let third = record(&mut agent, b"third");
    let (begin, end) = second.split_at(7);
    wire.write_all(&[&first[..], begin].concat()).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), b"first");
    for _ in 0..10 {
        stream.wake(false);
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), None);
        sleep(Duration::from_millis(1)).await;
    }
    wire.write_all(&[end, &third].concat()).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 11 {
        heard.extend(next(&mut stream).await.unwrap());
    }
    assert_eq!(heard, b"secondthird");
    // Byte by byte.
    for byte in record(&mut agent, b"in pieces") {
        stream.wake(false);
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), None);
        wire.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(next(&mut stream).await.unwrap(), b"in pieces");
    // Cut off within one.
    let cut = record(&mut agent, b"never whole");
    wire.write_all(&cut[..cut.len() - 1]).await.unwrap();
    drop(wire);
    let (heard, error) = to_the_end(&mut stream).await;
    assert_eq!(heard, b"");
    assert!(matches!(error, StreamError::Closed), "{error}");
}

#[tokio::test]
async fn tls_records_of_any_size_are_read_without_being_told_again() {
    // Smaller than a record, and larger than one but not than both.
    for size in [100, 20_000] {
        let (mut stream, agent, socket) = tls_over(false).await;
        let (mut wire, mut agent) = agent.into_inner();
        // Behind the session's tickets.
        wire.write_all(&record(&mut agent, b"begin")).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap(), b"begin");
        let data: Vec<u8> = (0..16_000).map(|place| (place % 251) as u8).collect();
        let records = [record(&mut agent, &data), record(&mut agent, &data)].concat();
        wire.write_all(&records).await.unwrap();
        let mut seen = vec![0; records.len()];
        until(&mut stream, "both are there", |_| {
            let there = socket.peek(&mut seen).unwrap_or(0);
            (there == records.len()).then_some(())
        })
        .await;
        let mut heard = Vec::<u8>::new();
        let mut buffer = vec![0; size];
        while let Some(length) = stream.read(&mut buffer).unwrap() {
            heard.extend(&buffer[..length]);
        }
        assert!(heard == data.repeat(2), "{} bytes", heard.len());
    }
}

#[tokio::test]
async fn what_is_no_tls_is_a_lost_connection_and_the_agent_is_told() {
    let (mut stream, agent) = tls(true).await;
    let (mut wire, mut agent) = agent.into_inner();
    wire.write_all(&[b'x'; 100]).await.unwrap();
    let error = next(&mut stream).await.unwrap_err();
    assert!(matches!(error, StreamError::Lost(_)), "{error}");
    drop(stream);
    let mut alert = Vec::new();
    timeout(LIMIT, wire.read_to_end(&mut alert))
        .await
        .unwrap()
        .unwrap();
    agent.read_tls(&mut &alert[..]).unwrap();
    let error = agent.process_new_packets().unwrap_err();
    assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
}

/// Sends back what comes, in pieces of all sizes, until it is told to end.
async fn echo(mut agent: Box<dyn Other>) {
    let mut buffer = [0; 5000];
    loop {
        let length = agent.read(&mut buffer).await.unwrap();
        let (words, end) = match buffer[..length].strip_suffix(b".") {
            Some(words) => (words, true),
            None => (&buffer[..length], false),
        };
        for piece in words.chunks(length % 700 + 1) {
            agent.write_all(piece).await.unwrap();
        }
        agent.flush().await.unwrap();
        if end {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mio_tells_is_all_that_is_needed() {
    const MUCH: usize = 300_000;
    for (mut stream, agent) in pairs(true).await {
        let agent = tokio::spawn(echo(agent));
        let heard = tokio::task::spawn_blocking(move || {
            let mut poll = Poll::new().unwrap();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = poll.registry();
            registry
                .register(stream.source(), Token(0), interest)
                .unwrap();
            let mut events = Events::with_capacity(8);
            let (mut heard, mut sent) = (Vec::<u8>::new(), 0_usize);
            let mut buffer = [0; 256];
            loop {
                while sent < MUCH && stream.send(&[sent as u8; 1000], 20_000) {
                    sent += 1000;
                    if sent == MUCH {
                        assert!(stream.send(b".", usize::MAX));
                    }
                }
                poll.poll(&mut events, Some(LIMIT)).unwrap();
                assert!(
                    !events.is_empty(),
                    "stuck: {sent} sent, {} heard",
                    heard.len()
                );
                for event in &events {
                    stream.wake(event.is_read_closed());
                }
                loop {
                    match stream.read(&mut buffer) {
                        Ok(Some(length)) => heard.extend(&buffer[..length]),
                        Ok(None) => break,
                        Err(StreamError::Closed) => return heard,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        let heard = timeout(3 * LIMIT, heard)
            .await
            .expect("it comes to an end")
            .unwrap();
        agent.await.unwrap();
        let sent = (0..MUCH).step_by(1000);
        let sent: Vec<u8> = sent.flat_map(|number| [number as u8; 1000]).collect();
        assert!(heard == sent);
    }
}
