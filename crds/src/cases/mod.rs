//! Objects that the schemas judge, for tests: before [`crate::schema`] here, before a real API server in the cluster.
//!
//! [`written`] has those that someone thought of: the good ones, the CEL rules and what goes wrong together. [`generated`]
//! has one for each structural rule of each field of ours, made from the schemas themselves, so that a new field or
//! bound is tested without anyone thinking of it. Statuses are not judged: no one but the operator writes them.

mod breaks;
mod rules;
mod specimen;

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::generate::Kind;
use crate::schema::validate;

pub use rules::{Rule, each, rules};

/// An object and what is said of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The structural rule that it was made to break, if it was.
    pub rule: Option<Rule>,
    /// The whole manifest.
    pub object: Value,
    /// The errors that it is refused with, each as a line of the API server; none for one that is accepted.
    pub errors: BTreeSet<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => rule.fmt(f),
            None => write!(f, "{} {}", self.object["kind"], self.object["spec"]),
        }
    }
}

fn manifest(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": crate::API_VERSION, "kind": kind, "metadata": {"name": "x"}, "spec": spec,
    })
}

/// The cases of `written.yaml`.
pub fn written() -> Result<Vec<Case>, serde_yaml::Error> {
    #[derive(Deserialize)]
    struct Written {
        kind: String,
        spec: Value,
        errors: BTreeSet<String>,
    }

    let cases: Vec<Written> = serde_yaml::from_str(include_str!("written.yaml"))?;
    let case = |Written { kind, spec, errors }| Case {
        rule: None,
        object: manifest(&kind, &spec),
        errors,
    };
    Ok(cases.into_iter().map(case).collect())
}

/// An object for each structural rule that it breaks, and that alone as far as that is possible.
///
/// A rule that no object could be made for is missing: a test compares with [`rules`].
pub fn generated() -> Vec<Case> {
    Kind::ALL
        .into_iter()
        .flat_map(rules)
        .filter_map(generate)
        .collect()
}

fn generate(rule: Rule) -> Option<Case> {
    let (object, line) = specimen::specimens(&rule)
        .iter()
        .flat_map(|sound| breaks::breaks(&rule, sound))
        .min_by_key(|(object, _)| validate(object).len())?;
    // Other rules of the same field, of what holds it and of what is in it may be broken too: an empty text is no host
    // name either. Elsewhere nothing may be.
    let field = rules::place(&rule.path);
    let about = |path: &str| {
        let path = path.trim_start_matches('.');
        path == "<nil>" || is_in(&field, path) || is_in(path, &field)
    };
    let mut errors: BTreeSet<String> = validate(&object)
        .iter()
        .filter(|error| about(&error.path))
        .map(ToString::to_string)
        .collect();
    errors.insert(line);
    Some(Case {
        rule: Some(rule),
        object,
        errors,
    })
}

/// Is the field at `path` that at `holder`, or in it?
fn is_in(path: &str, holder: &str) -> bool {
    path.strip_prefix(holder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
