//! Streams over a pipe, by a clock that stands still while somebody has something to do.

use tokio::io::DuplexStream;

use super::*;

struct Bench {
    streams: Streams,
    events: mpsc::Receiver<StreamEvent>,
    connection: u64,
    peer: DuplexStream,
    begun: Instant,
}

impl Bench {
    fn new(idle: Idle) -> Self {
        let (events_in, events) = mpsc::channel(8);
        let mut streams = Streams::new(events_in);
        let (ours, peer) = tokio::io::duplex(64 << 10);
        let remote = SocketAddr::from(([192, 0, 2, 1], 5060));
        let ended = CancellationToken::new();
        let flow = streams.add(ours, (Transport::Tcp, remote), idle, &ended);
        Self {
            streams,
            events,
            connection: flow.connection.unwrap(),
            peer,
            begun: Instant::now(),
        }
    }

    /// Sends a keep-alive, which the peer gets.
    async fn ping(&mut self) {
        assert_eq!(self.streams.ping(self.connection), Sent::Queued);
        let mut got = [0; 4];
        self.peer.read_exact(&mut got).await.unwrap();
        assert_eq!(got, *b"\r\n\r\n");
    }

    /// Why the stream ended, and after how many seconds.
    async fn end(&mut self) -> (Option<CutOff>, u64) {
        match self.events.recv().await {
            Some(StreamEvent::Closed(_, _, cut)) => (cut, self.begun.elapsed().as_secs()),
            Some(StreamEvent::Message(..)) => panic!("a message"),
            Some(StreamEvent::Unreadable(_, failure)) => panic!("{failure:?}"),
            None => panic!("no more events"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_is_not_answered_ends_the_stream_of_a_peer_that_answered_before() {
    let mut bench = Bench::new(Idle::After(Duration::from_secs(3600)));
    bench.ping().await;
    bench.peer.write_all(b"\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    bench.ping().await;
    bench.peer.write_all(b"\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    bench.ping().await;
    assert_eq!(bench.end().await, (Some(CutOff::KeepAliveUnanswered), 60));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_knows_no_keep_alives_keeps_its_stream_until_it_was_silent_for_long() {
    let mut bench = Bench::new(Idle::After(Duration::from_secs(300)));
    for _ in 0..4 {
        bench.ping().await;
        tokio::time::sleep(Duration::from_secs(25)).await;
    }
    assert_eq!(bench.end().await, (Some(CutOff::Idle), 300));
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_of_the_peer_is_answered_and_counts_as_a_sign() {
    let mut bench = Bench::new(Idle::After(Duration::from_secs(60)));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        bench.peer.write_all(b"\r\n\r\n").await.unwrap();
        let mut got = [0; 2];
        bench.peer.read_exact(&mut got).await.unwrap();
        assert_eq!(got, *b"\r\n");
    }
    assert_eq!(bench.end().await, (Some(CutOff::Idle), 310));
}

#[tokio::test(start_paused = true)]
async fn a_link_between_our_own_may_be_silent_but_no_message_may_stay_incomplete() {
    let mut bench = Bench::new(Idle::Forever);
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    bench
        .peer
        .write_all(b"OPTIONS sip:a SIP/2.0\r\n")
        .await
        .unwrap();
    // Byte by byte it wins no time.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        bench.peer.write_all(b"X").await.unwrap();
    }
    assert_eq!(bench.end().await, (Some(CutOff::SlowMessage), 10_020));
}
