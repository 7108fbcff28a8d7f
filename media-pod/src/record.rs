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
    /// How media was encrypted, by the name of the suite; none: it was not.
    pub encryption: Option<&'static str>,
    /// RTP packets received.
    pub packets_received: u64,
    /// RTP packets of the caller that never came.
    pub packets_lost: u64,
    /// RTP packets sent.
    pub packets_sent: u64,
    /// RTP packets of ours that the caller missed, if he told.
    pub packets_lost_remote: Option<u64>,
    /// Packets that were not made with the key that was agreed on.
    pub packets_not_authentic: u64,
    /// Interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    pub jitter_millis: f64,
    /// How long a packet takes to the caller and back, in milliseconds, if his reports tell.
    pub round_trip_millis: Option<f64>,
    /// Estimate of how well the agent hears the caller: a mean opinion score, 1 to 4.4 (ITU-T G.107). None if nothing came.
    pub mos: Option<f64>,
    /// The same of how well the caller hears the agent, if his reports tell.
    pub mos_remote: Option<f64>,
    /// Which direction had no sound: `from the caller`, `to the caller`.
    pub one_way: Option<&'static str>,
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

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
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
            encryption = self.encryption,
            packets_received = self.packets_received,
            packets_lost = self.packets_lost,
            packets_sent = self.packets_sent,
            packets_lost_remote = self.packets_lost_remote,
            packets_not_authentic = self.encryption.map(|_| self.packets_not_authentic),
            jitter_millis = tenths(self.jitter_millis),
            round_trip_millis = self.round_trip_millis.map(tenths),
            mos = self.mos.map(tenths),
            mos_remote = self.mos_remote.map(tenths),
            one_way = self.one_way,
            ended_by = self.ended_by,
            reason = self.reason.map(Reason::as_str).unwrap_or_default(),
            status = self.status,
            detail = %self.detail,
            source = %self.source,
            "call"
        );
    }
}
