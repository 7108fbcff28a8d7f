//! Checks an object as the API server would, without one: for `ringwire check` and `ringwire run`.
//!
//! The order is the server's: unknown fields are named, nulls dropped, defaults filled in, then the structural rules
//! (types, lengths, patterns …) and at last the CEL rules. So are the words of the errors, as far as an object is read
//! by itself; what needs other objects is for `ringwire-config` to say.

mod metadata;
mod scale;
mod walk;

use std::fmt;

use kube::core::cel::{CompiledSchema, ValidationErrors, Validator, compile_schema};
use serde_json::Value;

use crate::generate::Kind;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Where, for example `spec.allowedSources[1]`. `<nil>` for the object as a whole.
    pub path: String,
    /// What, for example `Invalid value: "x": spec.number must be …`.
    pub message: String,
}

impl SchemaError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// In the form of the API server: `Invalid value: VALUE: DETAIL`.
    pub(crate) fn invalid(path: &str, value: &Value, detail: impl fmt::Display) -> Self {
        Self::new(path, format!("Invalid value: {value}: {detail}"))
    }
}

impl fmt::Display for SchemaError {
    /// The whole line, as the API server writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.starts_with("unknown field ") {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// The CEL rules of all kinds. To compile them takes longer than to check an object against them.
struct Rules {
    validator: Validator,
    of: [CompiledSchema; 4],
}

thread_local! {
    // Not shared: it cannot be used by two threads at a time.
    static RULES: Rules = Rules {
        validator: Validator::new(),
        of: Kind::ALL.map(|kind| compile_schema(kind.schema_json())),
    };
}

impl Rules {
    fn check(&self, kind: Kind, object: &Value) -> Result<(), ValidationErrors> {
        let rules = &self.of[kind as usize];
        self.validator.validate_compiled(rules, object, None)
    }
}

/// The kind of `object`, if its `apiVersion` and `kind` are one of ours.
pub fn kind_of(object: &Value) -> Option<Kind> {
    if object["apiVersion"].as_str() != Some(crate::API_VERSION) {
        return None;
    }
    let name = object["kind"].as_str()?;
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// Everything that is wrong with `object`, in the words of the API server; empty when it would be accepted.
///
/// `object` is one whole manifest with `apiVersion`, `kind`, `metadata` and `spec`. Defaults need not be filled in. The
/// status, if there is one, is not looked at, for the server ignores it in what a user applies.
pub fn validate(object: &Value) -> Vec<SchemaError> {
    let Some(kind) = kind_of(object) else {
        let found = format!(
            "no matches for kind {} in version {}",
            object.get("kind").unwrap_or(&Value::Null),
            object.get("apiVersion").unwrap_or(&Value::Null)
        );
        return vec![SchemaError::new("kind", found)];
    };
    let schema = kind.schema_json();
    let mut object = object.clone();
    if let Value::Object(fields) = &mut object {
        fields.remove("status");
    }

    let mut errors = Vec::new();
    walk::unknown_fields(schema, &object, &mut errors);
    metadata::check(&object, &mut errors);
    apply_defaults(&mut object);
    let mut walk = walk::Walk::default();
    walk.check(schema, &object, "");
    errors.extend(walk.errors);
    scale::check(kind.crd_json(), &object, &mut errors);
    if walk.blocking {
        errors.push(SchemaError::invalid(
            "<nil>",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to \
             complete validation",
        ));
    } else if let Err(broken) = RULES.with(|rules| rules.check(kind, &object)) {
        for rule in &broken {
            let shown = Value::from(walk::type_at(schema, &rule.field_path));
            errors.push(SchemaError::invalid(
                &rule.field_path,
                &shown,
                &rule.message,
            ));
        }
    }
    errors
}

/// Drops nulls and fills in the defaults of the schema, as the API server does. Objects of other kinds stay as they are.
pub fn apply_defaults(object: &mut Value) {
    if let Some(kind) = kind_of(object) {
        walk::apply_defaults(kind.schema_json(), object);
    }
}
