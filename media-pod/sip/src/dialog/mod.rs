//! Dialogs (RFC 3261 section 12): who talks to whom, over which route, and with which numbers.
//!
//! A [`Dialog`] makes requests inside the dialog and checks those that come in. What the requests mean is the business
//! of [`crate::uas`] and [`crate::uac`], which share [`Action`], [`CallEvent`] and the behaviour of an established call.

pub(crate) mod body;
mod call;
mod offers;
pub(crate) mod outbox;
mod refers;
mod refresh;
pub(crate) mod refusal;
pub(crate) mod reliable;
pub(crate) mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod timer;

pub use call::{Action, CallEvent, EndedBy, RespondTo};

use crate::message::{HeaderName, Method, NameAddr, ParseError, Request, Response, Uri};

/// The largest `CSeq` number (RFC 3261 section 8.1.1.5).
const MAX_CSEQ: u32 = (1 << 31) - 1;

/// What identifies a dialog, seen from our side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DialogId {
    /// `Call-ID`.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The other side's tag; empty for a peer older than RFC 3261.
    pub remote_tag: String,
}

/// One dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    id: DialogId,
    local: NameAddr,
    remote: NameAddr,
    contact: NameAddr,
    target: Uri,
    route_set: Vec<NameAddr>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
}

impl Dialog {
    /// The dialog of a call that comes in (section 12.1.1). Fails when `From`, `To`, `Call-ID`, `CSeq` or `Contact` are
    /// missing or can't be read.
    pub fn from_invite(
        request: &Request,
        local_tag: &str,
        contact: &NameAddr,
    ) -> Result<Self, ParseError> {
        let headers = &request.headers;
        let remote = headers.from_()?;
        let (remote_cseq, _) = headers.cseq()?;
        Ok(Self {
            id: DialogId {
                call_id: headers.call_id()?.to_owned(),
                local_tag: local_tag.to_owned(),
                remote_tag: remote.tag().unwrap_or_default().to_owned(),
            },
            local: headers.to()?.with_tag(local_tag),
            remote,
            contact: contact.clone(),
            target: headers
                .contact()?
                .ok_or(ParseError::Missing("Contact"))?
                .uri,
            route_set: headers.record_routes(),
            local_cseq: 0,
            remote_cseq: Some(remote_cseq),
        })
    }

    /// The dialog that a 2xx or a tagged provisional response to an INVITE of ours makes (section 12.1.2).
    pub fn from_response(
        request: &Request,
        response: &Response,
        contact: &NameAddr,
    ) -> Result<Self, ParseError> {
        let headers = &response.headers;
        let remote = headers.to()?;
        let local = request.headers.from_()?;
        let mut route_set = headers.record_routes();
        route_set.reverse();
        // Some leave out the Contact: the Request-URI then reaches them as it did before.
        let target = headers
            .contact()
            .ok()
            .flatten()
            .map_or_else(|| request.uri.clone(), |contact| contact.uri);
        Ok(Self {
            id: DialogId {
                call_id: request.headers.call_id()?.to_owned(),
                local_tag: local.tag().unwrap_or_default().to_owned(),
                remote_tag: remote.tag().unwrap_or_default().to_owned(),
            },
            local,
            remote,
            contact: contact.clone(),
            target,
            route_set,
            local_cseq: request.headers.cseq()?.0,
            remote_cseq: None,
        })
    }

    /// Who it is.
    pub fn id(&self) -> &DialogId {
        &self.id
    }

    /// Where requests go in the end.
    pub fn remote_target(&self) -> &Uri {
        &self.target
    }

    /// The proxies on the way, nearest first.
    pub fn route_set(&self) -> &[NameAddr] {
        &self.route_set
    }

    /// Our own Contact.
    pub fn contact(&self) -> &NameAddr {
        &self.contact
    }

    /// The next request inside the dialog, with the next number; without `Via` and body.
    pub fn request(&mut self, method: Method) -> Request {
        self.local_cseq += 1;
        self.numbered(method, self.local_cseq)
    }

    /// The ACK for a 2xx to the INVITE with that number (section 13.2.2.4).
    pub fn ack(&self, invite_cseq: u32) -> Request {
        self.numbered(Method::ACK, invite_cseq)
    }

    fn numbered(&self, method: Method, cseq: u32) -> Request {
        // A strict router (RFC 2543) expects its own URI in the request line and the target as last route.
        let mut uri = self.target.clone();
        let mut routes: Vec<String> = self.route_set.iter().map(ToString::to_string).collect();
        if let Some(first) = self
            .route_set
            .first()
            .filter(|first| !first.uri.is_loose_router())
        {
            routes.remove(0);
            routes.push(format!("<{uri}>"));
            uri = first.uri.clone();
        }
        let mut request = Request::new(method, uri);
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, "70");
        for route in routes {
            headers.push(HeaderName::Route, route);
        }
        headers.push(HeaderName::From, self.local.to_string());
        headers.push(HeaderName::To, self.remote.to_string());
        headers.push(HeaderName::CallId, self.id.call_id.clone());
        headers.push(HeaderName::CSeq, format!("{cseq} {}", request.method));
        if matches!(
            request.method.as_str(),
            "INVITE" | "UPDATE" | "OPTIONS" | "REFER" | "SUBSCRIBE" | "NOTIFY"
        ) {
            headers.push(HeaderName::Contact, self.contact.to_string());
        }
        request
    }

    /// Checks a request that came in, and takes its number (section 12.2.2).
    ///
    /// # Errors
    /// The status to answer: 481 for another dialog, 500 for a number older than the last one, 400 for none.
    pub fn check(&mut self, request: &Request) -> Result<(), u16> {
        self.check_tags(request)?;
        let (number, method) = request.headers.cseq().map_err(|_| 400_u16)?;
        if number > MAX_CSEQ || method != request.method {
            return Err(400);
        }
        if self.remote_cseq.is_some_and(|last| number < last) {
            return Err(500);
        }
        self.remote_cseq = Some(number);
        Ok(())
    }

    /// Whether a request belongs here by Call-ID and tags.
    ///
    /// # Errors
    /// 481, or 400 when the headers can't be read.
    pub fn check_tags(&self, request: &Request) -> Result<(), u16> {
        let headers = &request.headers;
        let from = headers.from_().map_err(|_| 400_u16)?;
        let to = headers.to().map_err(|_| 400_u16)?;
        let same = headers.call_id().is_ok_and(|id| id == self.id.call_id)
            && to.tag().unwrap_or_default() == self.id.local_tag
            && from.tag().unwrap_or_default() == self.id.remote_tag;
        if same { Ok(()) } else { Err(481) }
    }

    /// A 2xx confirms the early dialog: its route set and target count, not those of before (section 13.2.2.4).
    pub fn confirm(&mut self, response: &Response) {
        self.route_set = response.headers.record_routes();
        self.route_set.reverse();
        if let Ok(Some(contact)) = response.headers.contact() {
            self.refresh_target(&contact);
        }
    }

    /// Takes a new target from the Contact of a re-INVITE, an UPDATE or their 2xx.
    pub fn refresh_target(&mut self, contact: &NameAddr) {
        self.target = contact.uri.clone();
    }
}
