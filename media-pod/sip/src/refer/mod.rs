//! Transfer: REFER with its implicit subscription (RFC 3515), and `Replaces` (RFC 3891).
//!
//! A call that was told so by `take_refer` tells its owner of each REFER, who decides; what becomes of it is reported
//! with `refer_progress`, and goes to the other side as NOTIFY. A REFER of our own goes with `refer`. Whom to call, and
//! which call a `Replaces` stands for, is the owner's business: nothing here makes a call.

mod received;
mod replaces;
mod sent;
mod sipfrag;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Instant;

use crate::dialog::outbox::Outbox;
use crate::dialog::{CallEvent, Dialog};
use crate::message::{HeaderName, Method, NameAddr, Params, Request, split_list, unescape};
use received::Received;
pub use replaces::Replaces;
use sent::Sent;

/// The event package of the implicit subscription.
const REFER: &str = "refer";

/// Names a REFER within its call and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReferId(u32);

/// Whom a REFER points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// Whom to call.
    pub target: NameAddr,
    /// Which call of the target's the new one takes the place of (attended transfer).
    pub replaces: Option<Replaces>,
    /// Who refers (`Referred-By`, RFC 3892).
    pub referred_by: Option<NameAddr>,
}

impl Referral {
    /// Reads a REFER.
    ///
    /// # Errors
    /// The status to answer: 400 unless there is one `Refer-To` that can be read, 603 when something else than a call is
    /// asked for.
    pub fn of(request: &Request) -> Result<Self, u16> {
        let headers = &request.headers;
        let mut targets = headers
            .addresses(&HeaderName::ReferTo)
            .map_err(|_| 400_u16)?;
        let (Some(mut target), true) = (targets.pop(), targets.is_empty()) else {
            return Err(400);
        };
        if let Some(method) = target.uri.params.get("method")
            && !method.eq_ignore_ascii_case("INVITE")
        {
            return Err(603);
        }
        target.uri.params.remove("method");
        let mut replaces = None;
        for field in target.uri.headers.take().unwrap_or_default().split('&') {
            if let Some((name, value)) = field.split_once('=')
                && HeaderName::from(unescape(name).as_str()) == HeaderName::Replaces
            {
                replaces = Some(Replaces::parse(&unescape(value)).ok_or(400_u16)?);
            }
        }
        let referred_by = headers
            .readable(&HeaderName::from("Referred-By"))
            .into_iter()
            .next();
        Ok(Self {
            target,
            replaces,
            referred_by,
        })
    }

    /// Writes it into a REFER.
    fn put(&self, request: &mut Request) {
        let mut target = self.target.clone();
        if let Some(replaces) = &self.replaces {
            target.uri.headers = Some(format!("Replaces={}", escape(&replaces.to_string())));
        }
        let headers = &mut request.headers;
        headers.push(HeaderName::ReferTo, target.to_string());
        if let Some(by) = &self.referred_by {
            headers.push(HeaderName::from("Referred-By"), by.to_string());
        }
    }
}

/// Percent-escapes whatever might mean something in the header part of a URI.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// What happens with a REFER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferEvent {
    /// The other side asks us to call somebody else: to be answered with `answer_refer`.
    Asked {
        /// Which REFER.
        id: ReferId,
        /// Whom to call.
        referral: Box<Referral>,
    },
    /// The other side follows our REFER.
    Accepted {
        /// Which REFER.
        id: ReferId,
    },
    /// The other side does not follow our REFER. The last one of it.
    Refused {
        /// Which REFER.
        id: ReferId,
        /// The status, if there was a response.
        status: Option<u16>,
    },
    /// What the other side says of the call that we referred it to.
    Progress {
        /// Which REFER.
        id: ReferId,
        /// The status of that call's INVITE; `None` when the other side did not say.
        status: Option<u16>,
        /// Whether nothing more comes.
        last: bool,
    },
}

/// The `Event` of a NOTIFY: the package, and the REFER that it is about.
fn event_of(request: &Request) -> Option<(String, Option<u32>)> {
    let text = request.headers.get(&HeaderName::Event)?;
    let (package, params) = text.split_at(text.find(';').unwrap_or(text.len()));
    let params = Params::parse_header("Event", params).ok()?;
    let id = params.get("id").map(str::parse).transpose().ok()?;
    Some((package.trim().to_ascii_lowercase(), id))
}

/// All REFERs of one dialog.
#[derive(Default)]
pub(crate) struct Refers {
    /// Whether the owner wants to hear of REFERs.
    pub taken: bool,
    received: Received,
    sent: Sent,
}

/// What a request or its sender's failure needs besides the state: the dialog to send in, and where to put it.
pub(crate) struct Scene<'a> {
    pub dialog: &'a mut Dialog,
    /// The `User-Agent` header.
    pub product: &'a str,
    pub out: &'a mut Outbox,
}

impl Scene<'_> {
    fn request(&mut self, method: Method) -> Request {
        let mut request = self.dialog.request(method);
        request
            .headers
            .push(HeaderName::UserAgent, self.product.to_owned());
        request
    }

    fn tell(&mut self, event: ReferEvent) {
        self.out.tell(CallEvent::Refer(event));
    }
}

impl Refers {
    pub fn received(&mut self) -> &mut Received {
        &mut self.received
    }

    pub fn sent(&mut self) -> &mut Sent {
        &mut self.sent
    }

    /// Whether the token is that of a request of ours here; then its outcome is taken. No status: it failed.
    pub fn on_outcome(
        &mut self,
        token: u64,
        status: Option<u16>,
        now: Instant,
        scene: &mut Scene<'_>,
    ) -> bool {
        self.received.on_outcome(token, status) || self.sent.on_outcome(token, status, now, scene)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.received.poll_timeout(), self.sent.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant, scene: &mut Scene<'_>) {
        self.received.handle_timeout(now, scene);
        self.sent.handle_timeout(now, scene);
    }
}

/// The first value of a header that has parameters, and those.
fn value_and_params(text: &str) -> Option<(String, Params)> {
    let text = split_list(text).next()?;
    let (value, params) = text.split_at(text.find(';').unwrap_or(text.len()));
    let params = Params::parse_header("header", params).ok()?;
    Some((value.trim().to_ascii_lowercase(), params))
}
