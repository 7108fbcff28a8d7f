//! The operator's own Deployment as the owner of what the operator makes beside it: goes the one, so goes the other.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;

use crate::failure::{Failure, limited};

/// The reference to the Deployment of that name.
pub async fn reference(
    deployments: &Api<Deployment>,
    name: &str,
) -> Result<OwnerReference, Failure> {
    let deployment = limited(deployments.get_metadata(name)).await?;
    Ok(OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
        uid: deployment.metadata.uid.unwrap_or_default(),
        controller: Some(false),
        block_owner_deletion: Some(false),
    })
}
