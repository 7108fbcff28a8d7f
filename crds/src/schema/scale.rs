//! The number of replicas, which the API server checks by itself where a kind can be scaled, whatever the schema says.

use serde_json::Value;

use super::SchemaError;

/// Checks `object` of the kind with the definition `crd`.
pub(super) fn check(crd: &Value, object: &Value, errors: &mut Vec<SchemaError>) {
    let subresources = &crd["spec"]["versions"][0]["subresources"];
    let Some(path) = subresources["scale"]["specReplicasPath"].as_str() else {
        return;
    };
    let mut refuse = |found: i64, detail: &str| {
        errors.push(SchemaError::invalid(path, &found.into(), detail));
    };
    match find(path, object) {
        Ok(Some(count)) if count < 0 => refuse(count, "should be a non-negative integer"),
        Ok(Some(count)) if count > i64::from(i32::MAX) => {
            refuse(
                count,
                &format!("should be less than or equal to {}", i32::MAX),
            );
        }
        Ok(_) => {}
        Err(detail) => refuse(0, &detail),
    }
}

/// The integer at a path such as `.spec.replicas`, none if nothing is there.
fn find(path: &str, object: &Value) -> Result<Option<i64>, String> {
    let mut value = object;
    let mut seen = String::new();
    for name in path.split('.').skip(1) {
        seen = format!("{seen}.{name}");
        match value {
            Value::Object(fields) => match fields.get(name) {
                Some(inner) => value = inner,
                None => return Ok(None),
            },
            other => return Err(wrong(&seen, other, "map[string]interface{}")),
        }
    }
    // 3.0 reaches the server as 3.
    let whole = |number: &f64| number.fract() == 0.0;
    let count = value.as_f64().filter(whole).map(|number| number as i64);
    count.map(Some).ok_or_else(|| wrong(path, value, "int64"))
}

fn wrong(path: &str, value: &Value, wanted: &str) -> String {
    let found = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let shown = printed(value);
    format!("{path} accessor error: {shown} is of the type {found}, expected {wanted}")
}

/// As Go prints it with `%v`.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.as_f64().unwrap_or_default().to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(printed).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}:{}", printed(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}
