//! A voice agent that speaks Twilio's Media Streams, as a bot would: written from Twilio's documentation, without the product's code.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::wait::{self, seconds};

/// The agents' thread; it lives as long as the test's process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
});

/// How an agent behaves.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// Sends the caller's audio back.
    pub echoes: bool,
    /// Accepts no WebSocket until [`Agent::accept`].
    pub hesitates: bool,
    /// Keeps no list of what it heard: for thousands of calls.
    pub forgets: bool,
}

/// Something that a call's connection brought.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// Which connection, from 0.
    pub connection: usize,
    /// The message; `{"event": "request", "uri", "headers"}` for the upgrade and `{"event": "closed"}` at the end are ours.
    pub message: Value,
}

#[derive(Default)]
struct State {
    heard: Vec<Heard>,
    connections: usize,
    open: usize,
    /// Of each connection; `None` closes it.
    senders: Vec<mpsc::Sender<Option<Value>>>,
}

/// A listening agent.
pub struct Agent {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gate: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start(manner: Manner) -> Self {
        Self::start_on(std::net::Ipv4Addr::LOCALHOST.into(), manner)
    }

    /// Starts one on a free port of an address that the machine has.
    pub fn start_on(ip: std::net::IpAddr, manner: Manner) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind((ip, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (gate, open) = watch::channel(!manner.hesitates);
        let shared = Arc::clone(&state);
        let serving = RUNTIME.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(serve(stream, manner, Arc::clone(&shared), open.clone()));
            }
        });
        Self {
            address,
            state,
            gate,
            serving,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("ws://{}/media?bot=1", self.address)
    }

    /// Accepts connections from now on.
    pub fn accept(&self) {
        self.gate.send_replace(true);
    }

    /// All that was heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.state.lock().unwrap().heard.clone()
    }

    /// All events of that name, of all connections.
    pub fn events(&self, event: &str) -> Vec<Heard> {
        self.heard()
            .into_iter()
            .filter(|heard| heard.message["event"] == event)
            .collect()
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait(&self, event: &str) -> Heard {
        wait::until(seconds(8), &format!("the agent hears {event:?}"), || {
            self.events(event).into_iter().next()
        })
    }

    /// Connections so far, and how many of them are open.
    pub fn connections(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.connections, state.open)
    }

    /// Sends a message on the latest connection.
    pub fn send(&self, message: Value) {
        self.command(Some(message));
    }

    /// Closes the latest connection: the agent hangs up.
    pub fn hang_up(&self) {
        self.command(None);
    }

    fn command(&self, command: Option<Value>) {
        let sender = self
            .state
            .lock()
            .unwrap()
            .senders
            .last()
            .cloned()
            .expect("nobody is connected");
        RUNTIME
            .block_on(sender.send(command))
            .expect("the connection is gone");
    }

    /// The identifier that messages to the product carry.
    pub fn stream_sid(&self) -> String {
        self.wait("start").message["streamSid"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Sends audio (µ-law), in one message.
    pub fn say(&self, ulaw: &[u8]) {
        let sid = self.stream_sid();
        self.send(json!({"event": "media", "streamSid": sid, "media": {"payload": STANDARD.encode(ulaw)}}));
    }

    /// Asks to be told when what was said before has been played.
    pub fn mark(&self, name: &str) {
        let sid = self.stream_sid();
        self.send(json!({"event": "mark", "streamSid": sid, "mark": {"name": name}}));
    }

    /// Takes back what was said and not played.
    pub fn clear(&self) {
        let sid = self.stream_sid();
        self.send(json!({"event": "clear", "streamSid": sid}));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
        if std::thread::panicking() {
            let heard = self.heard();
            let told = heard
                .iter()
                .filter(|heard| heard.message["event"] != "media")
                .map(|heard| heard.message.to_string());
            eprintln!(
                "---- the agent heard, besides audio:\n{}\n----",
                told.collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// The audio of a `media` message.
pub fn audio(message: &Value) -> Vec<u8> {
    STANDARD
        .decode(message["media"]["payload"].as_str().unwrap())
        .unwrap()
}

#[expect(
    clippy::result_large_err,
    reason = "the callback's type is tungstenite's"
)]
async fn serve(
    stream: TcpStream,
    manner: Manner,
    state: Arc<Mutex<State>>,
    mut gate: watch::Receiver<bool>,
) {
    if gate.wait_for(|open| *open).await.is_err() {
        return;
    }
    let _ = stream.set_nodelay(true);
    let mut upgrade = Value::Null;
    let note = |request: &Request, response: Response| {
        let headers = request.headers().iter();
        let headers: serde_json::Map<String, Value> = headers
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into(),
                )
            })
            .collect();
        upgrade = json!({"event": "request", "uri": request.uri().to_string(), "headers": headers});
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else {
        return;
    };
    // Kept here, too: the connection stays when it is forgotten.
    let (sender, mut commands) = mpsc::channel(64);
    let connection = {
        let mut state = state.lock().unwrap();
        state.connections += 1;
        state.open += 1;
        if manner.forgets {
            state.senders.clear();
        }
        state.senders.push(sender.clone());
        state.connections - 1
    };
    let hear = |message: Value| {
        if !manner.forgets {
            state.lock().unwrap().heard.push(Heard {
                at: Instant::now(),
                connection,
                message,
            });
        }
    };
    hear(upgrade);
    loop {
        tokio::select! {
            received = socket.next() => match received {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({"event": "unreadable", "text": text.as_str()}));
                    if manner.echoes && message["event"] == "media" {
                        let back = json!({"event": "media", "streamSid": message["streamSid"], "media": {"payload": message["media"]["payload"]}});
                        if socket.send(Message::text(back.to_string())).await.is_err() {
                            break;
                        }
                    }
                    hear(message);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            command = commands.recv() => if let Some(message) = command.flatten() {
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
            } else {
                let _ = socket.close(None).await;
                // Until the other side has answered.
                while let Some(Ok(_)) = socket.next().await {}
                break;
            },
        }
    }
    state.lock().unwrap().open -= 1;
    hear(json!({"event": "closed"}));
}
