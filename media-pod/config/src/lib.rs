//! What a gateway's pods are told, what they tell back, and how both relate to the Kubernetes objects.
//!
//! This crate is the decision logic between the kinds (`ringwire-crds`) and the processes that carry calls. It holds no client, no
//! socket and no clock, so the operator (cluster) and `ringwire run` (files) share all of it:
//!
//! - [`compile`]: kinds and Secrets in, one [`GatewayConfig`](gateway::GatewayConfig) per gateway and findings per object out;
//! - [`shard`]: that configuration as the fixed number of Secrets that pods watch, and back;
//! - [`route`]: an incoming call's addresses in, provider, number and agent (or the refusal) out;
//! - [`state`]: what a pod reports, and the stream format it does so in;
//! - [`status`]: findings and reports in, `.status` of every object out;
//! - [`token`]: the signed Contact user parts that lead an in-dialog request to its media pod, and [`rotation`] of their keys.

pub mod address;
pub mod compile;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod gateway;
pub mod manifests;
pub mod not_understood;
pub mod number;
pub mod object;
pub mod reason;
pub mod rotation;
pub mod route;
pub mod secret;
pub mod shard;
pub mod state;
pub mod status;
pub mod token;

pub use not_understood::NotUnderstood;
pub use object::{ObjectRef, Objects, Settings};
pub use reason::Reason;
pub use secret::Secret;
