//! The keys of reports that have a port of their own, where keys come from a handshake: each port has its own (RFC 5764 section 4.2).
//! Without them no report leaves or is taken; the sound goes on.

use std::time::Instant;

use crate::cover::{Cover, Protection};
use crate::dtls::Terms;

/// See the module.
#[derive(Debug, Default)]
pub struct Beside {
    terms: Option<Terms>,
    /// They were said (again) since the handshake began.
    said: bool,
    cover: Option<Box<Cover>>,
}

impl Beside {
    /// How the sound is protected from now on.
    pub fn protect(&mut self, protection: &Protection) {
        self.terms = match protection {
            Protection::Handshake(terms) => Some(terms.clone()),
            _ => None,
        };
        self.said = true;
    }

    /// Whether reports have a port of their own now. One more handshake begins where it is needed; one that goes on, or is over, stays.
    pub fn follow(&mut self, apart: bool, now: Instant) {
        let Some(terms) = self.terms.as_ref().filter(|_| apart) else {
            self.cover = None;
            return;
        };
        // One that has failed is not begun again unasked.
        let said = std::mem::take(&mut self.said);
        if self.cover.is_some() && !said {
            return;
        }
        let protection = Protection::Handshake(terms.clone());
        match &mut self.cover {
            Some(cover) => {
                cover.change(&protection, now);
            }
            None => self.cover = Some(Box::new(Cover::new(&protection, now))),
        }
    }

    /// What stands between these reports and the network, if it is not what stands before the sound.
    pub fn cover(&mut self) -> Option<&mut Cover> {
        self.cover.as_deref_mut()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cover.as_ref()?.poll_timeout()
    }

    /// Repeats what of the handshake was not answered.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(cover) = &mut self.cover {
            cover.handle_timeout(now);
        }
    }
}
