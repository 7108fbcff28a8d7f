//! `ringwire registrar` and `ringwire media`: one role each, in a pod of a cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use ringwire_agent::connect::{self, Connector};
use ringwire_config::ObjectRef;
use ringwire_config::shard::Role;
use ringwire_config::state::PodState;
use ringwire_config::token::Incarnation;
use ringwire_control::{Reporter, server};
use ringwire_media::plane::Plane;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alone;
use crate::cluster;
use crate::cluster::membership::{Joining, Membership};
use crate::health::{self, Health, Need};
use crate::link::LinkStream;
use crate::media::{self, CallMetrics, PortMetrics, node};
use crate::registrar::{self, Identity, edge::Owns};
use crate::trace;

/// Flags that both roles have. The operator sets them; nobody else needs to.
#[derive(clap::Args)]
pub struct Args {
    /// The MediaGateway that this pod belongs to.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: ObjectRef,
    /// The pod's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: String,
    /// The pod's address.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pod_ip: IpAddr,
    /// The pod's UID, so that what it leaves behind goes with it.
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// The node that the pod runs on.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Where /metrics, /healthz and /readyz are served; the next free port if it is taken.
    #[arg(long, env = "RINGWIRE_METRICS_ADDRESS", value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,
}

/// The others see within a second that a registrar has left, and register; meanwhile carriers' calls still come here.
const HAND_OVER: Duration = Duration::from_secs(4);

/// Load balancers ask a node's health every few seconds, and twice or more before they believe it. So long they find us ready.
const BALANCERS_NOTICE: Duration = Duration::from_secs(25);

/// The kubelet sees within 6 s that we are not ready any more; then the node sends the callers' packets to others, if it has others.
const NODES_NOTICE: Duration = Duration::from_secs(10);

/// Port of the metrics, unless a flag says otherwise.
const METRICS_PORT: u16 = 9090;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a role until SIGTERM.
pub async fn run(args: Args, role: Role) -> ExitCode {
    match serve(args, role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = String::new();
            let mut source = error.source();
            while let Some(cause) = source {
                causes = format!("{causes}: {cause}");
                source = cause.source();
            }
            tracing::error!("{role} cannot go on: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

/// What both roles have.
struct Common {
    client: kube::Client,
    identity: Identity,
    incarnation: Incarnation,
    reporter: Reporter,
    health: Health,
    tls: Arc<arc_swap::ArcSwap<ringwire_control::GatewayTls>>,
    resolver: TokioResolver,
    /// Everything that only serves ends with this.
    stop: CancellationToken,
    drain: CancellationToken,
}

/// What each of them has to itself.
enum Own {
    Registrar(trace::Exported),
    Media(Plane, CallMetrics),
}

async fn serve(args: Args, role: Role) -> Result<(), Failure> {
    let needs = match role {
        Role::Registrar => [
            Need::Certificates,
            Need::Configuration,
            Need::SipSockets,
            Need::ControlPort,
        ],
        Role::Media => [
            Need::Certificates,
            Need::Configuration,
            Need::RtpSockets,
            Need::ControlPort,
        ],
    };
    let health = Health::new(needs);
    let stop = CancellationToken::new();
    let drain = CancellationToken::new();
    tokio::spawn(health::serve(
        &health::socket_path(),
        health.clone(),
        stop.clone(),
    )?);
    watch_signals(drain.clone())?;

    let incarnation = Incarnation(rand::random());
    let reporter = Reporter::new(PodState::new(&args.pod_name, role, incarnation));
    let any: IpAddr = if args.pod_ip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let listener = health::http::bind(
        args.metrics_address
            .unwrap_or(SocketAddr::new(any, METRICS_PORT)),
    )
    .await?;
    let mut metrics = health::metrics::registry(reporter.clone());
    let own = match role {
        Role::Registrar => {
            let exported = trace::Exported::default();
            metrics.register_collector(Box::new(exported.clone()));
            Own::Registrar(exported)
        }
        Role::Media => {
            let plane = media::plane()?;
            metrics.register_collector(Box::new(PortMetrics(plane.ports().clone())));
            let calls = CallMetrics::default();
            calls.register(&mut metrics);
            Own::Media(plane, calls)
        }
    };
    tokio::spawn(health::http::serve(
        listener,
        health.clone(),
        metrics,
        stop.clone(),
    ));

    let client = cluster::client().await?;
    let tls = tokio::select! {
        tls = cluster::control::control_secret(&client, &args.gateway) => tls,
        // Nothing has begun yet, so nothing has to end.
        () = drain.cancelled() => return Ok(()),
    };
    health.met(Need::Certificates);
    let common = Common {
        client,
        // The pod's own address, not any: answers must leave from where the request came to.
        identity: Identity {
            node: args.node_name.clone(),
            pod_ip: Some(args.pod_ip),
            bind: args.pod_ip,
        },
        incarnation,
        reporter,
        health,
        tls,
        resolver: connect::resolver()?,
        stop: stop.clone(),
        drain,
    };
    let result = match own {
        Own::Registrar(exported) => serve_registrar(&args, common, exported).await,
        Own::Media(plane, calls) => serve_media(&args, common, plane, calls).await,
    };
    stop.cancel();
    result
}

fn watch_signals(drain: CancellationToken) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drain.cancel();
    });
    Ok(())
}

async fn serve_registrar(
    args: &Args,
    common: Common,
    exported: trace::Exported,
) -> Result<(), Failure> {
    let Common {
        client,
        identity,
        reporter,
        health,
        tls,
        resolver,
        stop,
        drain,
        ..
    } = common;
    let control = server::bind(identity.bind).await?;
    health.met(Need::ControlPort);
    tokio::spawn(server::serve(
        control,
        Arc::clone(&tls),
        reporter.clone(),
        None,
        stop.clone(),
    ));

    let config = cluster::config::registrar_config(&client, &args.gateway);
    let latest = config.clone();
    let joining = Joining {
        gateway: args.gateway.clone(),
        pod: args.pod_name.clone(),
        uid: args.pod_uid.clone(),
        address: args.pod_ip,
        tls: Arc::clone(&tls),
    };
    let membership = cluster::membership::join(&client, joining);
    let (owns_in, owns) = watch::channel::<Owns>(Arc::new(|_| false));
    let mut members = membership.members();
    tokio::spawn(async move {
        loop {
            let now = members.borrow_and_update().clone();
            owns_in.send_replace(Arc::new(move |provider: &ObjectRef| now.owns(provider)));
            if members.changed().await.is_err() {
                return;
            }
        }
    });
    let (links_in, links) = mpsc::channel(64);
    let pods = cluster::discovery::media_pods(&client, &args.gateway);
    let linking = cluster::links::run(pods, tls, links_in, stop.clone());

    let handed_over = CancellationToken::new();
    let (tap, hub) = trace::open(&args.pod_name);
    hub.export(resolver.clone(), exported);
    match trace::socket::serve(&trace::socket::path_in_pod(), hub, stop.clone()) {
        Ok(serving) => drop(tokio::spawn(serving)),
        // Calls do not need it.
        Err(error) => tracing::warn!(%error, "`ringwire trace` will not find this pod"),
    }
    let heart = health.heart("registrar");
    let (bound, listening) = (health.clone(), health.clone());
    let mut configured = config.clone();
    tokio::spawn(async move {
        if configured.wait_for(Option::is_some).await.is_ok() {
            bound.met(Need::Configuration);
        }
    });
    let params = registrar::Params {
        config,
        owns,
        links,
        reporter,
        identity,
        resolver,
        drain: handed_over.clone(),
        stop: handed_over.clone(),
        ready: Box::new(move || listening.met(Need::SipSockets)),
        beat: Box::new(move || heart.beat()),
        tap,
    };
    let elsewhere = Handle::current();
    let mut running = pin!(alone::run("sip", move || async move {
        tokio::spawn(linking);
        registrar::run(params, elsewhere).await
    }));
    tokio::select! {
        result = &mut running => {
            leave(membership).await;
            return Ok(result??);
        }
        () = drain.cancelled() => {}
    }
    let behind_services = latest
        .borrow()
        .as_ref()
        .is_some_and(|config| !config.settings.sip_fronts.is_empty());
    tokio::select! {
        result = &mut running => return Ok(result??),
        () = hand_over(membership, behind_services, &health) => handed_over.cancel(),
    }
    Ok(running.await??)
}

/// Leaves the providers to the other registrars. Until carriers, or what is between, know where these are, calls still come here, and are
/// taken; without others a successor may be waiting for the address.
async fn hand_over(membership: Membership, behind_services: bool, health: &Health) {
    let others = membership.members().borrow().live.len() > 1;
    leave(membership).await;
    if others && behind_services {
        tokio::time::sleep(BALANCERS_NOTICE).await;
    }
    health.drain();
    if others {
        tokio::time::sleep(if behind_services {
            NODES_NOTICE
        } else {
            HAND_OVER
        })
        .await;
    }
}

/// The others, or a successor, need not wait for the Lease to lapse.
async fn leave(membership: Membership) {
    let _ = tokio::time::timeout(Duration::from_secs(2), membership.resign()).await;
}

async fn serve_media(
    args: &Args,
    common: Common,
    plane: Plane,
    calls: CallMetrics,
) -> Result<(), Failure> {
    let Common {
        client,
        identity,
        incarnation,
        reporter,
        health,
        tls,
        resolver,
        stop,
        drain,
    } = common;
    let (accepted_in, mut accepted) = mpsc::channel(16);
    let control = server::bind(identity.bind).await?;
    health.met(Need::ControlPort);
    tokio::spawn(server::serve(
        control,
        tls,
        reporter.clone(),
        Some(accepted_in),
        stop.clone(),
    ));
    let (links_in, links) = mpsc::channel::<Box<dyn LinkStream>>(16);
    tokio::spawn(async move {
        while let Some(stream) = accepted.recv().await {
            if links_in.send(Box::new(stream)).await.is_err() {
                return;
            }
        }
    });
    let heart = health.heart("media");
    let (stopping, draining) = (drain.clone(), health.clone());
    tokio::spawn(async move {
        stopping.cancelled().await;
        draining.drain();
    });
    let params = node::Params {
        config: cluster::config::media_config(&client, &args.gateway),
        links,
        reporter,
        identity,
        incarnation,
        connector: Connector::with_resolver(resolver, connect::public_tls()?),
        drain,
        hurry: CancellationToken::new(),
        plane,
        calls,
        ready: Box::new(move || {
            health.met(Need::Configuration);
            health.met(Need::RtpSockets);
        }),
        beat: Box::new(move || heart.beat()),
    };
    Ok(alone::run("media", move || node::run(params)).await?)
}
