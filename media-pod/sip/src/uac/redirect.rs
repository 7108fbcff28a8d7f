//! Where else a call may be tried: the Contacts of a 3xx (RFC 3261 section 8.1.3.4), one after the other.

use std::collections::VecDeque;

use super::UacCall;
use crate::digest::Asked;
use crate::message::{NameAddr, Response, Uri};

/// Addresses that may be named in one call, the first counted.
const MAX_NAMED: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Alternatives {
    /// The best first.
    next: VecDeque<Uri>,
    /// All that were ever named, so that nobody is asked twice and a circle ends.
    named: Vec<Uri>,
}

impl Alternatives {
    /// Takes the Contacts of a 3xx, which are better than those that were named before. `from` is who said so.
    fn take(&mut self, from: &Uri, contacts: Vec<NameAddr>) {
        let mut contacts = contacts;
        // Stable, so that the order in the message decides between equals.
        contacts.sort_by(|one, other| priority(other).total_cmp(&priority(one)));
        if !self.named.contains(from) {
            self.named.push(from.clone());
        }
        let mut found = VecDeque::new();
        for contact in contacts {
            let mut uri = contact.uri;
            // Headers and a method would make another request of it (RFC 3261 section 19.1.5).
            uri.headers = None;
            uri.params.remove("method");
            // Whoever wants TLS on the whole way is not led away from it.
            let usable = uri.is_sip() && (uri.is_sips() || !from.is_sips());
            if usable && !self.named.contains(&uri) && self.named.len() < MAX_NAMED {
                self.named.push(uri.clone());
                found.push_back(uri);
            }
        }
        found.append(&mut self.next);
        self.next = found;
    }
}

/// The `q` of a Contact; without one, or with nonsense, 1.
fn priority(contact: &NameAddr) -> f64 {
    let q = contact.params.get("q").and_then(|q| q.parse().ok());
    q.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0)
}

impl UacCall {
    /// Tries the next address after a refusal, if redirections are followed and there is one left.
    pub(super) fn tries_elsewhere(&mut self, response: &Response) -> bool {
        // A 6xx speaks for everybody (RFC 3261 section 21.6).
        if !self.params.follow_redirects || response.status >= 600 {
            return false;
        }
        if response.status < 400 {
            let contacts = response.headers.contacts().unwrap_or_default();
            self.alternatives.take(&self.params.target, contacts);
        }
        let Some(target) = self.alternatives.next.pop_front() else {
            return false;
        };
        self.params.target = target;
        // What one server asked is nothing to another.
        self.asked = Asked::default();
        (self.early_media, self.early_media_of) = (None, None);
        self.send_invite(Vec::new());
        true
    }
}
