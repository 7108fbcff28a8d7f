//! Writing statuses and Events.

use kube::api::{ApiResource, Patch, PatchParams};
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use kube::runtime::events::Recorder;
use kube::{Client, Resource};
use ringwire_crds::{API_VERSION, GROUP, Kind, VERSION};
use serde_json::{Value, json};

use super::changes::StatusKey;
use super::events::Told;
use crate::failure::{Failure, limited};

/// Our name in `metadata.managedFields` of statuses.
const FIELD_MANAGER: &str = "ringwire-status";

fn url(key: &StatusKey) -> String {
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: key.kind.name().to_owned(),
        plural: key.kind.plural().to_owned(),
    };
    DynamicObject::url_path(&resource, Some(&key.id.namespace))
}

async fn patch(client: &Client, key: &StatusKey, status: &Value) -> Result<(), Failure> {
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": key.kind.name(),
        "metadata": { "name": key.id.name, "namespace": key.id.namespace },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let sent = Request::new(url(key)).patch_subresource(
        "status",
        &key.id.name,
        &params,
        &Patch::Apply(&body),
    );
    let sent = sent.map_err(|error| Failure::Refused(error.to_string()))?;
    limited(client.request::<PartialObjectMeta>(sent))
        .await
        .map(drop)
}

/// Writes a status.
pub async fn status(client: Client, key: StatusKey, status: Value) -> Result<(), Failure> {
    patch(&client, &key, &status).await
}

/// Writes the status of a malformed object, unless it says the same already: of such an object the watch shows only metadata.
/// Returns whether it was written.
pub async fn malformed(client: Client, key: StatusKey, mut status: Value) -> Result<bool, Failure> {
    let sent = Request::new(url(&key)).get(&key.id.name, &kube::api::GetParams::default());
    let sent = sent.map_err(|error| Failure::Refused(error.to_string()))?;
    let found: Value = limited(client.request(sent)).await?;
    if is_told(&found, &mut status) {
        return Ok(false);
    }
    patch(&client, &key, &status).await?;
    Ok(true)
}

/// Whether the object says the same already. If only its text differs, the time of the turn stays.
fn is_told(found: &Value, status: &mut Value) -> bool {
    let old = found
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let Some(old) = old
        .into_iter()
        .find(|condition| condition["type"] == "Ready")
    else {
        return false;
    };
    let Some(new) = status.pointer_mut("/conditions/0") else {
        return false;
    };
    if old["status"] == new["status"] {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    old == new
}

/// Tells an Event. Its loss is no harm: the condition says the same.
pub async fn tell(recorder: Recorder, told: Told) {
    let Told { event, regarding } = told;
    if let Err(error) = limited(recorder.publish(&event, &regarding)).await
        && error != Failure::Gone
    {
        tracing::warn!(%error, reason = event.reason, "cannot write an Event");
    }
}

/// `namespace/name` and kind of a status, for the log.
pub fn describe(key: &StatusKey) -> (String, &'static str) {
    let StatusKey { kind, id } = key;
    let kind: Kind = *kind;
    (id.to_string(), kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str, time: &str) -> Value {
        let ready = json!({ "type": "Ready", "status": "False", "message": message, "lastTransitionTime": time });
        json!({ "conditions": [ready] })
    }

    #[test]
    fn a_malformed_object_that_says_so_is_not_written_again() {
        let found = json!({ "status": status("bad", "1") });
        assert!(is_told(&found, &mut status("bad", "2")));
        let mut other = status("worse", "2");
        assert!(!is_told(&found, &mut other));
        assert_eq!(other["conditions"][0]["lastTransitionTime"], "1");
        assert!(!is_told(&json!({}), &mut status("bad", "2")));
    }
}
