//! A connected agent's TCP connection, with or without TLS, read and written without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::TcpStream;
use rustls::ClientConnection;

/// Longest plaintext of a TLS record (RFC 8446 section 5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;

/// Not yet.
pub fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// See the module. An operation that would have to wait says [`ErrorKind::WouldBlock`].
#[derive(Debug)]
pub enum Transport {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// A TLS connection whose handshake is over.
#[derive(Debug)]
pub struct Tls {
    stream: TcpStream,
    connection: ClientConnection,
}

impl Transport {
    /// TLS over this.
    pub fn tls(stream: TcpStream, connection: ClientConnection) -> Self {
        Self::Tls(Box::new(Tls { stream, connection }))
    }

    /// What to watch.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &mut tls.stream,
        }
    }

    /// Reads; 0 at the end of the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Writes what can be written now.
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(data),
            Self::Tls(tls) => tls.write(data),
        }
    }

    /// Gives the system what is encrypted already. True if nothing is left of it.
    pub fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Nothing more will be written. True once the agent is told; until then it is to be called again.
    pub fn shutdown(&mut self) -> io::Result<bool> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => {
                // Only the first time.
                tls.connection.send_close_notify();
                if !tls.flush()? {
                    return Ok(false);
                }
                &tls.stream
            }
        };
        stream.shutdown(Shutdown::Write)?;
        Ok(true)
    }
}

impl Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.connection.reader().read(buffer);
            if !would_block(&read) {
                return read;
            }
            // At the end the next turn tells whether it was announced.
            self.connection.read_tls(&mut self.stream)?;
            let processed = self.connection.process_new_packets();
            // An alert tells the agent what is wrong. If it can't be told any more, what it said before is still to be read.
            let _ = self.flush();
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// What does not fit into the socket waits outside: no record is made before the one ahead of it is gone.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let record = &data[..data.len().min(MAX_RECORD_BYTES)];
        let written = self.connection.writer().write(record)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(&mut self.stream);
            if would_block(&written) {
                return Ok(false);
            }
            written?;
        }
        Ok(true)
    }
}
