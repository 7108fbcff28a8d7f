//! Who the pods are to the API server.

use k8s_openapi::api::core::v1::ServiceAccount;
use ringwire_config::shard::Role;

use super::{metadata, role_name};
use crate::media_gateway::validate::ValidGateway;

pub(super) fn build(gateway: &ValidGateway<'_>, role: Role) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(gateway, role_name(&gateway.id().name, role), Some(role)),
        ..ServiceAccount::default()
    }
}
