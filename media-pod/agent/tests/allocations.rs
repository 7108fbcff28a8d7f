//! A call that has begun asks for no memory: neither for the caller's audio on its way to the agent nor for the agent's on its way back.
//! Counted is what the thread that carries the call asks for.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use ringwire_agent::{
    Command,
    address::AddressPolicy,
    audiosocket,
    connect::{Connector, TcpTarget, WebSocketTarget, public_tls},
    socket::{AgentSocket, Received},
    stream::AgentStream,
    twilio,
};
use ringwire_sip_allocations::count;
use tokio_tungstenite::tungstenite::{self, Message};

const WARM_UP: usize = 20;
const COUNTED: usize = 200;
const LIMIT: Duration = Duration::from_secs(10);
const MOST: usize = 64 << 10;
/// 20 ms of it.
const AUDIO: [u8; 160] = [0x7f; 160];

/// An agent in a thread of its own, for one call.
fn serve(agent: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let agent = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        agent(stream);
    });
    (address, agent)
}

fn unrestricted() -> AddressPolicy {
    AddressPolicy {
        restrict: false,
        ..AddressPolicy::default()
    }
}

fn connected<T>(connect: impl AsyncFnOnce(Connector, tokio::time::Instant) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connector = Connector::new(public_tls().unwrap()).unwrap();
        connect(connector, tokio::time::Instant::now() + LIMIT).await
    })
}

/// Does it again and again; how often memory was asked for once it is warm.
fn counted(mut exchange: impl FnMut(usize)) -> u64 {
    (0..WARM_UP).for_each(&mut exchange);
    let before = count();
    (WARM_UP..WARM_UP + COUNTED).for_each(&mut exchange);
    count() - before
}

/// Until it is true. Asks for no memory itself.
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !check() {
        assert!(Instant::now() < deadline, "{what} in time");
        thread::sleep(Duration::from_micros(100));
    }
}

fn session() -> twilio::Session {
    twilio::Session::new(twilio::StartInfo {
        account_sid: "AC1".into(),
        call_sid: "CA1".into(),
        stream_sid: "MZ1".into(),
        custom_parameters: BTreeMap::new(),
    })
}

/// One message goes out, and what the agent answers is acted upon: audio, a mark, nothing to be played.
fn exchange_twilio(socket: &mut AgentSocket, session: &mut twilio::Session, number: usize) {
    let millis = 20 * number as u64;
    assert!(socket.send_text(MOST, |out| session.media(&AUDIO, millis, out)));
    let (mut audio, mut marks, mut clears) = (0, 0, 0);
    let mut scratch = [0; 4096];
    until("the agent's answer", || {
        socket.wake(false);
        let more = socket.receive(&mut scratch, &mut |received| {
            let Received::Text(text) = received else {
                panic!("{received:?}");
            };
            match session.receive(text).unwrap() {
                Some(Command::Audio(ulaw)) => audio += ulaw.len(),
                Some(Command::Mark(name)) => marks += usize::from(name == "m"),
                Some(Command::Clear) => clears += 1,
                None => panic!("{text}"),
            }
        });
        more.unwrap();
        clears == 1
    });
    assert_eq!((audio, marks), (2 * AUDIO.len(), 1));
}

#[test]
fn a_twilio_agents_audio_asks_for_no_memory() {
    let (address, agent) = serve(|stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let mut heard = 0;
        while let Ok(Message::Text(text)) = socket.read() {
            assert!(text.contains(r#""event":"media""#));
            heard += 1;
            socket.write(Message::Ping(vec![1; 8].into())).unwrap();
            let audio = "f39/".repeat(53) + "fw==";
            for field in [r#""streamSid":"MZ1","#, ""] {
                let media =
                    format!(r#"{{"event":"media",{field}"media":{{"payload":"{audio}"}}}}"#);
                socket.write(Message::text(media)).unwrap();
            }
            let mark = r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"m"}}"#;
            socket.write(Message::text(mark)).unwrap();
            socket
                .write(Message::text(r#"{"event":"clear","streamSid":"MZ1"}"#))
                .unwrap();
            socket.flush().unwrap();
            // The answer to the ping.
            assert!(matches!(socket.read(), Ok(Message::Pong(_))));
        }
        assert_eq!(heard, WARM_UP + COUNTED);
    });
    let url = format!("ws://{address}");
    let target = WebSocketTarget::new(&url, Vec::new(), unrestricted()).unwrap();
    let mut socket =
        connected(async |connector, deadline| connector.connect(&target, deadline).await.unwrap());
    let mut session = session();
    let count = counted(|number| exchange_twilio(&mut socket, &mut session, number));
    assert_eq!(count, 0, "for {COUNTED} messages each way");
    drop(socket);
    agent.join().unwrap();
}

/// 20 ms at 8 kHz.
const LINEAR: [u8; 320] = [0x55; 320];
const AUDIO_FRAME: usize = audiosocket::HEADER_BYTES + LINEAR.len();

/// One frame goes out and comes back.
fn exchange_audiosocket(stream: &mut AgentStream, session: &mut audiosocket::Session) {
    let mut frame = [0; AUDIO_FRAME];
    assert!(stream.send(session.audio(&LINEAR, &mut frame), MOST));
    let mut scratch = [0; 4096];
    let mut heard = 0;
    until("the agent's audio", || {
        stream.wake(false);
        while let Some(length) = stream.read(&mut scratch).unwrap() {
            let mut input = &scratch[..length];
            while let Some(received) = session.receive(&mut input) {
                match received {
                    audiosocket::Received::Audio(audio) => heard += audio.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
        heard == LINEAR.len()
    });
}

#[test]
fn an_audiosocket_agents_audio_asks_for_no_memory() {
    let (address, agent) = serve(|mut stream| {
        let mut frame = [0; AUDIO_FRAME];
        for number in 0..WARM_UP + COUNTED {
            stream.read_exact(&mut frame).unwrap();
            // In pieces, some of which come on their own.
            let (begin, end) = frame.split_at(number % frame.len());
            stream.write_all(begin).unwrap();
            stream.write_all(end).unwrap();
        }
    });
    let target = TcpTarget::new(&address.to_string(), unrestricted()).unwrap();
    let mut stream = connected(async |connector, deadline| {
        connector.connect_tcp(&target, deadline).await.unwrap()
    });
    let mut session = audiosocket::Session::new(8000);
    let count = counted(|_| exchange_audiosocket(&mut stream, &mut session));
    assert_eq!(count, 0, "for {COUNTED} frames each way");
    drop(stream);
    agent.join().unwrap();
}

#[test]
fn the_count_sees_what_is_asked_for() {
    let asked = counted(|number| drop(std::hint::black_box(vec![0_u8; number + 1])));
    assert_eq!(asked, COUNTED as u64);
}
