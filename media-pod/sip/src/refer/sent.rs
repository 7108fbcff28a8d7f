//! REFERs of our own: their response, and the NOTIFYs that tell what became of them.

use std::time::{Duration, Instant};

use super::{REFER, ReferEvent, ReferId, Referral, Scene, event_of, sipfrag, value_and_params};
use crate::message::{HeaderName, Method, Request};

/// How long the first NOTIFY may take (timer N of RFC 6665).
const FIRST_NOTIFY: Duration = Duration::from_secs(32);
/// How long the other side reports if it does not say how long.
const DEFAULT_EXPIRES: u32 = 180;
/// The longest that we wait for a report.
const MAX_EXPIRES: u32 = 3_600;
/// Most REFERs at a time.
const MAX_SENT: usize = 4;

struct Referring {
    id: ReferId,
    token: u64,
    accepted: bool,
    status: Option<u16>,
    /// When we wait no longer for a NOTIFY.
    expires: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Sent {
    referring: Vec<Referring>,
    any: bool,
}

impl Sent {
    /// Sends a REFER, unless too many are on their way.
    pub fn refer(&mut self, referral: &Referral, scene: &mut Scene<'_>) -> Option<ReferId> {
        if self.referring.len() >= MAX_SENT {
            return None;
        }
        let mut request = scene.request(Method::REFER);
        referral.put(&mut request);
        let (number, _) = request.headers.cseq().ok()?;
        let id = ReferId(number);
        self.any = true;
        self.referring.push(Referring {
            id,
            token: scene.out.request(request),
            accepted: false,
            status: None,
            expires: None,
        });
        Some(id)
    }

    /// Whether there was any.
    pub fn any(&self) -> bool {
        self.any
    }

    /// The outcome of a REFER.
    pub fn on_outcome(
        &mut self,
        token: u64,
        status: Option<u16>,
        now: Instant,
        scene: &mut Scene<'_>,
    ) -> bool {
        let Some(at) = self
            .referring
            .iter()
            .position(|referring| referring.token == token)
        else {
            return false;
        };
        let referring = &mut self.referring[at];
        if matches!(status, Some(200..300)) {
            // A NOTIFY may have come first.
            if !std::mem::replace(&mut referring.accepted, true) {
                referring.expires = Some(now + FIRST_NOTIFY);
                scene.tell(ReferEvent::Accepted { id: referring.id });
            }
        } else if !referring.accepted {
            let id = referring.id;
            self.referring.swap_remove(at);
            scene.tell(ReferEvent::Refused { id, status });
        }
        true
    }

    /// Takes a NOTIFY; a status if it is refused: 489 for another event, 481 for a REFER that we do not know.
    pub fn on_notify(
        &mut self,
        request: &Request,
        now: Instant,
        scene: &mut Scene<'_>,
    ) -> Result<(), u16> {
        let (package, number) = event_of(request).ok_or(400_u16)?;
        if package != REFER {
            return Err(489);
        }
        let state = request.headers.get(&HeaderName::SubscriptionState);
        let (state, params) = state.and_then(value_and_params).ok_or(400_u16)?;
        let found = self
            .referring
            .iter()
            .position(|referring| number.is_none_or(|number| referring.id == ReferId(number)));
        let at = found.ok_or(481_u16)?;
        let referring = &mut self.referring[at];
        let id = referring.id;
        if !std::mem::replace(&mut referring.accepted, true) {
            scene.tell(ReferEvent::Accepted { id });
        }
        let status = sipfrag::status(&request.body);
        referring.status = status.or(referring.status);
        let last = state == "terminated";
        let seconds = params
            .get("expires")
            .and_then(|text| text.parse().ok())
            .unwrap_or(DEFAULT_EXPIRES)
            .min(MAX_EXPIRES);
        referring.expires = Some(now + Duration::from_secs(u64::from(seconds)));
        if status.is_some() || last {
            let status = referring.status;
            scene.tell(ReferEvent::Progress { id, status, last });
        }
        if last {
            self.referring.swap_remove(at);
        }
        Ok(())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.referring
            .iter()
            .filter_map(|referring| referring.expires)
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant, scene: &mut Scene<'_>) {
        self.referring.retain(|referring| {
            let over = referring.expires.is_some_and(|expires| expires <= now);
            if over {
                scene.tell(ReferEvent::Progress {
                    id: referring.id,
                    status: referring.status,
                    last: true,
                });
            }
            !over
        });
    }

    /// The call ends.
    pub fn end(&mut self) {
        self.referring.clear();
    }
}
