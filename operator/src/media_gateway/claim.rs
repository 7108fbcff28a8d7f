//! Which objects a gateway may write to: only those that were made for it, whatever they are called.

use kube::core::ObjectMeta;
use ringwire_crds::GROUP;

use super::build::{ChildKey, GATEWAY, MANAGED_BY, MANAGER};
use super::validate::ValidGateway;
use crate::failure::Failure;

/// What a gateway's children are known by.
#[derive(Clone, Debug)]
pub struct Claim {
    gateway: String,
    uid: String,
}

impl Claim {
    /// That of this gateway.
    pub fn new(gateway: &ValidGateway<'_>) -> Self {
        Self {
            gateway: gateway.id().name,
            uid: gateway.uid().to_owned(),
        }
    }

    /// Whether an object with this controller is the gateway's for certain.
    pub fn is_owner(&self, controller: Option<&str>) -> bool {
        controller == Some(&self.uid)
    }

    /// Checks an object that has the name of a child.
    ///
    /// # Errors
    /// It is somebody else's.
    pub fn check(&self, key: &ChildKey, meta: &ObjectMeta) -> Result<(), Failure> {
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let whose = match controller {
            Some(owner) if owner.uid == self.uid => return Ok(()),
            // Of a gateway of this name that was there before: it goes with that, or stays with this one.
            Some(owner)
                if owner.kind == "MediaGateway"
                    && owner.api_version.split('/').next() == Some(GROUP)
                    && owner.name == self.gateway =>
            {
                return Ok(());
            }
            Some(owner) => format!("belongs to {} {}", owner.kind, owner.name),
            // Left behind by `--cascade=orphan`, or brought back from a backup.
            None if self.is_labelled(meta) => return Ok(()),
            None => "was not made for this gateway".to_owned(),
        };
        Err(Failure::Foreign(format!(
            "{key} exists and {whose}; it is left as it is. Delete or rename it, or give the MediaGateway another name"
        )))
    }

    fn is_labelled(&self, meta: &ObjectMeta) -> bool {
        let label = |name| meta.labels.as_ref()?.get(name).map(String::as_str);
        label(MANAGED_BY) == Some(MANAGER) && label(GATEWAY) == Some(&self.gateway)
    }
}

#[cfg(test)]
mod tests {
    use ringwire_config::ObjectRef;
    use serde_json::{Value, json};

    use super::super::build::ChildKind;
    use super::*;

    fn check(meta: Value) -> Result<(), Failure> {
        let claim = Claim {
            gateway: "main".into(),
            uid: "7f4c".into(),
        };
        let key = ChildKey {
            kind: ChildKind::Service,
            id: ObjectRef::new("voice", "main-sip-udp"),
        };
        claim.check(&key, &serde_json::from_value(meta).unwrap())
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let group = if kind == "MediaGateway" {
            GROUP
        } else {
            "example.com"
        };
        json!({"ownerReferences": [{
            "apiVersion": format!("{group}/v1alpha1"), "kind": kind, "name": name, "uid": uid, "controller": controller,
        }]})
    }

    fn labels(manager: &str, gateway: &str) -> Value {
        json!({"labels": {MANAGED_BY: manager, GATEWAY: gateway}})
    }

    #[test]
    fn takes_what_was_made_for_the_gateway() {
        for meta in [
            owner("MediaGateway", "main", "7f4c", true),
            owner("MediaGateway", "main", "of-its-predecessor", true),
            labels(MANAGER, "main"),
        ] {
            assert_eq!(check(meta.clone()), Ok(()), "{meta}");
        }
    }

    #[test]
    fn leaves_what_is_somebody_elses_and_says_what_to_do() {
        for meta in [
            json!({}),
            owner("MediaGateway", "other", "8a01", true),
            owner("Proxy", "main", "8a01", true),
            // An owner that controls nothing says nothing of who made it.
            owner("MediaGateway", "main", "7f4c", false),
            labels(MANAGER, "other"),
            labels("Helm", "main"),
        ] {
            let Err(Failure::Foreign(message)) = check(meta.clone()) else {
                panic!("taken: {meta}")
            };
            assert!(
                message.starts_with("Service voice/main-sip-udp exists and "),
                "{message}"
            );
            assert!(message.contains("Delete or rename it"), "{message}");
        }
    }
}
