//! A media pod on a link of the tests', with sockets and threads as in life.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CallMetrics;
use ringwire_agent::connect::{self, Connector};
use ringwire_config::gateway::{GatewaySettings, MediaConfig};
use ringwire_config::shard::Role;
use ringwire_config::state::PodState;
use ringwire_config::token::Incarnation;
use ringwire_config::{NotUnderstood, ObjectRef, fixture};
use ringwire_control::Reporter;
use ringwire_media::plane::Plane;
use ringwire_sip::message::{HeaderName, Message, Request, StreamItem, StreamParser};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::node::{self, Params};
use crate::link::LinkStream;
use crate::registrar::Identity;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(5);

struct Bench {
    link: DuplexStream,
    parser: StreamParser,
    reporter: Reporter,
    drain: CancellationToken,
    config: watch::Sender<Option<Arc<MediaConfig>>>,
    pod: tokio::task::JoinHandle<Result<(), crate::alone::Failed>>,
}

fn config(agents: &[&str]) -> MediaConfig {
    let media = fixture::media(agents.iter().map(|name| fixture::agent(name)));
    let newer = ObjectRef::new("voice", "newer");
    MediaConfig {
        not_understood: NotUnderstood {
            agents: [(newer, "unknown value \"telepathy\"".to_owned())].into(),
            ..NotUnderstood::default()
        },
        settings: GatewaySettings {
            rtp_ports: (22_000, 22_099),
            drain_seconds: 0,
            ..media.settings
        },
        ..media
    }
}

impl Bench {
    async fn start() -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (link, theirs) = tokio::io::duplex(64 * 1024);
        let (links_in, links) = mpsc::channel(1);
        let reporter = Reporter::new(PodState::new("media-0", Role::Media, Incarnation(1)));
        let drain = CancellationToken::new();
        let (config_in, config) = watch::channel(Some(Arc::new(config(&["bot"]))));
        let params = Params {
            config,
            links,
            reporter: reporter.clone(),
            identity: Identity {
                node: None,
                pod_ip: Some(loopback),
                bind: loopback,
            },
            incarnation: Incarnation(1),
            connector: Connector::new(connect::public_tls().unwrap()).unwrap(),
            drain: drain.clone(),
            hurry: CancellationToken::new(),
            plane: Plane::start(1).unwrap(),
            calls: CallMetrics::default(),
            ready: Box::new(|| {}),
            beat: Box::new(|| {}),
        };
        let pod = tokio::spawn(crate::alone::run("media", move || node::run(params)));
        let link_stream: Box<dyn LinkStream> = Box::new(theirs);
        assert!(links_in.send(link_stream).await.is_ok());
        Self {
            link,
            parser: StreamParser::new(),
            reporter,
            drain,
            config: config_in,
            pod,
        }
    }

    async fn send(&mut self, text: &str) {
        let text = text.replace('\n', "\r\n");
        self.link.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next message that is wanted; others are passed over.
    async fn expect<T>(&mut self, what: &str, wanted: impl Fn(Message) -> Option<T>) -> T {
        let reading = async {
            loop {
                while let Some(item) = self.parser.next().unwrap() {
                    let StreamItem::Message(message) = item else {
                        continue;
                    };
                    if let Some(found) = wanted(message) {
                        return found;
                    }
                }
                let mut buffer = [0; 4096];
                let length = self.link.read(&mut buffer).await.unwrap();
                assert!(length > 0, "the link has ended");
                self.parser.push(&buffer[..length]);
            }
        };
        let found = tokio::time::timeout(LIMIT, reading).await;
        found.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// The final status of a call's request, and the tag of the pod.
    async fn answer(&mut self, call: &str, method: &str) -> (u16, String) {
        self.expect(&format!("answer to {method} of {call}"), |message| {
            let Message::Response(response) = message else {
                return None;
            };
            let (_, of) = response.headers.cseq().ok()?;
            let own = response.headers.call_id().ok()? == call && of.as_str() == method;
            let tag = response
                .headers
                .to()
                .ok()?
                .tag()
                .unwrap_or_default()
                .to_owned();
            (own && response.status >= 200).then_some((response.status, tag))
        })
        .await
    }

    async fn request(&mut self, call: &str, method: &str) -> Request {
        self.expect(&format!("{method} of {call}"), |message| match message {
            Message::Request(request) => {
                let own =
                    request.headers.call_id().ok()? == call && request.method.as_str() == method;
                own.then_some(request)
            }
            Message::Response(_) => None,
        })
        .await
    }

    /// A call that stands; the pod's tag.
    async fn call(&mut self, call: &str) -> String {
        let (status, tag) = self.invite(call, "bot").await;
        assert_eq!(status, 200);
        self.send_plain(call, "ACK", 1, &tag, "").await;
        tag
    }

    /// How an INVITE to that agent is answered, and the tag of the pod.
    async fn invite(&mut self, call: &str, agent: &str) -> (u16, String) {
        let head = head(call, "INVITE", 1, "") + &decided(agent);
        self.send(&(head + &sdp(4000))).await;
        self.answer(call, "INVITE").await
    }

    async fn send_plain(&mut self, call: &str, method: &str, cseq: u32, tag: &str, more: &str) {
        let head = head(call, method, cseq, &format!(";tag={tag}"));
        self.send(&format!("{head}{more}Content-Length: 0\n\n"))
            .await;
    }

    async fn wait_calls(&self, count: u32) {
        let mut changes = self.reporter.subscribe();
        let waiting = async {
            while self.reporter.read(|state| state.calls.total) != count {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        waited.unwrap_or_else(|_| panic!("never {count} calls"));
    }

    async fn stop(self) {
        self.drain.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(12), self.pod).await;
        ended.expect("the pod stops").unwrap().unwrap();
    }
}

fn head(call: &str, method: &str, cseq: u32, to_tag: &str) -> String {
    format!(
        "{method} sip:us@127.0.0.1 SIP/2.0\nVia: SIP/2.0/TCP registrar.invalid;branch=z9hG4bK{call}{cseq}{method}\n\
         Max-Forwards: 70\nFrom: <sip:1@127.0.0.1>;tag={call}\nTo: <sip:us@127.0.0.1>{to_tag}\nCall-ID: {call}\n\
         CSeq: {cseq} {method}\n"
    )
}

/// What a registrar has decided on an INVITE to that agent.
fn decided(agent: &str) -> String {
    format!(
        "X-Ringwire-Provider: voice/trunk\nX-Ringwire-Number: voice/main\nX-Ringwire-Called: +34911234567\n\
         X-Ringwire-Agent: voice/{agent}\nX-Ringwire-Codecs: PCMA\nX-Ringwire-Contact: sip:127.0.0.1:5060\n\
         X-Ringwire-Source: 127.0.0.1:5060\nContact: <sip:caller@127.0.0.1>\n"
    )
}

/// The end of a message with the caller's SDP.
fn sdp(port: u16) -> String {
    let sdp = format!(
        "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 8\n"
    );
    let length = sdp.replace('\n', "\r\n").len();
    format!("Content-Type: application/sdp\nContent-Length: {length}\n\n{sdp}")
}

/// Where a caller hears RTP.
async fn ear() -> (UdpSocket, u16) {
    let ear = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = ear.local_addr().unwrap().port();
    (ear, port)
}

async fn hears(ear: &UdpSocket) {
    let packet = tokio::time::timeout(LIMIT, ear.recv(&mut [0; 2048])).await;
    packet.expect("RTP").unwrap();
}

#[tokio::test]
async fn what_is_agreed_on_before_the_agent_is_there_begins_with_the_answer() {
    let mut bench = Bench::start().await;
    let (ear, port) = ear().await;
    // No offer, and a provisional response has to be acknowledged (RFC 3262): ours has the offer, the PRACK the answer.
    let invite = head("early", "INVITE", 1, "") + &decided("late");
    bench
        .send(&format!("{invite}Require: 100rel\nContent-Length: 0\n\n"))
        .await;
    let (tag, rseq) = bench
        .expect("a reliable 180", |message| {
            let Message::Response(response) = message else {
                return None;
            };
            let rseq = response.headers.get(&HeaderName::Rseq)?.to_owned();
            Some((response.headers.to().ok()?.tag()?.to_owned(), rseq))
        })
        .await;
    let prack = head("early", "PRACK", 2, &format!(";tag={tag}"));
    bench
        .send(&(format!("{prack}RAck: {rseq} 1 INVITE\n") + &sdp(port)))
        .await;
    assert_eq!(bench.answer("early", "PRACK").await.0, 200);
    // Only now somebody is there to answer.
    bench
        .config
        .send_replace(Some(Arc::new(config(&["bot", "late"]))));
    assert_eq!(bench.answer("early", "INVITE").await.0, 200);
    bench.send_plain("early", "ACK", 1, &tag, "").await;
    hears(&ear).await;
    bench.wait_calls(1).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_successor_that_is_given_up_leaves_the_call_as_it_was() {
    let mut bench = Bench::start().await;
    let (ear, port) = ear().await;
    let invite = head("old", "INVITE", 1, "") + &decided("bot");
    bench.send(&(invite + &sdp(port))).await;
    let (status, old) = bench.answer("old", "INVITE").await;
    assert_eq!(status, 200);
    bench.send_plain("old", "ACK", 1, &old, "").await;
    for number in 0..40 {
        let call = format!("new{number}");
        let head = head(&call, "INVITE", 1, "");
        let replaces = format!("Replaces: old;to-tag={old};from-tag=old\n");
        let cancel = head
            .replacen("INVITE", "CANCEL", 1)
            .replace("1 INVITE", "1 CANCEL");
        let invite = head + &decided("bot") + &replaces + &sdp(4000);
        bench
            .send(&format!("{invite}{cancel}Content-Length: 0\n\n"))
            .await;
        let (status, tag) = bench.answer(&call, "INVITE").await;
        if status == 200 {
            // Seldom the CANCEL comes too late: the old call is replaced.
            bench.send_plain(&call, "ACK", 1, &tag, "").await;
            break;
        }
        assert_eq!(status, 487);
        bench
            .send_plain("old", "OPTIONS", 2 + number, &old, "")
            .await;
        assert_eq!(bench.answer("old", "OPTIONS").await.0, 200);
        // What was heard before is passed over.
        while ear.try_recv(&mut [0; 2048]).is_ok() {}
        hears(&ear).await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_call_that_breaks_is_ended_with_bye_and_the_others_go_on() {
    let mut bench = Bench::start().await;
    let broken = bench.call("broken").await;
    let other = bench.call("other").await;
    bench.wait_calls(2).await;
    // The fault that is built into tests, see `call::signalling`.
    let refer = "Refer-To: <sip:fault@fault.invalid>\n";
    bench.send_plain("broken", "REFER", 2, &broken, refer).await;
    let bye = bench.request("broken", "BYE").await;
    let reason = bye.headers.get(&HeaderName::Reason).unwrap_or_default();
    assert!(reason.contains("InternalError"), "{reason}");
    bench.wait_calls(1).await;
    bench.send_plain("other", "OPTIONS", 2, &other, "").await;
    assert_eq!(bench.answer("other", "OPTIONS").await.0, 200);
    // It is not known any more.
    bench.send_plain("broken", "OPTIONS", 3, &broken, "").await;
    assert_eq!(bench.answer("broken", "OPTIONS").await.0, 481);
    bench.stop().await;
}

#[tokio::test]
async fn a_call_to_an_agent_of_a_newer_version_is_refused_at_once() {
    let mut bench = Bench::start().await;
    let begun = Instant::now();
    assert_eq!(bench.invite("newer", "newer").await.0, 480);
    // One that is not known at all may be on its way.
    assert!(begun.elapsed() < Duration::from_millis(900));
    bench.wait_calls(0).await;
    bench.call("known").await;
    bench.stop().await;
}
