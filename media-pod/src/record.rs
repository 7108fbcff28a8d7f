//! One JSON record for each call, in the log.

use ringwire_config::Reason;

/// Everything that is told of a call when it is over. Times are RFC 3339 in UTC.
#[derive(Debug, Default)]
pub struct CallRecord {
    /// The Call-ID.
    pub call_id: String,
    /// When the INVITE came.
    pub start: Option<jiff::Timestamp>,
    /// When it was answered.
    pub answer: Option<jiff::Timestamp>,
    /// When it was over.
    pub end: Option<jiff::Timestamp>,
    /// The caller's user part.
    pub from: String,
    /// The caller's display name.
    pub from_display_name: Option<String>,
    /// Who the carrier says the caller is (`P-Asserted-Identity`).
    pub asserted_identity: Option<String>,
    /// What the caller wants withheld (`Privacy`), such as `id`.
    pub privacy: Option<String>,
    /// Who sent the call on to us last (`Diversion`, `History-Info`).
    pub diversion: Option<String>,
    /// The called number.
    pub to: String,
    /// The SipProvider.
    pub provider: Option<String>,
    /// The PhoneNumber.
    pub number: Option<String>,
    /// The VoiceAgent.
    pub agent: Option<String>,
    /// By which identifier the agent knows the call: AudioSocket's UUID, Twilio's `callSid`.
    pub agent_call_id: Option<String>,
    /// The codec.
    pub codec: Option<&'static str>,
    /// RTP packets received.
    pub packets_received: u64,
    /// RTP packets of the caller that never came.
    pub packets_lost: u64,
    /// RTP packets sent.
    pub packets_sent: u64,
    /// RTP packets of ours that the caller missed, if he told.
    pub packets_lost_remote: Option<u64>,
    /// Interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    pub jitter_millis: f64,
    /// `caller`, `agent`, `gateway`.
    pub ended_by: &'static str,
    /// Why it ended, or was refused.
    pub reason: Option<Reason>,
    /// The final response to the INVITE.
    pub status: u16,
    /// More for people, such as the caller's `Reason` header.
    pub detail: String,
    /// Where the call came from.
    pub source: String,
}

impl CallRecord {
    /// Writes the record.
    pub fn write(&self) {
        let time =
            |at: Option<jiff::Timestamp>| at.map(|at| format!("{at:.3}")).unwrap_or_default();
        tracing::info!(
            target: "ringwire::call",
            call_id = %self.call_id,
            start = %time(self.start),
            answer = %time(self.answer),
            end = %time(self.end),
            from = %self.from,
            from_display_name = self.from_display_name.as_deref(),
            asserted_identity = self.asserted_identity.as_deref(),
            privacy = self.privacy.as_deref(),
            diversion = self.diversion.as_deref(),
            to = %self.to,
            provider = self.provider.as_deref().unwrap_or_default(),
            number = self.number.as_deref().unwrap_or_default(),
            agent = self.agent.as_deref().unwrap_or_default(),
            agent_call_id = self.agent_call_id.as_deref(),
            codec = self.codec.unwrap_or_default(),
            packets_received = self.packets_received,
            packets_lost = self.packets_lost,
            packets_sent = self.packets_sent,
            packets_lost_remote = self.packets_lost_remote,
            jitter_millis = (self.jitter_millis * 10.0).round() / 10.0,
            ended_by = self.ended_by,
            reason = self.reason.map(Reason::as_str).unwrap_or_default(),
            status = self.status,
            detail = %self.detail,
            source = %self.source,
            "call"
        );
    }
}
