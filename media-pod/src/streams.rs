//! SIP over streams: one reader and one writer task for each connection, so that a stuck peer holds up nobody else.
//!
//! Used for carriers' TCP connections and for the links between registrars and media pods.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringwire_sip::message::{Message, ParseFailure, StreamItem, StreamParser};
use ringwire_sip::transaction::{Flow, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that wait for one peer; a peer that lets more pile up is cut off.
const QUEUE: usize = 512;

/// A message that has begun has to be complete by then.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// What comes out of the streams.
pub enum StreamEvent {
    /// A message.
    Message(Flow, Box<Message>),
    /// Something that is no message, but can be answered.
    Unreadable(Flow, Box<ParseFailure>),
    /// The stream is gone.
    Closed(Flow, TransportError),
}

/// How long a stream may be silent.
#[derive(Clone, Copy)]
pub enum Idle {
    /// As long as it likes: a link between our own.
    Forever,
    /// So long: a stranger's connection.
    After(Duration),
}

struct Open {
    queue: mpsc::Sender<Vec<u8>>,
    stop: CancellationToken,
}

/// All open streams of one role.
pub struct Streams {
    next: u64,
    open: HashMap<u64, Open>,
    events: mpsc::Sender<StreamEvent>,
}

impl Streams {
    /// No streams; what they bring goes to `events`.
    pub fn new(events: mpsc::Sender<StreamEvent>) -> Self {
        Self {
            next: 0,
            open: HashMap::new(),
            events,
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Takes a stream; `remote` is what its messages are said to come from. `ended` is cancelled when the stream is gone.
    pub fn add<S>(
        &mut self,
        stream: S,
        remote: SocketAddr,
        idle: Idle,
        ended: &CancellationToken,
    ) -> Flow
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.next += 1;
        let connection = self.next;
        let flow = Flow {
            transport: Transport::Tcp,
            remote,
            connection: Some(connection),
        };
        let (reader, writer) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(QUEUE);
        let stop = ended.clone();
        self.open.insert(
            connection,
            Open {
                queue: queue.clone(),
                stop: stop.clone(),
            },
        );
        let (events, told) = (self.events.clone(), flow.clone());
        tokio::spawn(async move {
            let writing = tokio::spawn(write(writer, queued, stop.clone()));
            let error = tokio::select! {
                error = read(reader, &told, &events, &queue, idle) => error,
                () = stop.cancelled() => TransportError::Closed,
            };
            stop.cancel();
            drop(queue);
            let _ = writing.await;
            // The owner may be gone already; then nobody has to know.
            let _ = events.send(StreamEvent::Closed(told, error)).await;
        });
        flow
    }

    /// Queues bytes for a stream. `false`: there is no such stream, or its peer doesn't read and was cut off.
    pub fn send(&mut self, connection: u64, bytes: Vec<u8>) -> bool {
        let Some(open) = self.open.get(&connection) else {
            return false;
        };
        if open.queue.try_send(bytes).is_ok() {
            return true;
        }
        open.stop.cancel();
        false
    }

    /// Forgets a stream that told it has closed.
    pub fn closed(&mut self, flow: &Flow) {
        if let Some(connection) = flow.connection {
            self.open.remove(&connection);
        }
    }

    /// Closes all.
    pub fn close_all(&mut self) {
        for open in self.open.values() {
            open.stop.cancel();
        }
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    flow: &Flow,
    events: &mpsc::Sender<StreamEvent>,
    replies: &mpsc::Sender<Vec<u8>>,
    idle: Idle,
) -> TransportError {
    let mut parser = StreamParser::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let limit = match idle {
            _ if parser.is_inside_message() => MESSAGE_TIMEOUT,
            Idle::After(limit) => limit,
            Idle::Forever => Duration::from_secs(365 * 86_400),
        };
        let length = match tokio::time::timeout(limit, reader.read(&mut buffer)).await {
            Ok(Ok(0)) => return TransportError::Closed,
            Ok(Ok(length)) => length,
            Ok(Err(error)) => return transport_error(&error),
            Err(_) => return TransportError::TimedOut,
        };
        parser.push(&buffer[..length]);
        loop {
            match parser.next() {
                Ok(None) => break,
                Ok(Some(StreamItem::Message(message))) => {
                    // Waits when the role is behind: the peer is slowed down by TCP itself.
                    if events
                        .send(StreamEvent::Message(flow.clone(), Box::new(message)))
                        .await
                        .is_err()
                    {
                        return TransportError::Closed;
                    }
                }
                // RFC 5626 section 3.5.1: a double CRLF asks for a single one.
                Ok(Some(StreamItem::Ping)) => drop(replies.try_send(b"\r\n".to_vec())),
                Ok(Some(StreamItem::Pong)) => {}
                Err(failure) => {
                    let lost = failure.framing_lost;
                    let _ = events
                        .send(StreamEvent::Unreadable(flow.clone(), Box::new(failure)))
                        .await;
                    if lost {
                        return TransportError::Closed;
                    }
                }
            }
        }
    }
}

async fn write<W: AsyncWrite>(
    mut writer: WriteHalf<W>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    stop: CancellationToken,
) {
    loop {
        let bytes = tokio::select! {
            bytes = queue.recv() => bytes,
            () = stop.cancelled() => break,
        };
        let Some(bytes) = bytes else { break };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            stop.cancel();
            break;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
}

/// The SIP crate's name of an error of the system.
pub fn transport_error(error: &std::io::Error) -> TransportError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => TransportError::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => TransportError::Unreachable,
        ErrorKind::TimedOut => TransportError::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            TransportError::Closed
        }
        _ => TransportError::Other(error.to_string()),
    }
}
