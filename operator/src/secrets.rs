//! The Secrets that objects refer to: watched by metadata alone, read one by one when their version changes.
//!
//! Holds only what somebody refers to. Fetching itself is the loop's business ([`fetch`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use ringwire_config::object::SecretData;
use ringwire_config::{ObjectRef, Secret};

use crate::failure::{Failure, limited};
use crate::media_gateway::build::{GATEWAY, MANAGED_BY, MANAGER};
use crate::media_gateway::certificates::{RENEW_AFTER, ROTATE_AFTER};
use crate::retry::Fingerprint;

/// A Secret that was read.
pub struct Fetched {
    /// The version that was read.
    pub resource_version: String,
    /// The object, for writes that must not overwrite anybody else's.
    pub uid: String,
    /// The gateway whose keys it holds, if the operator made it.
    pub made_for: Option<String>,
    /// UID of the controlling owner.
    pub owner: Option<String>,
    /// When the certificate in it is due to be renewed.
    pub renew_after: Option<Timestamp>,
    /// When the token keys in it are due for the next step of their rotation.
    pub rotate_after: Option<Timestamp>,
    /// Its values.
    pub data: SecretData,
}

impl Fetched {
    fn new(secret: KubeSecret) -> Self {
        let KubeSecret {
            metadata,
            data,
            string_data: _,
            type_: _,
            immutable: _,
        } = secret;
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let made_for = label(GATEWAY)
            .filter(|_| label(MANAGED_BY).is_some_and(|by| by == MANAGER))
            .cloned();
        let owners = metadata.owner_references.iter().flatten();
        let owner = owners
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone())
            .next();
        let annotations = metadata.annotations.as_ref();
        let time = |key: &str| annotations?.get(key)?.parse().ok();
        let (renew_after, rotate_after) = (time(RENEW_AFTER), time(ROTATE_AFTER));
        let data = data.into_iter().flatten();
        Self {
            made_for,
            owner,
            renew_after,
            rotate_after,
            resource_version: metadata.resource_version.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            data: data
                .filter_map(|(key, value)| {
                    Some((key, Secret::new(String::from_utf8(value.0).ok()?)))
                })
                .collect(),
        }
    }
}

/// What is known of a Secret.
#[derive(Clone)]
pub enum Lookup {
    /// It does not exist.
    Absent,
    /// It exists, and is being read for the first time.
    Pending,
    /// It exists but cannot be read.
    Unreadable,
    /// As it was last read.
    Present(Arc<Fetched>),
}

struct Entry {
    /// The version that exists, as the watch says.
    version: Fingerprint,
    /// The version that was last read.
    read: Option<Fingerprint>,
    fetched: Option<Arc<Fetched>>,
    failed: bool,
}

/// The Secrets that objects refer to.
#[derive(Default)]
pub struct Secrets {
    entries: BTreeMap<ObjectRef, Entry>,
}

impl Secrets {
    /// Takes note of which Secrets are wanted, and of the version in which each exists.
    pub fn update(
        &mut self,
        wanted: &BTreeSet<ObjectRef>,
        existing: impl Fn(&ObjectRef) -> Option<Fingerprint>,
    ) {
        self.entries
            .retain(|id, _| wanted.contains(id) && existing(id).is_some());
        for id in wanted {
            let Some(version) = existing(id) else {
                continue;
            };
            let fresh = Entry {
                version,
                read: None,
                fetched: None,
                failed: false,
            };
            self.entries.entry(id.clone()).or_insert(fresh).version = version;
        }
    }

    /// Which Secrets have to be read, and the version to ask about.
    pub fn outdated(&self) -> Vec<(ObjectRef, Fingerprint)> {
        let outdated = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.read != Some(entry.version));
        outdated
            .map(|(id, entry)| (id.clone(), entry.version))
            .collect()
    }

    /// Takes what was read after `version` was seen.
    pub fn fetched(&mut self, id: &ObjectRef, version: Fingerprint, fetched: Fetched) {
        if let Some(entry) = self.entries.get_mut(id) {
            *entry = Entry {
                version: entry.version,
                read: Some(version),
                fetched: Some(Arc::new(fetched)),
                failed: false,
            };
        }
    }

    /// It could not be read: what was read before goes on holding.
    pub fn failed(&mut self, id: &ObjectRef) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.failed = true;
        }
    }

    /// What is known of `id`, which must have been among the wanted.
    pub fn get(&self, id: &ObjectRef) -> Lookup {
        match self.entries.get(id) {
            None => Lookup::Absent,
            Some(Entry {
                fetched: Some(fetched),
                ..
            }) => Lookup::Present(Arc::clone(fetched)),
            Some(Entry { failed: true, .. }) => Lookup::Unreadable,
            Some(_) => Lookup::Pending,
        }
    }
}

/// The version of a Secret, as its metadata states it.
pub fn version(secret: &PartialObjectMeta<KubeSecret>) -> Fingerprint {
    let meta = &secret.metadata;
    crate::fingerprint::of(&[&meta.uid, &meta.resource_version])
}

/// Reads a Secret.
pub async fn fetch(client: Client, id: ObjectRef) -> Result<Fetched, Failure> {
    let api: Api<KubeSecret> = Api::namespaced(client, &id.namespace);
    limited(api.get(&id.name)).await.map(Fetched::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ObjectRef {
        ObjectRef::new("voice", "trunk")
    }

    fn fetched(password: &str) -> Fetched {
        Fetched::new(KubeSecret {
            data: Some(
                [(
                    "password".to_owned(),
                    k8s_openapi::ByteString(password.as_bytes().to_vec()),
                )]
                .into(),
            ),
            ..KubeSecret::default()
        })
    }

    fn password(secrets: &Secrets) -> Option<String> {
        match secrets.get(&id()) {
            Lookup::Present(fetched) => Some(fetched.data["password"].expose().to_owned()),
            _ => None,
        }
    }

    #[test]
    fn reads_a_secret_again_when_its_version_changes_and_keeps_the_old_value_meanwhile() {
        let (mut secrets, wanted) = (Secrets::default(), BTreeSet::from([id()]));
        secrets.update(&wanted, |_| Some(1));
        assert!(matches!(secrets.get(&id()), Lookup::Pending));
        assert_eq!(secrets.outdated(), [(id(), 1)]);
        secrets.fetched(&id(), 1, fetched("old"));
        assert_eq!(secrets.outdated(), []);

        secrets.update(&wanted, |_| Some(2));
        assert_eq!(secrets.outdated(), [(id(), 2)]);
        assert_eq!(password(&secrets).as_deref(), Some("old"));
        secrets.failed(&id());
        assert_eq!(password(&secrets).as_deref(), Some("old"));
        secrets.fetched(&id(), 2, fetched("new"));
        assert_eq!(password(&secrets).as_deref(), Some("new"));
    }

    #[test]
    fn a_change_while_reading_is_read_again() {
        let (mut secrets, wanted) = (Secrets::default(), BTreeSet::from([id()]));
        secrets.update(&wanted, |_| Some(1));
        secrets.update(&wanted, |_| Some(2));
        secrets.fetched(&id(), 1, fetched("old"));
        assert_eq!(secrets.outdated(), [(id(), 2)]);
    }

    #[test]
    fn forgets_what_nobody_refers_to_and_what_is_gone() {
        let mut secrets = Secrets::default();
        secrets.update(&BTreeSet::from([id()]), |_| Some(1));
        secrets.fetched(&id(), 1, fetched("old"));
        secrets.update(&BTreeSet::from([id()]), |_| None);
        assert!(matches!(secrets.get(&id()), Lookup::Absent));
        secrets.update(&BTreeSet::new(), |_| Some(1));
        assert!(secrets.entries.is_empty());
    }

    #[test]
    fn knows_an_unreadable_secret_from_a_missing_one() {
        let mut secrets = Secrets::default();
        secrets.update(&BTreeSet::from([id()]), |_| Some(1));
        secrets.failed(&id());
        assert!(matches!(secrets.get(&id()), Lookup::Unreadable));
        assert_eq!(secrets.outdated().len(), 1, "it is tried again");
    }
}
