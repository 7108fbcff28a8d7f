//! Transactions: RFC 3261 section 17 with RFC 6026, both sides, over datagrams and streams, without I/O or clock.
//!
//! An [`Endpoint`] holds all transactions of one SIP element. It absorbs retransmissions, repeats what must be
//! repeated, makes the ACK for a refused INVITE, answers CANCEL and tells its owner what is left to decide. It knows
//! nothing of dialogs, routes or sockets: the owner gives it messages and the time, and takes bytes and events.
//!
//! After each call the owner empties [`Endpoint::poll_transmit`] and [`Endpoint::poll_event`]; what one call adds to
//! them is bounded by the transactions that it touches.

mod client;
mod endpoint;
mod key;
mod server;
#[cfg(test)]
mod tests;
mod types;

pub use endpoint::{Endpoint, give_back};
pub use types::{
    ClientError, ClientId, Counts, EndpointConfig, Event, Flow, ServerId, Transmit, Transport,
    TransportError,
};
