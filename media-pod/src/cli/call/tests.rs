//! Whole calls on loopback, against a small answering side in the same process.

use std::collections::HashMap;
use std::time::Instant;

use clap::Parser;
use ringwire_media::format::{Format, MOST_BYTES};
use ringwire_media::jitter::Delay;
use ringwire_media::stream::{PACKET_BYTES, RtpStream, StreamConfig, StreamEvent};
use ringwire_sip::dialog::{Action, CallEvent, RespondTo};
use ringwire_sip::message::{Request, Response};
use ringwire_sip::sdp::{Capabilities, Encryption, LocalMedia};
use ringwire_sip::transaction::{ClientId, Endpoint, EndpointConfig, Event, Flow, ServerId};
use ringwire_sip::uas::{UasCall, UasParams};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::net::{Incoming, Sip};
use super::outcome::{Ended, Failure, Progress};
use super::*;

/// How the answering side behaves.
#[derive(Clone)]
struct Manner {
    answers: bool,
    refuses: Option<(u16, Vec<(HeaderName, String)>)>,
    challenges: bool,
    codecs: Vec<Codec>,
    /// Hangs up with this `Reason` after so many frames.
    hangs_up: Option<(u32, &'static str)>,
    presses: &'static str,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            answers: true,
            refuses: None,
            challenges: false,
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            hangs_up: None,
            presses: "",
        }
    }
}

/// What it saw.
#[derive(Default)]
struct Seen {
    invites: Vec<Request>,
    keys: String,
    methods: Vec<String>,
    cancelled: bool,
}

struct Peer {
    sip: Sip,
    rtp: UdpSocket,
    manner: Manner,
    endpoint: Endpoint,
    call: Option<(ServerId, UasCall)>,
    back: Option<Flow>,
    clients: HashMap<ClientId, u64>,
    stream: Option<RtpStream>,
    frames: u32,
    seen: Seen,
}

impl Peer {
    fn new(sip: Sip, manner: Manner) -> Self {
        let rtp = net::rtp_socket(sip.local().ip()).unwrap();
        let endpoint = Endpoint::new(EndpointConfig::default(), rand::random());
        let (call, back, stream) = (None, None, None);
        Self {
            sip,
            rtp,
            manner,
            endpoint,
            call,
            back,
            clients: HashMap::new(),
            stream,
            frames: 0,
            seen: Seen::default(),
        }
    }

    async fn run(mut self, done: CancellationToken) -> Seen {
        let mut buffer = [0; 2048];
        loop {
            self.pump().await;
            let uas = self.call.as_ref().and_then(|(_, uas)| uas.poll_timeout());
            let rtp = self.stream.as_ref().and_then(RtpStream::poll_timeout);
            let timer = [self.endpoint.poll_timeout(), uas, rtp]
                .into_iter()
                .flatten()
                .min();
            let timer = timer.unwrap_or_else(|| Instant::now() + Duration::from_secs(30));
            tokio::select! {
                () = done.cancelled() => return self.seen,
                incoming = self.sip.receive() => if let Incoming::Message(message, flow) = incoming {
                    self.endpoint.receive(*message, flow, Instant::now());
                },
                Ok((length, from)) = self.rtp.recv_from(&mut buffer) => if let Some(stream) = &mut self.stream {
                    stream.receive(&buffer[..length], from, Instant::now());
                },
                () = tokio::time::sleep_until(timer.into()) => {
                    let now = Instant::now();
                    self.endpoint.handle_timeout(now);
                    if let Some((_, uas)) = &mut self.call {
                        uas.handle_timeout(now);
                    }
                    if let Some(stream) = &mut self.stream {
                        stream.handle_timeout(now);
                    }
                }
            }
        }
    }

    async fn pump(&mut self) {
        let now = Instant::now();
        self.pump_audio(now);
        loop {
            let mut moved = false;
            while let Some(event) = self.endpoint.poll_event() {
                self.on_event(event, now);
                moved = true;
            }
            while let Some(action) = self.call.as_mut().and_then(|(_, uas)| uas.poll_action()) {
                self.act(action, now);
                moved = true;
            }
            while let Some(event) = self.call.as_mut().and_then(|(_, uas)| uas.poll_event()) {
                if matches!(event, CallEvent::Ended { .. }) {
                    self.stream = None;
                }
                moved = true;
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                self.sip.send(&transmit).await.unwrap();
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Request { id, request, flow } => {
                self.seen.methods.push(request.method.as_str().to_owned());
                match &mut self.call {
                    Some((_, uas)) => uas.on_request(id, &request, now),
                    None => self.on_invite(id, request, flow, now),
                }
            }
            Event::Ack { request, .. } => {
                if let Some((_, uas)) = &mut self.call {
                    uas.on_ack(&request, now);
                }
            }
            Event::Cancelled { .. } => {
                self.seen.cancelled = true;
                if let Some((_, uas)) = &mut self.call {
                    uas.on_cancel(None, now);
                }
            }
            Event::Response { id, response, .. } => {
                if let (Some((_, uas)), Some(token)) = (&mut self.call, self.clients.get(&id)) {
                    uas.on_response(*token, &response, now);
                }
            }
            _ => {}
        }
    }

    fn on_invite(&mut self, id: ServerId, request: Request, flow: Flow, now: Instant) {
        self.seen.invites.push(request.clone());
        self.back = Some(flow);
        let known = request.headers.has(&HeaderName::Authorization);
        let refusal = match &self.manner.refuses {
            _ if self.manner.challenges && !known => {
                let challenge = "Digest realm=\"test\", nonce=\"abc\", qop=\"auth\", algorithm=MD5";
                Some((
                    401,
                    vec![(HeaderName::WwwAuthenticate, challenge.to_owned())],
                ))
            }
            refuses => refuses.clone(),
        };
        if let Some((status, headers)) = refusal {
            let mut response = Response::to_request(&request, status, None);
            response.set_to_tag("peer");
            for (name, value) in headers {
                response.headers.push(name, value);
            }
            return self.endpoint.respond(id, response, now);
        }
        let local = self.sip.local();
        let params = UasParams {
            contact: NameAddr::new(Uri::sip(Some("peer"), local.ip(), Some(local.port()))),
            local_tag: "peer".to_owned(),
            capabilities: Capabilities {
                codecs: self.manner.codecs.clone(),
                telephone_event: true,
                ptime_millis: 20,
                encryption: Encryption::None,
                ice: None,
            },
            local: LocalMedia {
                address: local.ip(),
                rtp_port: self.rtp.local_addr().unwrap().port(),
                session_id: 1,
                version: 1,
            },
            server: "test".to_owned(),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            reliable_provisionals: false,
        };
        match UasCall::new(request, params, now) {
            Ok(mut uas) => {
                uas.ring(now);
                if self.manner.answers {
                    uas.accept(now);
                    self.start_audio(&uas, now);
                }
                self.call = Some((id, uas));
            }
            Err(response) => self.endpoint.respond(id, response, now),
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                let id = match (to, &self.call) {
                    (RespondTo::Request(id), _) => id,
                    (RespondTo::Invite, Some((id, _))) => *id,
                    (RespondTo::Invite, None) => return,
                };
                self.endpoint.respond(id, response, now);
            }
            Action::Request { token, request } => {
                let local = self.sip.local();
                let flow = self.back.clone().unwrap();
                let id =
                    self.endpoint
                        .request(request, flow, &Host::Ip(local.ip()), local.port(), now);
                self.clients.insert(id, token);
            }
            Action::Ack { .. } | Action::Cancel { .. } => {}
        }
    }

    fn start_audio(&mut self, uas: &UasCall, now: Instant) {
        let session = crate::negotiated::session(uas.negotiated().unwrap());
        let config = StreamConfig {
            delay: Delay::Fixed(40),
            format: Format::Ulaw,
            reports: false,
            ..StreamConfig::new(session, (1, 1, 1))
        };
        let mut stream = RtpStream::new(config, now);
        stream.start(now);
        self.stream = Some(stream);
    }

    fn pump_audio(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = stream.poll_transmit(&mut packet) {
            let _ = self.rtp.try_send_to(&packet[..length], to);
        }
        let mut frame = [0; MOST_BYTES];
        while let Some((length, _)) = stream.poll_frame(&mut frame) {
            stream.play(&frame[..length], now);
            self.frames += 1;
            if self.frames == 20 {
                for key in self.manner.presses.chars() {
                    stream.send_digit(key, 100);
                }
            }
        }
        while let Some(event) = stream.poll_event() {
            if let StreamEvent::Digit(key) = event {
                self.seen.keys.push(key);
            }
        }
        if let (Some((frames, reason)), Some((_, uas))) = (self.manner.hangs_up, &mut self.call)
            && self.frames >= frames
        {
            self.manner.hangs_up = None;
            uas.hang_up(Some(reason.to_owned()), now);
        }
    }
}

struct Running {
    address: SocketAddr,
    done: CancellationToken,
    peer: JoinHandle<Seen>,
}

async fn udp_peer(manner: Manner) -> Running {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let done = CancellationToken::new();
    let peer = tokio::spawn(Peer::new(Sip::listening(socket).unwrap(), manner).run(done.clone()));
    Running {
        address,
        done,
        peer,
    }
}

async fn tcp_peer(manner: Manner) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let done = CancellationToken::new();
    let token = done.clone();
    let peer = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        Box::pin(Peer::new(Sip::over(stream).unwrap(), manner).run(token)).await
    });
    Running {
        address,
        done,
        peer,
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &[&str]) -> Result<Args, clap::Error> {
    Cli::try_parse_from([&["call"], line].concat()).map(|cli| cli.args)
}

/// Calls that address with these options. `stop` is cancelled at the first ringing.
async fn call(to: SocketAddr, options: &[&str], give_up: bool) -> (Outcome, Vec<Progress>) {
    let target = format!("sip:+34911234567@{to}");
    let args =
        parse(&[&[target.as_str()], options].concat()).unwrap_or_else(|error| panic!("{error}"));
    let (prepared, transport) = prepare(args).unwrap();
    let plan = prepared.resolve(transport).await.unwrap();
    let stop = CancellationToken::new();
    let mut told = Vec::new();
    let mut progress = |event: Progress| {
        if give_up && matches!(event, Progress::Ringing { .. }) {
            stop.cancel();
        }
        told.push(event);
    };
    let placed = engine::place(plan, &mut progress, &stop);
    let (outcome, _) = tokio::time::timeout(Duration::from_secs(40), placed)
        .await
        .expect("the call ends");
    (outcome, told)
}

async fn finish(running: Running) -> Seen {
    running.done.cancel();
    running.peer.await.unwrap()
}

#[tokio::test]
async fn hears_its_own_audio_from_an_echo() {
    let peer = udp_peer(Manner::default()).await;
    let (outcome, told) = call(
        peer.address,
        &["--duration", "3", "--header", "X-Trunk: trunk1"],
        false,
    )
    .await;
    let seen = finish(peer).await;
    assert_eq!(outcome.failure, None);
    let stats = outcome.stats.unwrap();
    assert!(
        stats.packets_sent >= 130 && stats.packets_received >= 120,
        "{stats:?}"
    );
    assert_eq!(stats.packets_lost, 0);
    let echo = outcome.echo.unwrap();
    // Beside hundreds of other tests frames come late and are left out; other words have 0.1, seldom 0.3.
    assert!(echo.correlation > 0.6, "{echo:?}");
    assert!((20.0..500.0).contains(&echo.delay_millis()), "{echo:?}");
    assert_eq!(
        (outcome.codec, outcome.ended_by),
        (Some(Codec::Pcmu), Ended::Us)
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Progress::Ringing { status: 180, .. })),
        "{told:?}"
    );
    assert_eq!(seen.methods, ["INVITE", "BYE"]);
    assert_eq!(
        seen.invites[0].headers.get(&HeaderName::from("X-Trunk")),
        Some("trunk1")
    );
}

#[tokio::test]
async fn speaks_a_law_over_tcp_and_presses_keys() {
    let peer = tcp_peer(Manner {
        presses: "7",
        ..Manner::default()
    })
    .await;
    let options = [
        "--transport",
        "tcp",
        "--codec",
        "pcma",
        "--duration",
        "3",
        "--dtmf",
        "12#",
    ];
    let (outcome, _) = call(peer.address, &options, false).await;
    let seen = finish(peer).await;
    assert_eq!(outcome.failure, None);
    assert_eq!(
        (outcome.codec, outcome.transport),
        (Some(Codec::Pcma), Transport::Tcp)
    );
    assert!(outcome.keys_sent);
    assert_eq!(
        (seen.keys.as_str(), outcome.keys_received.as_str()),
        ("12#", "7")
    );
    let contact = seen.invites[0].headers.get(&HeaderName::Contact).unwrap();
    assert!(contact.contains("transport=tcp"), "{contact}");
    assert_eq!(seen.methods, ["INVITE", "BYE"]);
}

#[tokio::test]
async fn answers_a_challenge_with_the_password_of_a_file() {
    let file = std::env::temp_dir().join(format!("ringwire-call-{:016x}", rand::random::<u64>()));
    fs::write(&file, "hunter2\n").unwrap();
    let peer = udp_peer(Manner {
        challenges: true,
        ..Manner::default()
    })
    .await;
    let path = file.display().to_string();
    let options = [
        "--username",
        "alice",
        "--password-file",
        &path,
        "--duration",
        "0.1",
    ];
    let (outcome, told) = call(peer.address, &options, false).await;
    let seen = finish(peer).await;
    fs::remove_file(&file).unwrap();
    assert_eq!(outcome.failure, None);
    assert!(told.contains(&Progress::Challenged), "{told:?}");
    let answer = seen.invites[1]
        .headers
        .get(&HeaderName::Authorization)
        .unwrap();
    assert!(answer.contains("username=\"alice\""), "{answer}");
    let expected = ["sip:alice@127.0.0.1"; 2];
    let from = seen
        .invites
        .iter()
        .map(|invite| invite.headers.from_().unwrap().uri.to_string());
    assert_eq!(from.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn tells_why_it_was_refused() {
    let reason = (
        HeaderName::Reason,
        "SIP;cause=480;text=\"AgentUnreachable\"".to_owned(),
    );
    let peer = udp_peer(Manner {
        refuses: Some((480, vec![reason])),
        ..Manner::default()
    })
    .await;
    let (outcome, _) = call(peer.address, &[], false).await;
    finish(peer).await;
    let phrase = "Temporarily Unavailable".to_owned();
    assert_eq!(
        outcome.failure,
        Some(Failure::Refused {
            status: 480,
            phrase
        })
    );
    assert!(
        outcome.text().contains("The agent could not be reached."),
        "{}",
        outcome.text()
    );
    assert_eq!(outcome.json()["endedBy"], "peer");
}

#[tokio::test]
async fn finds_no_common_codec() {
    let peer = udp_peer(Manner {
        codecs: vec![Codec::Pcma],
        ..Manner::default()
    })
    .await;
    let (outcome, _) = call(peer.address, &["--codec", "PCMU"], false).await;
    finish(peer).await;
    assert!(
        matches!(outcome.failure, Some(Failure::Refused { status: 488, .. })),
        "{:?}",
        outcome.failure
    );
    assert!(
        outcome
            .warning
            .is_some_and(|warning| warning.starts_with("305"))
    );
}

#[tokio::test]
async fn cancels_when_interrupted_while_it_rings() {
    let peer = udp_peer(Manner {
        answers: false,
        ..Manner::default()
    })
    .await;
    let (outcome, _) = call(peer.address, &[], true).await;
    let seen = finish(peer).await;
    assert!(seen.cancelled);
    assert_eq!(
        outcome.failure,
        Some(Failure::Other("given up before it was answered".to_owned()))
    );
}

#[tokio::test]
async fn cancels_when_nobody_answers_in_time() {
    let peer = udp_peer(Manner {
        answers: false,
        ..Manner::default()
    })
    .await;
    let (outcome, _) = call(peer.address, &["--timeout", "0.3"], false).await;
    let seen = finish(peer).await;
    assert!(seen.cancelled);
    let text = outcome.text();
    assert!(text.contains("not answered within"), "{text}");
}

#[tokio::test]
async fn tells_who_hung_up_and_why() {
    let peer = udp_peer(Manner {
        hangs_up: Some((10, "SIP;cause=200;text=\"MaxDuration\"")),
        ..Manner::default()
    })
    .await;
    let (outcome, _) = call(peer.address, &[], false).await;
    finish(peer).await;
    assert_eq!(
        (outcome.failure.clone(), outcome.ended_by),
        (None, Ended::Peer)
    );
    assert!(
        outcome
            .text()
            .contains(ringwire_config::Reason::MaxDuration.meaning()),
        "{}",
        outcome.text()
    );
}

#[tokio::test]
async fn says_at_once_that_nothing_listens() {
    let free = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for transport in ["udp", "tcp"] {
        let started = Instant::now();
        let (outcome, _) = call(free, &["--transport", transport], false).await;
        let text = outcome.text();
        assert!(
            text.contains("connection refused: nothing listens there"),
            "{text}"
        );
        // Before the first retransmission: the ICMP error itself was heard.
        assert!(
            started.elapsed() < Duration::from_millis(400),
            "{transport}: {:?}",
            started.elapsed()
        );
    }
}

#[tokio::test]
async fn says_what_a_lost_connection_means() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let (outcome, _) = call(address, &["--transport", "tcp"], false).await;
    closing.await.unwrap();
    assert!(
        outcome.text().contains("connection closed"),
        "{}",
        outcome.text()
    );
}

#[test]
fn refuses_options_that_make_no_sense() {
    for (line, expected) in [
        (&["34911234567"][..], "expected sip:NUMBER@HOST"),
        (&["tel:+34911234567"], "expected sip:NUMBER@HOST"),
        (&["sip:1@h", "--dtmf", "12x"], "there is no key 'X'"),
        (
            &["sip:1@h", "--header", "Via: x"],
            "Via is written by the call itself",
        ),
        (&["sip:1@h", "--header", "X y"], "expected 'Name: value'"),
        (&["sip:1@h", "--duration", "0"], "more than 0"),
        (&["sip:1@h", "--min-correlation", "2"], "from 0 to 1"),
        (&["sip:1@h", "--bind", "0.0.0.0"], "can answer to"),
        (&["sip:1@h", "--username", "alice"], "--password-file"),
    ] {
        let Err(error) = parse(line) else {
            panic!("{line:?} was taken")
        };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn takes_the_transport_from_the_uri_and_the_duration_from_the_audio() {
    let (prepared, transport) =
        prepare(parse(&["sip:1@192.0.2.1;transport=tcp"]).unwrap()).unwrap();
    assert_eq!(transport, Transport::Tcp);
    assert_eq!(prepared.0.duration, Duration::from_secs(6));
    assert_eq!(prepared.0.codecs, [Codec::Pcmu, Codec::Pcma]);
    for secure in ["sip:1@192.0.2.1;transport=tls", "sips:1@192.0.2.1"] {
        let (_, transport) = prepare(parse(&[secure]).unwrap()).unwrap();
        assert_eq!(transport, Transport::Tls);
    }
    for (line, expected) in [
        (
            &["sip:1@192.0.2.1;transport=sctp"][..],
            "use udp, tcp or tls",
        ),
        (&["sips:1@192.0.2.1", "--transport", "udp"], "over tls"),
        (&["sip:1@192.0.2.1", "--ca", "ca.crt"], "--transport tls"),
    ] {
        let problem = prepare(parse(line).unwrap()).err().unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn names_the_file_that_cannot_be_played() {
    let file =
        std::env::temp_dir().join(format!("ringwire-call-{:016x}.wav", rand::random::<u64>()));
    fs::write(&file, "no audio").unwrap();
    let problem = read_wav(&file).unwrap_err();
    fs::remove_file(&file).unwrap();
    assert!(
        problem.contains("not a WAV file") && problem.contains("ringwire-call-"),
        "{problem}"
    );
}
