//! What a call asks of its owner, and what it tells him.

use crate::message::{Request, Response};
use crate::refer::ReferEvent;
use crate::sdp::Negotiated;
use crate::transaction::ServerId;

/// Which server transaction to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespondTo {
    /// That of the INVITE that began the call; only the owner of a [`UasCall`](crate::uas::UasCall) gets this.
    Invite,
    /// One that was handed in with `on_request`.
    Request(ServerId),
}

/// What the owner has to send.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give this to [`Endpoint::respond`](crate::transaction::Endpoint::respond). Several responses may follow for one
    /// transaction: provisionals, then one final.
    Respond {
        /// Which transaction.
        to: RespondTo,
        /// The response.
        response: Response,
    },
    /// The same 2xx to an INVITE once more, because its ACK has not come: also through
    /// [`Endpoint::respond`](crate::transaction::Endpoint::respond).
    ResendFinal {
        /// Which transaction.
        to: RespondTo,
        /// The response.
        response: Response,
    },
    /// Give this to [`Endpoint::request`](crate::transaction::Endpoint::request), and hand in what comes of it under
    /// this token.
    Request {
        /// Names the request in `on_response` and `on_failed`.
        token: u64,
        /// The request, without our `Via`.
        request: Request,
    },
    /// The ACK for a 2xx: add a `Via` with a fresh branch and send it without transaction.
    Ack {
        /// The ACK.
        request: Request,
    },
    /// Give the transaction of the INVITE with this token to
    /// [`Endpoint::cancel`](crate::transaction::Endpoint::cancel).
    Cancel {
        /// The token of the INVITE.
        token: u64,
    },
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The other side: BYE, or its refusal of our INVITE.
    Peer,
    /// We: BYE, or our refusal.
    Us,
    /// The caller gave up before the answer.
    Cancel,
    /// No ACK came for our 2xx, or no PRACK for a provisional response that had to be reliable.
    NoAck,
    /// The answer to our offer could not be used, or never came.
    BadAnswer,
    /// Nothing came back to our INVITE.
    NoAnswer,
    /// The session was not refreshed in time (RFC 4028), or the other side did not know it any more when we refreshed it.
    SessionExpired,
}

/// What happened in a call.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// The other side rings or reports progress (outbound calls).
    Progress {
        /// 180, 183 and so on.
        status: u16,
    },
    /// Our INVITE was answered (outbound calls).
    Answered,
    /// The ACK for our 2xx came (inbound calls): the call stands.
    Confirmed,
    /// What was agreed on media is new or changed.
    MediaChanged(Negotiated),
    /// A digit by INFO.
    Dtmf(char),
    /// The other side answered our probe.
    PeerAlive,
    /// The other side does not know the call any more, or does not answer.
    PeerGone,
    /// Something about a transfer.
    Refer(ReferEvent),
    /// The call is over. The last event.
    Ended {
        /// Who ended it.
        by: EndedBy,
        /// The status that refused it, if one did.
        status: Option<u16>,
        /// The `Reason` header of the BYE or CANCEL, or the phrase of the refusal.
        reason: Option<String>,
    },
}
