//! The control port between the processes of one gateway: state up, and SIP between registrars and media pods.
//!
//! Used by the pods (server; registrars are clients of media pods) and by the operator (client; it also issues the certificates). Knows
//! nothing of Kubernetes.

pub mod client;
pub mod http;
pub mod issue;
pub mod report;
pub mod server;
mod socket;
pub mod tls;

pub use report::Reporter;
pub use tls::GatewayTls;
