//! Keys and checks: which packets are the peer's, and which way leads to him.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Checked, RtpStream, StreamEvent, first_sequence};
use crate::cover::Protection;
use crate::ice::{self, Agent, Component, Paths};
use crate::stun;

impl RtpStream {
    /// How packets are protected from now on. Keys that stay the same go on as they are.
    pub fn protect(&mut self, protection: &Protection, now: Instant) {
        if self.cover.change(protection, now) {
            self.begin_anew();
        }
        self.beside.protect(protection);
        self.follow_reports(now);
        self.transmit.clear();
    }

    /// What is agreed on for ICE from now on. With other credentials the peer begins its checks anew (RFC 8445 section 9); until it has
    /// nominated one, packets go where they did.
    pub fn set_ice(&mut self, terms: Option<&ice::Terms>, now: Instant) {
        if self.ice.as_ref().map(|agent| agent.terms()) == terms {
            return;
        }
        self.ice = terms.map(|terms| Box::new(Agent::new(terms)));
        self.source
            .set_ufrag(terms.map(|terms| terms.ufrag.as_str()));
        if terms.is_some() {
            self.report_paths.restart();
        } else {
            self.report_paths = Paths::default();
        }
        // With ICE or without, reports may have another port than before.
        self.follow_reports(now);
    }

    /// Takes a check that came to one of the call's ports.
    pub fn take_check(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        component: Component,
        now: Instant,
    ) -> Checked {
        let (Some(agent), Some(request)) = (&mut self.ice, stun::Message::read(datagram)) else {
            return Checked::default();
        };
        let (reply, proof) = agent.check(&request, from, now);
        if let Some(proof) = proof {
            match component {
                Component::Rtp => {
                    if let Some((from, to)) = self.source.note_check(from, proof, now) {
                        self.events.push_back(StreamEvent::SourceMoved { from, to });
                    }
                }
                Component::Reports => {
                    self.report_paths.note(from, proof, now);
                }
            }
        }
        Checked {
            reply,
            good: proof.is_some(),
        }
    }

    /// Under a new key.
    fn begin_anew(&mut self) {
        // A peer may begin the roll-over counter anew with a key, or keep it (RFC 3711 section 3.3.1): of a new stream it is zero.
        self.ssrc = self.ssrc.wrapping_add(1);
        self.sequence = first_sequence(self.sequence, &self.cover);
        self.marker = true;
        self.transmit.clear();
        self.drop_second();
        self.flow.stopped_sending();
    }

    pub(super) fn take_handshake(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        // A stranger could only spoil it.
        if !self.source.expects(from) {
            return self.source.note_stranger();
        }
        if self.cover.take_handshake(datagram, from, now) {
            self.begin_anew();
        }
        self.tell_failure();
    }

    pub(super) fn tell_failure(&mut self) {
        if let Some(detail) = self.cover.take_failure() {
            self.events.push_back(StreamEvent::EncryptionFailed(detail));
        }
    }

    /// The next datagram of a handshake, of which port it is, and where to.
    pub fn poll_handshake(&mut self) -> Option<(Component, Vec<u8>, SocketAddr)> {
        let both = [Component::Rtp, Component::Reports];
        both.into_iter()
            .find_map(|component| self.poll_handshake_of(component))
    }

    fn poll_handshake_of(&mut self, of: Component) -> Option<(Component, Vec<u8>, SocketAddr)> {
        let told = match of {
            Component::Rtp => self.source.destination(),
            Component::Reports => self.reports_go_to(),
        };
        if self.ice.is_some() && told.is_none() {
            // It waits for the first check.
            return None;
        }
        let cover = match of {
            Component::Rtp => &mut self.cover,
            Component::Reports => self.beside.cover()?,
        };
        let (datagram, peer) = cover.poll_handshake()?;
        let peer = peer.filter(|_| !self.source.is_checked());
        Some((of, datagram, peer.or(told)?))
    }

    /// Tries a packet of an unknown source on the call's key, and takes it if it fits. It is not to be read any more.
    pub fn prove(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) -> bool {
        if !self.cover.has_keys() {
            return false;
        }
        let opened = self.cover.open_rtp(datagram);
        if let Ok(length) = opened {
            self.receive(&datagram[..length], from, now);
        }
        opened.is_ok()
    }
}
