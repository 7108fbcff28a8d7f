//! What a registrar learns of the media pods, wherever they are: in other pods ([`crate::cluster::links`]) or in the same process.
//!
//! Not the SIP on a link, which the registrar speaks itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringwire_config::ObjectRef;
use ringwire_config::state::CallCounts;
use ringwire_config::token::Incarnation;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A byte stream that carries SIP between a registrar and a media pod.
pub trait LinkStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> LinkStream for T {}

/// News of one media pod. The events of one pod come in order.
pub enum LinkEvent {
    /// A SIP link is up.
    Up {
        /// Which run of the pod.
        incarnation: Incarnation,
        /// The pod's name.
        pod: String,
        /// The link, ready for SIP.
        stream: Box<dyn LinkStream>,
        /// To be cancelled by the registrar when the link is lost: then another is made.
        closed: CancellationToken,
    },
    /// How busy the pod is. The first comes right after `Up`, further ones when it changes, none while there is no link.
    Load {
        /// Which run of the pod.
        incarnation: Incarnation,
        /// Its calls.
        load: Arc<Load>,
        /// Whether it takes more.
        accepting: bool,
    },
}

/// A media pod's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Running ones, those that ring included.
    pub calls: u32,
    /// All that it has taken since it started.
    pub begun: u64,
    /// Running ones by provider.
    pub providers: BTreeMap<ObjectRef, u32>,
    /// Running ones by agent.
    pub agents: BTreeMap<ObjectRef, u32>,
    /// Running ones by address, of providers with a limit for that.
    pub sources: BTreeMap<ObjectRef, BTreeMap<IpAddr, u32>>,
}

impl From<&CallCounts> for Load {
    fn from(counts: &CallCounts) -> Self {
        Self {
            calls: counts.total,
            begun: counts.begun,
            providers: counts.providers.clone(),
            agents: counts.agents.clone(),
            sources: counts.sources.clone(),
        }
    }
}
