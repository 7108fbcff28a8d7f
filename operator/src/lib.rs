//! The operator: turns Ringwire's kinds into running gateways, and reports how they are.
//!
//! Watch ([`watch`]) → dereference ([`world`], [`secrets`]) → validate and compile (`ringwire-config`, [`media_gateway::validate`]) →
//! build ([`media_gateway::build`]) → apply ([`media_gateway::apply`]) → status ([`status`]); beside that the pods are followed
//! ([`observe`]). [`reconcile`] runs it; of several operators one writes ([`leader`]). No SIP and no media: calls go on when the operator
//! is away.
//!
//! [`run`] is what `ringwire operator` calls.

pub mod failure;
pub mod fingerprint;
pub mod http;
pub mod leader;
pub mod media_gateway;
pub mod metrics;
pub mod observe;
pub mod options;
pub mod owner;
pub mod reconcile;
pub mod retry;
pub mod run;
pub mod secrets;
pub mod signal;
pub mod status;
pub mod watch;
pub mod world;
