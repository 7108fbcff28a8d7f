//! The objects that make up a gateway. Pure: one file for each built kind.

mod deployment;
mod disruption;
mod pod;
mod rbac;
mod secret;
mod service;
mod service_account;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role as RbacRole, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ApiResource;
use ringwire_config::ObjectRef;
use ringwire_config::object::{sip_tcp_service, sip_udp_service};
use ringwire_config::shard::{self, Role, SHARDS};
use ringwire_crds::{
    API_VERSION, Exposure, ExposureType, MediaGateway, SipExposure, SipExposureType,
};
use serde::Serialize;
use serde_json::Value;

pub use deployment::POD_SECURITY;
pub use secret::{
    CA_CRT, CA_KEY, CONTACT_KEY, ControlData, PREVIOUS_CRT, TLS_CRT, TLS_KEY, TOKEN_KEYS, control,
    control_ca,
};

use super::validate::ValidGateway;
use crate::options::PodDefaults;

/// Label of everything that the operator makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Its value.
pub const MANAGER: &str = "ringwire-operator";

/// Label: the role of a pod.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Label: the name of the gateway, which is in the same namespace.
pub const GATEWAY: &str = "ringwire.dev/gateway";

/// The kinds of objects that the operator makes for a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// Configuration and certificates.
    Secret,
    /// Who the pods are.
    ServiceAccount,
    /// What they may do.
    Role,
    /// That they may do it.
    RoleBinding,
    /// How they are found.
    Service,
    /// The pods.
    Deployment,
    /// How many of them stay when nodes are drained.
    PodDisruptionBudget,
}

impl ChildKind {
    /// How the API server knows it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Role => ApiResource::erase::<RbacRole>(&()),
            Self::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
        }
    }

    /// As in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }
}

/// Which child.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub id: ObjectRef,
}

impl std::fmt::Display for ChildKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.id)
    }
}

/// A finished object, not yet applied. Its body may hold credentials, so it has no `Debug`.
#[derive(Clone)]
pub struct Child {
    /// Which one.
    pub key: ChildKey,
    /// The whole object.
    pub body: Value,
}

impl Child {
    fn new<K: Serialize>(
        kind: ChildKind,
        gateway: &ValidGateway<'_>,
        name: String,
        object: &K,
    ) -> Self {
        let id = ObjectRef::new(gateway.id().namespace, name);
        // A Kubernetes type is made of strings, numbers and maps with string keys: it always has a JSON form.
        let body = serde_json::to_value(object).unwrap_or_default();
        Self {
            key: ChildKey { kind, id },
            body,
        }
    }
}

/// All children of a gateway but its Secrets.
pub fn workload(
    gateway: &ValidGateway<'_>,
    defaults: &PodDefaults,
    pod_security: Option<&str>,
) -> Vec<Child> {
    let named = |role| role_name(&gateway.id().name, role);
    let mut children = Vec::new();
    for role in Role::ALL {
        let accounts = service_account::build(gateway, role);
        children.push(Child::new(
            ChildKind::ServiceAccount,
            gateway,
            named(role),
            &accounts,
        ));
        children.push(Child::new(
            ChildKind::Role,
            gateway,
            named(role),
            &rbac::role(gateway, role),
        ));
        children.push(Child::new(
            ChildKind::RoleBinding,
            gateway,
            named(role),
            &rbac::binding(gateway, role),
        ));
        children.push(Child::new(
            ChildKind::Service,
            gateway,
            named(role),
            &service::build(gateway, role),
        ));
        let deployment = deployment::build(gateway, role, defaults, pod_security);
        children.push(Child::new(
            ChildKind::Deployment,
            gateway,
            named(role),
            &deployment,
        ));
    }
    for front in service::fronts(gateway) {
        let name = front.metadata.name.clone().unwrap_or_default();
        children.push(Child::new(ChildKind::Service, gateway, name, &front));
    }
    if let Some(budget) = disruption::build(gateway) {
        let name = named(Role::Registrar);
        children.push(Child::new(
            ChildKind::PodDisruptionBudget,
            gateway,
            name,
            &budget,
        ));
    }
    children
}

/// One shard of a gateway's configuration.
pub fn shard(gateway: &ValidGateway<'_>, role: Role, index: usize, content: &[u8]) -> Child {
    let name = shard::secret_name(&gateway.id().name, role, index);
    Child::new(
        ChildKind::Secret,
        gateway,
        name,
        &secret::shard(gateway, role, index, content),
    )
}

/// Whether a gateway may have a child of this name; others that claim to be its children are left over from another version.
pub fn is_child(gateway: &str, kind: ChildKind, name: &str) -> bool {
    let roles = || Role::ALL.into_iter();
    match kind {
        ChildKind::Secret => {
            name == ca_name(gateway)
                || name == control_name(gateway)
                || roles().any(|role| {
                    (0..SHARDS).any(|index| name == shard::secret_name(gateway, role, index))
                })
        }
        ChildKind::Service
            if [sip_udp_service(gateway), sip_tcp_service(gateway)]
                .iter()
                .any(|front| front == name) =>
        {
            true
        }
        _ => roles().any(|role| name == role_name(gateway, role)),
    }
}

/// What the objects of one role are called.
pub fn role_name(gateway: &str, role: Role) -> String {
    format!("{gateway}-{role}")
}

/// The Secret with the certificate authority; the operator's alone.
pub fn ca_name(gateway: &str) -> String {
    format!("{gateway}-control-ca")
}

/// The Secret with the pods' certificate and keys.
pub fn control_name(gateway: &str) -> String {
    format!("{gateway}-control")
}

/// Labels by which a role's pods are selected. They can never change: a Deployment's selector is immutable.
pub fn selector(gateway: &str, role: Role) -> BTreeMap<String, String> {
    [(COMPONENT, role.as_str()), (GATEWAY, gateway)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The selector as text, for autoscalers.
pub fn selector_text(gateway: &str, role: Role) -> String {
    let parts: Vec<String> = selector(gateway, role)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    parts.join(",")
}

/// Whether a role's pods use their node's network.
fn host_network(object: &MediaGateway, role: Role) -> bool {
    match role {
        Role::Registrar => {
            let SipExposure {
                type_,
                addresses: _,
                service: _,
            } = &object.spec.sip.exposure;
            *type_ == SipExposureType::HostNetwork
        }
        Role::Media => {
            let Exposure {
                type_,
                addresses: _,
            } = &object.spec.rtp.exposure;
            *type_ == ExposureType::HostNetwork
        }
    }
}

fn labels(gateway: &ValidGateway<'_>, role: Option<Role>) -> BTreeMap<String, String> {
    let name = gateway.id().name;
    let mut labels: BTreeMap<String, String> = [
        ("app.kubernetes.io/name", "ringwire"),
        ("app.kubernetes.io/instance", &name),
        (MANAGED_BY, MANAGER),
        (GATEWAY, &name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if let Some(role) = role {
        labels.insert(COMPONENT.to_owned(), role.as_str().to_owned());
    }
    labels
}

/// Metadata of a child. The gateway's own labels are not copied: `GitOps` tools would take the child for one of theirs.
fn metadata(gateway: &ValidGateway<'_>, name: String, role: Option<Role>) -> ObjectMeta {
    let id = gateway.id();
    ObjectMeta {
        name: Some(name),
        namespace: Some(id.namespace),
        labels: Some(labels(gateway, role)),
        owner_references: Some(vec![OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: "MediaGateway".to_owned(),
            name: id.name,
            uid: gateway.uid().to_owned(),
            controller: Some(true),
            // Deleting the gateway must not wait for its children.
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    }
}
