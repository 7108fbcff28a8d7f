//! Statuses: which have to be written, when, and what is said about them.
//!
//! What a status *is* is decided in `ringwire-config`; [`changes`] compares it with what the object says, [`budget`] holds back mere
//! counters, [`write`] does the requests.

pub mod budget;
pub mod changes;
pub mod events;
pub mod write;
