//! `MediaGateway`: from its spec to running pods.
//!
//! [`validate`] → [`build`] (pure) → [`apply`]; [`certificates`] keeps the control port's certificates, [`workload`] reads back how
//! the pods are. Only `apply` is given a client.

pub mod apply;
pub mod build;
pub mod certificates;
pub mod claim;
pub mod default;
pub mod validate;
pub mod workload;
