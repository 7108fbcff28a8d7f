//! The operator and its pods on the two-node cluster of `hack/cluster.sh`, with Kamailio as the carrier. Run by
//!
//! ```text
//! hack/test.sh cluster
//! ```
//!
//! The tests share the cluster, stop parts of it and reinstall the chart, so they run one after the other: `--test-threads=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod calls;
mod conditions;
mod exposure;
mod install;
mod leader;
mod registrars;
mod registration;
mod resilience;
mod schema;
mod services;
mod trace;
mod uninstall;
