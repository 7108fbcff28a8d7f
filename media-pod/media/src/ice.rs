//! ICE of one who only answers (RFC 8445 section 2.5, "lite"): the peer finds a way to us by checks, and says which one it wants.
//!
//! [`Agent`] answers checks for one call, [`Paths`] keeps what they showed. Who does not know the call's password gets no further than
//! [`Agent::check`]. Which of the calls on a port is meant says the user name in a check ([`crate::ports::demux`]).

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::ports::demux::Bucket;
use crate::stun::{Message, Reply};

/// Addresses of a peer that are known at a time.
const MAX_PATHS: usize = 8;
/// An address that is not in use is good for so long after a check (the time of RFC 7675 section 5.1).
const GOOD_FOR: Duration = Duration::from_secs(30);
/// A peer that nominates several addresses at the same time repeats each more often than that.
const NOMINATED_FOR: Duration = Duration::from_secs(5);
/// Moves a second that are followed: each is told, and known to all who share the port. A peer that is serious nominates again.
const MOVES: u32 = 8;
/// Refusals a second that are answered.
const REFUSALS: u32 = 10;

/// What offer and answer agreed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Terms {
    /// Our name in checks.
    pub ufrag: String,
    /// Our password.
    pub password: Zeroizing<String>,
    /// Reports go where RTP does.
    pub muxed: bool,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("ufrag", &self.ufrag)
            .field("muxed", &self.muxed)
            .finish_non_exhaustive()
    }
}

/// Which of a call's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// 1
    Rtp,
    /// 2
    Reports,
}

/// What a check showed: the peer is where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// How good the way is for the peer.
    pub priority: u32,
    /// It wants this one.
    pub nominates: bool,
}

/// Answers checks.
pub struct Agent {
    terms: Terms,
    key: hmac::Key,
    refusals: Bucket,
}

impl Agent {
    /// With what was agreed on.
    pub fn new(terms: &Terms) -> Self {
        let password = terms.password.as_bytes();
        Self {
            terms: terms.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password),
            refusals: Bucket::default(),
        }
    }

    /// What was agreed on.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Looks at a request: the answer, if there is one, and what it proves.
    pub fn check(
        &mut self,
        request: &Message<'_>,
        from: SocketAddr,
        now: Instant,
    ) -> (Option<Reply>, Option<Proof>) {
        if !request.is_request() || request.ufrag() != Some(self.terms.ufrag.as_str()) {
            return (None, None);
        }
        match request.verify(&self.key) {
            Ok(()) => {
                let proof = Proof {
                    priority: request.priority(),
                    nominates: request.nominates(),
                };
                (Some(request.accept(from, &self.key)), Some(proof))
            }
            Err(refusal) => {
                let may = self.refusals.take(REFUSALS, now);
                (may.then(|| request.refuse(refusal, &self.key)), None)
            }
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Path {
    address: SocketAddr,
    priority: u32,
    checked: Instant,
    nominated: Option<Instant>,
}

/// Where a peer is, as its checks have shown.
#[derive(Debug, Default)]
pub struct Paths {
    all: Vec<Path>,
    chosen: Option<SocketAddr>,
    /// There are new credentials, and no way has been nominated with them (RFC 8445 section 9): the old one stays until then.
    restarted: bool,
    moves: Bucket,
}

impl Paths {
    /// Whether a check has come.
    pub fn is_known(&self) -> bool {
        self.chosen.is_some()
    }

    /// Where packets go: to what was nominated, or before that where the first check came from.
    pub fn chosen(&self) -> Option<SocketAddr> {
        self.chosen
    }

    /// Whether packets from there are the peer's.
    pub fn has(&self, from: SocketAddr, now: Instant) -> bool {
        self.chosen == Some(from)
            || self.all.iter().any(|path| {
                path.address == from && now.saturating_duration_since(path.checked) < GOOD_FOR
            })
    }

    /// All that are known.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let chosen = self.chosen.into_iter();
        chosen.chain(self.all.iter().map(|path| path.address))
    }

    /// New credentials.
    pub fn restart(&mut self) {
        self.restarted = self.is_known();
    }

    /// A check from there was good. Whether anything is known now that was not.
    pub fn note(&mut self, from: SocketAddr, proof: Proof, now: Instant) -> bool {
        let known = self.all.iter().position(|path| path.address == from);
        let at = known.unwrap_or_else(|| self.add(from, now));
        let Some(path) = self.all.get_mut(at) else {
            return false;
        };
        (path.priority, path.checked) = (proof.priority, now);
        let before = self.chosen;
        if proof.nominates {
            let again = path.nominated.replace(now).is_some();
            let wanted = self.restarted || !again || !self.is_outranked(proof.priority, now);
            let moves = before.is_some_and(|before| before != from);
            if wanted && (!moves || self.moves.take(MOVES, now)) {
                self.chosen = Some(from);
                if std::mem::take(&mut self.restarted) {
                    self.all.retain(|path| path.address == from);
                    return true;
                }
            }
        }
        self.chosen.get_or_insert(from);
        known.is_none() || before != self.chosen
    }

    /// Whether the peer still nominates a better one, too: one that nominates whatever it finds (RFC 5245 section 8.1.1.2) wants the best.
    fn is_outranked(&self, priority: u32, now: Instant) -> bool {
        self.all.iter().any(|path| {
            let fresh = |at| now.saturating_duration_since(at) < NOMINATED_FOR;
            self.chosen == Some(path.address)
                && path.priority > priority
                && path.nominated.is_some_and(fresh)
        })
    }

    fn add(&mut self, address: SocketAddr, now: Instant) -> usize {
        if self.all.len() >= MAX_PATHS {
            let unused = self.all.iter().enumerate();
            let oldest = unused
                .filter(|(_, path)| self.chosen != Some(path.address))
                .min_by_key(|(_, path)| path.checked);
            if let Some((at, _)) = oldest {
                self.all.swap_remove(at);
            }
        }
        self.all.push(Path {
            address,
            priority: 0,
            checked: now,
            nominated: None,
        });
        self.all.len() - 1
    }
}

#[cfg(test)]
#[path = "ice_tests.rs"]
mod tests;
