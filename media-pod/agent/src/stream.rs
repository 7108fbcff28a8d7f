//! An agent's TCP connection: frames go out without waiting, what the agent does not read yet is kept up to a bound.
//!
//! Making the connection is `connect`'s; what the bytes mean is the protocol's.

use std::{collections::VecDeque, io, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
    task::coop::consume_budget,
    time::{Instant, sleep_until, timeout},
};

/// An agent that reads nothing for so long is gone.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Capacity that an empty backlog keeps.
const KEPT_CAPACITY: usize = 4096;

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
    stream: TcpStream,
    /// What the system did not take yet.
    backlog: VecDeque<u8>,
    /// When it last took something, or the backlog began.
    progress: Instant,
    /// Why nothing more can be sent; reading tells.
    failure: Option<io::Error>,
}

impl AgentStream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            backlog: VecDeque::new(),
            progress: Instant::now(),
            failure: None,
        }
    }

    /// Sends a frame, at once or as soon as the agent reads. False if more than `most` bytes would wait then: the frame is dropped.
    pub fn send(&mut self, frame: &[u8], most: usize) -> bool {
        if self.failure.is_some() {
            return true;
        }
        let mut sent = 0;
        if self.backlog.is_empty() {
            match self.stream.try_write(frame) {
                Ok(written) => sent = written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.failure = Some(error);
                    return true;
                }
            }
            self.progress = Instant::now();
        }
        // The rest of a frame that has begun is always kept.
        if sent == 0 && self.backlog.len() + frame.len() > most {
            return false;
        }
        self.backlog.extend(&frame[sent..]);
        true
    }

    /// Reads what the agent sends, at least one byte, and sends what waits meanwhile. Safe to cancel.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        loop {
            // Or an agent that never stops would leave no time for others.
            consume_budget().await;
            self.flush();
            match self.stream.try_read(buffer) {
                Ok(0) => {
                    return Err(self
                        .failure
                        .take()
                        .map_or(StreamError::Closed, StreamError::Lost));
                }
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(StreamError::Lost(error)),
            }
            if self.backlog.is_empty() {
                // An error is told at the next try.
                let _ = self.stream.readable().await;
                continue;
            }
            tokio::select! {
                _ = self.stream.ready(Interest::READABLE | Interest::WRITABLE) => {}
                () = sleep_until(self.progress + STUCK_AFTER) => return Err(StreamError::Stuck),
            }
        }
    }

    /// Sends what waits and closes, giving up after `limit`. What the agent still sends is read and dropped: closing over unread data
    /// would reset the connection, and the agent could miss the last frame.
    pub async fn close(mut self, limit: Duration) {
        let closing = async {
            let mut scratch = [0; 2048];
            let mut wanted = Interest::READABLE | Interest::WRITABLE;
            loop {
                consume_budget().await;
                self.flush();
                if self.backlog.is_empty() && wanted.is_writable() {
                    wanted = Interest::READABLE;
                    // Broken or not, what remains is to read to the end.
                    let _ = self.stream.shutdown().await;
                }
                match self.stream.try_read(&mut scratch) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let _ = self.stream.ready(wanted).await;
                    }
                    Err(_) => return,
                }
            }
        };
        // Whoever does not close in time is left.
        let _ = timeout(limit, closing).await;
    }

    /// Gives the system what it takes.
    fn flush(&mut self) {
        while !self.backlog.is_empty() && self.failure.is_none() {
            match self.stream.try_write(self.backlog.as_slices().0) {
                Ok(written) => {
                    self.backlog.drain(..written);
                    self.progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.failure = Some(error),
            }
        }
        if self.failure.is_some() {
            self.backlog.clear();
        }
        if self.backlog.capacity() > KEPT_CAPACITY {
            self.backlog.shrink_to(KEPT_CAPACITY);
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
