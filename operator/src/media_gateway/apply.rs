//! Making the API server hold what was built: server-side apply of what changed or drifted, deletion of what is left over.
//!
//! [`Children`] remembers what was applied and compares; the functions below it do the requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use kube::runtime::reflector::Lookup as _;
use kube::{Client, Resource};
use ringwire_config::ObjectRef;

use super::build::{Child, ChildKey, ChildKind, GATEWAY, is_child};
use super::certificates::Write;
use super::claim::Claim;
use super::validate::ValidGateway;
use crate::failure::{Failure, limited};
use crate::retry::Fingerprint;
use crate::watch::Views;

/// Our name in `metadata.managedFields` of children.
pub const FIELD_MANAGER: &str = "ringwire";

/// A child as the watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its UID.
    pub uid: String,
    /// What grows when somebody edits it: the generation where there is one, else the version.
    pub revision: u64,
    /// UID of its controlling owner.
    pub owner: Option<String>,
    /// The gateway in its labels.
    pub gateway: Option<String>,
}

/// The metadata that a comparison needs.
fn live(kind: ChildKind, meta: &kube::core::ObjectMeta) -> Live {
    Live {
        uid: meta.uid.clone().unwrap_or_default(),
        revision: revision(kind, meta),
        owner: meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone()),
        gateway: meta
            .labels
            .as_ref()
            .and_then(|labels| labels.get(GATEWAY))
            .cloned(),
    }
}

fn revision(kind: ChildKind, meta: &kube::core::ObjectMeta) -> u64 {
    match kind {
        // Its status changes all the time.
        ChildKind::Deployment | ChildKind::PodDisruptionBudget => meta
            .generation
            .and_then(|number| number.try_into().ok())
            .unwrap_or(0),
        _ => meta
            .resource_version
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
    }
}

/// All children that the watches show.
pub fn observe(views: &Views) -> BTreeMap<ChildKey, Live> {
    fn add<K>(found: &mut BTreeMap<ChildKey, Live>, kind: ChildKind, view: &crate::watch::View<K>)
    where
        K: Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        for object in view.all() {
            let meta = object.meta();
            let live = live(kind, meta);
            if live.gateway.is_some() {
                let id = ObjectRef::new(
                    object.namespace().unwrap_or_default(),
                    object.name().unwrap_or_default(),
                );
                found.insert(ChildKey { kind, id }, live);
            }
        }
    }
    let mut found = BTreeMap::new();
    add(&mut found, ChildKind::Secret, &views.secrets);
    add(
        &mut found,
        ChildKind::ServiceAccount,
        &views.service_accounts,
    );
    add(&mut found, ChildKind::Role, &views.roles);
    add(&mut found, ChildKind::RoleBinding, &views.role_bindings);
    add(&mut found, ChildKind::Service, &views.services);
    add(&mut found, ChildKind::Deployment, &views.deployments);
    add(
        &mut found,
        ChildKind::PodDisruptionBudget,
        &views.disruption_budgets,
    );
    found
}

/// What the API server said after a child was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    fingerprint: Fingerprint,
    uid: String,
    revision: u64,
    seen: bool,
    at: Instant,
}

/// Whoever else insists on writing a child, another operator for instance, gets an answer no more often than this.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(2);

/// What was applied so far.
#[derive(Default)]
pub struct Children {
    applied: BTreeMap<ChildKey, Applied>,
    refused: BTreeMap<ChildKey, String>,
    next_repair: Option<Instant>,
}

impl Children {
    /// Whether a child has to be applied: never was, is wanted otherwise, was edited, replaced or deleted.
    pub fn is_outdated(
        &mut self,
        key: &ChildKey,
        wanted: Fingerprint,
        live: Option<&Live>,
        now: Instant,
    ) -> bool {
        let Some(applied) = self.applied.get_mut(key) else {
            return true;
        };
        if applied.fingerprint != wanted {
            return true;
        }
        let drifted = match live {
            // Before the watch has shown it, its absence means nothing.
            None => applied.seen,
            Some(live) => {
                applied.seen = true;
                live.uid != applied.uid || live.revision > applied.revision
            }
        };
        let rested = applied.at + BETWEEN_REPAIRS;
        if drifted && now < rested {
            self.next_repair = Some(self.next_repair.map_or(rested, |next| next.min(rested)));
            return false;
        }
        drifted
    }

    /// When a drifted child may be applied again, if one waits.
    pub fn take_next_repair(&mut self) -> Option<Instant> {
        self.next_repair.take()
    }

    /// Whether a child was applied at all.
    pub fn is_applied(&self, key: &ChildKey) -> bool {
        self.applied.contains_key(key)
    }

    /// Notes a success.
    pub fn applied(&mut self, key: ChildKey, applied: Applied) {
        self.refused.remove(&key);
        self.applied.insert(key, applied);
    }

    /// Notes that a Secret with keys was written.
    pub fn keys_written(&mut self, key: &ChildKey) {
        self.refused.remove(key);
    }

    /// Notes a failure.
    pub fn failed(&mut self, key: &ChildKey, failure: &Failure) {
        match failure {
            Failure::Refused(message) => {
                let message = format!("{key} was refused: {message}");
                self.refused.insert(key.clone(), message);
            }
            Failure::Foreign(message) => {
                self.refused.insert(key.clone(), message.clone());
            }
            Failure::Gone | Failure::Conflict | Failure::Unavailable(_) => {}
        }
    }

    /// What stands against the children of a gateway that cannot be written: of the first one, and the names of the others.
    pub fn refused(&self, gateway: &ObjectRef) -> Option<String> {
        let of_gateway = |key: &ChildKey| {
            key.id.namespace == gateway.namespace && is_child(&gateway.name, key.kind, &key.id.name)
        };
        let mut refused = self.refused.iter().filter(|(key, _)| of_gateway(key));
        let (_, first) = refused.next()?;
        let others: Vec<String> = refused.map(|(key, _)| key.to_string()).collect();
        if others.is_empty() {
            return Some(first.clone());
        }
        Some(format!("{first} (also: {})", others.join(", ")))
    }

    /// Forgets children of gateways that are gone.
    pub fn retain(&mut self, mut wanted: impl FnMut(&ChildKey) -> bool) {
        self.applied.retain(|key, _| wanted(key));
        self.refused.retain(|key, _| wanted(key));
    }
}

/// Children of a gateway that are not among the `wanted`: another version made them, or another spec asked for them. Secrets go only
/// where this version would never make them.
pub fn leftovers(
    gateway: &ValidGateway<'_>,
    live: &BTreeMap<ChildKey, Live>,
    wanted: &BTreeSet<ChildKey>,
) -> Vec<(ChildKey, String)> {
    let id = gateway.id();
    live.iter()
        .filter(|(key, live)| {
            let Live {
                uid: _,
                revision: _,
                owner,
                gateway: label,
            } = live;
            key.id.namespace == id.namespace
                && owner.as_deref() == Some(gateway.uid())
                && label.as_ref() == Some(&id.name)
                && match key.kind {
                    ChildKind::Secret => !is_child(&id.name, key.kind, &key.id.name),
                    _ => !wanted.contains(key),
                }
        })
        .map(|(key, live)| (key.clone(), live.uid.clone()))
        .collect()
}

fn request(key: &ChildKey) -> Request {
    Request::new(DynamicObject::url_path(
        &key.kind.resource(),
        Some(&key.id.namespace),
    ))
}

/// Applies a child, unless its name is taken. `known`: the UID of the one that is there and certainly the gateway's.
pub async fn apply(
    client: Client,
    claim: Claim,
    Child { key, mut body }: Child,
    known: Option<String>,
    fingerprint: Fingerprint,
) -> Result<Applied, Failure> {
    let uid = match known {
        Some(uid) => Some(uid),
        None => look(&client, &claim, &key).await?,
    };
    // One that took its place meanwhile is a conflict.
    if let Some(uid) = uid {
        body["metadata"]["uid"] = uid.into();
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let sent = request(&key).patch_metadata(&key.id.name, &params, &Patch::Apply(&body));
    let sent = sent.map_err(|error| Failure::Refused(error.to_string()))?;
    let object: PartialObjectMeta = limited(client.request(sent)).await?;
    Ok(Applied {
        fingerprint,
        uid: object.metadata.uid.clone().unwrap_or_default(),
        revision: revision(key.kind, &object.metadata),
        seen: false,
        at: Instant::now(),
    })
}

/// The UID of the object that has a child's name, if there is one: the watches show only what has our labels.
async fn look(client: &Client, claim: &Claim, key: &ChildKey) -> Result<Option<String>, Failure> {
    let sent = request(key).get_metadata(&key.id.name, &GetParams::default());
    let sent = sent.map_err(|error| Failure::Refused(error.to_string()))?;
    match limited(client.request::<PartialObjectMeta>(sent)).await {
        Ok(found) => {
            claim.check(key, &found.metadata)?;
            Ok(found.metadata.uid)
        }
        Err(Failure::Gone) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Deletes a child, if it still is the one that was seen.
pub async fn delete(client: Client, key: ChildKey, uid: String) -> Result<(), Failure> {
    let only = Preconditions {
        uid: Some(uid),
        resource_version: None,
    };
    let params = DeleteParams::background().preconditions(only);
    let sent = request(&key)
        .delete(&key.id.name, &params)
        .map_err(|error| Failure::Refused(error.to_string()))?;
    limited(client.request_status::<DynamicObject>(sent))
        .await
        .map(drop)
}

/// Creates or replaces a Secret with keys; never overwrites what somebody else wrote meanwhile.
pub async fn write_keys(client: Client, write: Write) -> Result<(), Failure> {
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let sent = match write {
        Write::Create(Child { key, body }) => {
            request(&key).create(&params, body.to_string().into_bytes())
        }
        Write::Replace {
            child: Child { key, mut body },
            uid,
            resource_version,
        } => {
            body["metadata"]["uid"] = uid.into();
            body["metadata"]["resourceVersion"] = resource_version.into();
            request(&key).replace(&key.id.name, &params, body.to_string().into_bytes())
        }
    };
    let sent = sent.map_err(|error| refused(&error))?;
    limited(client.request::<PartialObjectMeta>(sent))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Json;
    use axum::extract::State;
    use axum::http::{Method, StatusCode};
    use axum::response::{IntoResponse, Response};
    use serde_json::{Value, json};

    use super::*;

    fn key() -> ChildKey {
        ChildKey {
            kind: ChildKind::Service,
            id: ObjectRef::new("voice", "main-media"),
        }
    }

    fn applied(fingerprint: Fingerprint, at: Instant) -> Applied {
        Applied {
            fingerprint,
            uid: "a".into(),
            revision: 5,
            seen: false,
            at,
        }
    }

    fn live(uid: &str, revision: u64) -> Live {
        Live {
            uid: uid.into(),
            revision,
            owner: None,
            gateway: None,
        }
    }

    #[test]
    fn applies_what_is_new_edited_replaced_or_deleted_and_nothing_else() {
        let mut children = Children::default();
        let start = Instant::now();
        let now = start + BETWEEN_REPAIRS;
        assert!(children.is_outdated(&key(), 1, None, now), "never applied");
        children.applied(key(), applied(1, start));
        for (outdated, wanted, live, why) in [
            (false, 1, None, "the watch is behind"),
            (false, 1, Some(live("a", 4)), "the watch is behind"),
            (false, 1, Some(live("a", 5)), "as applied"),
            (true, 2, Some(live("a", 5)), "wanted otherwise"),
            (true, 1, Some(live("a", 6)), "edited"),
            (true, 1, Some(live("b", 9)), "replaced"),
            (true, 1, None, "deleted after it was seen"),
        ] {
            assert_eq!(
                children.is_outdated(&key(), wanted, live.as_ref(), now),
                outdated,
                "{why}"
            );
        }
    }

    #[test]
    fn does_not_fight_another_writer_at_full_speed() {
        let mut children = Children::default();
        let start = Instant::now();
        children.applied(key(), applied(1, start));
        assert!(!children.is_outdated(&key(), 1, Some(&live("a", 6)), start));
        assert_eq!(children.take_next_repair(), Some(start + BETWEEN_REPAIRS));
        assert!(
            children.is_outdated(&key(), 2, Some(&live("a", 6)), start),
            "a wish of ours does not wait"
        );
        assert!(children.is_outdated(&key(), 1, Some(&live("a", 6)), start + BETWEEN_REPAIRS));
    }

    #[test]
    fn what_the_spec_asks_for_no_more_is_left_over_and_secrets_are_not() {
        let gateway: ringwire_crds::MediaGateway = serde_json::from_value(serde_json::json!({
            "apiVersion": ringwire_crds::API_VERSION, "kind": "MediaGateway",
            "metadata": { "name": "main", "namespace": "voice", "uid": "7f4c" }, "spec": {},
        }))
        .unwrap();
        let gateway = ValidGateway::new(&gateway).unwrap();
        let child = |kind, name: &str| ChildKey {
            kind,
            id: ObjectRef::new("voice", name),
        };
        let kept = child(ChildKind::Service, "main-media");
        let gone = child(ChildKind::PodDisruptionBudget, "main-registrar");
        let secret = child(ChildKind::Secret, "main-control");
        let foreign = child(ChildKind::Service, "other");
        let of = |owner: &str| Live {
            uid: "a".into(),
            revision: 1,
            owner: Some(owner.into()),
            gateway: Some("main".into()),
        };
        let live = BTreeMap::from([
            (kept.clone(), of("7f4c")),
            (gone.clone(), of("7f4c")),
            (secret, of("7f4c")),
            (foreign, of("somebody")),
        ]);
        let found = leftovers(&gateway, &live, &BTreeSet::from([kept]));
        assert_eq!(found, [(gone, "a".to_owned())]);
    }

    #[test]
    fn remembers_a_refusal_until_it_succeeds() {
        let mut children = Children::default();
        let gateway = ObjectRef::new("voice", "main");
        children.failed(&key(), &Failure::Gone);
        assert_eq!(children.refused(&gateway), None);
        children.failed(&key(), &Failure::Refused("no".into()));
        let message = "Service voice/main-media was refused: no";
        assert_eq!(children.refused(&gateway).as_deref(), Some(message));
        let other = ChildKey {
            kind: ChildKind::Deployment,
            ..key()
        };
        children.failed(&other, &Failure::Foreign("taken".into()));
        assert_eq!(
            children.refused(&gateway),
            Some(format!("{message} (also: Deployment voice/main-media)"))
        );
        children.retain(|key| *key != other);
        assert_eq!(children.refused(&ObjectRef::new("other", "main")), None);
        children.applied(key(), applied(1, Instant::now()));
        assert_eq!(children.refused(&gateway), None);
    }

    /// An API server that holds one object, or none; it gives back every object that it is sent.
    async fn server(held: Option<Value>) -> (Client, Arc<Mutex<Vec<Value>>>) {
        type Held = (Option<Value>, Arc<Mutex<Vec<Value>>>);
        async fn answer(
            State((held, written)): State<Held>,
            request: axum::extract::Request,
        ) -> Response {
            if request.method() == Method::GET {
                let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                    "message": "not found", "code": 404});
                return match held {
                    Some(held) => Json(held).into_response(),
                    None => (StatusCode::NOT_FOUND, Json(missing)).into_response(),
                };
            }
            assert_eq!(request.method(), Method::PATCH);
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
            let object: Value = serde_json::from_slice(&body.unwrap()).unwrap();
            written.lock().unwrap().push(object.clone());
            Json(object).into_response()
        }
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let written = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .fallback(answer)
            .with_state((held, Arc::clone(&written)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = kube::Config::new(uri.parse().unwrap());
        (Client::try_from(config).unwrap(), written)
    }

    fn object(meta: &Value) -> Value {
        let mut object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta});
        object["metadata"]["name"] = "main-media".into();
        object["metadata"]["uid"] = "there".into();
        object
    }

    #[tokio::test]
    async fn writes_only_to_what_was_made_for_the_gateway() {
        let gateway: ringwire_crds::MediaGateway = serde_json::from_value(json!({
            "apiVersion": ringwire_crds::API_VERSION, "kind": "MediaGateway",
            "metadata": { "name": "main", "namespace": "voice", "uid": "7f4c" }, "spec": {},
        }))
        .unwrap();
        let gateway = ValidGateway::new(&gateway).unwrap();
        let claim = Claim::new(&gateway);
        let owner = json!({"apiVersion": ringwire_crds::API_VERSION, "kind": "MediaGateway", "name": "main", "uid": "7f4c",
            "controller": true});
        let ours = object(&json!({ "ownerReferences": [owner] }));
        let theirs = object(&json!({"labels": {"app": "web"}}));
        // What is there, what the watch has shown, what is written.
        for (held, known, uid) in [
            (None, None, Some(Value::Null)),
            (Some(ours.clone()), None, Some("there".into())),
            (Some(theirs.clone()), None, None),
            // What took its place meanwhile is the API server's to refuse, by the UID.
            (Some(theirs), Some("seen"), Some("seen".into())),
        ] {
            for kind in [ChildKind::Service, ChildKind::Deployment, ChildKind::Secret] {
                let (client, written) = server(held.clone()).await;
                let child = Child {
                    key: ChildKey { kind, ..key() },
                    body: json!({"metadata": {"name": "main-media"}}),
                };
                let result = apply(client, claim.clone(), child, known.map(str::to_owned), 1).await;
                let written = written.lock().unwrap();
                let written: Vec<_> = written
                    .iter()
                    .map(|body| &body["metadata"]["uid"])
                    .collect();
                let expected: Vec<_> = uid.iter().collect();
                assert_eq!(written, expected, "{held:?} {known:?}");
                if uid.is_some() {
                    assert!(result.is_ok());
                    continue;
                }
                let failure = result.unwrap_err();
                let mut children = Children::default();
                children.failed(&ChildKey { kind, ..key() }, &failure);
                let told = children.refused(&gateway.id()).unwrap_or_default();
                let object = format!("{} voice/main-media exists", kind.name());
                // The Secret is none of the gateway's by its name.
                assert!(
                    kind == ChildKind::Secret || told.starts_with(&object),
                    "{told}"
                );
            }
        }
    }
}
