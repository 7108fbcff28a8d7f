//! SIP over streams: one reader and one writer task for each connection, so that a stuck peer holds up nobody else.
//!
//! Used for carriers' TCP connections and for the links between registrars and media pods.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringwire_config::state::CutOff;
use ringwire_sip::message::limits::HeaderLimits;
use ringwire_sip::message::{Message, ParseError, ParseFailure, StreamItem, StreamParser};
use ringwire_sip::transaction::{Flow, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages that wait for one peer; a peer that lets more pile up is cut off.
const QUEUE: usize = 512;

/// The same on a link between our own, where messages of many calls wait: those of a second at full load.
const LINK_QUEUE: usize = 8_192;

/// Messages that wait are written together up to so many bytes, the largest TLS record.
const TOGETHER: usize = 16 << 10;

/// A message that has begun has to be complete by then.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// What is being written when a stream ends has so long to get out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A peer that answers keep-alives has so long for it (RFC 5626 section 4.4.1).
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// What asks for an answer that shows that the peer is still there (RFC 5626 section 3.5.1).
const PING: &[u8] = b"\r\n\r\n";

/// What comes out of the streams.
pub enum StreamEvent {
    /// A message.
    Message(Flow, Box<Message>),
    /// Something that is no message, but can be answered.
    Unreadable(Flow, Box<ParseFailure>),
    /// The stream is gone; we cut it off if there is a reason.
    Closed(Flow, TransportError, Option<CutOff>),
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
    remote: IpAddr,
    pinged: Arc<Notify>,
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

    /// How many of them lead to one address.
    pub fn with(&self, remote: IpAddr) -> usize {
        let open = self.open.values();
        open.filter(|open| open.remote == remote).count()
    }

    /// Takes a stream; `remote` is what its messages are said to come from. `ended` is cancelled when the stream is gone.
    pub fn add<S>(
        &mut self,
        stream: S,
        (transport, remote): (Transport, SocketAddr),
        idle: Idle,
        ended: &CancellationToken,
    ) -> Flow
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.next += 1;
        let connection = self.next;
        let flow = Flow::open(transport, remote, connection);
        let (reader, writer) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(match idle {
            Idle::Forever => LINK_QUEUE,
            Idle::After(_) => QUEUE,
        });
        let stop = ended.clone();
        let pinged = Arc::new(Notify::new());
        self.open.insert(
            connection,
            Open {
                remote: remote.ip(),
                pinged: Arc::clone(&pinged),
                queue: queue.clone(),
                stop: stop.clone(),
            },
        );
        let (events, told) = (self.events.clone(), flow.clone());
        tokio::spawn(async move {
            let writing = tokio::spawn(write(writer, queued, stop.clone()));
            let reading = Reading {
                flow: &told,
                events: &events,
                replies: &queue,
                idle,
                pinged: &pinged,
            };
            let (error, cut) = tokio::select! {
                end = reading.run(reader) => end,
                () = stop.cancelled() => (TransportError::Closed, None),
            };
            stop.cancel();
            drop(queue);
            let _ = writing.await;
            // The owner may be gone already; then nobody has to know.
            let _ = events.send(StreamEvent::Closed(told, error, cut)).await;
        });
        flow
    }

    /// Queues bytes for a stream.
    pub fn send(&mut self, connection: u64, bytes: Vec<u8>) -> Sent {
        let Some(open) = self.open.get(&connection) else {
            return Sent::Nowhere(bytes);
        };
        match open.queue.try_send(bytes) {
            Ok(()) => Sent::Queued,
            Err(mpsc::error::TrySendError::Closed(bytes)) => Sent::Nowhere(bytes),
            Err(mpsc::error::TrySendError::Full(_)) if open.stop.is_cancelled() => Sent::Closing,
            Err(mpsc::error::TrySendError::Full(_)) => {
                open.stop.cancel();
                Sent::CutOff
            }
        }
    }

    /// Sends a keep-alive. A peer that has answered one before is expected to answer this one, too, or the stream is closed.
    pub fn ping(&mut self, connection: u64) -> Sent {
        if let Some(open) = self.open.get(&connection) {
            open.pinged.notify_one();
        }
        self.send(connection, PING.to_vec())
    }

    /// Closes a stream; that it has closed is told as always.
    pub fn close(&mut self, flow: &Flow) {
        let open = flow.connection.and_then(|number| self.open.get(&number));
        if let Some(open) = open {
            open.stop.cancel();
        }
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

/// What became of bytes to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// They are on their way.
    Queued,
    /// There is no such stream any more: here they are again.
    Nowhere(Vec<u8>),
    /// The peer doesn't read: its stream was cut off.
    CutOff,
    /// The stream was cut off before, and closes.
    Closing,
}

/// One stream's incoming side.
struct Reading<'a> {
    flow: &'a Flow,
    events: &'a mpsc::Sender<StreamEvent>,
    replies: &'a mpsc::Sender<Vec<u8>>,
    idle: Idle,
    pinged: &'a Notify,
}

impl Reading<'_> {
    /// Reads until the stream ends. Gives why, and why we ended it if it was us.
    async fn run<R: AsyncRead + Unpin>(&self, mut reader: R) -> (TransportError, Option<CutOff>) {
        let mut parser = StreamParser::with_limits(match self.idle {
            Idle::Forever => HeaderLimits::OWN,
            Idle::After(_) => HeaderLimits::STRANGERS,
        });
        let mut buffer = vec![0; 16 * 1024];
        let mut heard = Instant::now();
        // When the message began that is not complete yet: a peer that sends it byte by byte wins no time.
        let mut begun: Option<Instant> = None;
        let mut answers_pings = false;
        let mut pong_by: Option<Instant> = None;
        loop {
            let limits = [
                begun.map(|begun| (begun + MESSAGE_TIMEOUT, CutOff::SlowMessage)),
                pong_by.map(|by| (by, CutOff::KeepAliveUnanswered)),
                match self.idle {
                    Idle::After(limit) => Some((heard + limit, CutOff::Idle)),
                    Idle::Forever => None,
                },
            ];
            let limit = limits.into_iter().flatten().min_by_key(|(at, _)| *at);
            let read = tokio::select! {
                read = reader.read(&mut buffer) => read,
                () = self.pinged.notified() => {
                    if answers_pings && pong_by.is_none() {
                        pong_by = Some(Instant::now() + PONG_TIMEOUT);
                    }
                    continue;
                }
                cut = passed(limit) => return (TransportError::TimedOut, Some(cut)),
            };
            let length = match read {
                Ok(0) => return (TransportError::Closed, None),
                Ok(length) => length,
                Err(error) => return (transport_error(&error), None),
            };
            heard = Instant::now();
            parser.push(&buffer[..length]);
            loop {
                match parser.next() {
                    Ok(None) => break,
                    Ok(Some(StreamItem::Message(message))) => {
                        begun = None;
                        // Waits when the role is behind: the peer is slowed down by TCP itself.
                        let event = StreamEvent::Message(self.flow.clone(), Box::new(message));
                        if self.events.send(event).await.is_err() {
                            return (TransportError::Closed, None);
                        }
                    }
                    // RFC 5626 section 3.5.1: a double CRLF asks for a single one.
                    Ok(Some(StreamItem::Ping)) => drop(self.replies.try_send(b"\r\n".to_vec())),
                    Ok(Some(StreamItem::Pong)) => (answers_pings, pong_by) = (true, None),
                    Err(failure) => {
                        begun = None;
                        let lost = failure.framing_lost.then(|| cut_off(&failure.error));
                        let event = StreamEvent::Unreadable(self.flow.clone(), Box::new(failure));
                        let _ = self.events.send(event).await;
                        if lost.is_some() {
                            return (TransportError::Closed, lost);
                        }
                    }
                }
            }
            if parser.is_inside_message() {
                begun.get_or_insert(heard);
            }
        }
    }
}

async fn passed(limit: Option<(Instant, CutOff)>) -> CutOff {
    match limit {
        Some((at, cut)) => {
            tokio::time::sleep_until(at).await;
            cut
        }
        None => std::future::pending().await,
    }
}

fn cut_off(error: &ParseError) -> CutOff {
    match error {
        ParseError::HeadersTooLarge | ParseError::BodyTooLarge => CutOff::OversizedMessage,
        _ => CutOff::Garbage,
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
        let Some(mut bytes) = bytes else { break };
        // What has piled up goes in one piece: one system call, one TLS record.
        while bytes.len() < TOGETHER
            && let Ok(more) = queue.try_recv()
        {
            bytes.extend_from_slice(&more);
        }
        let writing = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        // A peer that does not read would hold up the end for ever.
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        let written = tokio::select! {
            result = writing => result.is_ok(),
            () = too_late => false,
        };
        if !written {
            stop.cancel();
            break;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
}

/// A TCP connection, from this address and port of ours if any is given.
pub async fn connect_from(from: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(from) = from {
        socket.bind(from)?;
    }
    socket.connect(remote).await
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
