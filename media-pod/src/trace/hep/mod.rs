//! Sends copies of SIP messages to a collector that speaks HEP3, such as Homer: what registrars exchange with carriers, without secrets.
//!
//! A task of its own, and UDP: neither calls nor the tracer ever wait for a collector. What waits for it is bounded, and what finds no
//! room, or cannot be sent, is counted.

mod packet;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use ringwire_config::gateway::{Hep, Host};
use ringwire_config::secret::Secret;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use self::packet::Packet;
use super::known::Surroundings;
use super::tracer::{Hub, Traced};

/// A name is looked up again at least and at most this often, whatever its TTL says.
const LOOK_UP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The same trouble is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How many messages went to the collector, and how many did not.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    sent: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Exported {
    /// Where the ones that are lost on the way to the exporter are counted.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "ringwire_hep_messages",
            "SIP messages for the HEP collector, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("sent", &self.sent), ("dropped", &self.dropped)] {
            let labels = [("result", result)];
            ConstCounter::new(count.load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Exports as the configuration says, until the registrar has ended.
pub(super) async fn run(
    hub: Hub,
    mut messages: mpsc::Receiver<Arc<Traced>>,
    mut around: watch::Receiver<Surroundings>,
    resolver: TokioResolver,
    exported: Exported,
) {
    loop {
        let wanted = collector(&around.borrow_and_update());
        let changed = async {
            loop {
                if around.changed().await.is_err() {
                    return false;
                }
                if collector(&around.borrow_and_update()) != wanted {
                    return true;
                }
            }
        };
        let goes_on = match &wanted {
            Some(hep) => {
                tracing::info!(address = %Place(hep), "copies of SIP messages go to a HEP collector");
                tokio::select! {
                    goes_on = changed => goes_on,
                    () = export(&hub, &mut messages, hep, &resolver, &exported) => false,
                }
            }
            None => changed.await,
        };
        if !goes_on {
            return;
        }
        // What still waits was for the collector before.
        while wanted.is_some() && messages.try_recv().is_ok() {
            exported.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn collector(around: &Surroundings) -> Option<Hep> {
    around.config.as_ref()?.hep.clone()
}

/// Where a collector is, for people.
struct Place<'a>(&'a Hep);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hep { host, port, .. } = self.0;
        match host {
            Host::Address(address) => SocketAddr::new(*address, *port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{port}"),
        }
    }
}

async fn export(
    hub: &Hub,
    messages: &mut mpsc::Receiver<Arc<Traced>>,
    hep: &Hep,
    resolver: &TokioResolver,
    exported: &Exported,
) {
    let (found, mut place) = watch::channel(None);
    let sending = async {
        // Until the first answer messages wait, as many as may.
        if place.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut sender = Sender::default();
        while let Some(traced) = messages.recv().await {
            let to = *place.borrow_and_update();
            let Some((packet, to)) = packet(&traced, hep, hub.pod()).zip(to) else {
                exported.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let count = match sender.send(&packet, to).await {
                Ok(()) => &exported.sent,
                Err(error) => {
                    sender.complain(&error, to);
                    &exported.dropped
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = sending => {}
        () = look_up(hep, resolver, &found) => {}
    }
}

fn packet(traced: &Traced, hep: &Hep, node: &str) -> Option<Vec<u8>> {
    let packet = Packet {
        at: traced.entry.time,
        transport: traced.transport,
        source: traced.source,
        destination: traced.destination,
        capture_id: hep.capture_id,
        password: hep.password.as_ref().map(Secret::expose),
        node,
        call_id: &traced.entry.call_id,
        message: &traced.masked,
    };
    packet.encode()
}

/// Keeps the collector's address up to date; never ends.
async fn look_up(hep: &Hep, resolver: &TokioResolver, found: &watch::Sender<Option<SocketAddr>>) {
    let name = match &hep.host {
        Host::Address(address) => {
            found.send_replace(Some(SocketAddr::new(*address, hep.port)));
            return std::future::pending().await;
        }
        Host::Name(name) => name,
    };
    let mut told = false;
    loop {
        let again = match resolver.lookup_ip(name.as_str()).await {
            Ok(answer) => {
                told = false;
                let addresses: Vec<_> = answer.iter().collect();
                let known = found.borrow().map(|place| place.ip());
                // One that is still good stays: a collector wants a call's messages together.
                let address = known
                    .filter(|known| addresses.contains(known))
                    .or_else(|| addresses.first().copied());
                if let Some(address) = address {
                    found.send_replace(Some(SocketAddr::new(address, hep.port)));
                }
                answer
                    .valid_until()
                    .saturating_duration_since(Instant::now())
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%name, %error, "the HEP collector's name cannot be looked up");
                }
                Duration::ZERO
            }
        };
        tokio::time::sleep(again.clamp(LOOK_UP.0, LOOK_UP.1)).await;
    }
}

/// The socket.
#[derive(Default)]
struct Sender {
    open: Option<(UdpSocket, SocketAddr)>,
    complained: Option<Instant>,
}

impl Sender {
    async fn send(&mut self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = match &self.open {
            Some((socket, connected)) if *connected == to => socket,
            _ => {
                let any: SocketAddr = if to.is_ipv4() {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any).await?;
                // Connected, so that the kernel tells when nobody listens there.
                socket.connect(to).await?;
                &self.open.insert((socket, to)).0
            }
        };
        socket.send(packet).await.map(drop)
    }

    fn complain(&mut self, error: &io::Error, to: SocketAddr) {
        let now = Instant::now();
        if self
            .complained
            .is_none_or(|last| now.duration_since(last) >= TELL_AGAIN)
        {
            self.complained = Some(now);
            tracing::warn!(collector = %to, %error, "SIP messages do not reach the HEP collector");
        }
    }
}

#[cfg(test)]
mod tests;
