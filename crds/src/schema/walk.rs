//! The structural part of a schema: what go-openapi checks in the API server, with its words.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;

use regex::Regex;
use serde_json::{Map, Value};

use super::SchemaError;

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The schema of the field `name` of an object with `schema`.
fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or_else(|| {
        schema
            .get("additionalProperties")
            .filter(|values| values.is_object())
    })
}

/// Is any field allowed, because the schema doesn't say which there are?
fn is_open(schema: &Value) -> bool {
    schema.get("properties").is_none()
        || schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true)
        || schema.get("additionalProperties").is_some()
}

/// Names the fields that the schema doesn't have, as strict field validation does.
pub(super) fn unknown_fields(schema: &Value, object: &Value, errors: &mut Vec<SchemaError>) {
    walk_unknown(schema, object, "", errors);
}

fn walk_unknown(schema: &Value, value: &Value, path: &str, errors: &mut Vec<SchemaError>) {
    match value {
        Value::Object(fields) => {
            let ours = schema["type"] == "object";
            for (name, value) in fields {
                let path_of_field = child(path, name);
                if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                match field(schema, name) {
                    Some(schema) => walk_unknown(schema, value, &path_of_field, errors),
                    None if ours && (!is_open(schema) || is_empty_object(schema)) => {
                        errors.push(SchemaError::new(
                            &path_of_field,
                            format!("unknown field \"{path_of_field}\""),
                        ));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk_unknown(&schema["items"], item, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

/// An object without any field, such as `echo: {}`.
fn is_empty_object(schema: &Value) -> bool {
    schema["type"] == "object"
        && schema.get("properties").is_none()
        && schema.get("additionalProperties").is_none()
        && schema.get("x-kubernetes-preserve-unknown-fields").is_none()
}

/// Drops nulls that stand for nothing and fills in defaults, children of defaults included.
pub(super) fn apply_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || field(schema, name).is_none());
            if let Value::Object(properties) = &schema["properties"] {
                for (name, property) in properties {
                    if let Some(default) = property.get("default")
                        && !fields.contains_key(name)
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                }
            }
            for (name, value) in fields {
                if let Some(schema) = field(schema, name) {
                    apply_defaults(schema, value);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                apply_defaults(&schema["items"], item);
            }
        }
        _ => {}
    }
}

/// The `type` at a path such as `spec.codecs[0]`, which the server shows in place of a value that breaks a CEL rule.
pub(super) fn type_at(schema: &Value, path: &str) -> String {
    let mut schema = schema;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        let next = if part.ends_with(']') {
            schema.get("items")
        } else {
            field(schema, part)
        };
        let Some(next) = next else {
            return String::new();
        };
        schema = next;
    }
    schema["type"].as_str().unwrap_or_default().to_owned()
}

/// The name of a JSON value's type in the server's messages.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Errors found so far, and whether one of them keeps CEL rules from being looked at.
#[derive(Default)]
pub(super) struct Walk {
    pub errors: Vec<SchemaError>,
    pub blocking: bool,
}

impl Walk {
    fn invalid(&mut self, path: &str, value: &Value, detail: impl Display) {
        self.errors.push(SchemaError::invalid(
            path,
            value,
            format!("{path} in body {detail}"),
        ));
    }

    fn block(&mut self, path: &str, message: String) {
        self.blocking = true;
        self.errors.push(SchemaError::new(path, message));
    }

    /// Checks `value` and everything in it.
    pub fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        // The server goes on after a wrong type.
        self.check_type(schema, value, path);
        if let Value::Array(allowed) = &schema["enum"]
            && !allowed.contains(value)
        {
            // The server puts numbers in quotes, too.
            let allowed: Vec<String> = allowed
                .iter()
                .map(|value| match value {
                    Value::String(_) => value.to_string(),
                    other => format!("\"{other}\""),
                })
                .collect();
            self.block(
                path,
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    allowed.join(", ")
                ),
            );
        }
        match value {
            Value::String(text) => self.check_string(schema, text, path),
            Value::Number(_) => self.check_number(schema, value, path),
            Value::Array(items) => self.check_items(schema, items, path),
            Value::Object(fields) => self.check_fields(schema, fields, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_type(&mut self, schema: &Value, value: &Value, path: &str) {
        let found = type_of(value);
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let (expected, matches) = if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
            ("integer,string", found == "string" || found == "integer")
        } else {
            match schema["type"].as_str() {
                Some("integer") => (
                    "integer",
                    found == "integer" || (found == "number" && whole),
                ),
                Some("number") => ("number", found == "integer" || found == "number"),
                Some(expected) => (expected, found == expected),
                None => return,
            }
        };
        if !matches {
            self.blocking = true;
            self.invalid(
                path,
                &Value::from(found),
                format!("must be of type {expected}: \"{found}\""),
            );
        }
    }

    fn check_string(&mut self, schema: &Value, text: &str, path: &str) {
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64()
            && length > most
        {
            let bytes = if most == 1 { "byte" } else { "bytes" };
            self.block(
                path,
                format!("Too long: may not be more than {most} {bytes}"),
            );
        } else if let Some(least) = schema["minLength"].as_u64()
            && length < least
        {
            self.invalid(
                path,
                &text.into(),
                format!("should be at least {least} chars long"),
            );
        } else if let Some(pattern) = schema["pattern"].as_str()
            && !matches_pattern(text, pattern)
        {
            self.invalid(path, &text.into(), format!("should match '{pattern}'"));
        }
    }

    fn check_number(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(number) = value.as_f64() else { return };
        if let Some(most) = schema["maximum"].as_f64()
            && number > most
        {
            self.invalid(
                path,
                value,
                format!("should be less than or equal to {most}"),
            );
        }
        if let Some(least) = schema["minimum"].as_f64()
            && number < least
        {
            self.invalid(
                path,
                value,
                format!("should be greater than or equal to {least}"),
            );
        }
    }

    fn check_items(&mut self, schema: &Value, items: &[Value], path: &str) {
        for (index, item) in items.iter().enumerate() {
            self.check(&schema["items"], item, &format!("{path}[{index}]"));
        }
        if let Some(least) = schema["minItems"].as_u64()
            && (items.len() as u64) < least
        {
            self.invalid(
                path,
                &items.len().into(),
                format!("should have at least {least} items"),
            );
        }
        if let Some(most) = schema["maxItems"].as_u64()
            && items.len() as u64 > most
        {
            self.too_many(path, items.len(), most);
        }
        self.check_duplicates(schema, items, path);
    }

    fn too_many(&mut self, path: &str, found: usize, most: u64) {
        let items = if most == 1 { "item" } else { "items" };
        self.block(
            path,
            format!("Too many: {found}: must have at most {most} {items}"),
        );
    }

    /// Sets name a value once, list-maps a key once.
    fn check_duplicates(&mut self, schema: &Value, items: &[Value], path: &str) {
        if schema["x-kubernetes-list-type"] == "map"
            && let Some(index) = items
                .iter()
                .position(|item| !item.is_object() && !item.is_null())
        {
            self.errors.push(SchemaError::invalid(
                &format!("{path}[{index}]"),
                &items[index],
                "must be an object for an array of list-type map",
            ));
            return;
        }
        let key_of = |item: &Value| match (schema["x-kubernetes-list-type"].as_str(), item) {
            (Some("set"), item) => Some(item.clone()),
            (Some("map"), Value::Object(fields)) => {
                let Value::Array(keys) = &schema["x-kubernetes-list-map-keys"] else {
                    return None;
                };
                let key: Map<String, Value> = keys
                    .iter()
                    .filter_map(Value::as_str)
                    .filter_map(|key| Some((key.to_owned(), fields.get(key)?.clone())))
                    .collect();
                Some(Value::Object(key))
            }
            _ => None,
        };
        let keys: Vec<Option<Value>> = items.iter().map(key_of).collect();
        for (index, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            // Named once, at its second appearance.
            if keys[..index]
                .iter()
                .filter(|earlier| earlier.as_ref() == Some(key))
                .count()
                == 1
            {
                self.errors.push(SchemaError::new(
                    format!("{path}[{index}]"),
                    format!("Duplicate value: {key}"),
                ));
            }
        }
    }

    fn check_fields(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        // Too many are not looked at.
        if let Some(most) = schema["maxProperties"].as_u64()
            && fields.len() as u64 > most
        {
            self.too_many(path, fields.len(), most);
            return;
        }
        for required in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(required) {
                self.block(&child(path, required), "Required value".to_owned());
            }
        }
        for (name, value) in fields {
            if let Some(schema) = field(schema, name) {
                self.check(schema, value, &child(path, name));
            }
        }
    }
}

/// Patterns of Go's RE2, which the regex of CEL understands alike.
fn matches_pattern(text: &str, pattern: &str) -> bool {
    thread_local! {
        // As many as the schemas have. Compiling one takes much longer than using it.
        static COMPILED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(pattern) {
            compiled.insert(pattern.to_owned(), Regex::new(pattern).ok());
        }
        let regex = compiled.get(pattern).and_then(Option::as_ref);
        regex.is_some_and(|regex| regex.is_match(text))
    })
}
