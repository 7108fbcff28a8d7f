//! The media role: each call ends here, from the SIP dialog to the agent's connection.

mod agent_link;
mod call;
mod caller;
mod exchange;
pub mod node;
mod ports;
mod retired;
mod shared;
mod switch;
mod worker;
