//! A SIP phone made of text, for what well-behaved programs never send: it says exactly what a test writes, and reads what comes back
//! without the product's parser.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::manifests::NUMBER;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The pauses after which a request over UDP is sent again (RFC 3261 section 17.1.1.1).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A message that came.
#[derive(Clone, Debug)]
pub struct Message {
    /// The whole text.
    pub text: String,
    /// Where it came from, over UDP.
    pub source: Option<SocketAddr>,
}

impl Message {
    fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status code of a response, else 0.
    pub fn status(&self) -> u16 {
        let code = self
            .first_line()
            .strip_prefix("SIP/2.0 ")
            .and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The method of a request, else nothing.
    pub fn method(&self) -> &str {
        if self.status() > 0 {
            ""
        } else {
            self.first_line().split(' ').next().unwrap_or_default()
        }
    }

    /// All values of a header, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let head = self
            .text
            .split("\r\n\r\n")
            .next()
            .unwrap_or_default()
            .lines()
            .skip(1);
        let named = head
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.trim().eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }

    /// The first value of a header; empty without.
    pub fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_default()
    }

    /// The body.
    pub fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }

    /// Lines of the body that begin with this.
    pub fn lines(&self, start: &str) -> Vec<&str> {
        self.body()
            .lines()
            .filter(|line| line.starts_with(start))
            .collect()
    }

    /// The URI in the Contact.
    pub fn contact(&self) -> String {
        let contact = self.header("Contact");
        let inner = contact
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        inner.map_or(contact, |(uri, _)| uri).to_owned()
    }

    /// Where the first audio line of the SDP wants its packets.
    #[track_caller]
    pub fn media(&self) -> SocketAddr {
        let address = self.lines("c=IN IP4 ")[0]
            .trim_start_matches("c=IN IP4 ")
            .parse::<IpAddr>()
            .unwrap();
        let port = self.lines("m=audio ")[0]
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        SocketAddr::new(address, port)
    }
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

/// A phone with one call at a time.
pub struct Phone {
    wire: Wire,
    local: SocketAddr,
    contact: SocketAddr,
    remote: SocketAddr,
    /// For the call's audio.
    pub rtp: UdpSocket,
    call_id: String,
    cseq: u32,
    tag: String,
    /// To of the dialog, with tag once it is known.
    to: String,
    target: String,
    routes: Vec<String>,
    /// Everything that came.
    pub seen: Vec<Message>,
    address: Address,
}

impl Phone {
    /// A phone on UDP that calls the product at `remote`.
    pub fn udp(remote: SocketAddr) -> Self {
        let address = Address::claim();
        let socket = UdpSocket::bind(address.port(5060)).unwrap();
        let local = socket.local_addr().unwrap();
        Self::new(Wire::Udp(socket), local, remote, address)
    }

    /// A phone on TCP. Its packets come from 127.0.0.1, as the kernel has it.
    pub fn tcp(remote: SocketAddr) -> Self {
        let stream = TcpStream::connect(remote).unwrap();
        let local = stream.local_addr().unwrap();
        Self::new(
            Wire::Tcp(stream, Vec::new()),
            local,
            remote,
            Address::claim(),
        )
    }

    /// A phone on UDP or TCP that is not on this machine's loopback: its address is that of this machine that leads to `remote`.
    pub fn outside(remote: SocketAddr, tcp: bool) -> Self {
        let way = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        way.connect(remote).unwrap();
        let own = SocketAddr::new(way.local_addr().unwrap().ip(), 0);
        let (wire, local) = if tcp {
            let stream = TcpStream::connect(remote).unwrap();
            let local = stream.local_addr().unwrap();
            (Wire::Tcp(stream, Vec::new()), local)
        } else {
            let socket = UdpSocket::bind(own).unwrap();
            let local = socket.local_addr().unwrap();
            (Wire::Udp(socket), local)
        };
        let mut phone = Self::new(wire, local, remote, Address::claim());
        phone.rtp = UdpSocket::bind(own).unwrap();
        phone
    }

    /// Connects again, where its connection is gone.
    #[track_caller]
    pub fn reconnect(&mut self, limit: Duration) {
        let remote = self.remote;
        let stream = crate::wait::until(limit, "another connection", || {
            TcpStream::connect_timeout(&remote, Duration::from_secs(1)).ok()
        });
        self.local = stream.local_addr().unwrap();
        self.wire = Wire::Tcp(stream, Vec::new());
    }

    /// A phone on TCP that listens where its Contact says, as carriers do.
    pub fn listening(remote: SocketAddr) -> (Self, TcpListener) {
        let mut phone = Self::tcp(remote);
        let listener = TcpListener::bind(phone.address.port(5060)).unwrap();
        listener.set_nonblocking(true).unwrap();
        phone.contact = listener.local_addr().unwrap();
        (phone, listener)
    }

    /// A phone on TCP that listens where its Via says, too.
    pub fn reachable(remote: SocketAddr) -> (Self, TcpListener) {
        let mut phone = Self::tcp(remote);
        // Answers go to where the request came from.
        let listener = TcpListener::bind((phone.local.ip(), 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        phone.local = listener.local_addr().unwrap();
        phone.contact = phone.local;
        (phone, listener)
    }

    /// Closes its connection.
    pub fn close(&mut self) {
        if let Wire::Tcp(stream, _) = &self.wire {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// Waits for a connection to where it listens, which it speaks on from then on.
    #[track_caller]
    pub fn accept(&mut self, listener: &TcpListener, limit: Duration) {
        let stream = crate::wait::until(limit, "a connection to the phone", || {
            listener.accept().ok().map(|(stream, _)| stream)
        });
        stream.set_nonblocking(false).unwrap();
        self.wire = Wire::Tcp(stream, Vec::new());
    }

    fn new(wire: Wire, local: SocketAddr, remote: SocketAddr, address: Address) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let rtp = UdpSocket::bind(address.port(4000)).unwrap();
        Self {
            wire,
            local,
            contact: local,
            remote,
            rtp,
            call_id: format!("phone{number}-{}", std::process::id()),
            cseq: 0,
            tag: format!("tag{number}"),
            to: format!("<sip:{NUMBER}@{remote}>"),
            target: format!("sip:{NUMBER}@{remote}"),
            routes: Vec::new(),
            seen: Vec::new(),
            address,
        }
    }

    /// The call's name.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Whom it calls: the user part of Request-URI and To.
    pub fn dial(&mut self, user: &str) {
        self.to = format!("<sip:{user}@{}>", self.remote);
        self.target = format!("sip:{user}@{}", self.remote);
    }

    /// Begins another call.
    pub fn new_call(&mut self) {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.call_id = format!("phone{number}-{}", std::process::id());
        (self.cseq, self.tag, self.routes) = (0, format!("tag{number}"), Vec::new());
        self.dial(NUMBER);
        self.seen.clear();
    }

    /// An SDP body with these lines for the media; `{port}` is the port of our audio.
    pub fn sdp(&self, media: &str) -> String {
        let rtp = self.rtp.local_addr().unwrap();
        let media = media.replace("{port}", &rtp.port().to_string());
        format!(
            "v=0\no=phone 7 1 IN IP4 {0}\ns=-\nc=IN IP4 {0}\nt=0 0\n{media}\n",
            rtp.ip()
        )
    }

    /// The offer of an ordinary phone: PCMU, PCMA and telephone-event.
    pub fn offer(&self) -> String {
        self.sdp("m=audio {port} RTP/AVP 0 8 101\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000")
    }

    fn via(&self) -> String {
        let transport = if matches!(self.wire, Wire::Udp(_)) {
            "UDP"
        } else {
            "TCP"
        };
        let branch = NEXT.fetch_add(1, Ordering::Relaxed);
        format!(
            "SIP/2.0/{transport} {};rport;branch=z9hG4bK-{}-{branch}",
            self.local,
            std::process::id()
        )
    }

    /// A request of the call as text. `headers` are further lines, each with its line feed.
    pub fn request(&mut self, method: &str, headers: &str, body: &str) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        let via = self.via();
        self.request_with_via(method, &via, headers, body)
    }

    fn request_with_via(&self, method: &str, via: &str, headers: &str, body: &str) -> String {
        let Self {
            target,
            tag,
            to,
            call_id,
            cseq,
            local,
            contact,
            ..
        } = self;
        let mut text = format!("{method} {target} SIP/2.0\nVia: {via}\n");
        for route in &self.routes {
            let _ = writeln!(text, "Route: {route}");
        }
        let transport = if matches!(self.wire, Wire::Udp(_)) {
            ""
        } else {
            ";transport=tcp"
        };
        let forwards = if headers.contains("Max-Forwards:") {
            ""
        } else {
            "Max-Forwards: 70\n"
        };
        let _ = write!(
            text,
            "{forwards}From: \"Tester\" <sip:+34600000000@{local}>;tag={tag}\nTo: {to}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\n\
             Contact: <sip:phone@{contact}{transport}>\n{headers}"
        );
        let body = body.replace('\n', "\r\n");
        if !body.is_empty() && !headers.contains("Content-Type:") {
            text.push_str("Content-Type: application/sdp\n");
        }
        let _ = write!(text, "Content-Length: {}\n\n", body.len());
        text.replace('\n', "\r\n") + &body
    }

    /// Sends text as it is.
    pub fn send(&mut self, text: &str) {
        match &mut self.wire {
            Wire::Udp(socket) => drop(socket.send_to(text.as_bytes(), self.remote).unwrap()),
            Wire::Tcp(stream, _) => stream.write_all(text.as_bytes()).unwrap(),
        }
    }

    /// The next message, if it comes in time.
    pub fn receive(&mut self, limit: Duration) -> Option<Message> {
        let end = Instant::now() + limit;
        let mut source = None;
        let text = loop {
            let left = end
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            let mut buffer = vec![0; 65_536];
            match &mut self.wire {
                Wire::Udp(socket) => {
                    socket.set_read_timeout(Some(left)).unwrap();
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        source = Some(from);
                        break String::from_utf8_lossy(&buffer[..length]).into_owned();
                    }
                }
                Wire::Tcp(stream, pending) => {
                    if let Some(text) = first_message(pending) {
                        break text;
                    }
                    stream.set_read_timeout(Some(left)).unwrap();
                    if let Ok(length) = stream.read(&mut buffer) {
                        pending.extend(&buffer[..length]);
                    }
                }
            }
            if Instant::now() >= end {
                return None;
            }
        };
        if text.trim().is_empty() {
            // A keep-alive.
            return self.receive(end.saturating_duration_since(Instant::now()));
        }
        let message = Message { text, source };
        self.seen.push(message.clone());
        Some(message)
    }

    /// All that came, for people.
    fn seen_text(&self) -> String {
        let texts: Vec<&str> = self
            .seen
            .iter()
            .map(|message| message.text.as_str())
            .collect();
        texts.join("\n")
    }

    /// The first message that is wanted; others are kept in [`Self::seen`].
    #[track_caller]
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        self.expect_within(LIMIT, what, wanted)
    }

    /// As [`Self::expect`], with a limit.
    #[track_caller]
    pub fn expect_within(
        &mut self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> Message {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Some(message) if wanted(&message) => return message,
                Some(_) => {}
                None => {
                    panic!("the phone got no {what}; it got:\n{}", self.seen_text());
                }
            }
        }
    }

    /// The final response to the latest request of that method.
    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Message {
        let cseq = format!("{} {method}", self.cseq);
        let call_id = self.call_id.clone();
        self.expect(&format!("final response to {method}"), |message| {
            message.status() >= 200
                && message.header("CSeq") == cseq
                && message.header("Call-ID") == call_id
        })
    }

    /// Sends a request of the call and waits for its final response.
    #[track_caller]
    pub fn ask(&mut self, method: &str, headers: &str, body: &str) -> Message {
        self.persist(method, headers, body).0
    }

    /// As [`Self::ask`]; and how often it was sent.
    #[track_caller]
    pub fn persist(&mut self, method: &str, headers: &str, body: &str) -> (Message, u32) {
        let text = self.request(method, headers, body);
        self.send(&text);
        self.resend_until_final(method, &text)
    }

    /// The final response to a request that was sent, and how often it was sent: over UDP again and again until there is an answer, as
    /// every phone does (RFC 3261 sections 17.1.1.2 and 17.1.2.2).
    #[track_caller]
    fn resend_until_final(&mut self, method: &str, text: &str) -> (Message, u32) {
        let cseq = format!("{} {method}", self.cseq);
        let call_id = self.call_id.clone();
        let answers = |message: &Message| {
            message.header("CSeq") == cseq && message.header("Call-ID") == call_id
        };
        // An INVITE is not sent again once there is a provisional response.
        let mut quiet = !matches!(self.wire, Wire::Udp(_))
            || (method == "INVITE" && self.seen.iter().any(answers));
        let begun = Instant::now();
        let (mut sends, mut pause) = (1, T1);
        let mut again = begun + pause;
        while begun.elapsed() < 64 * T1 {
            match self.receive(again.saturating_duration_since(Instant::now())) {
                Some(message) if answers(&message) => {
                    if message.status() >= 200 {
                        return (message, sends);
                    }
                    quiet |= method == "INVITE";
                }
                Some(_) => {}
                None => {
                    if !quiet {
                        self.send(text);
                        sends += 1;
                    }
                    pause = if method == "INVITE" {
                        pause * 2
                    } else {
                        (pause * 2).min(T2)
                    };
                    again = Instant::now() + pause;
                }
            }
        }
        panic!(
            "the phone got no final response to {method}, sent {sends} times; it got:\n{}",
            self.seen_text()
        );
    }

    /// INVITE and the final response; a refusal is acknowledged.
    #[track_caller]
    pub fn invite(&mut self, headers: &str, body: &str) -> Message {
        let text = self.request("INVITE", headers, body);
        self.send(&text);
        self.finish_invite(&text)
    }

    /// The final response to an INVITE that was sent; a refusal is acknowledged.
    #[track_caller]
    pub fn finish_invite(&mut self, invite: &str) -> Message {
        let (answer, _) = self.resend_until_final("INVITE", invite);
        if answer.status() >= 300 {
            let via = Self::via_of(invite);
            let to = std::mem::replace(&mut self.to, answer.header("To").to_owned());
            let ack = self.request_with_via("ACK", &via, "", "");
            self.to = to;
            self.send(&ack);
        }
        answer
    }

    /// The status of the final response to a request that was sent, with any method.
    #[track_caller]
    pub fn finish_invite_or(&mut self, method: &str, request: &str) -> u16 {
        if method == "INVITE" {
            self.finish_invite(request).status()
        } else {
            self.resend_until_final(method, request).0.status()
        }
    }

    fn via_of(request: &str) -> String {
        let via = request.lines().find_map(|line| line.strip_prefix("Via: "));
        via.unwrap_or_default().to_owned()
    }

    /// The CANCEL of an INVITE.
    pub fn cancel(&mut self, invite: &str) -> String {
        let via = Self::via_of(invite);
        self.request_with_via("CANCEL", &via, "", "")
    }

    /// Takes the dialog from a 200 (tag, target, routes) and acknowledges it with this body.
    pub fn confirm(&mut self, answer: &Message, body: &str) {
        assert_eq!(answer.status(), 200, "{}", answer.text);
        answer.header("To").clone_into(&mut self.to);
        self.target = answer.contact();
        self.routes = answer
            .headers("Record-Route")
            .into_iter()
            .rev()
            .map(str::to_owned)
            .collect();
        let ack = self.request("ACK", "", body);
        self.send(&ack);
    }

    /// An ordinary call, answered and acknowledged.
    #[track_caller]
    pub fn call(&mut self) -> Message {
        let offer = self.offer();
        let answer = self.invite("", &offer);
        self.confirm(&answer, "");
        answer
    }

    /// BYE, and its 200.
    #[track_caller]
    pub fn hang_up(&mut self) {
        let answer = self.ask("BYE", "", "");
        assert_eq!(answer.status(), 200, "{}", answer.text);
    }

    /// Waits for a request of the other side.
    #[track_caller]
    pub fn wait_request(&mut self, method: &str, limit: Duration) -> Message {
        self.expect_within(limit, method, |message| message.method() == method)
    }

    /// Answers a request of the other side.
    pub fn respond(&mut self, request: &Message, status: u16) {
        self.respond_with(request, status, "");
    }

    /// Answers a request of the other side, with further header lines.
    pub fn respond_with(&mut self, request: &Message, status: u16, headers: &str) {
        let mut text = format!("SIP/2.0 {status} Whatever\r\n");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in request.headers(name) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        text.push_str(&headers.replace('\n', "\r\n"));
        text.push_str("Content-Length: 0\r\n\r\n");
        match (&self.wire, request.source) {
            // To where it came from (RFC 3581).
            (Wire::Udp(socket), Some(source)) => {
                socket.send_to(text.as_bytes(), source).unwrap();
            }
            _ => self.send(&text),
        }
    }
}

/// Takes the first whole message out of a stream.
fn first_message(pending: &mut Vec<u8>) -> Option<String> {
    let text = String::from_utf8_lossy(pending).into_owned();
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head]
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (pending.len() >= head + length).then(|| {
        let message: Vec<u8> = pending.drain(..head + length).collect();
        String::from_utf8_lossy(&message).into_owned()
    })
}
