//! What `ringwire trace` shows and what goes to a Homer collector: the SIP messages of a registrar, without their secrets.
//!
//! The registrar's loop hands over what it reads and sends ([`tap`]), which costs one atomic load while nobody listens. A task of its
//! own ([`tracer`]) masks ([`mask`]), finds out whose call it is ([`known`]) and gives each listener what it asked for. Every queue is
//! bounded: who reads too slowly loses messages and is told how many. [`socket`] is how listeners come: a Unix socket, so that only
//! who may be root or this user here, or may exec into the pod, can listen. [`hep`] is how a collector gets them.

pub mod entry;
pub mod filter;
mod hep;
mod known;
mod mask;
#[cfg(test)]
mod mask_tests;
pub mod socket;
mod summary;
pub mod tap;
mod tracer;
#[cfg(test)]
mod tracer_tests;

pub use hep::Exported;
pub use known::Ours;
pub use tap::Tap;
pub use tracer::{Hub, open};
