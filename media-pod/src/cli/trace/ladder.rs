//! How messages look: carriers on the left, the registrar in the middle, media pods on the right, time downwards.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::trace::entry::{Entry, Line, Peer};

/// Width of the left lane: an IPv4 address with its port.
const LEFT: usize = 21;

/// Width of an arrow.
const ARROW: usize = 26;

/// A registrar's name grows its lane up to this.
const MAX_MIDDLE: usize = 48;

/// Prints lines. It remembers how wide its lanes have become.
pub struct Ladder {
    colours: bool,
    zone: TimeZone,
    left: usize,
    middle: usize,
}

/// A colour by its terminal code.
#[derive(Clone, Copy)]
struct Colour(&'static str);

const DIM: Colour = Colour("2");
const REQUEST: Colour = Colour("36");
const GOOD: Colour = Colour("32");
const PROVISIONAL: Colour = Colour("33");
const BAD: Colour = Colour("31");

impl Ladder {
    /// A ladder; times are shown in `zone`.
    pub fn new(colours: bool, zone: TimeZone) -> Self {
        Self {
            colours,
            zone,
            left: LEFT,
            middle: 0,
        }
    }

    /// A line as text, with line feeds.
    pub fn print(&mut self, line: &Line) -> String {
        match line {
            Line::Listening { pod, version } => {
                self.widen(pod);
                self.paint(
                    DIM,
                    &format!("-- following {} ({})", clean(pod), clean(version)),
                ) + "\n"
            }
            Line::Lost { pod, messages, .. } => {
                let text = format!(
                    "-- {messages} messages of {} came too fast and are not shown",
                    clean(pod)
                );
                self.paint(BAD, &text) + "\n"
            }
            Line::Refused { reason } => self.paint(BAD, &format!("-- {}", clean(reason))) + "\n",
            Line::Message(entry) => self.message(entry),
        }
    }

    fn widen(&mut self, pod: &str) {
        self.middle = self.middle.max(pod.chars().count()).min(MAX_MIDDLE);
    }

    fn message(&mut self, entry: &Entry) -> String {
        self.widen(&entry.pod);
        let inwards = entry.to == entry.pod;
        let other = clean(if inwards { &entry.from } else { &entry.to });
        let pod = clean(&entry.pod);
        let (label, colour) = label(entry);
        let time = entry
            .time
            .to_zoned(self.zone.clone())
            .strftime("%H:%M:%S.%6f")
            .to_string();
        let mut text = self.paint(DIM, &time) + "  ";
        match entry.peer {
            Peer::Outside => {
                self.left = self.left.max(other.chars().count());
                let arrow = self.paint(colour, &arrow(&label, inwards));
                let _ = write!(text, "{other:>width$} {arrow} {pod}", width = self.left);
            }
            Peer::MediaPod => {
                let indent = self.left + 1 + ARROW + 1;
                let arrow = self.paint(colour, &arrow(&label, !inwards));
                let _ = write!(
                    text,
                    "{:indent$}{pod:<width$} {arrow} {other}",
                    "",
                    width = self.middle
                );
            }
        }
        text.push('\n');
        for detail in Self::details(entry) {
            let _ = writeln!(text, "{:17}{}", "", self.paint(DIM, &detail));
        }
        if let Some(message) = &entry.message {
            for line in message.lines() {
                let _ = writeln!(text, "{:17}{}", "", clean(line));
            }
            text.push('\n');
        }
        text
    }

    /// What else there is to say, a line each: whose call, headers, media.
    fn details(entry: &Entry) -> Vec<String> {
        let mut first = Vec::new();
        if let Some(cseq) = entry.cseq {
            first.push(format!("CSeq {cseq} {}", entry.method));
        }
        if !entry.call_id.is_empty() {
            first.push(format!("Call-ID {}", entry.call_id));
        }
        if entry.peer == Peer::Outside {
            first.push(entry.transport.clone());
        }
        if let Some(provider) = &entry.provider {
            first.push(format!("provider {provider}"));
        }
        if let Some(number) = &entry.number {
            first.push(format!("number {number}"));
        }
        let mut lines = vec![first.join("  ")];
        // With the whole message below, the rest would be said twice.
        if entry.message.is_none() {
            if let Some(uri) = &entry.uri {
                lines.push(format!("{} {uri}", entry.method));
            }
            let headers = entry
                .headers
                .iter()
                .filter(|(name, _)| is_telling(entry, name));
            lines.extend(headers.map(|(name, value)| format!("{name}: {value}")));
            lines.extend(entry.media.iter().map(|media| format!("SDP: {media}")));
        }
        lines.retain(|line| !line.is_empty());
        lines.iter().map(|line| clean(line)).collect()
    }

    fn paint(&self, Colour(code): Colour, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Who calls whom is told once, by the request; challenges and software do not change either.
fn is_telling(entry: &Entry, name: &str) -> bool {
    match name {
        "From" | "To" | "User-Agent" => {
            entry.uri.is_some()
                && matches!(
                    entry.method.as_str(),
                    "INVITE" | "REGISTER" | "REFER" | "MESSAGE"
                )
        }
        "Server" => entry.status.is_some_and(|status| status >= 300),
        "Contact" => entry.uri.is_some() || entry.status.is_some_and(|status| status >= 200),
        _ => true,
    }
}

/// What stands on the arrow.
fn label(entry: &Entry) -> (String, Colour) {
    let again = if entry.again { " (again)" } else { "" };
    match (entry.status, &entry.uri) {
        (Some(status), _) => {
            let colour = match status {
                ..200 => PROVISIONAL,
                200..300 => GOOD,
                _ => BAD,
            };
            (
                clean(format!("{status} {}{again}", entry.reason).trim_end()),
                colour,
            )
        }
        (None, Some(_)) => (clean(&format!("{}{again}", entry.method)), REQUEST),
        (None, None) => (clean(&entry.reason), BAD),
    }
}

/// An arrow with its label in the middle: `───── INVITE ────▶`. A label that is too long makes a longer one.
fn arrow(label: &str, rightwards: bool) -> String {
    let room = ARROW.saturating_sub(label.chars().count() + 3).max(2);
    let (before, behind) = ("─".repeat(room / 2), "─".repeat(room - room / 2));
    if rightwards {
        format!("{before} {label} {behind}▶")
    } else {
        format!("◀{before} {label} {behind}")
    }
}

/// Text of strangers, without what a terminal would obey.
fn clean(text: &str) -> String {
    let harmless = |c: char| match c {
        '\t' => ' ',
        // The marks that turn the direction of writing make a line read otherwise than it is.
        c if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
        {
            '�'
        }
        c => c,
    };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ringwire_config::ObjectRef;

    use super::*;

    fn entry(from: &str, to: &str, method: &str, status: Option<u16>, reason: &str) -> Entry {
        Entry {
            time: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            pod: "registrar".into(),
            from: from.into(),
            to: to.into(),
            peer: if [from, to].contains(&"media-0") {
                Peer::MediaPod
            } else {
                Peer::Outside
            },
            transport: "UDP".into(),
            method: method.into(),
            uri: status
                .is_none()
                .then(|| "sip:+34911234567@192.0.2.1".into()),
            status,
            reason: reason.into(),
            cseq: Some(1),
            call_id: "abc@h".into(),
            again: false,
            provider: Some(ObjectRef::new("default", "netelip")),
            number: None,
            headers: BTreeMap::from([
                ("From".into(), "<sip:600111222@h>;tag=1".into()),
                ("Reason".into(), "Q.850;cause=16".into()),
            ]),
            media: None,
            message: None,
        }
    }

    fn print(entries: Vec<Entry>) -> Vec<String> {
        let mut ladder = Ladder::new(false, TimeZone::UTC);
        let text: String = entries
            .into_iter()
            .map(|entry| ladder.print(&Line::Message(Box::new(entry))))
            .collect();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lanes_stand_one_below_the_other() {
        let lines = print(vec![
            entry("203.0.113.5:5060", "registrar", "INVITE", None, ""),
            entry("registrar", "media-0", "INVITE", None, ""),
            entry("media-0", "registrar", "INVITE", Some(180), "Ringing"),
            entry(
                "registrar",
                "203.0.113.5:5060",
                "INVITE",
                Some(180),
                "Ringing",
            ),
        ]);
        let arrows: Vec<&str> = lines
            .iter()
            .filter(|line| line.contains("──"))
            .map(String::as_str)
            .collect();
        assert_eq!(
            arrows,
            [
                "03:04:05.678901       203.0.113.5:5060 ──────── INVITE ─────────▶ registrar",
                "03:04:05.678901                                                   registrar ──────── INVITE ─────────▶ media-0",
                "03:04:05.678901                                                   registrar ◀────── 180 Ringing ────── media-0",
                "03:04:05.678901       203.0.113.5:5060 ◀────── 180 Ringing ────── registrar",
            ]
        );
        assert_eq!(
            lines[1].trim(),
            "CSeq 1 INVITE  Call-ID abc@h  UDP  provider default/netelip"
        );
        assert_eq!(lines[2].trim(), "INVITE sip:+34911234567@192.0.2.1");
        assert_eq!(lines[3].trim(), "From: <sip:600111222@h>;tag=1");
    }

    #[test]
    fn who_calls_whom_is_not_repeated_by_answers() {
        let lines = print(vec![entry("a", "registrar", "BYE", Some(200), "OK")]);
        assert!(
            lines.iter().all(|line| !line.contains("From:")),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("Reason: Q.850")),
            "{lines:?}"
        );
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_strangers() {
        let mut wild = entry(
            "203.0.113.5:5060",
            "registrar",
            "INVITE",
            Some(486),
            "\x1b[2J\u{202e}Busy\r\n",
        );
        wild.message = Some("SIP/2.0 486 \x1b]0;x\x07\r\nSubject: \u{9b}31m\r\n".into());
        wild.headers.insert("Warning".into(), "\x08\x08".into());
        let text = print(vec![wild]).join("\n");
        assert!(
            !text.contains(|c: char| c != '\n' && c.is_control()),
            "{text:?}"
        );
        assert!(text.contains("486 �[2J�Busy"), "{text:?}");
    }

    #[test]
    fn whole_messages_are_shown_instead_of_their_headers() {
        let mut whole = entry("a", "registrar", "BYE", None, "");
        whole.message = Some("BYE sip:x SIP/2.0\r\nReason: y\r\n\r\n".into());
        let lines = print(vec![whole]);
        assert_eq!(
            lines.iter().filter(|line| line.contains("Reason")).count(),
            1,
            "{lines:?}"
        );
    }

    #[test]
    fn losses_are_told() {
        let lost = Line::Lost {
            pod: "registrar".into(),
            time: jiff::Timestamp::UNIX_EPOCH,
            messages: 12,
        };
        assert!(
            Ladder::new(false, TimeZone::UTC)
                .print(&lost)
                .contains("12 messages of registrar")
        );
        assert!(
            Ladder::new(true, TimeZone::UTC)
                .print(&lost)
                .contains("\x1b[31m")
        );
    }
}
