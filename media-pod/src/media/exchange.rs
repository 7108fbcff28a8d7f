//! What calls and the node tell each other.

use ringwire_config::Reason;
use ringwire_sip::message::{Request, Response};
use ringwire_sip::refer::Replaces;
use ringwire_sip::transaction::ServerId;
use tokio::sync::oneshot;

use super::call::Handover;

/// Which call: our side of the dialog's name. The caller's tag is not part of it, for CANCEL and forks don't need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// The Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
}

/// What a call's dialog is told.
pub enum ToDialog {
    /// A request within the dialog.
    Request {
        /// To be answered here.
        server: ServerId,
        /// The request.
        request: Request,
    },
    /// The ACK of our 2xx.
    Ack {
        /// The ACK.
        request: Request,
    },
    /// The caller gave up.
    Cancel {
        /// The CANCEL's `Reason`.
        reason: Option<String>,
    },
    /// The answer to a request of the call's.
    Response {
        /// Which request.
        token: u64,
        /// The answer.
        response: Response,
    },
    /// There will be no answer.
    Failed {
        /// Which request.
        token: u64,
    },
}

/// What a call is told.
pub enum ToCall {
    /// Something for its dialog.
    Dialog(ToDialog),
    /// Another call takes this one's place (RFC 3891).
    HandOver {
        /// What it asks for.
        replaces: Replaces,
        /// What the other one goes on with, or the status that refuses it.
        reply: oneshot::Sender<Result<Box<Handover>, u16>>,
    },
    /// End the call.
    HangUp {
        /// Why.
        reason: Reason,
    },
    /// The registrar that brought the call is gone.
    LinkLost,
}

/// What a call has for the node.
pub enum FromCall {
    /// An answer.
    Respond {
        /// To which request.
        server: ServerId,
        /// The answer.
        response: Response,
    },
    /// A request to the caller.
    Request {
        /// Whose.
        key: CallKey,
        /// Its name in what comes back.
        token: u64,
        /// The request.
        request: Box<Request>,
    },
    /// The acknowledgement of the caller's answer to a re-INVITE of ours.
    Ack {
        /// Whose.
        key: CallKey,
        /// The request.
        request: Box<Request>,
    },
    /// The call is over.
    Ended(CallKey),
}
