//! Reports about packets (RTCP), both ways.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Codec, RtpStream, StreamEvent};
use crate::cover::Cover;
use crate::dtls;
use crate::rtcp::{self, REPORT_BYTES};
use crate::stun;

impl RtpStream {
    /// Takes a datagram of the RTCP port as it came. It is not to be read any more.
    pub fn take_report(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant) {
        if self.ice.is_some() && stun::is_meant(datagram) {
            return;
        }
        let known = self.knows_reporter(from, now);
        if self.cover.shakes_hands() && dtls::Handshake::is_meant(datagram) {
            // As with the sound, a stranger could only spoil it. If it fails there are no reports, and that is all.
            if let Some(cover) = self.beside.cover().filter(|_| known) {
                cover.take_handshake(datagram, from, now);
            }
            return;
        }
        match self.report_cover().map(|cover| cover.open_rtcp(datagram)) {
            Some(Ok(length)) => self.receive_report(&datagram[..length], from, now),
            Some(Err(_)) | None => self.stats.not_authentic += 1,
        }
    }

    /// What stands before reports. None where they have a port of their own and no keys for it: those of the sound are not for them.
    fn report_cover(&mut self) -> Option<&mut Cover> {
        let apart = self.cover.shakes_hands() && !self.is_muxed();
        match self.beside.cover() {
            Some(cover) => Some(cover),
            None => Some(&mut self.cover).filter(|_| !apart),
        }
    }

    /// Whether reports may come from there.
    fn knows_reporter(&self, from: SocketAddr, now: Instant) -> bool {
        if self.source.is_checked() {
            return self.source.expects(from) || self.report_paths.has(from, now);
        }
        let rtp = self.source.destination();
        self.source.is_named(from.ip()) || rtp.is_some_and(|rtp| rtp.ip() == from.ip())
    }

    /// Takes a datagram of the RTCP port, in the clear. Strangers are not listened to; nothing here moves the RTP.
    pub fn receive_report(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let known = self.knows_reporter(from, now);
        let Some(heard) = rtcp::read(datagram, self.ssrc).filter(|_| known) else {
            return;
        };
        if !self.is_muxed() {
            self.reporter = Some(from);
        }
        if let Some(reports) = &mut self.reports {
            reports.heard(&heard, now);
        }
        if let Some(missing) = self.flow.reported(&heard, now) {
            self.events.push_back(StreamEvent::OneWay(missing));
        }
        if let Some(block) = heard.about_us {
            self.stats.packets_lost_remote = Some(block.lost.max(0).cast_unsigned().into());
        }
    }

    /// Whether reports go where RTP does (RFC 5761).
    pub fn is_muxed(&self) -> bool {
        if let Some(agent) = &self.ice {
            return agent.terms().muxed;
        }
        self.session.remote.is_some() && self.session.remote_rtcp == self.session.remote
    }

    /// The report that is due, if one is: its length in `out`, and where to. That is where the peer's own come from, else the port after
    /// that of its RTP (RFC 3550 section 11).
    pub fn poll_report(
        &mut self,
        out: &mut [u8; REPORT_BYTES],
        now: Instant,
    ) -> Option<(usize, SocketAddr)> {
        let reports = self.reports.as_mut()?;
        if reports.due()? > now {
            return None;
        }
        let sent = (
            self.stats.packets_sent,
            self.stats.octets_sent,
            self.timestamp,
        );
        let mut block = self.reception.report();
        if let Some(block) = &mut block {
            // It was counted at 8,000 ticks a second.
            let ratio = self.session.codec.clock_rate() / Codec::Pcmu.clock_rate();
            block.jitter = block.jitter.saturating_mul(ratio);
        }
        let length = reports.write(out, self.ssrc, sent, block, now);
        let to = self.reports_go_to()?;
        let length = self.report_cover()?.seal_rtcp(out, length)?;
        Some((length, to))
    }

    /// Where reports go, if it is known.
    pub(super) fn reports_go_to(&self) -> Option<SocketAddr> {
        let beside = |rtp: SocketAddr| SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1));
        if self.is_muxed() {
            self.source.destination()
        } else if self.ice.is_some() {
            self.report_paths.chosen().or(self.reporter)
        } else {
            self.reporter
                .or(self.session.remote_rtcp)
                .or_else(|| self.source.destination().map(beside))
        }
    }

    /// Which port reports have, and so which keys, may have changed.
    pub(super) fn follow_reports(&mut self, now: Instant) {
        let apart = self.reports.is_some() && !self.is_muxed();
        self.beside.follow(apart, now);
    }
}
