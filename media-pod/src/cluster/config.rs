//! A pod's configuration, from the Secrets that the operator writes.
//!
//! A configuration is never taken back: a shard that cannot be read, or that is deleted, leaves the last good one in place. Deleting is
//! how a gateway ends or is made anew, and neither is a reason to forget the trunks of running calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use ringwire_config::NotUnderstood;
use ringwire_config::gateway::{MediaConfig, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::shard::{self, Assembly, Role, SHARDS, Shard};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep_until};

use super::watching;

/// Shards that change within this time take effect together.
const GATHER: Duration = Duration::from_millis(15);

/// How often a pod says that it still waits for its first configuration.
pub(super) const REMIND: Duration = Duration::from_secs(10);

/// Follows a registrar's configuration; `None` until all of it has been read. Ends when nobody listens any more.
pub fn registrar_config(
    client: &Client,
    gateway: &ObjectRef,
) -> watch::Receiver<Option<Arc<RegistrarConfig>>> {
    follow(client, gateway, Role::Registrar, Assembly::registrar)
}

/// Follows a media pod's configuration; `None` until all of it has been read. Ends when nobody listens any more.
pub fn media_config(
    client: &Client,
    gateway: &ObjectRef,
) -> watch::Receiver<Option<Arc<MediaConfig>>> {
    follow(client, gateway, Role::Media, Assembly::media)
}

fn follow<C: PartialEq + Send + Sync + 'static>(
    client: &Client,
    gateway: &ObjectRef,
    role: Role,
    assemble: fn(&Assembly) -> Option<C>,
) -> watch::Receiver<Option<Arc<C>>> {
    let (sender, receiver) = watch::channel(None);
    let api: Api<Secret> = Api::namespaced(client.clone(), &gateway.namespace);
    let watches: Vec<BoxStream<'static, (usize, Event<Secret>)>> = (0..SHARDS)
        .map(|index| {
            let name = shard::secret_name(&gateway.name, role, index);
            watching::events(api.clone(), by_name(&name), format!("Secret {name}"))
                .map(move |event| (index, event))
                .boxed()
        })
        .collect();
    let shards = Shards::new(&gateway.name, role);
    tokio::spawn(run(stream::select_all(watches), shards, assemble, sender));
    receiver
}

/// One object by its name: all that a Role with `resourceNames` permits.
pub(super) fn by_name(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

async fn run<C: PartialEq>(
    mut events: impl StreamExt<Item = (usize, Event<Secret>)> + Unpin,
    mut shards: Shards,
    assemble: fn(&Assembly) -> Option<C>,
    sender: watch::Sender<Option<Arc<C>>>,
) {
    let mut reminder = interval_at(Instant::now() + REMIND, REMIND);
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            event = events.next() => {
                let Some((index, event)) = event else { return };
                if shards.take(index, event) {
                    // The first change sets the time: a steady flow of changes must not put it off.
                    due.get_or_insert_with(|| Instant::now() + GATHER);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                if let Some(config) = assemble(&shards.assembly) {
                    sender.send_if_modified(|current| {
                        let differs = current.as_deref() != Some(&config);
                        if differs {
                            tracing::info!(first = current.is_none(), "configuration taken");
                            *current = Some(Arc::new(config));
                        }
                        differs
                    });
                }
            }
            _ = reminder.tick(), if sender.borrow().is_none() => {
                tracing::warn!(missing = shards.missing().join(", "), "waiting for the operator to write a configuration that this pod understands");
            }
        }
    }
}

/// What was understood before, or not understood for another reason.
fn news<'a>(
    former: Option<&'a NotUnderstood>,
    latest: &'a NotUnderstood,
) -> Vec<(&'static str, &'a ObjectRef, &'a str)> {
    let told: BTreeSet<_> = former.into_iter().flat_map(NotUnderstood::all).collect();
    let entries = latest.all();
    entries.filter(|entry| !told.contains(entry)).collect()
}

/// What has been read so far.
struct Shards {
    names: Vec<String>,
    assembly: Assembly,
    /// Shards that have been read at least once.
    read: [bool; SHARDS],
    /// Shards that the running list has shown.
    listed: [bool; SHARDS],
}

impl Shards {
    fn new(gateway: &str, role: Role) -> Self {
        Self {
            names: (0..SHARDS)
                .map(|index| shard::secret_name(gateway, role, index))
                .collect(),
            assembly: Assembly::default(),
            read: [false; SHARDS],
            listed: [false; SHARDS],
        }
    }

    fn missing(&self) -> Vec<&str> {
        self.names
            .iter()
            .zip(self.read)
            .filter(|(_, read)| !read)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Takes an event of shard `index`; true if the configuration may have changed.
    fn take(&mut self, index: usize, event: Event<Secret>) -> bool {
        let name = &self.names[index];
        match event {
            Event::Init => {
                self.listed[index] = false;
                false
            }
            Event::InitApply(secret) => {
                self.listed[index] = true;
                self.decode(index, &secret)
            }
            Event::Apply(secret) => self.decode(index, &secret),
            Event::Delete(_) => {
                tracing::warn!(
                    secret = name,
                    "a part of the configuration was deleted; its last state holds"
                );
                false
            }
            Event::InitDone => {
                if !self.listed[index] && self.read[index] {
                    tracing::warn!(
                        secret = name,
                        "a part of the configuration is gone; its last state holds"
                    );
                }
                false
            }
        }
    }

    /// Says what of a shard is not understood, if that is news.
    fn tell(&self, secret: &str, index: usize, shard: &Shard) {
        let former = self.assembly.shard(index);
        let former_entries = former.map(Shard::not_understood);
        for (kind, object, detail) in news(former_entries, shard.not_understood()) {
            tracing::error!(
                secret, kind, %object, detail,
                "this object needs a newer version of the pod, which goes on without it"
            );
        }
        let parts = shard.parts_not_understood();
        if former.is_none_or(|former| former.parts_not_understood() != parts) {
            for (part, detail) in parts {
                let part = part.as_str();
                tracing::error!(
                    secret,
                    part,
                    detail,
                    "a part of the gateway needs a newer version of the pod; its last state holds"
                );
            }
        }
    }

    fn decode(&mut self, index: usize, secret: &Secret) -> bool {
        let name = &self.names[index];
        let Some(bytes) = secret
            .data
            .as_ref()
            .and_then(|data| data.get(shard::DATA_KEY))
        else {
            tracing::error!(
                secret = name,
                key = shard::DATA_KEY,
                "a part of the configuration lacks its key; its last state holds"
            );
            return false;
        };
        match shard::decode(&bytes.0) {
            Ok(shard) => {
                self.tell(name, index, &shard);
                self.assembly.insert(index, shard);
                self.read[index] = true;
                true
            }
            Err(error) => {
                tracing::error!(secret = name, %error, "a part of the configuration cannot be read; its last state holds");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::channel::mpsc;
    use k8s_openapi::ByteString;
    use ringwire_config::fixture;
    use ringwire_config::gateway::{Agent, GatewayConfig};

    use super::*;

    fn config(max_call_seconds: u32) -> GatewayConfig {
        let agent = Agent {
            max_call_seconds,
            ..fixture::agent("echo")
        };
        GatewayConfig {
            settings: fixture::settings(),
            tls: None,
            hep: None,
            providers: BTreeMap::new(),
            agents: BTreeMap::from([(agent.id.clone(), agent)]),
        }
    }

    fn secrets(max_call_seconds: u32) -> Vec<Secret> {
        let shards = shard::split(&config(max_call_seconds), Role::Media);
        shards
            .iter()
            .enumerate()
            .map(|(index, shard)| secret(shard::encode(shard, index).unwrap()))
            .collect()
    }

    fn secret(bytes: Vec<u8>) -> Secret {
        Secret {
            data: Some(BTreeMap::from([(
                shard::DATA_KEY.to_owned(),
                ByteString(bytes),
            )])),
            ..Secret::default()
        }
    }

    fn limit(shards: &Shards) -> u32 {
        shards.assembly.media().unwrap().agents[&ObjectRef::new("voice", "echo")].max_call_seconds
    }

    fn filled() -> Shards {
        let mut shards = Shards::new("default", Role::Media);
        for (index, secret) in secrets(60).into_iter().enumerate() {
            assert!(shards.take(index, Event::InitApply(secret)));
            shards.take(index, Event::InitDone);
        }
        shards
    }

    #[test]
    fn says_which_shards_are_missing() {
        let mut shards = Shards::new("default", Role::Media);
        shards.take(0, Event::InitApply(secrets(60).remove(0)));
        assert_eq!(shards.missing().first(), Some(&"default-media-1"));
        assert_eq!(shards.missing().len(), SHARDS - 1);
        assert!(filled().missing().is_empty());
    }

    #[test]
    fn an_unreadable_shard_leaves_the_last_good_one() {
        let index = shard::index_of(&ObjectRef::new("voice", "echo"));
        let mut shards = filled();
        assert!(!shards.take(index, Event::Apply(secret(b"garbage".to_vec()))));
        assert!(!shards.take(index, Event::Apply(Secret::default())));
        assert_eq!(limit(&shards), 60);
        assert!(shards.take(index, Event::Apply(secrets(30).remove(index))));
        assert_eq!(limit(&shards), 30);
    }

    #[test]
    fn what_is_not_understood_is_told_once_per_change() {
        let left_out = |details: &[(&str, &str)]| NotUnderstood {
            agents: details
                .iter()
                .map(|(name, detail)| (ObjectRef::new("voice", *name), (*detail).to_owned()))
                .collect(),
            ..NotUnderstood::default()
        };
        let first = left_out(&[("a", "unknown form")]);
        assert_eq!(news(None, &first).len(), 1);
        assert!(news(Some(&first), &first.clone()).is_empty());
        let second = left_out(&[("a", "unknown form"), ("b", "unknown form")]);
        let told = news(Some(&first), &second);
        let b = ObjectRef::new("voice", "b");
        assert_eq!(told, [("VoiceAgent", &b, "unknown form")]);
    }

    #[test]
    fn a_deleted_shard_is_not_an_empty_configuration() {
        let index = shard::index_of(&ObjectRef::new("voice", "echo"));
        let mut shards = filled();
        assert!(!shards.take(index, Event::Delete(secrets(60).remove(index))));
        assert!(!shards.take(index, Event::Init));
        assert!(
            !shards.take(index, Event::InitDone),
            "the list after a lost watch shows nothing"
        );
        assert_eq!(limit(&shards), 60);
    }

    #[tokio::test]
    async fn shards_that_change_together_take_effect_together() {
        let (mut events, receiver) = mpsc::channel(64);
        let (sender, mut configs) = watch::channel(None);
        tokio::spawn(run(
            receiver,
            Shards::new("default", Role::Media),
            Assembly::media,
            sender,
        ));
        // The same twice is one change; what follows is the second, not eight more.
        for seconds in [60, 60, 30] {
            for (index, secret) in secrets(seconds).into_iter().enumerate() {
                events.try_send((index, Event::Apply(secret))).unwrap();
            }
            if seconds == 60 && configs.borrow().is_none() {
                taken(&mut configs).await;
            }
        }
        assert_eq!(taken(&mut configs).await, 30);
        drop(events);
        let end = tokio::time::timeout(Duration::from_secs(10), configs.changed())
            .await
            .unwrap();
        assert!(end.is_err(), "no further change");
    }

    async fn taken(configs: &mut watch::Receiver<Option<Arc<MediaConfig>>>) -> u32 {
        tokio::time::timeout(Duration::from_secs(10), configs.changed())
            .await
            .unwrap()
            .unwrap();
        let config = configs.borrow_and_update().clone().unwrap();
        config.agents[&ObjectRef::new("voice", "echo")].max_call_seconds
    }
}
