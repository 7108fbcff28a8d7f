//! One call's SIP, as a carrier speaks it over UDP: INVITE, ACK, BYE, and answers to what the other side asks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A request is repeated after so long, then after twice that (RFC 3261's T1).
const T1: Duration = Duration::from_millis(500);

/// Nobody waits longer for an answer.
const LIMIT: Duration = Duration::from_secs(32);

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The INVITE has no final answer yet.
    Inviting,
    /// It is up.
    Up,
    /// The BYE has no answer yet.
    Ending,
    /// It is over.
    Over,
}

/// What there is to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// It was answered: audio goes there.
    Answered(SocketAddr),
    /// It failed.
    Failed(String),
    /// It is over, as we wanted.
    Ended,
}

/// A call.
pub struct Call {
    pub state: State,
    /// When the INVITE left.
    pub begun: Instant,
    local: SocketAddr,
    remote: SocketAddr,
    id: String,
    to: String,
    target: String,
    cseq: u32,
    repeats: Option<(Instant, Duration, Vec<u8>)>,
}

/// Which call a message belongs to.
pub fn number_of(message: &str) -> Option<usize> {
    let id = header(message, "Call-ID")?;
    id.strip_prefix("load-")?
        .split('@')
        .next()?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// A header's first value.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = message.split_once("\r\n\r\n")?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim_end()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim())
    })
}

impl Call {
    /// Sends the INVITE: to `number`, with audio at `media`. `turn` tells this call from earlier ones with its number.
    pub fn begin(
        (number, turn): (usize, usize),
        (local, remote, media): (SocketAddr, SocketAddr, SocketAddr),
        called: &str,
        send: &mut impl FnMut(&[u8]),
    ) -> Self {
        let now = Instant::now();
        let target = format!("sip:{called}@{remote}");
        let mut call = Self {
            state: State::Inviting,
            begun: now,
            local,
            remote,
            id: format!("load-{number}-{turn}@{}", local.ip()),
            to: format!("<{target}>"),
            target,
            cseq: 1,
            repeats: None,
        };
        let body = format!(
            "v=0\r\no=load 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n",
            media.port(),
            ip = media.ip()
        );
        let invite = call.request("INVITE", &body);
        call.say(invite, now, send);
        call
    }

    fn request(&self, method: &str, body: &str) -> Vec<u8> {
        let Self {
            local,
            id,
            to,
            target,
            cseq,
            ..
        } = self;
        let content = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id}{cseq}{}\r\nMax-Forwards: 70\r\n\
             From: <sip:+34600000001@{local}>;tag=load\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:load@{local}>\r\n{content}Content-Length: {}\r\n\r\n{body}",
            if method == "ACK" { "ack" } else { "" },
            body.len()
        )
        .into_bytes()
    }

    fn say(&mut self, request: Vec<u8>, now: Instant, send: &mut impl FnMut(&[u8])) {
        send(&request);
        self.repeats = Some((now + T1, T1, request));
    }

    /// Repeats what had no answer, if that is due.
    pub fn handle_timeout(&mut self, now: Instant, send: &mut impl FnMut(&[u8])) -> Step {
        let Some((due, wait, request)) = &mut self.repeats else {
            return Step::Nothing;
        };
        if *due > now {
            return Step::Nothing;
        }
        if *wait >= LIMIT {
            self.state = State::Over;
            self.repeats = None;
            return Step::Failed("no answer".to_owned());
        }
        send(request);
        *wait *= 2;
        *due = now + *wait;
        Step::Nothing
    }

    /// Ends a call that is up.
    pub fn hang_up(&mut self, now: Instant, send: &mut impl FnMut(&[u8])) {
        self.cseq += 1;
        self.state = State::Ending;
        let bye = self.request("BYE", "");
        self.say(bye, now, send);
    }

    /// Takes a message of the call.
    pub fn receive(&mut self, message: &str, send: &mut impl FnMut(&[u8])) -> Step {
        if !message.starts_with("SIP/2.0 ") {
            return self.asked(message, send);
        }
        let status: u16 = message
            .get(8..11)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let of = header(message, "CSeq").unwrap_or_default();
        match (self.state, status) {
            (State::Inviting, 100..200) => {
                self.repeats = None;
                Step::Nothing
            }
            (State::Inviting, 200..300) if of.ends_with("INVITE") => {
                header(message, "To")
                    .unwrap_or_default()
                    .clone_into(&mut self.to);
                let contact = header(message, "Contact").unwrap_or_default();
                let contact = contact.trim_start_matches('<').split('>').next();
                contact.unwrap_or_default().clone_into(&mut self.target);
                self.repeats = None;
                send(&self.request("ACK", ""));
                match media_of(message) {
                    Some(media) => {
                        self.state = State::Up;
                        Step::Answered(media)
                    }
                    None => self.over("an answer without audio"),
                }
            }
            (State::Up, 200..300) if of.ends_with("INVITE") => {
                // Our ACK was lost.
                send(&self.request("ACK", ""));
                Step::Nothing
            }
            (State::Inviting, 300..) => {
                header(message, "To")
                    .unwrap_or_default()
                    .clone_into(&mut self.to);
                let mut ack = self.request("ACK", "");
                // That of a refusal belongs to the INVITE's transaction (RFC 3261 section 17.1.1.3).
                if let Some(at) = ack.windows(4).position(|part| part == b"ack\r") {
                    ack.drain(at..at + 3);
                }
                send(&ack);
                let reason = message.lines().next().unwrap_or_default();
                self.over(reason.trim_start_matches("SIP/2.0 "))
            }
            (State::Ending, 200..) if of.ends_with("BYE") => {
                self.state = State::Over;
                self.repeats = None;
                Step::Ended
            }
            _ => Step::Nothing,
        }
    }

    fn over(&mut self, why: &str) -> Step {
        self.state = State::Over;
        self.repeats = None;
        Step::Failed(why.to_owned())
    }

    /// Answers a request.
    fn asked(&mut self, message: &str, send: &mut impl FnMut(&[u8])) -> Step {
        if message.starts_with("ACK") {
            return Step::Nothing;
        }
        let copied = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| {
            let value = header(message, name).unwrap_or_default();
            format!("{name}: {value}\r\n")
        });
        send(
            format!(
                "SIP/2.0 200 OK\r\n{}Content-Length: 0\r\n\r\n",
                copied.concat()
            )
            .as_bytes(),
        );
        if message.starts_with("BYE") && self.state == State::Up {
            return self.over("ended by the other side");
        }
        Step::Nothing
    }

    /// Where it is called.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }
}

/// Where the other side takes audio.
fn media_of(message: &str) -> Option<SocketAddr> {
    let line = |start: &str| message.lines().find_map(|line| line.strip_prefix(start));
    let ip = line("c=IN IP4 ")?.trim().parse().ok()?;
    let port = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}
