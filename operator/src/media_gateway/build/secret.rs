//! Secrets: the shards that pods watch, the control port's certificates, and the authority that issues them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use ringwire_config::shard::{self, Role};

use super::{Child, ChildKind, ca_name, control_name, metadata};
use crate::media_gateway::certificates::{RENEW_AFTER, ROTATE_AFTER};
use crate::media_gateway::validate::ValidGateway;

/// Certificate of the authority; in the pods' Secret with its predecessor's while that one counts.
pub const CA_CRT: &str = "ca.crt";
/// Key of the authority.
pub const CA_KEY: &str = "ca.key";
/// Certificate of the authority before the current.
pub const PREVIOUS_CRT: &str = "previous.crt";
/// Certificate of the pods.
pub const TLS_CRT: &str = "tls.crt";
/// Key of the pods.
pub const TLS_KEY: &str = "tls.key";
/// Keys of Contact tokens, a JSON list.
pub const TOKEN_KEYS: &str = "token-keys.json";
/// Key of contact users, JSON.
pub const CONTACT_KEY: &str = "contact-key.json";

pub(super) fn shard(
    gateway: &ValidGateway<'_>,
    role: Role,
    index: usize,
    content: &[u8],
) -> Secret {
    Secret {
        metadata: metadata(
            gateway,
            shard::secret_name(&gateway.id().name, role, index),
            Some(role),
        ),
        type_: Some("Opaque".to_owned()),
        data: Some([(shard::DATA_KEY.to_owned(), ByteString(content.to_vec()))].into()),
        ..Secret::default()
    }
}

/// Values of one of the two Secrets below.
pub type ControlData = BTreeMap<&'static str, String>;

/// The Secret with the certificate authority.
pub fn control_ca(gateway: &ValidGateway<'_>, data: ControlData, renew_after: Timestamp) -> Child {
    let times = [(RENEW_AFTER, renew_after)];
    keys(gateway, ca_name(&gateway.id().name), data, &times)
}

/// The Secret with the pods' certificate and keys.
pub fn control(
    gateway: &ValidGateway<'_>,
    data: ControlData,
    renew_after: Timestamp,
    rotate_after: Timestamp,
) -> Child {
    let times = [(RENEW_AFTER, renew_after), (ROTATE_AFTER, rotate_after)];
    keys(gateway, control_name(&gateway.id().name), data, &times)
}

fn keys(
    gateway: &ValidGateway<'_>,
    name: String,
    data: ControlData,
    times: &[(&str, Timestamp)],
) -> Child {
    let mut metadata = metadata(gateway, name.clone(), None);
    let times = times.iter();
    let annotations = times.map(|(key, time)| ((*key).to_owned(), time.to_string()));
    metadata.annotations = Some(annotations.collect());
    let data = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
        .collect();
    let secret = Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    Child::new(ChildKind::Secret, gateway, name, &secret)
}
