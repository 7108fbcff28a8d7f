//! Both ends of the control port over loopback, with certificates as the operator issues them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ringwire_config::object::ObjectRef;
use ringwire_config::shard::Role;
use ringwire_config::state::PodState;
use ringwire_config::token::Incarnation;
use ringwire_control::client::{self, ConnectError, StateStream};
use ringwire_control::{GatewayTls, Reporter, issue, server};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Nothing here takes longer, unless it hangs.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap_or_else(|_| panic!("waited 10 s: {what}"))
}

fn tls_of(authority: &issue::Issued) -> GatewayTls {
    let leaf = issue::leaf(authority, "test", SystemTime::now()).unwrap();
    GatewayTls::from_pem(
        authority.certificate.as_bytes(),
        leaf.certificate.as_bytes(),
        leaf.key.as_bytes(),
    )
    .unwrap()
}

fn authority() -> issue::Issued {
    issue::authority("voice/default", SystemTime::now()).unwrap()
}

struct Pod {
    port: u16,
    tls: Arc<ArcSwap<GatewayTls>>,
    reporter: Reporter,
    sip: mpsc::Receiver<TlsStream<TcpStream>>,
    stop: CancellationToken,
}

impl Pod {
    async fn start(tls: GatewayTls) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        let reporter = Reporter::new(PodState::new("media-0", Role::Media, Incarnation(7)));
        let (sender, sip) = mpsc::channel(1);
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(
            listener,
            Arc::clone(&tls),
            reporter.clone(),
            Some(sender),
            stop.clone(),
        ));
        Self {
            port,
            tls,
            reporter,
            sip,
            stop,
        }
    }

    async fn follow(&self, client: &GatewayTls) -> Result<(StateStream, PodState), ConnectError> {
        soon(
            "state stream",
            StateStream::open(
                LOOPBACK,
                self.port..self.port + 1,
                "media-0",
                &client.client_http,
            ),
        )
        .await
    }
}

#[tokio::test]
async fn follows_a_pods_state_until_it_stops() {
    let authority = authority();
    let pod = Pod::start(tls_of(&authority)).await;
    let (mut stream, first) = pod.follow(&tls_of(&authority)).await.unwrap();
    assert_eq!(
        (first.incarnation, first.ready, first.calls.total),
        (Incarnation(7), false, 0)
    );

    pod.reporter.update(|state| {
        state.ready = true;
        state
            .calls
            .agents
            .insert(ObjectRef::new("voice", "echo"), 3);
    });
    let next = soon("the change", stream.next()).await.unwrap();
    assert_eq!(next, pod.reporter.snapshot());

    pod.stop.cancel();
    assert!(soon("the end", stream.next()).await.is_none());
}

#[tokio::test]
async fn a_state_larger_than_a_tls_record_arrives_whole() {
    let authority = authority();
    let pod = Pod::start(tls_of(&authority)).await;
    pod.reporter.update(|state| {
        for number in 0..20_000 {
            state
                .calls
                .numbers
                .insert(ObjectRef::new("voice", format!("number-{number}")), number);
        }
    });
    let (_, first) = pod.follow(&tls_of(&authority)).await.unwrap();
    assert_eq!(first, pod.reporter.snapshot());
}

#[tokio::test]
async fn hands_sip_over_and_goes_on_streaming_state() {
    let authority = authority();
    let mut pod = Pod::start(tls_of(&authority)).await;
    let registrar = tls_of(&authority);
    let mut near = soon(
        "SIP",
        client::connect_sip(LOOPBACK, pod.port, Arc::clone(&registrar.client_sip)),
    )
    .await
    .unwrap();
    near.write_all(b"OPTIONS sip:x SIP/2.0\r\n\r\n")
        .await
        .unwrap();
    let mut far = soon("the stream at the pod", pod.sip.recv()).await.unwrap();
    let mut received = [0; 25];
    soon("the bytes", far.read_exact(&mut received))
        .await
        .unwrap();
    assert_eq!(&received, b"OPTIONS sip:x SIP/2.0\r\n\r\n");

    assert!(pod.follow(&registrar).await.is_ok());
    pod.stop.cancel();
    far.write_all(b"SIP/2.0 200 OK\r\n\r\n").await.unwrap();
    let mut answer = [0; 18];
    soon("the answer", near.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(
        &answer, b"SIP/2.0 200 OK\r\n\r\n",
        "a stopping pod still ends its calls"
    );
    drop(far);
    assert!(
        !matches!(soon("the end", near.read(&mut answer)).await, Ok(1..)),
        "a registrar sees that the pod is gone"
    );
}

#[tokio::test]
async fn passes_by_the_other_pods_of_a_node() {
    let authority = authority();
    let pod = Pod::start(tls_of(&authority)).await;
    let tls = tls_of(&authority);
    let ports = pod.port..pod.port + 1;
    let result = soon(
        "the search",
        StateStream::open(LOOPBACK, ports, "media-1", &tls.client_http),
    )
    .await;
    assert!(matches!(result, Err(ConnectError::NotFound { pod, .. }) if pod == "media-1"));
}

#[tokio::test]
async fn refuses_certificates_of_another_gateway_on_either_side() {
    let (ours, theirs) = (authority(), authority());
    let mut pod = Pod::start(tls_of(&ours)).await;
    assert!(
        pod.follow(&tls_of(&theirs)).await.is_err(),
        "a client refuses a foreign server"
    );

    // A client that trusts the pod, but shows a certificate of another gateway.
    let leaf = issue::leaf(&theirs, "test", SystemTime::now()).unwrap();
    let impostor = GatewayTls::from_pem(
        ours.certificate.as_bytes(),
        leaf.certificate.as_bytes(),
        leaf.key.as_bytes(),
    )
    .unwrap();
    assert!(pod.follow(&impostor).await.is_err());
    assert!(no_service(&mut pod, impostor.client_sip).await);
}

#[tokio::test]
async fn refuses_clients_without_a_certificate() {
    let ours = authority();
    let mut pod = Pod::start(tls_of(&ours)).await;
    let mut roots = rustls::RootCertStore::empty();
    for root in
        <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(
            ours.certificate.as_bytes(),
        )
    {
        roots.add(root.unwrap()).unwrap();
    }
    let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ringwire_control::tls::ALPN_SIP.to_vec()];
    assert!(no_service(&mut pod, Arc::new(client)).await);
}

/// In TLS 1.3 a client learns only by reading that its certificate was refused.
async fn no_service(pod: &mut Pod, config: Arc<ClientConfig>) -> bool {
    let Ok(mut stream) = soon(
        "a connection",
        client::connect_sip(LOOPBACK, pod.port, config),
    )
    .await
    else {
        return true;
    };
    let ended = soon("the refusal", stream.read_u8()).await.is_err();
    ended && pod.sip.try_recv().is_err()
}

#[tokio::test]
async fn new_certificates_hold_from_the_next_connection() {
    let (old, new) = (authority(), authority());
    let pod = Pod::start(tls_of(&old)).await;
    let (mut stream, _) = pod.follow(&tls_of(&old)).await.unwrap();
    pod.tls.store(Arc::new(tls_of(&new)));
    assert!(pod.follow(&tls_of(&new)).await.is_ok());
    assert!(pod.follow(&tls_of(&old)).await.is_err());
    pod.reporter.update(|state| state.ready = true);
    assert!(
        soon("the change", stream.next()).await.unwrap().ready,
        "a running stream goes on"
    );
}

#[tokio::test]
async fn a_stranger_who_says_nothing_keeps_nobody_out() {
    let authority = authority();
    let pod = Pod::start(tls_of(&authority)).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(
            TcpStream::connect(SocketAddr::new(LOOPBACK, pod.port))
                .await
                .unwrap(),
        );
    }
    assert!(pod.follow(&tls_of(&authority)).await.is_ok());
}

#[tokio::test]
async fn pods_on_one_node_take_different_ports() {
    let address = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1));
    let first = server::bind(address).await.unwrap();
    let second = server::bind(address).await.unwrap();
    assert_eq!(first.local_addr().unwrap().port(), server::CONTROL_PORT);
    assert_eq!(
        second.local_addr().unwrap().port(),
        server::CONTROL_PORT + 1
    );
}
