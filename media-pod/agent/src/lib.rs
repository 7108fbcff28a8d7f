//! How voice agents are reached: one module for each agent protocol, without I/O, and the connectors.
//!
//! A protocol turns frames, keys and marks into messages and back; a connector makes the connection, ready before the
//! call is answered. What is played when belongs to the `media` crate.

pub mod address;
pub mod audiosocket;
mod command;
pub mod connect;
pub mod socket;
pub mod stream;
mod transport;
pub mod twilio;
pub mod websocket;

pub use command::Command;
