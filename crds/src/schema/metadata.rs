//! `metadata`, as far as people write it: names, labels and annotations.

use serde_json::Value;

use super::SchemaError;

/// The fields of metav1.ObjectMeta.
const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

const NAME_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

pub(super) fn check(object: &Value, errors: &mut Vec<SchemaError>) {
    let Some(Value::Object(metadata)) = object.get("metadata") else {
        errors.push(SchemaError::new(
            "metadata.name",
            "Required value: name or generateName is required",
        ));
        return;
    };
    for field in metadata
        .keys()
        .filter(|field| !FIELDS.contains(&field.as_str()))
    {
        errors.push(SchemaError::new(
            format!("metadata.{field}"),
            format!("unknown field \"metadata.{field}\""),
        ));
    }
    match metadata.get("name") {
        Some(Value::String(name)) => check_name(name, errors),
        None | Some(Value::Null) if metadata.contains_key("generateName") => {}
        None | Some(Value::Null) => {
            errors.push(SchemaError::new(
                "metadata.name",
                "Required value: name or generateName is required",
            ));
        }
        Some(other) => errors.push(SchemaError::invalid(
            "metadata.name",
            other,
            "must be a string",
        )),
    }
    for map in ["labels", "annotations"] {
        for (key, value) in metadata
            .get(map)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if !value.is_string() {
                let path = format!("metadata.{map}.{key}");
                errors.push(SchemaError::invalid(
                    &path,
                    value,
                    "must be a string; quote it",
                ));
            }
        }
    }
}

fn check_name(name: &str, errors: &mut Vec<SchemaError>) {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() > 253 {
        let detail = "must be no more than 253 bytes";
        errors.push(SchemaError::invalid("metadata.name", &name.into(), detail));
    } else if !name.split('.').all(label) {
        errors.push(SchemaError::invalid(
            "metadata.name",
            &name.into(),
            NAME_RULE,
        ));
    }
}
