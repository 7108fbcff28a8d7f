//! The certificates of the control port, from the Secret that the operator keeps.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use ringwire_config::object::ObjectRef;
use ringwire_control::GatewayTls;
use ringwire_control::tls::{self, TlsError};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at};

use super::{config, watching};

/// Waits for the gateway's certificates, and keeps them current as the Secret changes: new connections use the new ones. Certificates
/// that cannot be used leave the last good ones in place.
pub async fn control_secret(client: &Client, gateway: &ObjectRef) -> Arc<ArcSwap<GatewayTls>> {
    let name = tls::secret_name(&gateway.name);
    let api: Api<Secret> = Api::namespaced(client.clone(), &gateway.namespace);
    let events = watching::events(api, config::by_name(&name), format!("Secret {name}"));
    let (sender, mut receiver) = oneshot::channel();
    tokio::spawn(run(events, name.clone(), sender));
    let mut reminder = interval_at(Instant::now() + config::REMIND, config::REMIND);
    loop {
        tokio::select! {
            first = &mut receiver => match first {
                Ok(first) => return first,
                // The watch never ends: only a panic in it comes here, and then the process must not look alive.
                Err(oneshot::error::RecvError { .. }) => panic!("the watch of the gateway's certificates ended"),
            },
            _ = reminder.tick() => {
                tracing::warn!(secret = name, "waiting for the operator to write the gateway's certificates");
            }
        }
    }
}

async fn run(
    events: impl StreamExt<Item = Event<Secret>>,
    name: String,
    first: oneshot::Sender<Arc<ArcSwap<GatewayTls>>>,
) {
    let mut events = std::pin::pin!(events);
    let mut first = Some(first);
    let mut current: Option<Arc<ArcSwap<GatewayTls>>> = None;
    let mut data = None;
    while let Some(event) = events.next().await {
        let secret = match event {
            Event::Apply(secret) | Event::InitApply(secret) => secret,
            Event::Delete(_) => {
                tracing::warn!(
                    secret = name,
                    "the gateway's certificates were deleted; the last ones hold"
                );
                continue;
            }
            Event::Init | Event::InitDone => continue,
        };
        if data == secret.data {
            continue;
        }
        match read(&secret) {
            Ok(tls) => {
                tracing::info!(
                    secret = name,
                    renewed = current.is_some(),
                    "certificates of the control port taken"
                );
                if let Some(current) = &current {
                    current.store(Arc::new(tls));
                } else {
                    let tls = Arc::new(ArcSwap::from_pointee(tls));
                    current = Some(Arc::clone(&tls));
                    if let Some(first) = first.take()
                        && first.send(tls).is_err()
                    {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::error!(secret = name, %error, "the gateway's certificates cannot be used");
            }
        }
        data = secret.data;
    }
}

fn read(secret: &Secret) -> Result<GatewayTls, TlsError> {
    let get = |key: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value
            .map(|value| value.0.as_slice())
            .ok_or(TlsError::Missing(key))
    };
    GatewayTls::from_pem(get("ca.crt")?, get("tls.crt")?, get("tls.key")?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use futures::channel::mpsc;
    use k8s_openapi::ByteString;
    use ringwire_control::issue;

    use super::*;

    fn secret() -> Secret {
        let now = SystemTime::now();
        let ca = issue::authority("voice/default", now).unwrap();
        let leaf = issue::leaf(&ca, "media", now).unwrap();
        let value = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = BTreeMap::from([
            ("ca.crt".to_owned(), value(&ca.certificate)),
            ("tls.crt".to_owned(), value(&leaf.certificate)),
            ("tls.key".to_owned(), value(&leaf.key)),
        ]);
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    #[tokio::test]
    async fn takes_new_certificates_and_keeps_good_ones() {
        let (mut events, receiver) = mpsc::channel(16);
        let (first, taken) = oneshot::channel();
        let watch = tokio::spawn(run(receiver, "default-control".to_owned(), first));
        events
            .try_send(Event::InitApply(Secret::default()))
            .unwrap();
        events.try_send(Event::InitApply(secret())).unwrap();
        let tls = tokio::time::timeout(Duration::from_secs(10), taken)
            .await
            .unwrap()
            .unwrap();
        let before = tls.load_full();

        events.try_send(Event::Apply(secret())).unwrap();
        events.try_send(Event::Delete(secret())).unwrap();
        events.try_send(Event::Apply(Secret::default())).unwrap();
        drop(events);
        watch.await.unwrap();
        let after = tls.load_full();
        assert!(!Arc::ptr_eq(&before.server, &after.server), "renewed");
    }
}
