//! What became of a test call, and what that means: as text for people and as JSON for scripts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ringwire_config::Reason;
use ringwire_media::compare::Comparison;
use ringwire_media::stream::StreamStats;
use ringwire_sip::sdp::Codec;
use ringwire_sip::transaction::Transport;
use serde_json::{Value, json};

/// From this correlation on we speak of an echo.
const ECHO: f64 = 0.5;

/// Something that is told while the call runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The INVITE goes out.
    Calling {
        /// Whom we call.
        target: String,
        /// How.
        transport: Transport,
        /// From where.
        local: SocketAddr,
        /// To which address.
        remote: SocketAddr,
    },
    /// It was sent again.
    NoReplyYet {
        /// How often it was sent.
        tries: u32,
    },
    /// 401 or 407: it goes out again with credentials.
    Challenged,
    /// 180, 183 and so on.
    Ringing {
        /// The status.
        status: u16,
        /// Since the INVITE.
        after: Duration,
    },
    /// 200.
    Answered {
        /// Since the INVITE.
        after: Duration,
    },
    /// The other side pressed a key.
    Key(char),
    /// We end the call.
    HangingUp,
}

impl Progress {
    /// One line, without line feed.
    pub fn line(&self) -> String {
        match self {
            Self::Calling {
                target,
                transport,
                local,
                remote,
            } => {
                format!("calling {target} over {transport}, {local} -> {remote}")
            }
            Self::NoReplyYet { tries } => format!("  no reply yet, {tries} tries"),
            Self::Challenged => "  asked for user name and password".to_owned(),
            Self::Ringing { status: 180, after } => {
                format!("  ringing after {} ms", millis(*after))
            }
            Self::Ringing { status, after } => {
                format!("  progress {status} after {} ms", millis(*after))
            }
            Self::Answered { after } => format!("  answered after {} ms", millis(*after)),
            Self::Key(key) => format!("  key {key} received"),
            Self::HangingUp => "  hanging up".to_owned(),
        }
    }
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// We did.
    Us,
    /// The other side did.
    Peer,
    /// Nobody: there was no answer, or no way to it.
    Nobody,
}

/// Why there was no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A final response that is no success.
    Refused {
        /// Its status.
        status: u16,
        /// Its phrase.
        phrase: String,
    },
    /// Anything else, in words.
    Other(String),
}

/// All that is known of a call that is over.
pub struct Outcome {
    /// Whom we called.
    pub target: String,
    /// How.
    pub transport: Transport,
    /// Our SIP address.
    pub local: SocketAddr,
    /// Where the INVITE went.
    pub remote: SocketAddr,
    /// First 18x since the INVITE.
    pub ring: Option<Duration>,
    /// 200 since the INVITE; `None`: the call was not answered.
    pub setup: Option<Duration>,
    /// From the answer to the end.
    pub duration: Option<Duration>,
    /// The codec of the audio.
    pub codec: Option<Codec>,
    /// The counters of the audio.
    pub stats: Option<StreamStats>,
    /// What came back, compared with what was sent.
    pub echo: Option<Comparison>,
    /// Keys that were to be sent.
    pub keys: String,
    /// Whether they were: false if the other side takes none.
    pub keys_sent: bool,
    /// Keys that came.
    pub keys_received: String,
    /// Who ended it.
    pub ended_by: Ended,
    /// The `Reason` of the other side's BYE or refusal.
    pub reason: Option<String>,
    /// Its `Warning`.
    pub warning: Option<String>,
    /// Why it was not answered.
    pub failure: Option<Failure>,
    /// The file with the recording.
    pub recorded: Option<String>,
}

impl Outcome {
    /// Whether the audio came back at least this well.
    pub fn is_as_good_as(&self, min_correlation: f64) -> bool {
        self.echo
            .is_some_and(|echo| echo.correlation >= min_correlation)
    }

    /// For people; several lines.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, text: &str| {
            let _ = writeln!(out, "{name:<11}{text}");
        };
        match &self.failure {
            Some(Failure::Refused { status, phrase }) => {
                line(
                    "failed",
                    &format!("{status} {phrase}: {}", status_meaning(*status)),
                );
            }
            Some(Failure::Other(text)) => line("failed", text),
            None => {}
        }
        if let Some(setup) = self.setup {
            line(
                "set-up",
                &format!("{} ms from INVITE to 200", millis(setup)),
            );
        }
        if let (Some(codec), Some(stats)) = (self.codec, &self.stats) {
            line("codec", codec.name());
            line("sent", &format!("{} packets", stats.packets_sent));
            let jitter = stats.jitter_millis;
            line(
                "received",
                &format!(
                    "{} packets, {} lost, jitter {jitter:.1} ms{}",
                    stats.packets_received,
                    stats.packets_lost,
                    stats
                        .mos
                        .map_or_else(String::new, |mos| format!(", MOS {mos:.1}"))
                ),
            );
            let oddities: Vec<String> = [
                (stats.late, "too late"),
                (stats.duplicates, "twice"),
                (stats.rejected_source, "from a stranger"),
                (
                    stats.unknown_payload,
                    "of a payload type that was not agreed",
                ),
            ]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
            if !oddities.is_empty() {
                line("", &oddities.join(", "));
            }
            line("echo", &self.echo_text(stats));
        }
        if self.setup.is_some() && !self.keys.is_empty() {
            let keys = &self.keys;
            let none = "not sent: the other side agreed to no telephone-event";
            line(
                "keys",
                &if self.keys_sent {
                    format!("{keys} sent")
                } else {
                    format!("{keys} {none}")
                },
            );
        }
        if !self.keys_received.is_empty() {
            line("", &format!("{} received", self.keys_received));
        }
        if let Some(duration) = self.duration {
            let who = match self.ended_by {
                Ended::Us => "us",
                Ended::Peer => "the other side",
                Ended::Nobody => "nobody: the connection was lost",
            };
            line(
                "ended by",
                &format!("{who}, {:.1} s after the answer", duration.as_secs_f64()),
            );
        }
        if let Some(reason) = &self.reason {
            line("reason", reason);
            if let Some(known) = known_reason(reason) {
                line("", known.meaning());
            }
        }
        if let Some(warning) = &self.warning {
            line("warning", warning);
        }
        if let Some(file) = &self.recorded {
            line("recorded", file);
        }
        out
    }

    fn echo_text(&self, stats: &StreamStats) -> String {
        match &self.echo {
            _ if stats.packets_received == 0 => "no audio came back".to_owned(),
            Some(echo) if echo.correlation >= ECHO => {
                format!(
                    "correlation {:.3}, delay {:.0} ms",
                    echo.correlation,
                    echo.delay_millis()
                )
            }
            Some(echo) => format!(
                "none: what came back is something else (correlation {:.3})",
                echo.correlation
            ),
            None => "nothing to compare: what came back, or what was sent, is silence or too short"
                .to_owned(),
        }
    }

    /// For scripts; durations in milliseconds.
    pub fn json(&self) -> Value {
        let (status, phrase, failure) = match &self.failure {
            Some(Failure::Refused { status, phrase }) => (
                Some(*status),
                Some(phrase.clone()),
                Some(status_meaning(*status).to_owned()),
            ),
            Some(Failure::Other(text)) => (None, None, Some(text.clone())),
            None => (Some(200), None, None),
        };
        let stats = self.stats.as_ref();
        json!({
            "target": self.target,
            "transport": self.transport.as_str(),
            "local": self.local.to_string(),
            "remote": self.remote.to_string(),
            "answered": self.setup.is_some(),
            "status": status,
            "phrase": phrase,
            "failure": failure,
            "reason": self.reason,
            "reasonMeaning": self.reason.as_deref().and_then(known_reason).map(Reason::meaning),
            "warning": self.warning,
            "ringMillis": self.ring.map(milli_float),
            "setupMillis": self.setup.map(milli_float),
            "durationMillis": self.duration.map(milli_float),
            "codec": self.codec.map(Codec::name),
            "packetsSent": stats.map(|stats| stats.packets_sent),
            "packetsReceived": stats.map(|stats| stats.packets_received),
            "packetsLost": stats.map(|stats| stats.packets_lost),
            "jitterMillis": stats.map(|stats| round(stats.jitter_millis)),
            "mos": stats.and_then(|stats| stats.mos.map(round)),
            "echo": self.echo.map(|echo| json!({
                "correlation": (echo.correlation * 10_000.0).round() / 10_000.0,
                "delayMillis": echo.delay_millis(),
            })),
            "keysSent": if self.keys_sent { self.keys.as_str() } else { "" },
            "keysReceived": self.keys_received,
            "endedBy": match self.ended_by {
                Ended::Us => "us",
                Ended::Peer => "peer",
                Ended::Nobody => "nobody",
            },
            "recorded": self.recorded,
        })
    }
}

fn millis(duration: Duration) -> String {
    // Below ten milliseconds the fraction tells something.
    let value = duration.as_secs_f64() * 1000.0;
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn milli_float(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1000.0)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// One of our own reasons in the `text` of a `Reason` header.
fn known_reason(header: &str) -> Option<Reason> {
    let start = header.find("text=")? + "text=".len();
    let text = header[start..].trim_start_matches('"');
    let end = text
        .find(|letter: char| !letter.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == &text[..end])
}

/// What a refusal means for whoever tries a trunk or a number.
fn status_meaning(status: u16) -> &'static str {
    match status {
        300..=399 => "the call should go elsewhere; --follow-redirects goes there",
        400 => "the other side could not read the INVITE",
        401 | 407 => {
            "user name and password are wanted, or are wrong (--username, --password-file)"
        }
        403 => "this address or this caller may not call there",
        404 => "nobody there has this number",
        408 => "no one answered in time",
        415 | 488 | 606 => "the audio that was offered is not wanted (codec or encryption)",
        420 => "the other side does not know an extension that was required",
        480 => "the number exists, but who should answer cannot be reached now",
        481 => "the other side does not know this call",
        482 | 483 => "the call runs in a circle between proxies",
        484 => "the number is incomplete",
        486 | 600 => "the line is busy",
        487 => "the call was given up before it was answered",
        500..=502 | 504..=599 => "the other side has a fault of its own",
        503 => {
            "the other side takes no calls now: stopping, overloaded, or without a way to the agent"
        }
        603 => "the call was declined",
        _ => "the call was refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn outcome() -> Outcome {
        let address = "127.0.0.1:5060".parse().unwrap();
        Outcome {
            target: "sip:1@127.0.0.1".to_owned(),
            transport: Transport::Udp,
            local: address,
            remote: address,
            ring: None,
            setup: Some(Duration::from_micros(6_400)),
            duration: Some(Duration::from_secs(6)),
            codec: Some(Codec::Pcmu),
            stats: Some(StreamStats {
                packets_sent: 300,
                packets_received: 298,
                packets_lost: 2,
                ..StreamStats::default()
            }),
            echo: Some(Comparison {
                delay_samples: 800,
                correlation: 0.998,
            }),
            keys: "1#".to_owned(),
            keys_sent: false,
            keys_received: String::new(),
            ended_by: Ended::Us,
            reason: None,
            warning: None,
            failure: None,
            recorded: None,
        }
    }

    #[test]
    fn tells_a_good_call_in_a_few_lines() {
        let text = outcome().text();
        for expected in [
            "set-up     6.4 ms from INVITE to 200\n",
            "received   298 packets, 2 lost, jitter 0.0 ms\n",
            "echo       correlation 0.998, delay 100 ms\n",
            "keys       1# not sent: the other side agreed to no telephone-event\n",
            "ended by   us, 6.0 s after the answer\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn explains_a_refusal_and_one_of_our_own_reasons() {
        let mut outcome = outcome();
        outcome.failure = Some(Failure::Refused {
            status: 480,
            phrase: "Temporarily Unavailable".to_owned(),
        });
        outcome.reason = Some("SIP;cause=480;text=\"AgentTimeout\"".to_owned());
        let text = outcome.text();
        assert!(
            text.starts_with("failed     480 Temporarily Unavailable: the number exists"),
            "{text}"
        );
        assert!(text.contains(Reason::AgentTimeout.meaning()), "{text}");
        assert_eq!(
            outcome.json()["reasonMeaning"],
            Reason::AgentTimeout.meaning()
        );
    }

    #[test]
    fn knows_only_whole_names_of_reasons() {
        assert_eq!(
            known_reason("SIP;cause=200;text=MaxDuration"),
            Some(Reason::MaxDuration)
        );
        for text in [
            "Q.850;cause=16",
            "SIP;text=\"no agent\"",
            "SIP;text=\"MaxDurationX\"",
        ] {
            assert_eq!(known_reason(text), None, "{text}");
        }
    }

    #[test]
    fn speaks_of_an_echo_only_when_there_is_one() {
        let mut outcome = outcome();
        outcome.echo = Some(Comparison {
            delay_samples: 5,
            correlation: 0.1,
        });
        assert!(outcome.text().contains("echo       none: "));
        assert!(!outcome.is_as_good_as(0.2));
        outcome.stats = Some(StreamStats::default());
        assert!(outcome.text().contains("no audio came back"));
    }
}
