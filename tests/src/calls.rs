//! Many short calls at a steady rate, and how long each took to be answered.
//!
//! One socket and one thread: the time from the INVITE's first packet to its 200 is measured where it matters, and a busy machine delays
//! the measuring as little as can be. Lost packets are sent again as RFC 3261 section 17.1 has it.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::manifests::NUMBER;

/// T1 of RFC 3261.
const T1: Duration = Duration::from_millis(500);

/// A call that is not over by then has failed.
const LIMIT: Duration = Duration::from_secs(8);

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From INVITE to 200, sorted.
    pub setups: Vec<Duration>,
    /// Calls that were not answered with 200, or whose BYE was not: what came instead, if anything.
    pub failed: Vec<String>,
    /// Requests that had to be sent again.
    pub repeats: u32,
}

impl Outcome {
    /// The set-up time that this part of the calls stays below; `part` from 0 to 1.
    pub fn percentile(&self, part: f64) -> Duration {
        assert!(!self.setups.is_empty(), "no call was answered");
        let at = (self.setups.len() as f64 * part).ceil() as usize;
        self.setups[at.clamp(1, self.setups.len()) - 1]
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |part| self.percentile(part).as_secs_f64() * 1e3;
        write!(
            f,
            "{} calls, set-up p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms; {} requests repeated, {} failed",
            self.setups.len(),
            millis(0.5),
            millis(0.99),
            millis(1.0),
            self.repeats,
            self.failed.len()
        )
    }
}

struct Call {
    begun: Instant,
    request: String,
    answered: Option<Duration>,
    sent: Instant,
    pause: Duration,
}

/// Where good calls come from.
pub struct Caller {
    address: Address,
    socket: UdpSocket,
    next: u32,
}

impl Caller {
    /// One on an address of its own.
    pub fn new() -> Self {
        let address = Address::claim();
        let socket = UdpSocket::bind(address.port(5060)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            address,
            socket,
            next: 0,
        }
    }

    /// Its address.
    pub fn ip(&self) -> std::net::IpAddr {
        self.address.ip()
    }

    /// Places calls to [`NUMBER`] at a steady rate for so long; each is hung up as soon as it is answered. Waits for their ends.
    pub fn run(&mut self, remote: SocketAddr, per_second: u32, lasts: Duration) -> Outcome {
        let rtp = UdpSocket::bind(self.address.port(4000)).unwrap();
        let mut outcome = Outcome::default();
        let mut calls: HashMap<String, Call> = HashMap::new();
        let begun = Instant::now();
        let total = (lasts.as_secs_f64() * f64::from(per_second)) as u32;
        let mut placed = 0;
        let mut buffer = vec![0; 65_535];
        while placed < total || !calls.is_empty() {
            let now = Instant::now();
            let due = begun + Duration::from_secs(1) * placed / per_second;
            if placed < total && now >= due {
                placed += 1;
                self.place(remote, &rtp, &mut calls);
            }
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                self.take(remote, &text, &mut calls, &mut outcome);
            }
            calls.retain(|name, call| {
                let alive = now < call.begun + LIMIT;
                if !alive {
                    outcome.failed.push(format!("{name}: no answer"));
                }
                alive
            });
            for call in calls
                .values_mut()
                .filter(|call| now >= call.sent + call.pause)
            {
                (call.sent, call.pause) = (now, call.pause * 2);
                outcome.repeats += 1;
                let _ = self.socket.send_to(call.request.as_bytes(), remote);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        outcome.setups.sort_unstable();
        outcome
    }

    fn place(&mut self, remote: SocketAddr, rtp: &UdpSocket, calls: &mut HashMap<String, Call>) {
        self.next += 1;
        let local = self.socket.local_addr().unwrap();
        let (number, rtp) = (self.next, rtp.local_addr().unwrap());
        let name = format!("good{number}-{}", std::process::id());
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n",
            rtp.ip(),
            rtp.port()
        );
        let request = format!(
            "INVITE sip:{NUMBER}@{remote} SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bKi{name}\r\nMax-Forwards: 70\r\n\
             From: <sip:caller@{local}>;tag={number}\r\nTo: <sip:{NUMBER}@{remote}>\r\nCall-ID: {name}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:caller@{local}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let now = Instant::now();
        let _ = self.socket.send_to(request.as_bytes(), remote);
        let call = Call {
            begun: now,
            request,
            answered: None,
            sent: now,
            pause: T1,
        };
        calls.insert(name, call);
    }

    fn take(
        &self,
        remote: SocketAddr,
        text: &str,
        calls: &mut HashMap<String, Call>,
        outcome: &mut Outcome,
    ) {
        let header = |name: &str| {
            let line = text.lines().find(|line| {
                let found = line.split(':').next().unwrap_or_default();
                found.eq_ignore_ascii_case(name)
            });
            line.and_then(|line| line.split_once(':'))
                .map_or("", |(_, value)| value.trim())
        };
        let name = header("Call-ID").to_owned();
        let Some(call) = calls.get_mut(&name) else {
            return;
        };
        let status: u16 = text
            .strip_prefix("SIP/2.0 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or(0);
        if status < 200 {
            // The INVITE has arrived: it is not sent again (RFC 3261 section 17.1.1.2).
            call.pause = LIMIT;
            return;
        }
        let is_invite = header("CSeq").ends_with("INVITE");
        if status >= 300 {
            outcome.failed.push(format!("{name}: {status}"));
            calls.remove(&name);
            return;
        }
        if !is_invite {
            outcome.setups.extend(call.answered);
            calls.remove(&name);
            return;
        }
        if call.answered.is_none() {
            call.answered = Some(call.begun.elapsed());
        }
        let contact = header("Contact").trim_start_matches('<');
        let target = contact.split('>').next().unwrap_or_default();
        let local = self.socket.local_addr().unwrap();
        let request = |method: &str, cseq: u32| {
            format!(
                "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bK{method}{name}\r\nMax-Forwards: 70\r\n\
                 From: {}\r\nTo: {}\r\nCall-ID: {name}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
                header("From"),
                header("To")
            )
        };
        let _ = self.socket.send_to(request("ACK", 1).as_bytes(), remote);
        call.request = request("BYE", 2);
        (call.sent, call.pause) = (Instant::now(), T1);
        let _ = self.socket.send_to(call.request.as_bytes(), remote);
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::new()
    }
}
