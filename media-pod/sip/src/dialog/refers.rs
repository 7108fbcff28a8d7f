//! REFER inside a call (RFC 3515): the way between [`crate::refer`] and the dialog.

use std::time::Instant;

use super::RespondTo;
use super::outbox::Outbox;
use super::refusal::{SUPPORTED, SUPPORTED_WITH_REPLACES};
use super::session::{ALLOW, ALLOW_WITH_REFER, Session};
use crate::message::{HeaderName, Request};
use crate::refer::{ReferId, Referral, Refers, Scene};

impl Session {
    /// The methods that we take.
    pub fn allow(&self) -> &'static str {
        if self.refers.taken {
            ALLOW_WITH_REFER
        } else {
            ALLOW
        }
    }

    /// The extensions that we know.
    pub fn supported(&self) -> &'static str {
        if self.replaceable {
            SUPPORTED_WITH_REPLACES
        } else {
            SUPPORTED
        }
    }

    fn scene<'a>(&'a mut self, out: &'a mut Outbox) -> (&'a mut Refers, Scene<'a>) {
        let scene = Scene {
            dialog: &mut self.dialog,
            product: &self.own.product,
            out,
        };
        (&mut self.refers, scene)
    }

    /// A REFER of the peer's, or a NOTIFY on ours.
    pub(super) fn on_refer_or_notify(
        &mut self,
        to: RespondTo,
        request: &Request,
        now: Instant,
        out: &mut Outbox,
    ) {
        let notify = request.method.as_str() == "NOTIFY";
        let (refers, mut scene) = self.scene(out);
        let taken = if notify {
            refers.sent().on_notify(request, now, &mut scene)
        } else {
            refers.received().on_refer(to, request, &mut scene)
        };
        let status = match taken {
            Ok(()) if notify => 200,
            // The owner decides.
            Ok(()) => return,
            Err(status) => status,
        };
        let mut response = self.reply(request, status, None);
        if status == 489 {
            response
                .headers
                .push(HeaderName::from("Allow-Events"), "refer");
        }
        out.respond(to, response);
    }

    /// The owner's decision on a REFER: 202 and the first NOTIFY, or 603.
    pub fn answer_refer(&mut self, id: ReferId, accept: bool, now: Instant, out: &mut Outbox) {
        let first = self.refers.received().is_first();
        let Some((to, response)) = self.refers.received().decide(id, accept) else {
            return;
        };
        let mut response = self.finish(response);
        if accept {
            response
                .headers
                .push(HeaderName::Contact, self.dialog.contact().to_string());
        }
        out.respond(to, response);
        if accept {
            let (refers, mut scene) = self.scene(out);
            refers.received().begin(id, first, now, &mut scene);
        }
    }

    /// Reports on the call that a REFER asked for.
    pub fn refer_progress(&mut self, id: ReferId, status: u16, now: Instant, out: &mut Outbox) {
        let (refers, mut scene) = self.scene(out);
        refers.received().progress(id, status, now, &mut scene);
    }

    /// Sends a REFER.
    pub fn refer(&mut self, referral: &Referral, out: &mut Outbox) -> Option<ReferId> {
        if out.ended || !self.established || self.bye_token().is_some() {
            return None;
        }
        let (refers, mut scene) = self.scene(out);
        refers.sent().refer(referral, &mut scene)
    }

    pub(super) fn on_refer_outcome(
        &mut self,
        token: u64,
        status: Option<u16>,
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let (refers, mut scene) = self.scene(out);
        refers.on_outcome(token, status, now, &mut scene)
    }

    pub(super) fn refers_timeout(&mut self, now: Instant, out: &mut Outbox) {
        let (refers, mut scene) = self.scene(out);
        refers.handle_timeout(now, &mut scene);
    }

    /// The call ends: nobody is left in the dark.
    pub(super) fn end_refers(&mut self, out: &mut Outbox) {
        self.refers.sent().end();
        if let Some((to, response)) = self.refers.received().end() {
            out.respond(to, self.finish(response));
        }
    }
}
