//! SIP without I/O and without a clock: messages, SDP offer/answer, digest, transactions, dialogs, calls and
//! registrations as plain state machines.
//!
//! Everything here takes bytes, events and an [`Instant`](std::time::Instant), and gives back bytes to send, events and
//! the next time-out. Sockets, name look-up, timers and logging of calls belong to the program around it.

pub mod dialog;
pub mod digest;
pub mod message;
pub mod refer;
pub mod registration;
pub mod sdp;
pub mod transaction;
pub mod uac;
pub mod uas;
