//! The header `Replaces` (RFC 3891): a new call takes the place of one that stands.

use std::fmt;

use super::value_and_params;
use crate::dialog::DialogId;
use crate::message::{HeaderName, Request};

/// Which dialog a new call replaces, seen from who gets the INVITE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// The dialog's `Call-ID`.
    pub call_id: String,
    /// The tag of who gets this header.
    pub to_tag: String,
    /// The tag of the other side of that dialog.
    pub from_tag: String,
    /// Only while that call is not answered.
    pub early_only: bool,
}

impl Replaces {
    /// What replaces our dialog when the *other side* of it gets this header: for a REFER, to point to that call.
    pub fn at_peer(dialog: &DialogId) -> Self {
        Self {
            call_id: dialog.call_id.clone(),
            to_tag: dialog.remote_tag.clone(),
            from_tag: dialog.local_tag.clone(),
            early_only: false,
        }
    }

    /// Reads a header value; both tags are needed.
    pub fn parse(text: &str) -> Option<Self> {
        let (call_id, _) = text.split_at(text.find(';').unwrap_or(text.len()));
        let call_id = call_id.trim();
        let (_, params) = value_and_params(text)?;
        let tag = |name| params.get(name).filter(|tag| !tag.is_empty());
        (!call_id.is_empty()).then_some(())?;
        Some(Self {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag")?.to_owned(),
            from_tag: tag("from-tag")?.to_owned(),
            early_only: params.has("early-only"),
        })
    }

    /// Takes the header out of an INVITE, and `replaces` out of its `Require`: who takes it has to follow it.
    ///
    /// # Errors
    /// 400 when there are several, when one can't be read, and when `Join` stands beside it (section 3).
    pub fn take(invite: &mut Request) -> Result<Option<Self>, u16> {
        let headers = &mut invite.headers;
        let values: Vec<String> = headers.values(&HeaderName::Replaces).collect();
        let replaces = match &values[..] {
            [] => return Ok(None),
            [one] if !headers.has(&HeaderName::from("Join")) => Self::parse(one).ok_or(400_u16)?,
            _ => return Err(400),
        };
        headers.remove(&HeaderName::Replaces);
        let others: Vec<String> = headers
            .values(&HeaderName::Require)
            .filter(|tag| !tag.eq_ignore_ascii_case("replaces"))
            .collect();
        if others.is_empty() {
            headers.remove(&HeaderName::Require);
        } else {
            headers.set(HeaderName::Require, others.join(", "));
        }
        Ok(Some(replaces))
    }

    /// Whether it names this dialog of ours. A tag of `0` also stands for a peer that has none (section 6.1).
    pub fn names(&self, dialog: &DialogId) -> bool {
        let remote = self.from_tag == dialog.remote_tag
            || (self.from_tag == "0" && dialog.remote_tag.is_empty());
        self.call_id == dialog.call_id && self.to_tag == dialog.local_tag && remote
    }

    /// Whether a dialog that it names may be replaced (section 3).
    ///
    /// # Errors
    /// The status that refuses the INVITE: 603 when the call is over; 486 when it is answered and only an unanswered one
    /// was meant; 481 when it is unanswered and came to us, for only who called can be replaced then.
    pub fn check(&self, over: bool, answered: bool, ours: bool) -> Result<(), u16> {
        match (over, answered) {
            (true, _) => Err(603),
            (false, true) if self.early_only => Err(486),
            (false, false) if !ours => Err(481),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call_id,
            to_tag,
            from_tag,
            early_only,
        } = self;
        write!(f, "{call_id};to-tag={to_tag};from-tag={from_tag}")?;
        if *early_only {
            f.write_str(";early-only")?;
        }
        Ok(())
    }
}
