//! Agents that are reached by TCP alone.

use std::fmt;

use http::uri::Authority;
use tokio::time::Instant;

use super::{ConnectError, Connector, Endpoint, unwatched};
use crate::{address::AddressPolicy, stream::AgentStream, transport::Transport};

/// An agent's `HOST:PORT`, checked and ready to be connected to.
#[derive(Debug, Clone)]
pub struct TcpTarget(Endpoint);

/// Host and port.
impl fmt::Display for TcpTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl TcpTarget {
    /// Checks an address: `HOST:PORT`, an IPv6 address in brackets.
    pub fn new(address: &str, allowed: AddressPolicy) -> Result<Self, ConnectError> {
        if address.contains("://") {
            return Err(ConnectError::Address("it is a URL: write HOST:PORT"));
        }
        let authority: Authority = address
            .parse()
            .map_err(|_| ConnectError::Address("it is not HOST:PORT"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() || address.contains('@') {
            return Err(ConnectError::Address("it is not HOST:PORT"));
        }
        let port = authority
            .port_u16()
            .filter(|port| *port > 0)
            .ok_or(ConnectError::Address(
                "its port is missing or not 1 to 65535",
            ))?;
        Ok(Self(Endpoint {
            scheme: "",
            host: host.to_owned(),
            port,
            allowed,
        }))
    }
}

impl Connector {
    /// Connects; done when the agent has accepted the connection.
    pub async fn connect_tcp(
        &self,
        target: &TcpTarget,
        deadline: Instant,
    ) -> Result<AgentStream, ConnectError> {
        let endpoint = &target.0;
        self.try_each(endpoint, deadline, async |address, deadline| {
            let stream = endpoint.open(address, deadline).await?;
            let stream =
                unwatched(stream).map_err(|error| endpoint.network_error(address, &error))?;
            Ok(AgentStream::new(Transport::Plain(stream)))
        })
        .await
    }
}
