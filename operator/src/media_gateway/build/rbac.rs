//! What the pods may do: read the Secrets of their own role by name, and nothing of anybody else's.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role as RbacRole, RoleBinding, RoleRef, Subject};
use ringwire_config::shard::{self, Role, SHARDS};

use super::{control_name, metadata, role_name};
use crate::media_gateway::validate::ValidGateway;

const READ: [&str; 3] = ["get", "list", "watch"];

fn rule(group: &str, resource: &str, verbs: &[&str], names: Option<Vec<String>>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: names,
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    }
}

pub(super) fn role(gateway: &ValidGateway<'_>, role: Role) -> RbacRole {
    let name = gateway.id().name;
    let mut secrets: Vec<String> = (0..SHARDS)
        .map(|index| shard::secret_name(&name, role, index))
        .collect();
    secrets.push(control_name(&name));
    let mut rules = vec![rule("", "secrets", &READ, Some(secrets))];
    if role == Role::Registrar {
        rules.push(rule("discovery.k8s.io", "endpointslices", &READ, None));
        let verbs = [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ];
        rules.push(rule("coordination.k8s.io", "leases", &verbs, None));
    }
    RbacRole {
        metadata: metadata(gateway, role_name(&name, role), Some(role)),
        rules: Some(rules),
    }
}

pub(super) fn binding(gateway: &ValidGateway<'_>, role: Role) -> RoleBinding {
    let id = gateway.id();
    let name = role_name(&id.name, role);
    RoleBinding {
        metadata: metadata(gateway, name.clone(), Some(role)),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(id.namespace),
            ..Subject::default()
        }]),
    }
}
