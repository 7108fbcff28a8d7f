use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

use super::*;

const FRAME: usize = 323;
const MOST: usize = 20 * FRAME;

/// A connection with small buffers, so that little has to be sent until they are full.
async fn pair() -> (AgentStream, TcpStream) {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listener.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    let stream = socket.connect(listener.local_addr().unwrap());
    let stream = stream.await.unwrap();
    let (agent, _) = listener.accept().await.unwrap();
    (AgentStream::new(stream), agent)
}

fn frame(number: u8) -> [u8; FRAME] {
    [number; FRAME]
}

/// Sends until a frame is dropped; how many were taken.
fn fill(stream: &mut AgentStream) -> usize {
    (0..1000)
        .find(|number| !stream.send(&frame(*number as u8), MOST))
        .expect("the backlog has a bound")
}

#[tokio::test]
async fn what_waits_is_bounded_and_arrives_whole_and_in_order() {
    let (mut stream, mut agent) = pair().await;
    let taken = fill(&mut stream);
    assert!(stream.backlog.len() <= MOST);
    assert!(
        stream.send(b"key", MOST + FRAME),
        "a higher bound has room for what is not audio"
    );
    let mut expected: Vec<u8> = (0..taken).flat_map(|number| frame(number as u8)).collect();
    expected.extend(b"key");
    let mut heard = vec![0; expected.len()];
    let mut unused = [0; 16];
    tokio::select! {
        read = agent.read_exact(&mut heard) => drop(read.unwrap()),
        read = stream.read(&mut unused) => panic!("the agent said nothing: {read:?}"),
    }
    assert!(heard == expected);
    assert!(stream.backlog.is_empty() && stream.backlog.capacity() <= KEPT_CAPACITY);
}

#[tokio::test]
async fn what_the_agent_says_is_read_although_it_does_not_read() {
    let (mut stream, mut agent) = pair().await;
    fill(&mut stream);
    agent.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 16];
    let length = stream.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"hello");
}

#[tokio::test]
async fn an_agent_that_never_reads_is_given_up() {
    let (mut stream, _agent) = pair().await;
    fill(&mut stream);
    // The clock jumps when nothing else is left to do.
    tokio::time::pause();
    let begun = Instant::now();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert!(matches!(error, StreamError::Stuck), "{error}");
    assert!(begun.elapsed() + Duration::from_secs(2) > STUCK_AFTER);
}

#[tokio::test]
async fn closing_sends_what_waits_while_the_agent_talks_on() {
    let (mut stream, mut agent) = pair().await;
    let taken = fill(&mut stream);
    assert!(stream.send(b"end", MOST + FRAME));
    let closing = tokio::spawn(stream.close(Duration::from_secs(5)));
    agent.write_all(&[0; 3000]).await.unwrap();
    let mut heard = Vec::new();
    agent.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), taken * FRAME + 3);
    assert!(heard.ends_with(b"end"));
    drop(agent);
    closing.await.unwrap();
}

#[tokio::test]
async fn an_agent_that_closes_is_told_and_nothing_is_kept_for_it() {
    let (mut stream, agent) = pair().await;
    drop(agent);
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert!(matches!(error, StreamError::Closed), "{error}");
    // The first one is answered by a reset.
    while stream.failure.is_none() {
        assert!(stream.send(&frame(0), MOST));
        tokio::task::yield_now().await;
    }
    assert!(stream.send(&frame(0), MOST) && stream.backlog.is_empty());
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert!(matches!(error, StreamError::Lost(_)), "{error}");
}
