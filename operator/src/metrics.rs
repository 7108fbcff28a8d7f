//! Prometheus metrics. Counters live as long as the process; gauges per object are rebuilt from the last pass at each scrape, so that
//! a deleted object leaves none.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use ringwire_config::ObjectRef;

type Labels = Vec<(&'static str, String)>;

/// One object as the last pass saw it.
#[derive(Clone, Debug)]
pub struct ObjectSample {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub id: ObjectRef,
    /// Status of its condition Ready: True, False or Unknown.
    pub ready: &'static str,
    /// SIP providers that register: whether they are.
    pub registered: Option<bool>,
    /// Its calls.
    pub active_calls: u32,
    /// Media gateways: media pods that are ready, and wanted.
    pub replicas: Option<(i32, i32)>,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    reconcile: Histogram,
    errors: Family<Labels, Counter>,
    status_writes: Family<Labels, Counter>,
    leader: Gauge,
    objects: Mutex<Vec<ObjectSample>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let reconcile = Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]);
        let errors = Family::<Labels, Counter>::default();
        let status_writes = Family::<Labels, Counter>::default();
        let leader = Gauge::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        registry.register(
            "ringwire_operator_build",
            "Version of the operator",
            Info::new(version),
        );
        registry.register(
            "ringwire_operator_reconcile_seconds",
            "Duration of one pass over all objects, without requests",
            reconcile.clone(),
        );
        registry.register(
            "ringwire_operator_errors",
            "Failed requests by kind of object",
            errors.clone(),
        );
        registry.register(
            "ringwire_operator_status_writes",
            "Written statuses by kind",
            status_writes.clone(),
        );
        registry.register(
            "ringwire_operator_leader",
            "Whether this operator is the one that writes",
            leader.clone(),
        );
        Self {
            registry,
            reconcile,
            errors,
            status_writes,
            leader,
            objects: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A pass took this long.
    pub fn reconciled(&self, seconds: f64) {
        self.reconcile.observe(seconds);
    }

    /// A request about an object of `kind` failed.
    pub fn error(&self, kind: &str) {
        self.errors
            .get_or_create(&vec![("kind", kind.to_owned())])
            .inc();
    }

    /// A status was written.
    pub fn status_written(&self, kind: &str) {
        self.status_writes
            .get_or_create(&vec![("kind", kind.to_owned())])
            .inc();
    }

    /// Whether this operator writes. Gauges of objects are the leader's to give.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
        if !leads {
            self.set_objects(Vec::new());
        }
    }

    /// All objects there are.
    pub fn set_objects(&self, objects: Vec<ObjectSample>) {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
    }

    /// The text that Prometheus reads (`OpenMetrics`).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let objects = self
            .objects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        encode_registry(&mut text, &object_registry(&objects))?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn object_registry(objects: &[ObjectSample]) -> Registry {
    let mut registry = Registry::default();
    let mut gauge = |name: &str, help: &str| {
        let family = Family::<Labels, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let managed = gauge(
        "ringwire_operator_objects",
        "Objects by kind and status of their condition Ready",
    );
    let registered = gauge(
        "ringwire_sipprovider_registered",
        "Whether the carrier holds our registration",
    );
    let provider_calls = gauge(
        "ringwire_sipprovider_active_calls",
        "Calls of a SipProvider in progress",
    );
    let number_calls = gauge(
        "ringwire_phonenumber_active_calls",
        "Calls to a PhoneNumber in progress",
    );
    let agent_calls = gauge(
        "ringwire_voiceagent_active_calls",
        "Calls of a VoiceAgent in progress",
    );
    let gateway_calls = gauge(
        "ringwire_active_calls",
        "Calls of a MediaGateway in progress",
    );
    let ready = gauge(
        "ringwire_mediagateway_ready_replicas",
        "Media pods that are ready",
    );
    let wanted = gauge(
        "ringwire_mediagateway_replicas",
        "Media pods that there should be",
    );
    for sample in objects {
        let ObjectSample {
            kind,
            id,
            ready: state,
            registered: is_registered,
            active_calls,
            replicas,
        } = sample;
        let name = vec![
            ("namespace", id.namespace.clone()),
            ("name", id.name.clone()),
        ];
        let by_gateway = vec![
            ("namespace", id.namespace.clone()),
            ("gateway", id.name.clone()),
        ];
        managed
            .get_or_create(&vec![
                ("kind", (*kind).to_owned()),
                ("ready", (*state).to_owned()),
            ])
            .inc();
        if let Some(is_registered) = is_registered {
            registered.get_or_create(&name).set((*is_registered).into());
        }
        match *kind {
            "SipProvider" => provider_calls
                .get_or_create(&name)
                .set((*active_calls).into()),
            "PhoneNumber" => number_calls
                .get_or_create(&name)
                .set((*active_calls).into()),
            "VoiceAgent" => agent_calls.get_or_create(&name).set((*active_calls).into()),
            _ => gateway_calls
                .get_or_create(&by_gateway)
                .set((*active_calls).into()),
        };
        if let Some((are_ready, there_should_be)) = replicas {
            ready.get_or_create(&by_gateway).set((*are_ready).into());
            wanted
                .get_or_create(&by_gateway)
                .set((*there_should_be).into());
        }
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_deleted_objects_are_dropped() {
        let metrics = Metrics::default();
        let sample = ObjectSample {
            kind: "SipProvider",
            id: ObjectRef::new("voice", "trunk"),
            ready: "True",
            registered: Some(true),
            active_calls: 3,
            replicas: None,
        };
        metrics.set_objects(vec![sample]);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("ringwire_sipprovider_registered{namespace=\"voice\",name=\"trunk\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("ringwire_operator_objects{kind=\"SipProvider\",ready=\"True\"} 1"),
            "{text}"
        );
        metrics.set_objects(Vec::new());
        let text = metrics.encode().unwrap();
        assert!(!text.contains("trunk"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
