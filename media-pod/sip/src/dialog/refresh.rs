//! Our refreshes of a session (RFC 4028 section 7.4 and 10): UPDATE, or a re-INVITE that says nothing new, and what their
//! responses mean.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::session::Session;
use super::{Action, EndedBy, body};
use crate::message::{HeaderName, Method, Request, Response};
use crate::sdp::{self, SessionDescription};

/// A refresh on its way.
pub(super) struct Refresh {
    token: u64,
    request: Request,
    /// What the re-INVITE offers; an UPDATE offers nothing.
    offer: Option<SessionDescription>,
}

impl Refresh {
    pub fn is_invite(&self) -> bool {
        self.offer.is_some()
    }
}

/// The ACK for the 2xx of our last re-INVITE: it goes again when the 2xx comes again.
pub(super) struct Acked {
    token: u64,
    ack: Request,
}

impl Session {
    /// Whether the token is that of our refresh.
    pub fn is_refresh(&self, token: u64) -> bool {
        self.refresh
            .as_ref()
            .is_some_and(|refresh| refresh.token == token)
    }

    /// The refresh that is on its way, for who has to sign it.
    pub fn refresh_request(&self) -> Option<&Request> {
        self.refresh.as_ref().map(|refresh| &refresh.request)
    }

    /// Sends a refresh; with credentials if they were asked for.
    pub fn send_refresh(&mut self, credentials: Vec<(HeaderName, String)>, out: &mut Outbox) {
        let offer = (!self.peer_updates).then(|| match &self.sent {
            // The same version says that nothing has changed (RFC 3264 section 8).
            Some(sent) => sent.clone(),
            None => self.offer(),
        });
        let method = if offer.is_some() {
            Method::INVITE
        } else {
            Method::UPDATE
        };
        let mut request = self.dialog.request(method);
        request.headers.push(HeaderName::Allow, self.allow());
        request
            .headers
            .push(HeaderName::Supported, self.supported());
        self.timer.ask(&mut request);
        request
            .headers
            .push(HeaderName::UserAgent, self.own.product.clone());
        for (name, value) in credentials {
            request.headers.push(name, value);
        }
        if let Some(offer) = &offer {
            request.set_body(sdp::CONTENT_TYPE, offer.to_bytes());
        }
        self.timer.refreshing();
        let token = out.request(request.clone());
        self.refresh = Some(Refresh {
            token,
            request,
            offer,
        });
    }

    /// The final response to our refresh.
    pub(super) fn on_refresh_response(
        &mut self,
        response: &Response,
        now: Instant,
        out: &mut Outbox,
    ) {
        let Some(refresh) = self.refresh.take() else {
            return;
        };
        match response.status {
            200..300 => self.refreshed(refresh, response, now, out),
            // The other side does not have the call any more (RFC 3261 section 12.2.1.2).
            408 | 481 => self.refresh_lost(response.status, out),
            422 if self.timer.raise(response) => self.send_refresh(Vec::new(), out),
            405 | 501 if !refresh.is_invite() => {
                self.peer_updates = false;
                self.send_refresh(Vec::new(), out);
            }
            491 => self.timer.retry_at(now + self.glare_wait(&refresh)),
            _ => self.timer.retry_later(now),
        }
    }

    fn refreshed(&mut self, refresh: Refresh, response: &Response, now: Instant, out: &mut Outbox) {
        self.note_peer(&response.headers);
        if let Ok(Some(contact)) = response.headers.contact() {
            self.dialog.refresh_target(&contact);
        }
        self.timer.answered(response, now);
        let Some(offer) = refresh.offer else { return };
        let (cseq, _) = refresh
            .request
            .headers
            .cseq()
            .unwrap_or((0, Method::INVITE));
        let mut ack = self.dialog.ack(cseq);
        // Who asked for credentials wants them in the ACK too (RFC 3261 section 22.1).
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for value in refresh.request.headers.get_all(&name) {
                ack.headers.push(name.clone(), value);
            }
        }
        out.act(Action::Ack {
            request: ack.clone(),
        });
        self.acked = Some(Acked {
            token: refresh.token,
            ack,
        });
        let answer = body::description(&response.headers, &response.body);
        // A useless answer leaves what was agreed before: nothing was to change.
        if let Ok(Some(answer)) = answer
            && let Ok(negotiated) = sdp::apply_answer(&offer, &answer, &self.own.capabilities)
        {
            self.set_negotiated(negotiated, out);
        }
    }

    /// One more response to our last re-INVITE, whether it is one; each 2xx is acknowledged.
    pub(super) fn repeat_ack(&self, token: u64, response: &Response, out: &mut Outbox) -> bool {
        let Some(acked) = self.acked.as_ref().filter(|acked| acked.token == token) else {
            return false;
        };
        if response.is_success() {
            out.act(Action::Ack {
                request: acked.ack.clone(),
            });
        }
        true
    }

    /// Our refresh says that the other side is gone.
    pub(super) fn refresh_lost(&mut self, status: u16, out: &mut Outbox) {
        self.refresh = None;
        self.hang_up_as(
            EndedBy::SessionExpired,
            Some(format!(
                "SIP;cause={status};text=\"session refresh failed\""
            )),
            out,
        );
    }

    /// How long to wait when both sides spoke at once (RFC 3261 section 14.1): 2.1 to 4 s for who made the Call-ID, up to
    /// 2 s for the other, in steps of 10 ms. The tag makes it differ from the peer's choice.
    fn glare_wait(&self, refresh: &Refresh) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.dialog.id().local_tag.hash(&mut hasher);
        refresh.token.hash(&mut hasher);
        let drawn = hasher.finish();
        let steps = if self.owns_call_id {
            210 + drawn % 191
        } else {
            drawn % 201
        };
        Duration::from_millis(steps * 10)
    }
}
