//! REFERs that came to us: one waits for the owner's decision, those that we follow are reported on by NOTIFY.

use std::time::{Duration, Instant};

use super::{REFER, ReferEvent, ReferId, Referral, Scene, sipfrag};
use crate::dialog::RespondTo;
use crate::message::{HeaderName, Method, Request, Response};

/// How long we report on a call: longer than one may ring.
const EXPIRES: Duration = Duration::from_secs(240);
/// Most calls that are reported on at a time.
const MAX_FOLLOWED: usize = 4;

struct Undecided {
    id: ReferId,
    to: RespondTo,
    request: Request,
    first: bool,
}

/// A REFER that we follow: its implicit subscription (RFC 3515 section 2.4.4).
struct Followed {
    id: ReferId,
    /// The first REFER of a dialog needs no id in its `Event` (section 2.4.6).
    first: bool,
    status: u16,
    expires: Instant,
    notify: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Received {
    undecided: Option<Undecided>,
    followed: Vec<Followed>,
    any: bool,
}

impl Received {
    /// Takes a REFER; a status if it is refused at once.
    pub fn on_refer(
        &mut self,
        to: RespondTo,
        request: &Request,
        scene: &mut Scene<'_>,
    ) -> Result<(), u16> {
        let referral = Referral::of(request)?;
        if self.undecided.is_some() {
            return Err(491);
        }
        if self.followed.len() >= MAX_FOLLOWED {
            return Err(603);
        }
        let (number, _) = request.headers.cseq().map_err(|_| 400_u16)?;
        let id = ReferId(number);
        self.undecided = Some(Undecided {
            id,
            to,
            request: request.clone(),
            first: !std::mem::replace(&mut self.any, true),
        });
        scene.tell(ReferEvent::Asked {
            id,
            referral: Box::new(referral),
        });
        Ok(())
    }

    /// The owner has decided: gives the transaction to answer, the REFER, and the status. The first NOTIFY goes with
    /// [`Self::begin`].
    pub fn decide(&mut self, id: ReferId, accept: bool) -> Option<(RespondTo, Response)> {
        let undecided = self.undecided.take_if(|undecided| undecided.id == id)?;
        let status = if accept { 202 } else { 603 };
        Some((
            undecided.to,
            Response::to_request(&undecided.request, status, None),
        ))
    }

    /// Whether the REFER that waits is the first of its dialog.
    pub fn is_first(&self) -> bool {
        self.undecided
            .as_ref()
            .is_some_and(|undecided| undecided.first)
    }

    /// Begins to report, with the NOTIFY that goes at once.
    pub fn begin(&mut self, id: ReferId, first: bool, now: Instant, scene: &mut Scene<'_>) {
        self.followed.push(Followed {
            id,
            first,
            status: 100,
            expires: now + EXPIRES,
            notify: None,
        });
        self.notify(id, None, now, scene);
    }

    /// Reports on the call that we were referred to; a final status is the last report.
    pub fn progress(&mut self, id: ReferId, status: u16, now: Instant, scene: &mut Scene<'_>) {
        if let Some(followed) = self.followed.iter_mut().find(|followed| followed.id == id) {
            followed.status = status.clamp(100, 699);
            let over = (status >= 200).then_some("noresource");
            self.notify(id, over, now, scene);
        }
    }

    /// Sends the NOTIFY; with the reason why it is the last one.
    fn notify(&mut self, id: ReferId, over: Option<&str>, now: Instant, scene: &mut Scene<'_>) {
        let Some(at) = self.followed.iter().position(|followed| followed.id == id) else {
            return;
        };
        let followed = &mut self.followed[at];
        let mut request = scene.request(Method::NOTIFY);
        let headers = &mut request.headers;
        let event = if followed.first {
            REFER.to_owned()
        } else {
            format!("{REFER};id={}", id.0)
        };
        headers.push(HeaderName::Event, event);
        let left = followed.expires.saturating_duration_since(now).as_secs();
        let state = over.map_or_else(
            || format!("active;expires={left}"),
            |reason| format!("terminated;reason={reason}"),
        );
        headers.push(HeaderName::SubscriptionState, state);
        request.set_body(sipfrag::CONTENT_TYPE, sipfrag::status_line(followed.status));
        followed.notify = Some(scene.out.request(request));
        if over.is_some() {
            self.followed.swap_remove(at);
        }
    }

    /// What became of a NOTIFY: who does not want it any more gets no other (RFC 6665 section 4.2.2).
    pub fn on_outcome(&mut self, token: u64, status: Option<u16>) -> bool {
        let Some(at) = self
            .followed
            .iter()
            .position(|followed| followed.notify == Some(token))
        else {
            return false;
        };
        if matches!(
            status,
            None | Some(404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604)
        ) {
            self.followed.swap_remove(at);
        }
        true
    }

    /// The call ends: what is undecided is refused, what is followed needs no report.
    pub fn end(&mut self) -> Option<(RespondTo, Response)> {
        self.followed.clear();
        let id = self.undecided.as_ref()?.id;
        self.decide(id, false)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.followed.iter().map(|followed| followed.expires).min()
    }

    pub fn handle_timeout(&mut self, now: Instant, scene: &mut Scene<'_>) {
        while let Some(id) = self
            .followed
            .iter()
            .find(|followed| followed.expires <= now)
            .map(|followed| followed.id)
        {
            self.notify(id, Some("timeout"), now, scene);
        }
    }
}
