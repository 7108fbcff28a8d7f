//! `ringwire run`: both roles in one process, without a cluster, from the same YAML.
//!
//! The manifests go through the same schema, compilation and status code as on a cluster. Status goes to the log, to `/status` and so to
//! `ringwire get`. The files are read again when they change.

mod signing_keys;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use ringwire_agent::connect::{self, Connector};
use ringwire_config::compile::{Compiled, compile};
use ringwire_config::gateway::{MediaConfig, RegistrarConfig};
use ringwire_config::manifests::{self, Manifests};
use ringwire_config::shard::Role;
use ringwire_config::state::PodState;
use ringwire_config::token::Incarnation;
use ringwire_config::{NotUnderstood, ObjectRef, Objects, Settings};
use ringwire_control::Reporter;
use ringwire_crds::{MediaGateway, MediaGatewaySpec, NamespacesFrom, Time};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::signing_keys::SigningKeys;
use crate::alone;
use crate::board::Board;
use crate::health;
use crate::link::{LinkEvent, Load};
use crate::media::{self, CallMetrics, PortMetrics, node};
use crate::registrar::{self, Identity};
use crate::trace;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(250);

/// Bytes on their way between the two roles.
const PIPE: usize = 256 << 10;

/// Serve phone calls from manifests, without a cluster.
///
/// Reads the same YAML as a cluster: SipProvider, PhoneNumber, VoiceAgent, MediaGateway, and the Secrets that they
/// name. Edits take effect when a file is saved: the next call uses them, running calls keep what they have.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  ringwire run -f config/samples/local\n  ringwire get sipproviders,phonenumbers"
)]
pub struct Args {
    /// Folder (or file) with the manifests.
    #[arg(short = 'f', long = "filename", value_name = "DIR")]
    path: PathBuf,
    /// Address to listen on for SIP and RTP.
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    bind: IpAddr,
    /// Where /status, /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    http: SocketAddr,
    /// Where the signing keys are kept, so that carriers see the same Contact after a restart.
    #[arg(long, env = "RINGWIRE_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Changes of the status within this time are worked in together.
const GATHER: Duration = Duration::from_millis(10);

/// After work on the status or a look at the files, so many times its duration is for others.
const BUSY: u32 = 20;

/// What `/status` shows.
type SharedBoard = Arc<Mutex<Board>>;

/// Where new configurations go.
type Configs = (
    watch::Sender<Option<Arc<RegistrarConfig>>>,
    watch::Sender<Option<Arc<MediaConfig>>>,
);

/// What stays the same over reloads.
struct World {
    path: PathBuf,
    keys: SigningKeys,
    /// When each object was first seen: its age, and who is older in a conflict.
    created: BTreeMap<String, jiff::Timestamp>,
    generations: BTreeMap<String, (Value, i64)>,
}

struct Loaded {
    objects: Objects,
    compiled: Compiled,
    gateway: ObjectRef,
    registrar: Arc<RegistrarConfig>,
    media: Arc<MediaConfig>,
}

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(args: Args) -> ExitCode {
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwire run: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut world = World {
        path: args.path.clone(),
        keys: SigningKeys::open(state_directory(args.state_dir.as_deref())),
        created: BTreeMap::new(),
        generations: BTreeMap::new(),
    };
    let stamp = world.stamp();
    let first = world.load()?;
    tracing::info!(
        providers = first.objects.providers.len(),
        numbers = first.objects.numbers.len(),
        agents = first.objects.agents.len(),
        "manifests read from {}",
        args.path.display()
    );
    let identity = Identity {
        node: None,
        pod_ip: specific(args.bind),
        bind: args.bind,
    };
    let incarnation = Incarnation(rand::random());
    let registrar_report = Reporter::new(PodState::new(
        "local-registrar",
        Role::Registrar,
        incarnation,
    ));
    let media_report = Reporter::new(PodState::new("local-media", Role::Media, incarnation));
    let (registrar_config, registrar_configs) = watch::channel(Some(Arc::clone(&first.registrar)));
    let (media_config, media_configs) = watch::channel(Some(Arc::clone(&first.media)));
    let (_owns, owns) = watch::channel::<registrar::edge::Owns>(Arc::new(|_| true));
    let (links_in, links) = mpsc::channel(16);
    let (pipes_in, pipes) = mpsc::channel(1);
    let (drain, stop, hurry) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );

    let (ours, theirs) = tokio::io::duplex(PIPE);
    let up = LinkEvent::Up {
        incarnation,
        pod: "local-media".into(),
        stream: Box::new(ours),
        closed: CancellationToken::new(),
    };
    let _ = links_in.send(up).await;
    let _ = pipes_in
        .send(Box::new(theirs) as Box<dyn crate::link::LinkStream>)
        .await;
    let reporting = report_load(media_report.clone(), incarnation, links_in);

    let resolver = connect::resolver()?;
    let plane = media::plane()?;
    let ports = PortMetrics(plane.ports().clone());
    let calls = CallMetrics::default();
    let media = node::Params {
        config: media_configs,
        links: pipes,
        reporter: media_report.clone(),
        identity: identity.clone(),
        incarnation,
        connector: Connector::new(connect::public_tls()?)?,
        drain: drain.clone(),
        hurry: hurry.clone(),
        plane,
        calls: calls.clone(),
        ready: Box::new(|| {}),
        beat: Box::new(|| {}),
    };
    let exported = trace::Exported::default();
    let (tap, hub) = trace::open("local-registrar");
    hub.export(resolver.clone(), exported.clone());
    let traces = serve_traces(args.state_dir.as_deref(), args.http, hub, &stop);
    let edge = registrar::Params {
        config: registrar_configs,
        owns,
        links,
        reporter: registrar_report.clone(),
        identity,
        resolver,
        drain: drain.clone(),
        stop: stop.clone(),
        ready: Box::new(|| {}),
        beat: Box::new(|| {}),
        tap,
    };
    let (drained_in, drained) = oneshot::channel();
    let elsewhere = Handle::current();
    // Both roles on one thread, so that a message between them wakes no other.
    let mut edge = pin!(alone::run("sip", move || async move {
        tokio::spawn(reporting);
        tokio::task::spawn_local(async move {
            node::run(media).await;
            let _ = drained_in.send(());
        });
        registrar::run(edge, elsewhere).await
    }));

    let Loaded {
        objects,
        compiled,
        gateway,
        ..
    } = first;
    let mut board = Board::new(objects, compiled, gateway);
    board.observe([registrar_report.snapshot(), media_report.snapshot()]);
    let board: SharedBoard = Arc::new(Mutex::new(board));
    let listener = tokio::net::TcpListener::bind(args.http)
        .await
        .map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!(
                    "cannot serve /status on {}: {error}; choose another with --http",
                    args.http
                ),
            )
        })?;
    tracing::info!(
        "status on http://{}/status; see it with `ringwire get all`",
        args.http
    );
    tokio::spawn(serve_http(
        listener,
        Arc::clone(&board),
        registrar_report.clone(),
        media_report.clone(),
        traces,
        (exported, ports, calls),
    ));

    let mut keeper = tokio::spawn(keep(
        world,
        stamp,
        board,
        (registrar_report, media_report),
        (registrar_config, media_config),
    ));
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut edge => return ended?.map_err(Into::into),
        ended = &mut keeper => return Err(format!("the status keeper ended: {ended:?}").into()),
    }
    tracing::info!(
        "stopping: no new calls; waiting for the running ones (a second signal ends them)"
    );
    drain.cancel();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        hurry.cancel();
    });
    let _ = drained.await;
    stop.cancel();
    edge.await??;
    Ok(())
}

/// An address that peers can be told, if one is bound.
fn specific(bind: IpAddr) -> Option<IpAddr> {
    (!bind.is_unspecified()).then_some(bind)
}

/// Tells the registrar how busy the media role is.
async fn report_load(media: Reporter, incarnation: Incarnation, links: mpsc::Sender<LinkEvent>) {
    let mut changes = media.subscribe();
    loop {
        let (load, accepting) =
            media.read(|state| (Arc::new(Load::from(&state.calls)), !state.draining));
        if links
            .send(LinkEvent::Load {
                incarnation,
                load,
                accepting,
            })
            .await
            .is_err()
            || changes.changed().await.is_err()
        {
            return;
        }
    }
}

/// Where files are kept over restarts: what a flag says, else as the XDG specification has it.
fn state_directory(flag: Option<&Path>) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    flag.map(Path::to_owned).or_else(|| {
        let state = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(home)?;
        Some(state.join("ringwire"))
    })
}

/// Serves `ringwire trace` on a socket beside the state. A file and not the HTTP port, which other users of the machine reach too.
fn serve_traces(
    state_dir: Option<&Path>,
    http: SocketAddr,
    hub: trace::Hub,
    stop: &CancellationToken,
) -> Option<PathBuf> {
    let directory = state_directory(state_dir)?;
    // Servers side by side share the directory but not the address.
    let path = directory.join(format!("trace-{}-{}.sock", http.ip(), http.port()));
    let serving = std::fs::create_dir_all(&directory)
        .and_then(|()| std::path::absolute(&path))
        .and_then(|path| Ok((trace::socket::serve(&path, hub, stop.clone())?, path)));
    match serving {
        Ok((serving, path)) => {
            tokio::spawn(serving);
            Some(path)
        }
        Err(error) => {
            tracing::warn!(%error, "no socket {} for `ringwire trace`", path.display());
            None
        }
    }
}

impl World {
    /// Changes whenever a file of the folder does.
    fn stamp(&self) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
        let entries = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut stamp: Vec<_> = std::iter::once(self.path.clone())
            .chain(entries)
            .chain(self.keys.file.clone())
            .filter_map(|path| {
                let meta = std::fs::metadata(&path).ok()?;
                Some((path, meta.modified().ok(), meta.len()))
            })
            .collect();
        stamp.sort();
        stamp
    }

    fn load(&mut self) -> Result<Loaded, Box<dyn std::error::Error>> {
        let Manifests {
            mut objects,
            problems,
            ..
        } = manifests::read(&self.path)?;
        for problem in &problems {
            if problem.ignored {
                tracing::info!("{problem}");
            } else {
                tracing::error!("{problem}");
            }
        }
        let default = ObjectRef::new("default", "default");
        let gateway = match &objects.gateways[..] {
            [only] => ObjectRef::of(only),
            _ => default.clone(),
        };
        if !objects
            .gateways
            .iter()
            .any(|object| ObjectRef::of(object) == gateway)
        {
            let mut spec = MediaGatewaySpec::default();
            spec.allowed_namespaces.from = NamespacesFrom::All;
            let mut object = MediaGateway::new(&gateway.name, spec);
            object.metadata.namespace = Some(gateway.namespace.clone());
            objects.gateways.push(object);
        }
        self.stamp_metadata(&mut objects);
        objects.keys.insert(gateway.clone(), self.keys.read());
        let settings = Settings {
            default_gateway: gateway.clone(),
            shared_gateway_namespaces: [gateway.namespace.clone()].into(),
            restrict_agent_addresses: false,
            services: false,
        };
        let mut compiled = compile(&objects, &settings);
        let config = compiled
            .gateways
            .remove(&gateway)
            .ok_or("the gateway could not be compiled")?;
        Ok(Loaded {
            registrar: Arc::new(RegistrarConfig {
                settings: config.settings.clone(),
                tls: config.tls,
                hep: config.hep,
                providers: config.providers,
                not_understood: NotUnderstood::default(),
                shards: Vec::new(),
            }),
            media: Arc::new(MediaConfig {
                settings: config.settings,
                agents: config.agents,
                not_understood: NotUnderstood::default(),
                shards: Vec::new(),
            }),
            objects,
            compiled,
            gateway,
        })
    }

    /// Fills in what the API server would: creation time, generation.
    fn stamp_metadata(&mut self, objects: &mut Objects) {
        fn each<K>(world: &mut World, objects: &mut [K])
        where
            K: kube::Resource<DynamicType = ()> + serde::Serialize,
        {
            for object in objects {
                let id = format!("{} {}", K::kind(&()), ObjectRef::of(object));
                let spec = serde_json::to_value(&*object)
                    .map(|mut value| value["spec"].take())
                    .unwrap_or_default();
                let (known, generation) = world
                    .generations
                    .entry(id.clone())
                    .or_insert((spec.clone(), 1));
                if *known != spec {
                    *known = spec;
                    *generation += 1;
                }
                let generation = *generation;
                let created = *world.created.entry(id).or_insert_with(jiff::Timestamp::now);
                let meta = object.meta_mut();
                meta.generation = Some(generation);
                meta.creation_timestamp.get_or_insert(Time(created));
            }
        }
        each(self, &mut objects.providers);
        each(self, &mut objects.numbers);
        each(self, &mut objects.agents);
        each(self, &mut objects.gateways);
    }
}

/// Keeps configuration and status up to date.
async fn keep(
    mut world: World,
    mut stamp: Vec<(PathBuf, Option<SystemTime>, u64)>,
    board: SharedBoard,
    (registrar, media): (Reporter, Reporter),
    configs: Configs,
) {
    let (mut from_registrar, mut from_media) = (registrar.subscribe(), media.subscribe());
    // Not a pause that begins anew with each report: while calls come and go all the time, files are looked at all the same.
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        from_registrar.borrow_and_update();
        from_media.borrow_and_update();
        let begun = Instant::now();
        lock(&board).observe([registrar.snapshot(), media.snapshot()]);
        // However many objects there are, and however fast they change: most of the time is for others.
        tokio::time::sleep(GATHER.max(begun.elapsed() * BUSY)).await;
        loop {
            tokio::select! {
                _ = from_registrar.changed() => break,
                _ = from_media.changed() => break,
                _ = poll.tick() => {}
            }
            let begun = Instant::now();
            let now = world.stamp();
            poll.reset_after(POLL.max(begun.elapsed() * BUSY));
            if now == stamp {
                continue;
            }
            stamp = now;
            match world.load() {
                Ok(loaded) => {
                    let mut board = lock(&board);
                    board.load(loaded.objects, loaded.compiled, loaded.gateway);
                    board.observe([registrar.snapshot(), media.snapshot()]);
                    drop(board);
                    configs.0.send_replace(Some(loaded.registrar));
                    configs.1.send_replace(Some(loaded.media));
                    tracing::info!("manifests read again");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the manifests cannot be read; the last ones stay");
                }
            }
        }
    }
}

async fn serve_http(
    listener: tokio::net::TcpListener,
    board: SharedBoard,
    registrar: Reporter,
    media: Reporter,
    traces: Option<PathBuf>,
    (exported, ports, calls): (trace::Exported, PortMetrics, CallMetrics),
) {
    let mut metrics = health::metrics::embedded(registrar.clone(), media.clone());
    metrics.register_collector(Box::new(exported));
    metrics.register_collector(Box::new(ports));
    calls.register(&mut metrics);
    let ready = move || {
        let good = registrar.read(|state| state.ready) && media.read(|state| state.ready);
        async move {
            if good {
                (http::StatusCode::OK, "ok\n")
            } else {
                (http::StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        }
    };
    let router = Router::new()
        .route("/status", get(board_json))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/trace",
            get(move || std::future::ready(where_traces_are(traces))),
        )
        .with_state(board)
        .merge(health::http::metrics_route(metrics));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the status server ended");
    }
}

async fn board_json(State(board): State<SharedBoard>) -> Json<Value> {
    let items = lock(&board).items();
    Json(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// Where `ringwire trace` has to ask. The path is no secret; the file is for the server's user only.
fn where_traces_are(socket: Option<PathBuf>) -> Result<Json<Value>, http::StatusCode> {
    let socket = socket.ok_or(http::StatusCode::NOT_FOUND)?;
    Ok(Json(json!({"socket": socket})))
}

fn lock(board: &SharedBoard) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
