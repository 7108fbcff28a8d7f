//! Which media pods a gateway has, by the `EndpointSlice`s of its headless Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use ringwire_config::object::ObjectRef;
use tokio::sync::watch;

use super::watching;

/// Media pods by name, with their address.
pub type Pods = BTreeMap<String, IpAddr>;

/// Follows the media pods of a gateway, stopping ones included as long as they exist: they still have calls. The last list holds while
/// the API server is away. Ends when nobody listens any more.
pub fn media_pods(client: &Client, gateway: &ObjectRef) -> watch::Receiver<Pods> {
    let service = format!("{}-media", gateway.name);
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &gateway.namespace);
    let config =
        watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let events = watching::events(api, config, format!("endpoints of Service {service}"));
    let (sender, receiver) = watch::channel(Pods::new());
    tokio::spawn(run(events, sender));
    receiver
}

async fn run(events: impl StreamExt<Item = Event<EndpointSlice>>, sender: watch::Sender<Pods>) {
    let mut events = std::pin::pin!(events);
    let mut slices = Slices::default();
    loop {
        tokio::select! {
            () = sender.closed() => return,
            event = events.next() => {
                let Some(event) = event else { return };
                if slices.take(event) {
                    let pods = slices.pods();
                    sender.send_if_modified(|current| {
                        let differs = *current != pods;
                        if differs {
                            tracing::info!(count = pods.len(), "media pods changed");
                            *current = pods;
                        }
                        differs
                    });
                }
            }
        }
    }
}

/// The slices of one Service, by name.
#[derive(Default)]
struct Slices {
    current: BTreeMap<String, Vec<(String, IpAddr)>>,
    /// What a running list has shown; it replaces the current ones at its end.
    listing: BTreeMap<String, Vec<(String, IpAddr)>>,
}

impl Slices {
    /// Takes an event; true if the pods may have changed.
    fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                return false;
            }
            Event::InitApply(slice) => {
                self.listing.insert(slice.name_any(), endpoints(&slice));
                return false;
            }
            Event::InitDone => self.current = std::mem::take(&mut self.listing),
            Event::Apply(slice) => {
                self.current.insert(slice.name_any(), endpoints(&slice));
            }
            Event::Delete(slice) => {
                self.current.remove(&slice.name_any());
            }
        }
        true
    }

    /// Each pod once. A pod with both families has an endpoint for each: IPv4 first, as everything of ours listens on both.
    fn pods(&self) -> Pods {
        let mut pods = Pods::new();
        for (pod, address) in self.current.values().flatten() {
            match pods.get(pod) {
                Some(known) if known <= address => {}
                _ => {
                    pods.insert(pod.clone(), *address);
                }
            }
        }
        pods
    }
}

fn endpoints(slice: &EndpointSlice) -> Vec<(String, IpAddr)> {
    let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
        let target = endpoint
            .target_ref
            .as_ref()
            .filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let address = endpoint.addresses.first()?.parse().ok()?;
        Some((target.name.clone()?, address))
    });
    endpoints.collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;
    use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
    use kube::api::ObjectMeta;

    use super::*;

    fn slice(name: &str, endpoints: &[(&str, &str)]) -> EndpointSlice {
        let endpoints = endpoints.iter().map(|(pod, address)| Endpoint {
            addresses: vec![(*address).to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(false),
                serving: Some(true),
                terminating: Some(true),
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some((*pod).to_owned()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        });
        EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints: endpoints.collect(),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..EndpointSlice::default()
        }
    }

    fn names(slices: &Slices) -> Vec<String> {
        slices
            .pods()
            .into_iter()
            .map(|(pod, address)| format!("{pod}={address}"))
            .collect()
    }

    #[test]
    fn a_stopping_pod_stays_until_its_endpoint_is_gone() {
        let mut slices = Slices::default();
        slices.take(Event::Apply(slice(
            "a",
            &[("media-0", "10.0.0.1"), ("media-1", "10.0.0.2")],
        )));
        assert_eq!(names(&slices), ["media-0=10.0.0.1", "media-1=10.0.0.2"]);
        slices.take(Event::Apply(slice("a", &[("media-1", "10.0.0.2")])));
        assert_eq!(names(&slices), ["media-1=10.0.0.2"]);
    }

    #[test]
    fn a_list_replaces_only_when_it_is_complete() {
        let mut slices = Slices::default();
        slices.take(Event::Apply(slice("a", &[("media-0", "10.0.0.1")])));
        assert!(!slices.take(Event::Init));
        assert!(!slices.take(Event::InitApply(slice("b", &[("media-1", "10.0.0.2")]))));
        assert_eq!(
            names(&slices),
            ["media-0=10.0.0.1"],
            "the API server went away while listing"
        );
        slices.take(Event::Init);
        slices.take(Event::InitApply(slice("b", &[("media-1", "10.0.0.2")])));
        assert!(slices.take(Event::InitDone));
        assert_eq!(names(&slices), ["media-1=10.0.0.2"]);
    }

    #[test]
    fn a_pod_of_both_families_is_found_at_its_ipv4_address() {
        let mut slices = Slices::default();
        slices.take(Event::Apply(slice("a-ipv6", &[("media-0", "fd00::1")])));
        slices.take(Event::Apply(slice("b-ipv4", &[("media-0", "10.0.0.1")])));
        assert_eq!(names(&slices), ["media-0=10.0.0.1"]);
    }
}
