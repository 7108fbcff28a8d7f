//! What a registrar learns of the media pods, wherever they are: in other pods ([`crate::cluster::links`]) or in the same process.
//!
//! Not the SIP on a link, which the registrar speaks itself.

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
        /// Running calls.
        calls: u32,
        /// Whether it takes more.
        accepting: bool,
    },
}
