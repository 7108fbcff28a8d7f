//! Valid objects in which a field is set, to break one of its rules afterwards.
//!
//! They grow from a minimal object of the kind: what holds the field is made with all that it requires. Which text
//! suits a field that has rules in CEL is found by trying.

use serde_json::{Map, Value, json};

use super::rules::{KEY, Rule, Step, schema_of, steps};
use crate::generate::Kind;
use crate::schema::validate;

/// Minimal specs, of which one suits each field.
fn bases(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::SipProvider => vec![json!({
            "server": "sip.example.com", "credentialsSecretRef": {"name": "trunk"},
        })],
        Kind::PhoneNumber => vec![json!({
            "number": "+34911234567", "providerRef": {"name": "trunk"},
        })],
        Kind::VoiceAgent => vec![
            json!({"echo": {}}),
            json!({"webSocket": {"url": "ws://a/"}}),
            json!({"audioSocket": {"address": "a:1"}}),
        ],
        // Where the other ranges begin and end, no other rule notices a port beyond the bounds.
        Kind::MediaGateway => vec![
            json!({}),
            range(1024, 1998),
            range(61000, 61998),
            exposed("LoadBalancer"),
            exposed("NodePort"),
        ],
    }
}

fn exposed(type_: &str) -> Value {
    json!({"sip": {"exposure": {"type": type_}}})
}

fn range(from: u16, to: u16) -> Value {
    json!({"rtp": {"portRange": {"from": from, "to": to}}})
}

/// Texts of which one suits each field that is a text.
const TEXTS: [&str; 6] = ["a", "1", "192.0.2.1", "ws://a/", "a:1", "+34911234567"];

/// The valid objects in which the field of `rule` is set.
pub(super) fn specimens(rule: &Rule) -> Vec<Value> {
    let schema = rule.kind.schema_json();
    let mut steps = steps(&rule.path);
    // What there can be too many of there must be one of.
    match rule.keyword {
        "maxItems" | "x-kubernetes-list-type" => steps.push(Step::Item),
        "maxProperties" => steps.push(Step::Entry),
        _ => {}
    }
    let grown = |base: &Value| {
        TEXTS.into_iter().find_map(|text| {
            let mut object = super::manifest(rule.kind.name(), base);
            grow(schema, &mut object, &steps, text);
            validate(&object).is_empty().then_some(object)
        })
    };
    bases(rule.kind).iter().filter_map(grown).collect()
}

/// Makes what `steps` lead to, as far as it isn't there.
fn grow(schema: &Value, value: &mut Value, steps: &[Step<'_>], text: &str) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    let inner = schema_of(schema, *step);
    let next = match (step, value) {
        (Step::Field(name), Value::Object(fields)) => fields.entry(*name),
        (Step::Entry, Value::Object(fields)) => fields.entry(KEY),
        (Step::Item, Value::Array(items)) => {
            if items.is_empty() {
                items.push(sound(inner, text));
            }
            return grow(inner, &mut items[0], rest, text);
        }
        _ => return,
    };
    grow(
        inner,
        next.or_insert_with(|| sound(inner, text)),
        rest,
        text,
    );
}

/// The least value that `schema` takes, with `text` where it fits.
fn sound(schema: &Value, text: &str) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let fields = required.filter_map(Value::as_str).map(|name| {
                let value = sound(&schema["properties"][name], text);
                (name.to_owned(), value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            (0..least).map(|_| sound(&schema["items"], text)).collect()
        }
        Some("integer" | "number") => schema["minimum"].as_i64().unwrap_or(0).into(),
        Some("boolean") => false.into(),
        _ => text.into(),
    }
}
