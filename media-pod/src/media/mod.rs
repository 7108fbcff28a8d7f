//! The media role: each call ends here, from the SIP dialog to the agent's connection.

mod agent_link;
pub(crate) mod call;
mod caller;
pub(crate) mod exchange;
mod metrics;
pub mod node;
mod quality;
mod retired;
mod shared;
pub(crate) mod switch;
#[cfg(test)]
mod tests;
mod verdict;

use std::io;

use ringwire_media::plane::Plane;

pub use self::metrics::PortMetrics;
pub use self::quality::CallMetrics;

/// Threads for packets, as many as there are processors.
pub fn plane() -> io::Result<Plane> {
    Plane::start(std::thread::available_parallelism().map_or(1, usize::from))
}
