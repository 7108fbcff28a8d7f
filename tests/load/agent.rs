//! An agent for many calls at once that sends back what it hears: as little work as the protocol allows, for its processor time is part of
//! every figure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::marker;
use crate::protocol::{Event, Protocol, Reader, Side};

const LISTENER: Token = Token(usize::MAX);

/// A connection: non-blocking, with what could not be written yet.
pub struct Connection {
    pub stream: TcpStream,
    pub reader: Reader,
    unsent: Vec<u8>,
}

/// An agent that does not read holds so much at most; what is more is lost.
const MAX_UNSENT: usize = 1 << 20;

impl Connection {
    /// A connection of this stream.
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            reader: Reader::default(),
            unsent: Vec::new(),
        }
    }

    /// Writes, as far as that goes now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            if self.unsent.len() < MAX_UNSENT {
                self.unsent.extend_from_slice(bytes);
            }
            return self.flush();
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(&bytes[written..]);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what could not be written before.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is. False at the end of the connection. A read that does not fill the buffer has emptied the socket.
    pub fn read(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.reader.push(&buffer[..count]);
                    if count < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Serves for ever.
pub fn serve(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut buffer, mut ulaw, mut out) = (vec![0; 64 << 10], Vec::new(), Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let slot = &mut connections[event.token().0];
            let Some(connection) = slot else { continue };
            let open = serve_one(connection, protocol, &mut buffer, &mut ulaw, &mut out);
            if !open {
                *slot = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let free = connections.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(slot), both)?;
        connections[slot] = Some(Connection::new(stream));
    }
}

/// False once the connection is over.
fn serve_one(
    connection: &mut Connection,
    protocol: Protocol,
    buffer: &mut [u8],
    ulaw: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> bool {
    let open = connection.read(buffer);
    out.clear();
    while let Some(event) = connection.reader.next(protocol, ulaw) {
        match event {
            Event::Audio => {
                // What the caller has not said is not answered.
                if marker::stamp(ulaw) {
                    protocol.write(ulaw, Side::Agent(connection.reader.stream()), out);
                }
            }
            Event::Reply(reply) => out.extend(reply),
            Event::Closed => return false,
        }
    }
    open && connection.write(out).is_ok() && connection.flush().is_ok()
}
