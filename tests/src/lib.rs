//! What the end-to-end tests share: processes that end with their test, addresses of their own, SIP peers, agents, and waiting for a state
//! with a limit.
//!
//! The program under test is the one that `RINGWIRE_BIN` names, else the one that was built last for the image, else the debug build. All
//! that crosses a wire is judged from the outside: nothing here uses the product's SIP or agent crates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot help fails its test"
)]

pub mod address;
pub mod agent;
pub mod audio;
pub mod audiosocket;
pub mod baresip;
pub mod calls;
pub mod carrier;
pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod dns;
pub mod flood;
pub mod gateway;
pub mod kamailio;
pub mod manifests;
pub mod namespace;
pub mod pbx;
pub mod phone;
pub mod pjsip;
pub mod process;
pub mod scratch;
pub mod script;
pub mod sipp;
pub mod stall;
pub mod wait;
pub mod webrtc;
pub mod wire;
