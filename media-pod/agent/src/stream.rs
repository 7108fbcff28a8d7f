//! An agent's connection: what is sent goes out without waiting, and what the agent does not read yet is kept up to a bound.
//!
//! Making the connection is `connect`'s; what the bytes mean is the protocol's. The owner watches [`AgentStream::source`], and tells
//! [`AgentStream::wake`] of what it sees there; then it reads until nothing is left, for readiness is told once, at its edge.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::event::Source;
use thiserror::Error;

use crate::transport::{Transport, would_block};

/// An agent that reads nothing for so long is gone.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Capacity that an empty backlog keeps.
const KEPT_CAPACITY: usize = 4096;
/// Reads before others get their turn.
pub const READS: usize = 16;

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The agent closed it.
    #[error("connection closed")]
    Closed,
    /// It broke.
    #[error("the agent's connection was lost: {0}")]
    Lost(#[source] io::Error),
    /// Nothing was read for [`STUCK_AFTER`].
    #[error("it has read nothing for {} s", STUCK_AFTER.as_secs())]
    Stuck,
}

/// A connected agent.
#[derive(Debug)]
pub struct AgentStream {
    transport: Transport,
    /// What the system did not take yet.
    backlog: VecDeque<u8>,
    /// When it last took something, or the backlog began.
    progress: Instant,
    /// Why nothing more can be sent; reading tells.
    failure: Option<io::Error>,
    /// Nothing follows the backlog.
    closing: bool,
    /// That has been told.
    shut: bool,
    /// The agent will say nothing after what there is to read.
    hung_up: bool,
    /// Nothing is left to read until more is told of.
    drained: bool,
}

impl AgentStream {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            backlog: VecDeque::new(),
            progress: Instant::now(),
            failure: None,
            closing: false,
            shut: false,
            hung_up: false,
            drained: false,
        }
    }

    /// What to watch.
    pub fn source(&mut self) -> &mut dyn Source {
        self.transport.source()
    }

    /// Sends a frame, at once or as soon as the agent reads. False if more than `most` bytes would wait then: the frame is dropped.
    pub fn send(&mut self, frame: &[u8], most: usize) -> bool {
        if self.failure.is_some() || self.closing {
            return true;
        }
        let mut sent = 0;
        if self.backlog.is_empty() {
            let written = self.transport.write(frame);
            match written {
                Ok(written) => sent = written,
                Err(_) if would_block(&written) => self.progress = Instant::now(),
                Err(error) => {
                    self.failure = Some(error);
                    return true;
                }
            }
            if sent == frame.len() {
                return true;
            }
            self.progress = Instant::now();
        }
        // The rest of a frame that has begun is always kept.
        if sent == 0 && self.backlog.len() + frame.len() > most {
            return false;
        }
        self.backlog.extend(&frame[sent..]);
        if sent > 0 {
            // TLS takes one record at a time: there may be room for another, of which nothing would tell.
            self.flush();
        }
        true
    }

    /// The connection may have something to read or room to write; it has `hung_up` if nothing comes after that.
    pub fn wake(&mut self, hung_up: bool) {
        self.drained = false;
        self.hung_up |= hung_up;
        self.flush();
    }

    /// Reads what the agent sends, at least one byte. None if it has sent nothing more yet: [`Self::wake`] tells.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, StreamError> {
        while !self.drained {
            match self.transport.read(buffer) {
                Ok(0) => return Err(self.end()),
                Ok(length) => {
                    // TCP has no more than it gave, and tells when it has: no need to ask.
                    self.drained = length < buffer.len()
                        && !self.hung_up
                        && matches!(self.transport, Transport::Plain(_));
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.drained = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // TLS without a word of farewell: a connection that is cut off is closed as well.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.end()),
                Err(error) => return Err(StreamError::Lost(error)),
            }
        }
        Ok(None)
    }

    fn end(&mut self) -> StreamError {
        let failure = self.failure.take();
        failure.map_or(StreamError::Closed, StreamError::Lost)
    }

    /// Gives the system what waits, as far as it takes it.
    fn flush(&mut self) {
        if let Err(error) = self.try_flush() {
            self.failure = Some(error);
            self.backlog.clear();
        }
        if self.backlog.is_empty() && self.backlog.capacity() > KEPT_CAPACITY {
            self.backlog.shrink_to(KEPT_CAPACITY);
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        let mut flushed = self.transport.flush()?;
        while flushed && !self.backlog.is_empty() {
            let written = self.transport.write(self.backlog.as_slices().0);
            if would_block(&written) {
                return Ok(());
            }
            self.backlog.drain(..written?);
            self.progress = Instant::now();
            flushed = self.transport.flush()?;
        }
        if flushed && self.closing && !self.shut {
            self.shut = self.transport.shutdown()?;
        }
        Ok(())
    }

    /// Whether what waits has not moved for [`STUCK_AFTER`].
    pub fn is_stuck(&self, now: Instant) -> bool {
        !self.backlog.is_empty() && now.saturating_duration_since(self.progress) > STUCK_AFTER
    }

    /// Says that nothing follows what waits. What the agent still sends is to be read and dropped ([`Self::read_on`]): closing over unread
    /// data would reset the connection, and the agent could miss the last frame.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.flush();
        }
    }

    /// Reads and drops what the agent still says after [`Self::close`]. True once the connection is over; the owner sets an end to an
    /// agent that talks on and on.
    pub fn read_on(&mut self, scratch: &mut [u8]) -> bool {
        for _ in 0..READS {
            match self.read(scratch) {
                Ok(Some(_)) => {}
                Ok(None) => return self.failure.is_some(),
                Err(_) => return true,
            }
        }
        false
    }

    /// Whether nothing is left to read until [`Self::wake`] tells of more.
    pub fn is_drained(&self) -> bool {
        self.drained
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
