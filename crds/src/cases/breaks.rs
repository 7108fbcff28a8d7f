//! Breaks a rule in a valid object, and says which line the API server answers with.
//!
//! The lines are written from the schema alone, so that they check those of [`crate::schema`] rather than repeat them.

use serde_json::{Map, Value};

use super::rules::{KEY, Rule, Step, place, schema_of, steps};

/// Objects that are `sound` but for the rule, each with the line that names the field and the rule.
pub(super) fn breaks(rule: &Rule, sound: &Value) -> Vec<(Value, String)> {
    let steps = steps(&rule.path);
    let schema = steps.iter().fold(rule.kind.schema_json(), |schema, step| {
        schema_of(schema, *step)
    });
    let path = place(&rule.path);
    if rule.keyword == "required" {
        let object = without(sound, &steps);
        return vec![(object, format!("{path}: Required value"))];
    }
    let mut object = sound.clone();
    let Some(value) = at(&mut object, &steps).cloned() else {
        return Vec::new();
    };
    let broken = |value| {
        let line = line(rule.keyword, schema, &path, &value);
        if let Some(place) = at(&mut object, &steps) {
            *place = value;
        }
        (object.clone(), line)
    };
    values(rule.keyword, schema, &value)
        .into_iter()
        .map(broken)
        .collect()
}

fn at<'a>(object: &'a mut Value, steps: &[Step<'_>]) -> Option<&'a mut Value> {
    steps.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get_mut(*name),
        Step::Entry => value.get_mut(KEY),
        Step::Item => value.get_mut(0),
    })
}

fn without(sound: &Value, steps: &[Step<'_>]) -> Value {
    let mut object = sound.clone();
    if let Some((Step::Field(name), holder)) = steps.split_last()
        && let Some(Value::Object(fields)) = at(&mut object, holder)
    {
        fields.remove(*name);
    }
    object
}

/// Values that break the rule `keyword` of `schema`, made from one that it takes.
fn values(keyword: &str, schema: &Value, sound: &Value) -> Vec<Value> {
    let bound = schema[keyword].as_i64().unwrap_or_default();
    let count = usize::try_from(bound).unwrap_or_default();
    match (keyword, sound) {
        ("type", _) if schema["type"] == "string" => vec![1.into()],
        ("type", _) => vec!["a".into()],
        ("x-kubernetes-int-or-string", _) => vec![true.into()],
        ("enum", Value::Number(known)) => vec![(known.as_i64().unwrap_or_default() + 1).into()],
        ("enum", _) => vec!["Unheard".into()],
        // The second keeps odd and even, which a rule in CEL may want.
        ("minimum", _) => vec![(bound - 1).into(), (bound - 2).into()],
        ("maximum", _) => vec![(bound + 1).into(), (bound + 2).into()],
        ("minLength", Value::String(text)) if count > 0 => {
            vec![text.chars().take(count - 1).collect::<String>().into()]
        }
        ("maxLength", Value::String(text)) => vec![format!("{text:a<0$}", count + 1).into()],
        ("pattern", _) => {
            let least = schema["minLength"].as_u64().unwrap_or(1) as usize;
            vec!["!".repeat(least).into()]
        }
        ("minItems", Value::Array(items)) if count > 0 => vec![items[..count - 1].to_vec().into()],
        ("maxItems", Value::Array(items)) => {
            let numbers = 0..=count;
            vec![numbers.map(|number| item(schema, items, number)).collect()]
        }
        ("maxProperties", Value::Object(fields)) => {
            let entry = |number| (format!("{KEY}{number}"), fields[KEY].clone());
            vec![Value::Object((0..=count).map(entry).collect())]
        }
        ("x-kubernetes-list-type", Value::Array(items)) => {
            vec![(0..2).map(|_| item(schema, items, 0)).collect()]
        }
        _ => Vec::new(),
    }
}

/// What the API server answers to `value`.
fn line(keyword: &str, schema: &Value, path: &str, value: &Value) -> String {
    let rule = &schema[keyword];
    let body = |detail: String| format!("Invalid value: {value}: {path} in body {detail}");
    let too_many = |count: usize| {
        let items = if rule == 1 { "item" } else { "items" };
        format!("Too many: {count}: must have at most {rule} {items}")
    };
    let message = match (keyword, value) {
        ("type" | "x-kubernetes-int-or-string", _) => {
            let wanted = rule.as_str().unwrap_or("integer,string");
            let found = match value {
                Value::Bool(_) => "boolean",
                Value::String(_) => "string",
                _ => "integer",
            };
            format!(
                "Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\""
            )
        }
        ("enum", _) => {
            let values = rule.as_array().into_iter().flatten();
            let quoted = |value: &Value| match value {
                Value::String(_) => value.to_string(),
                number => format!("\"{number}\""),
            };
            let values: Vec<String> = values.map(quoted).collect();
            let values = values.join(", ");
            format!("Unsupported value: {value}: supported values: {values}")
        }
        ("minimum", _) => body(format!("should be greater than or equal to {rule}")),
        ("maximum", _) => body(format!("should be less than or equal to {rule}")),
        ("minLength", _) => body(format!("should be at least {rule} chars long")),
        ("maxLength", _) => format!("Too long: may not be more than {rule} bytes"),
        ("pattern", _) => body(format!(
            "should match '{}'",
            rule.as_str().unwrap_or_default()
        )),
        ("minItems", Value::Array(items)) => {
            let count = items.len();
            format!("Invalid value: {count}: {path} in body should have at least {rule} items")
        }
        ("maxItems", Value::Array(items)) => too_many(items.len()),
        ("maxProperties", Value::Object(fields)) => too_many(fields.len()),
        ("x-kubernetes-list-type", _) => {
            let item = &value[1];
            let shown = if schema["x-kubernetes-list-type"] == "map" {
                keys(schema)
                    .map(|key| (key.to_owned(), item[key].clone()))
                    .collect::<Map<_, _>>()
                    .into()
            } else {
                item.clone()
            };
            return format!("{path}[1]: Duplicate value: {shown}");
        }
        _ => String::new(),
    };
    format!("{path}: {message}")
}

/// The first item of `items` in another form for each number, as far as its schema knows so many.
fn item(schema: &Value, items: &[Value], number: usize) -> Value {
    let Some(first) = items.first() else {
        return Value::Null;
    };
    if let Some(known) = schema["items"]["enum"].as_array() {
        return known[number % known.len()].clone();
    }
    let other = |value: &Value| match value {
        Value::String(text) => format!("{text}{number}").into(),
        value => value.clone(),
    };
    let mut item = first.clone();
    match &mut item {
        Value::Object(fields) => {
            for key in keys(schema) {
                if let Some(value) = fields.get_mut(key) {
                    *value = other(value);
                }
            }
        }
        value => *value = other(value),
    }
    item
}

/// The fields by which the items of a list are told apart.
fn keys(schema: &Value) -> impl Iterator<Item = &str> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    keys.into_iter().flatten().filter_map(Value::as_str)
}
