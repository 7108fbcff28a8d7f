//! The media role: each call ends here, from the SIP dialog to the agent's connection.

mod agent_link;
mod call;
pub mod node;
mod ports;
mod retired;
