//! The media role: each call ends here, from the SIP dialog to the agent's connection.

mod agent_link;
pub(crate) mod call;
mod caller;
pub(crate) mod exchange;
pub mod node;
mod ports;
mod retired;
mod shared;
pub(crate) mod switch;
#[cfg(test)]
mod tests;
mod verdict;
mod worker;
