//! The caller's sockets: SIP over UDP or over one connection, TCP or TLS, and RTP.
//!
//! No protocol here: whole messages in and out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use ringwire_sip::message::limits::MAX_DATAGRAM;
use ringwire_sip::message::{Message, ParseFailure, StreamItem, StreamParser, parse_datagram};
use ringwire_sip::transaction::{Flow, Transmit, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UdpSocket};

use crate::link::LinkStream;
use crate::registrar::tls;
use crate::streams::connect_from;
pub use crate::streams::transport_error;

/// A connection has so long to be made, and so long to take a message.
const STREAM_LIMIT: Duration = Duration::from_secs(10);

/// Ports that are tried for RTP: below those that the system gives to others.
const RTP_PORTS: std::ops::Range<u16> = 16_384..32_766;

/// What came in.
pub enum Incoming {
    /// A message.
    Message(Box<Message>, Flow),
    /// Something that is no message; with an answer if it can have one.
    Unreadable(Box<ParseFailure>, Flow),
    /// The flow carries nothing any more (TCP, TLS), or nobody listens there (UDP).
    Broken(Flow, TransportError),
}

/// How SIP travels.
pub enum How {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
    /// Over TLS, with a server that proves who it is.
    Tls(tls::Client),
}

enum Wire {
    /// Two sockets on one port: the one connected to the other side also hears that nobody listens there (ICMP), the
    /// other one hears everybody else, such as a media gateway behind a proxy.
    Udp {
        connected: Option<UdpSocket>,
        open: UdpSocket,
        buffer: Vec<u8>,
    },
    Stream(Box<Stream>),
}

struct Stream {
    reader: ReadHalf<Box<dyn LinkStream>>,
    writer: WriteHalf<Box<dyn LinkStream>>,
    parser: StreamParser,
    buffer: Vec<u8>,
    flow: Flow,
    broken: bool,
}

/// The SIP side.
pub struct Sip {
    wire: Wire,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Sip {
    /// Sockets that reach `remote`; from `bind` if it is given, else from the address that the system's routes choose.
    pub async fn open(
        how: How,
        remote: SocketAddr,
        bind: Option<SocketAddr>,
    ) -> Result<Self, TransportError> {
        let failed = |error: io::Error| transport_error(&error);
        let bind = match bind {
            Some(bind) => bind,
            None => SocketAddr::new(local_address(remote).map_err(failed)?, 0),
        };
        let secure = match how {
            How::Udp => return Self::datagrams(remote, bind).await.map_err(failed),
            How::Tcp => None,
            How::Tls(client) => Some(client),
        };
        let connecting = async {
            let stream = connect_from(Some(bind), remote).await.map_err(failed)?;
            match secure {
                None => Self::over(stream).map_err(failed),
                Some(client) => {
                    let ends = ends_of(&stream).map_err(failed)?;
                    let stream = Box::new(client.connect(stream).await?);
                    Ok(Self::through(stream, Transport::Tls, ends))
                }
            }
        };
        let opened = tokio::time::timeout(STREAM_LIMIT, connecting).await;
        opened.unwrap_or(Err(TransportError::TimedOut))
    }

    async fn datagrams(remote: SocketAddr, bind: SocketAddr) -> io::Result<Self> {
        let connected = udp(bind)?;
        connected.connect(remote).await?;
        let local = connected.local_addr()?;
        let open = udp(SocketAddr::new(bind.ip(), local.port()))?;
        let wire = Wire::Udp {
            connected: Some(connected),
            open,
            buffer: vec![0; MAX_DATAGRAM],
        };
        Ok(Self {
            wire,
            local,
            remote,
        })
    }

    /// SIP over a TCP connection that stands.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        let ends = ends_of(&stream)?;
        Ok(Self::through(Box::new(stream), Transport::Tcp, ends))
    }

    fn through(
        stream: Box<dyn LinkStream>,
        transport: Transport,
        (local, remote): (SocketAddr, SocketAddr),
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let wire = Wire::Stream(Box::new(Stream {
            reader,
            writer,
            parser: StreamParser::new(),
            buffer: vec![0; 16 * 1024],
            flow: Flow::open(transport, remote, 1),
            broken: false,
        }));
        Self {
            wire,
            local,
            remote,
        }
    }

    /// SIP over a UDP socket that hears everybody.
    #[cfg(test)]
    pub fn listening(open: UdpSocket) -> io::Result<Self> {
        let local = open.local_addr()?;
        let wire = Wire::Udp {
            connected: None,
            open,
            buffer: vec![0; MAX_DATAGRAM],
        };
        Ok(Self {
            wire,
            local,
            remote: local,
        })
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// How messages get to `address`: over TCP and TLS there is one connection only.
    pub fn flow_to(&self, address: SocketAddr) -> Flow {
        match &self.wire {
            Wire::Udp { .. } => Flow::udp(address),
            Wire::Stream(stream) => stream.flow.clone(),
        }
    }

    /// The next thing that comes in. May be dropped and called again.
    pub async fn receive(&mut self) -> Incoming {
        match &mut self.wire {
            Wire::Udp {
                connected,
                open,
                buffer,
            } => loop {
                let socket = if let Some(connected) = connected.as_ref() {
                    tokio::select! {
                        // An ICMP error alone does not make a socket readable.
                        _ = connected.ready(Interest::READABLE | Interest::ERROR) => {
                            if let Some(error) = pending_error(connected) {
                                return Incoming::Broken(Flow::udp(self.remote), transport_error(&error));
                            }
                            connected
                        }
                        _ = open.readable() => &*open,
                    }
                } else {
                    let _ = open.readable().await;
                    &*open
                };
                match socket.try_recv_from(buffer) {
                    Ok((length, from)) => match parse_datagram(&buffer[..length]) {
                        Ok(message) => {
                            return Incoming::Message(Box::new(message), Flow::udp(from));
                        }
                        // Keep-alives are no message either; nobody waits for an answer to them.
                        Err(failure) => {
                            return Incoming::Unreadable(Box::new(failure), Flow::udp(from));
                        }
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        return Incoming::Broken(Flow::udp(self.remote), transport_error(&error));
                    }
                }
            },
            Wire::Stream(stream) => stream.receive().await,
        }
    }

    /// Sends one message.
    pub async fn send(&mut self, transmit: &Transmit) -> Result<(), TransportError> {
        let result = match &mut self.wire {
            Wire::Udp {
                connected, open, ..
            } => match connected {
                Some(connected) if transmit.flow.remote == self.remote => {
                    connected.send(&transmit.bytes).await
                }
                _ => open.send_to(&transmit.bytes, transmit.flow.remote).await,
            }
            .map(drop),
            Wire::Stream(stream) => {
                let writer = &mut stream.writer;
                let writing = async {
                    writer.write_all(&transmit.bytes).await?;
                    writer.flush().await
                };
                tokio::time::timeout(STREAM_LIMIT, writing)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        };
        result.map_err(|error| transport_error(&error))
    }
}

impl Stream {
    async fn receive(&mut self) -> Incoming {
        loop {
            if self.broken {
                // Told once; from now on there is nothing to hear.
                std::future::pending::<()>().await;
            }
            match self.parser.next() {
                Ok(Some(StreamItem::Message(message))) => {
                    return Incoming::Message(Box::new(message), self.flow.clone());
                }
                Ok(Some(StreamItem::Ping | StreamItem::Pong)) => continue,
                Ok(None) => {}
                Err(failure) => {
                    self.broken = failure.framing_lost;
                    return Incoming::Unreadable(Box::new(failure), self.flow.clone());
                }
            }
            match self.reader.read(&mut self.buffer).await {
                Ok(0) => return self.lost(TransportError::Closed),
                Ok(length) => self.parser.push(&self.buffer[..length]),
                Err(error) => return self.lost(transport_error(&error)),
            }
        }
    }

    fn lost(&mut self, error: TransportError) -> Incoming {
        self.broken = true;
        Incoming::Broken(self.flow.clone(), error)
    }
}

/// Both addresses of a connection, which is to send what it has at once.
fn ends_of(stream: &TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    stream.set_nodelay(true)?;
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// The error that waits on a socket. Without one the socket is known to have none, and can be waited on again.
fn pending_error(socket: &UdpSocket) -> Option<io::Error> {
    let take = || {
        socket
            .take_error()?
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    };
    socket.try_io(Interest::ERROR, take).ok()
}

/// The address that packets to `remote` leave from.
fn local_address(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

fn udp(bind: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(bind);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket for RTP: on an even port, as RFC 3550 section 11 wants it.
pub fn rtp_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let port = rand::rng().random_range(RTP_PORTS) & !1;
        match std::net::UdpSocket::bind((address, port)) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return UdpSocket::from_std(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
