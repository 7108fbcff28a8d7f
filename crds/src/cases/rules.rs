//! The structural rules of a kind, read from its schema, and the paths of its fields.
//!
//! In a path `[]` stands for an item of a list and `{}` for a value of a map: `spec.podTemplate.imagePullSecrets[].name`.

use std::fmt;

use serde_json::Value;

use crate::generate::Kind;

/// Embedded Kubernetes types: their rules are Kubernetes' own.
const EMBEDDED: [&str; 5] = [
    "spec.podTemplate.resources",
    "spec.podTemplate.tolerations",
    "spec.podTemplate.affinity",
    "spec.podTemplate.topologySpreadConstraints",
    "spec.allowedNamespaces.selector",
];

/// What is a rule by itself. `required` and `x-kubernetes-list-type` depend on their values.
const KEYWORDS: [&str; 11] = [
    "type",
    "x-kubernetes-int-or-string",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "maxProperties",
];

/// A rule of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// The field.
    pub path: String,
    /// The rule's name in the schema. `required` is a rule of the field that must be there, not of what holds it.
    pub keyword: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.name(), self.path, self.keyword)
    }
}

/// Visits the schema at `path` and all those in it, with their paths; embedded types are left out.
pub fn each<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&'a Value, &str)) {
    if EMBEDDED.contains(&path) {
        return;
    }
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each(property, &child(path, name), visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            each(&schema[key], &format!("{path}{mark}"), visit);
        }
    }
}

fn child(path: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// The rules of what a user writes into an object of this kind.
pub fn rules(kind: Kind) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add = |path: &str, keyword| {
        if path.starts_with("spec") {
            let path = path.to_owned();
            rules.push(Rule {
                kind,
                path,
                keyword,
            });
        }
    };
    each(kind.schema_json(), "", &mut |schema, path| {
        for keyword in KEYWORDS {
            if schema.get(keyword).is_some() {
                add(path, keyword);
            }
        }
        if let Some("set" | "map") = schema["x-kubernetes-list-type"].as_str() {
            add(path, "x-kubernetes-list-type");
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            add(&child(path, name.as_str().unwrap_or_default()), "required");
        }
    });
    rules
}

/// A step from a value into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Item,
    Entry,
}

/// The key by which values of maps are tested.
pub(super) const KEY: &str = "a";

/// The steps from an object to its field at `path`.
pub(super) fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let end = part.find(['[', '{']).unwrap_or(part.len());
        let (name, marks) = part.split_at(end);
        steps.push(Step::Field(name));
        steps.extend(marks.chars().filter_map(|mark| match mark {
            '[' => Some(Step::Item),
            '{' => Some(Step::Entry),
            _ => None,
        }));
    }
    steps
}

/// Where the API server says that the field at `path` is, in the objects that are made here.
pub(super) fn place(path: &str) -> String {
    path.replace("[]", "[0]").replace("{}", &format!(".{KEY}"))
}

/// The schema of what `step` leads to.
pub(super) fn schema_of<'a>(schema: &'a Value, step: Step<'_>) -> &'a Value {
    match step {
        Step::Field(name) => &schema["properties"][name],
        Step::Item => &schema["items"],
        Step::Entry => &schema["additionalProperties"],
    }
}
