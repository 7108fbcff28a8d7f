//! Connections with carriers, those that they make and those that we make, and the links to media pods: which there are, and what
//! waits for one that is being made.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringwire_config::state::CutOff;
use ringwire_sip::transaction::{Flow, Transmit, Transport, TransportError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::edge::Peer;
use super::tls;
use crate::link::LinkStream;
use crate::streams::{Idle, Sent, StreamEvent, Streams, connect_from, transport_error};

/// A carrier's connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(900);

/// Connections at a time.
const MAX_STREAMS: usize = 2_000;

/// Connections that one address may make.
const MAX_FROM_ONE: usize = 64;

/// A connection of ours has to stand by then, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Messages that wait for a connection to stand.
const MAX_WAITING: usize = 64;

/// While so many connections are being made, none is made for the answer to a request whose connection has closed: strangers decide
/// how often that is.
const MAX_ANSWERING: usize = 64;

/// The peer does not read.
const NOT_READING: (TransportError, Option<CutOff>) =
    (TransportError::Closed, Some(CutOff::NotReading));

/// A stream of bytes to a carrier.
pub type Carrier = Box<dyn LinkStream>;

/// Where a connection of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    transport: Transport,
    remote: SocketAddr,
    peer: u32,
}

impl Destination {
    fn of(flow: &Flow) -> Self {
        Self {
            transport: flow.transport,
            remote: flow.remote,
            peer: flow.peer,
        }
    }

    fn flow(self) -> Flow {
        Flow {
            transport: self.transport,
            remote: self.remote,
            connection: None,
            peer: self.peer,
        }
    }
}

/// A connection that stands, or does not.
pub type Made = (Destination, Result<Carrier, TransportError>);

/// All of them.
pub struct Connections {
    streams: Streams,
    /// Those that we made.
    outgoing: HashMap<Destination, u64>,
    /// Messages for those that are being made.
    connecting: HashMap<Destination, Vec<Vec<u8>>>,
    made: mpsc::Sender<Made>,
    clients: tls::Clients,
    /// Our own address, or any.
    bind: IpAddr,
    /// Where handshakes of TLS are worked on.
    elsewhere: Handle,
}

impl Connections {
    /// None yet. What they bring goes to `events`, what becomes of those that are being made to `made`.
    pub fn new(
        events: mpsc::Sender<StreamEvent>,
        made: mpsc::Sender<Made>,
        bind: IpAddr,
        elsewhere: Handle,
    ) -> Self {
        Self {
            streams: Streams::new(events),
            outgoing: HashMap::new(),
            connecting: HashMap::new(),
            made,
            clients: tls::Clients::default(),
            bind,
            elsewhere,
        }
    }

    /// Takes a connection that a carrier made.
    pub fn accept(
        &mut self,
        stream: Carrier,
        transport: Transport,
        remote: SocketAddr,
    ) -> Result<(), CutOff> {
        if self.streams.len() >= MAX_STREAMS || self.streams.with(remote.ip()) >= MAX_FROM_ONE {
            return Err(CutOff::TooMany);
        }
        let ended = CancellationToken::new();
        let _ = self
            .streams
            .add(stream, (transport, remote), Idle::After(IDLE), &ended);
        Ok(())
    }

    /// Takes a link to a media pod.
    pub fn link(&mut self, stream: Box<dyn LinkStream>, closed: &CancellationToken) -> Flow {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.streams
            .add(stream, (Transport::Tcp, nowhere), Idle::Forever, closed)
    }

    /// A connection of ours stands, or does not: then the flow that failed.
    pub fn made(&mut self, (destination, result): Made) -> Result<(), (Flow, TransportError)> {
        let waiting = self.connecting.remove(&destination).unwrap_or_default();
        let stream = result.map_err(|error| (destination.flow(), error))?;
        let (ended, idle) = (CancellationToken::new(), Idle::After(IDLE));
        let way = (destination.transport, destination.remote);
        let flow = self.streams.add(stream, way, idle, &ended);
        if let Some(connection) = flow.connection {
            self.outgoing.insert(destination, connection);
            let registers = waiting.iter().any(|bytes| bytes.starts_with(b"REGISTER "));
            for bytes in waiting {
                self.streams.send(connection, bytes);
            }
            // Calls are to come in over it: only where one keep-alive was answered does a later one without answer tell anything.
            if registers {
                self.streams.ping(connection);
            }
        }
        Ok(())
    }

    /// A stream has closed. Gives the flow that led there before it was made, if we made it.
    pub fn closed(&mut self, flow: &Flow) -> Option<Flow> {
        self.streams.closed(flow);
        let mut ours = self.outgoing.iter();
        let (destination, _) =
            ours.find(|(_, connection)| Some(**connection) == flow.connection)?;
        let destination = *destination;
        self.outgoing.remove(&destination);
        Some(destination.flow())
    }

    /// Sends bytes over an open connection, or over one that is made for it. `peer` is who the other side has to be, over TLS.
    pub fn send(
        &mut self,
        transmit: Transmit,
        peer: Option<&Peer>,
    ) -> Result<(), (TransportError, Option<CutOff>)> {
        let Transmit {
            flow,
            mut bytes,
            otherwise,
        } = transmit;
        let mut destination = Destination::of(&flow);
        if let Some(connection) = flow.connection {
            match (self.streams.send(connection, bytes), otherwise) {
                (Sent::Queued, _) => return Ok(()),
                (Sent::CutOff, _) => return Err(NOT_READING),
                (Sent::Nowhere(unsent), Some(remote)) if self.connecting.len() < MAX_ANSWERING => {
                    (bytes, destination.remote) = (unsent, remote);
                }
                (Sent::Nowhere(_) | Sent::Closing, _) => {
                    return Err((TransportError::Closed, None));
                }
            }
        }
        if let Some(connection) = self.outgoing.get(&destination) {
            match self.streams.send(*connection, bytes) {
                Sent::Queued => return Ok(()),
                Sent::CutOff => return Err(NOT_READING),
                Sent::Closing => return Err((TransportError::Closed, None)),
                // It has closed just now: another takes its place.
                Sent::Nowhere(unsent) => {
                    self.outgoing.remove(&destination);
                    bytes = unsent;
                }
            }
        }
        self.connect(destination, bytes, peer)
    }

    /// Sends a keep-alive over a connection of ours, if it stands.
    pub fn ping(&mut self, flow: &Flow) {
        if let Some(connection) = self.outgoing.get(&Destination::of(flow)) {
            self.streams.ping(*connection);
        }
    }

    /// Closes a connection; that it has closed is told as always.
    pub fn close(&mut self, flow: &Flow) {
        self.streams.close(flow);
    }

    /// Closes all.
    pub fn close_all(&mut self) {
        self.streams.close_all();
    }

    fn connect(
        &mut self,
        destination: Destination,
        bytes: Vec<u8>,
        peer: Option<&Peer>,
    ) -> Result<(), (TransportError, Option<CutOff>)> {
        if let Some(waiting) = self.connecting.get_mut(&destination) {
            if waiting.len() < MAX_WAITING {
                waiting.push(bytes);
            }
            return Ok(());
        }
        let secure = match destination.transport {
            Transport::Tls => {
                let client = self.clients.client(peer, destination.remote.ip());
                Some(client.map_err(|error| (error, None))?)
            }
            Transport::Udp | Transport::Tcp => None,
        };
        self.connecting.insert(destination, vec![bytes]);
        // From the address we listen on, if that is a certain one: carriers know us by it.
        let from = (!self.bind.is_unspecified()
            && self.bind.is_ipv4() == destination.remote.is_ipv4())
        .then_some(SocketAddr::new(self.bind, 0));
        let (made, elsewhere) = (self.made.clone(), self.elsewhere.clone());
        tokio::spawn(async move {
            let connecting = async {
                let stream = connect_from(from, destination.remote)
                    .await
                    .map_err(|error| transport_error(&error))?;
                let _ = stream.set_nodelay(true);
                Ok(match secure {
                    Some(client) => {
                        let agreeing = elsewhere.spawn(client.connect(stream));
                        let agreed = AbortOnDropHandle::new(agreeing).await;
                        Box::new(agreed.unwrap_or(Err(TransportError::Closed))?) as Carrier
                    }
                    None => Box::new(stream),
                })
            };
            let result = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let result = result.unwrap_or(Err(TransportError::TimedOut));
            let _ = made.send((destination, result)).await;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const LATER: &[u8] = b"OPTIONS sip:later.test SIP/2.0\r\n\r\n";

    /// What a carrier hears over a connection that is made for this message, until [`LATER`] is sent.
    async fn heard(message: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ((events, _events), (made, mut stands)) = (mpsc::channel(8), mpsc::channel(8));
        let any = IpAddr::from([0, 0, 0, 0]);
        let mut connections = Connections::new(events, made, any, Handle::current());
        let destination = Destination {
            transport: Transport::Tcp,
            remote: listener.local_addr().unwrap(),
            peer: 0,
        };
        let transmit = |bytes: &[u8]| Transmit {
            flow: destination.flow(),
            bytes: bytes.to_vec(),
            otherwise: None,
        };
        connections.send(transmit(message), None).unwrap();
        connections.made(stands.recv().await.unwrap()).unwrap();
        connections.send(transmit(LATER), None).unwrap();
        let (mut carrier, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(LATER) {
            carrier.read_buf(&mut heard).await.unwrap();
        }
        heard.truncate(heard.len() - LATER.len());
        heard
    }

    #[tokio::test]
    async fn whoever_we_register_with_is_asked_at_once_whether_he_answers_keep_alives() {
        let register = b"REGISTER sip:carrier.test SIP/2.0\r\n\r\n";
        let asked = [&register[..], b"\r\n\r\n"].concat();
        assert_eq!(heard(register).await, asked);
        let other = b"OPTIONS sip:carrier.test SIP/2.0\r\n\r\n";
        assert_eq!(heard(other).await, other);
    }
}
