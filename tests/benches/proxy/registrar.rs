//! Ringwire's registrar as it runs in a cluster, and a media pod that only passes on: what comes over its link goes to the callee over
//! TCP, and back. So the registrar does all that it does there, mutual TLS and state stream included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringwire_config::compile::compile;
use ringwire_config::shard::{self, Role, SHARDS};
use ringwire_config::state::PodState;
use ringwire_config::token::{GatewayKeys, Incarnation, TokenKey};
use ringwire_config::{ObjectRef, Settings, manifests};
use ringwire_control::{GatewayTls, Reporter, issue, server, tls};
use ringwire_tests::address::Address;
use ringwire_tests::manifests::{echo, media_gateway, number, static_trunk};
use ringwire_tests::process::{self, Process};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{NUMBER, Proxy, kubernetes};

const INCARNATION: Incarnation = Incarnation(0x0123_4567_89ab_cdef);

pub struct Registrar {
    process: Process,
    address: Address,
    token: String,
    /// The API server and the media pod.
    _runtime: tokio::runtime::Runtime,
    _media: Address,
    _scratch: Scratch,
}

impl Registrar {
    /// Starts one in front of this callee.
    pub fn start(callee: &Address) -> Self {
        let (address, media, scratch) = (Address::claim(), Address::claim(), Scratch::new("reg"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let key = TokenKey::from_bytes(1, [7; 32]);
        let token = key.sign(INCARNATION);
        let (certificates, gateway_tls) = certificates();
        let mut objects = configuration(&scratch, key);
        objects.insert(
            format!(
                "/api/v1/namespaces/default/secrets/{}",
                tls::secret_name("default")
            ),
            certificates,
        );
        let slice = json!({
            "metadata": {"name": "default-media", "namespace": "default"}, "addressType": "IPv4", "ports": [],
            "endpoints": [{
                "addresses": [media.to_string()],
                "targetRef": {"kind": "Pod", "name": "media-0", "namespace": "default"},
            }],
        });
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        objects.insert(format!("{slices}/default-media"), slice);
        let kubernetes = runtime.block_on(kubernetes::serve(objects));
        runtime.spawn(media_pod(media.ip(), callee.port(5060), gateway_tls));

        let kubeconfig = scratch.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubernetes::kubeconfig(kubernetes)).unwrap();
        let metrics = address.port(9090);
        let mut command = process::command(process::ringwire());
        command
            .args([
                "registrar",
                "--gateway",
                "default/default",
                "--pod-name",
                "registrar-0",
            ])
            .args(["--pod-ip", &address.to_string()])
            .args(["--metrics-address", &metrics.to_string()])
            .env("KUBECONFIG", &kubeconfig)
            .env("RINGWIRE_RUN_DIR", scratch.path());
        let process = Process::start("registrar", command, scratch.path());
        wait::until_ok(seconds(20), "the registrar has its media pod", || {
            let log = process.log();
            let ready = ["listening for SIP", "link to media pod is up"];
            ready
                .iter()
                .all(|line| log.contains(line))
                .then_some(())
                .ok_or(log)
        });
        Self {
            process,
            address,
            token,
            _runtime: runtime,
            _media: media,
            _scratch: scratch,
        }
    }

    /// What a media pod behind it has as Contact.
    pub fn contact(&self) -> String {
        format!("sip:{}@{}:5060", self.token, self.address)
    }
}

impl Proxy for Registrar {
    fn name(&self) -> &'static str {
        "Ringwire"
    }

    fn group(&self) -> u32 {
        self.process.id()
    }

    fn sip(&self) -> SocketAddr {
        self.address.port(5060)
    }

    fn check(&mut self) {
        let ended = self.process.ended();
        assert!(ended.is_none(), "{ended:?}: {}", self.process.log());
    }
}

fn secret(name: &str, data: &[(&str, &[u8])]) -> Value {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value)));
    let data: BTreeMap<String, String> = data.collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default", "resourceVersion": "1"},
        "data": data,
    })
}

/// Certificates of the control ports, as Secret and in use.
fn certificates() -> (Value, GatewayTls) {
    let now = SystemTime::now();
    let authority = issue::authority("default/default", now).unwrap();
    let leaf = issue::leaf(&authority, "pods", now).unwrap();
    let [ca, certificate, key] =
        [&authority.certificate, &leaf.certificate, &leaf.key].map(String::as_bytes);
    let name = tls::secret_name("default");
    let stored = secret(
        &name,
        &[("ca.crt", ca), ("tls.crt", certificate), ("tls.key", key)],
    );
    (stored, GatewayTls::from_pem(ca, certificate, key).unwrap())
}

/// What the operator makes of a trunk with one number for everybody on loopback.
fn configuration(scratch: &Scratch, key: TokenKey) -> BTreeMap<String, Value> {
    let folder = scratch.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8], codecs: [PCMA]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
        media_gateway("{}"),
    ];
    std::fs::write(folder.join("all.yaml"), set.join("---\n")).unwrap();
    let mut objects = manifests::read(&folder).unwrap().objects;
    let gateway = ObjectRef::new("default", "default");
    objects
        .keys
        .insert(gateway.clone(), GatewayKeys::single(key));
    let settings = Settings {
        default_gateway: gateway.clone(),
        shared_gateway_namespaces: [].into(),
        restrict_agent_addresses: false,
        services: false,
    };
    let compiled = compile(&objects, &settings);
    let config = &compiled.gateways[&gateway];
    assert_eq!(config.providers.len(), 1, "the trunk is not accepted");
    let shards = shard::split(config, Role::Registrar);
    assert_eq!(shards.len(), SHARDS);
    let shards = shards.iter().enumerate().map(|(index, content)| {
        let name = shard::secret_name("default", Role::Registrar, index);
        let content = shard::encode(content, index).unwrap();
        (
            format!("/api/v1/namespaces/default/secrets/{name}"),
            secret(&name, &[(shard::DATA_KEY, &content)]),
        )
    });
    shards.collect()
}

/// A media pod that passes on.
async fn media_pod(ip: std::net::IpAddr, callee: SocketAddr, tls: GatewayTls) {
    let mut state = PodState::new("media-0", Role::Media, INCARNATION);
    state.ready = true;
    let reporter = Reporter::new(state);
    let (links_in, mut links) = mpsc::channel(4);
    let listener = server::bind(ip).await.unwrap();
    tokio::spawn(server::serve(
        listener,
        Arc::new(ArcSwap::from_pointee(tls)),
        reporter.clone(),
        Some(links_in),
        CancellationToken::new(),
    ));
    while let Some(link) = links.recv().await {
        let reporter = reporter.clone();
        tokio::spawn(async move {
            // At the end of a round the callee goes first.
            let Ok(callee) = TcpStream::connect(callee).await else {
                return;
            };
            callee.set_nodelay(true).unwrap();
            let (from_registrar, to_registrar) = tokio::io::split(link);
            let (from_callee, to_callee) = callee.into_split();
            tokio::join!(
                pass_on(from_registrar, to_callee, |bytes| count(bytes, &reporter)),
                pass_on(from_callee, to_registrar, |_| {}),
            );
        });
    }
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut see: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        let _ = to.flush().await;
        see(&buffer[..length]);
    }
}

/// Reports calls as they come and go, as a media pod does.
fn count(bytes: &[u8], reporter: &Reporter) {
    let times = |text: &[u8]| {
        bytes
            .windows(text.len())
            .filter(|part| *part == text)
            .count()
    };
    let (begun, ended) = (times(b"INVITE sip:"), times(b"BYE sip:"));
    if begun + ended > 0 {
        reporter.update(|state| {
            let calls = &mut state.calls;
            calls.begun += begun as u64;
            calls.total = (calls.total + begun as u32).saturating_sub(ended as u32);
            let total = calls.total;
            calls
                .providers
                .insert(ObjectRef::new("default", "trunk"), total);
            calls.agents.insert(ObjectRef::new("default", "bot"), total);
        });
    }
}
