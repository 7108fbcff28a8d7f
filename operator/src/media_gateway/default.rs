//! The default gateway, made from a `ConfigMap` that the chart renders: a chart cannot hold both a kind and an object of it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use kube::{Api, Client, Resource, ResourceExt};
use ringwire_crds::{API_VERSION, MediaGateway};
use serde_json::{Value, json};

use super::apply::FIELD_MANAGER;
use crate::failure::{Failure, limited};
use crate::options::DefaultGatewaySource;
use crate::owner;

/// Key of the `ConfigMap` that holds the spec.
pub const SPEC_KEY: &str = "spec.yaml";

/// Why no gateway can be made from the `ConfigMap`.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The key is missing.
    #[error("ConfigMap {0} has no key {SPEC_KEY:?}")]
    Missing(String),
    /// It is no YAML.
    #[error("key {SPEC_KEY:?} is not valid YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// It is YAML, but no mapping.
    #[error("key {SPEC_KEY:?} must be a mapping, the spec of a MediaGateway")]
    NoMapping,
}

/// Reads the spec. The API server judges it: it has the schema.
pub fn spec(config_map: &ConfigMap) -> Result<Value, SpecError> {
    let text = config_map.data.as_ref().and_then(|data| data.get(SPEC_KEY));
    let text = text.ok_or_else(|| SpecError::Missing(config_map.name_any()))?;
    match serde_yaml::from_str(text)? {
        Value::Null => Ok(json!({})),
        value @ Value::Object(_) => Ok(value),
        _ => Err(SpecError::NoMapping),
    }
}

/// Applies the default gateway. Returns its generation.
pub async fn apply(
    client: Client,
    source: DefaultGatewaySource,
    spec: Value,
) -> Result<Option<i64>, Failure> {
    let DefaultGatewaySource {
        gateway,
        config_map: _,
        owner,
    } = source;
    let mut metadata = json!({ "name": gateway.name, "namespace": gateway.namespace });
    if let Some(name) = owner {
        let api: Api<Deployment> = Api::namespaced(client.clone(), &gateway.namespace);
        match owner::reference(&api, &name).await {
            Ok(owner) => metadata["ownerReferences"] = json!([owner]),
            Err(Failure::Gone) => {
                let gateway = gateway.to_string();
                tracing::warn!(
                    object = gateway,
                    kind = "MediaGateway",
                    "the Deployment {name} does not exist; the default gateway has no owner"
                );
            }
            Err(failure) => return Err(failure),
        }
    }
    let body = json!({ "apiVersion": API_VERSION, "kind": "MediaGateway", "metadata": metadata, "spec": spec });
    let params = PatchParams {
        force: true,
        ..PatchParams::apply(FIELD_MANAGER).validation_strict()
    };
    let url = MediaGateway::url_path(&(), Some(&gateway.namespace));
    let sent = Request::new(url).patch_metadata(&gateway.name, &params, &Patch::Apply(&body));
    let sent = sent.map_err(|error| Failure::Refused(error.to_string()))?;
    let applied: PartialObjectMeta<DynamicObject> = limited(client.request(sent)).await?;
    Ok(applied.metadata.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(text: &str) -> ConfigMap {
        ConfigMap {
            data: Some([(SPEC_KEY.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn an_empty_text_is_an_empty_spec() {
        assert_eq!(spec(&config_map("# all defaults\n")).unwrap(), json!({}));
        assert_eq!(
            spec(&config_map("replicas: 2")).unwrap(),
            json!({ "replicas": 2 })
        );
    }

    #[test]
    fn refuses_what_is_no_mapping() {
        assert!(matches!(
            spec(&config_map("- a")),
            Err(SpecError::NoMapping)
        ));
        assert!(matches!(spec(&config_map("a: [")), Err(SpecError::Yaml(_))));
        assert!(matches!(
            spec(&ConfigMap::default()),
            Err(SpecError::Missing(_))
        ));
    }
}
