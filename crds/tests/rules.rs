//! Every rule of the schemas: an object that breaks it is refused in the API server's words, a good one passes.
//!
//! `ringwire_crds::cases` has the objects, so that the end-to-end tests can give the same ones to a real API server.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ringwire_crds::cases::{Case, each, generated, written};
use ringwire_crds::generate::Kind;
use ringwire_crds::schema::validate;
use serde_json::{Value, json};

static GENERATED: LazyLock<Vec<Case>> = LazyLock::new(generated);

fn judge(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let found: BTreeSet<String> = validate(&case.object)
            .iter()
            .map(ToString::to_string)
            .collect();
        if found != case.errors {
            let expected = &case.errors;
            wrong.push(format!(
                "{case}\n  found {found:#?}\n  expected {expected:#?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refuses_what_breaks_a_rule_in_the_words_of_the_server() {
    judge(&written().unwrap());
}

#[test]
fn names_the_field_and_the_structural_rule_that_are_broken() {
    judge(&GENERATED);
}

/// What is in a schema and no structural rule that a value could break.
const NO_RULES: [&str; 10] = [
    "additionalProperties",
    "default",
    "description",
    // An integer's bounds are stricter.
    "format",
    "items",
    "properties",
    // A rule of the fields that it names: looked for below.
    "required",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    // See `every_cel_rule_has_an_object_that_breaks_it`.
    "x-kubernetes-validations",
];

#[test]
fn every_structural_rule_has_an_object_that_breaks_it() {
    let broken: BTreeSet<String> = GENERATED
        .iter()
        .filter_map(|case| Some(case.rule.as_ref()?.to_string()))
        .collect();
    let mut missing = Vec::new();
    for kind in Kind::ALL {
        let mut look_for = |path: &str, keyword: &str| {
            let rule = format!("{} {path} {keyword}", kind.name());
            if !broken.contains(&rule) {
                missing.push(rule);
            }
        };
        each(
            &kind.schema_json()["properties"]["spec"],
            "spec",
            &mut |schema, path| {
                for (keyword, value) in schema.as_object().unwrap() {
                    let atomic = keyword == "x-kubernetes-list-type" && value == "atomic";
                    if !NO_RULES.contains(&keyword.as_str()) && !atomic {
                        look_for(path, keyword);
                    }
                }
                for name in schema["required"].as_array().into_iter().flatten() {
                    look_for(&format!("{path}.{}", name.as_str().unwrap()), "required");
                }
            },
        );
        look_for("spec", "required");
    }
    assert!(missing.is_empty(), "no case breaks {missing:#?}");
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
    }
    for child in schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, child)| child)
    {
        messages(child, found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            messages(&schema[key], found);
        }
    }
}

#[test]
fn every_cel_rule_has_an_object_that_breaks_it() {
    let errors: BTreeSet<String> = written()
        .unwrap()
        .into_iter()
        .flat_map(|case| case.errors)
        .collect();
    let mut rules = BTreeSet::new();
    for kind in Kind::ALL {
        messages(kind.schema_json(), &mut rules);
    }
    assert!(rules.len() >= 17, "{rules:#?}");
    for rule in rules {
        assert!(
            errors.iter().any(|error| error.ends_with(&rule)),
            "no case breaks: {rule}"
        );
    }
}

#[test]
fn every_kind_has_an_object_that_passes() {
    let cases = written().unwrap();
    for kind in Kind::ALL {
        let passes = |case: &Case| case.object["kind"] == kind.name() && case.errors.is_empty();
        assert!(cases.iter().any(passes), "{}", kind.name());
    }
}

#[test]
fn names_what_is_wrong_with_metadata_and_kind() {
    let good = json!({
        "apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent", "metadata": {"name": "bot"}, "spec": {"echo": {}},
    });
    assert_eq!(validate(&good), []);
    let errors = |change: &dyn Fn(&mut Value)| {
        let mut object = good.clone();
        change(&mut object);
        validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        errors(&|object| object["metadata"] = json!({})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let upper = errors(&|object| object["metadata"]["name"] = json!("Bot"));
    assert!(
        upper[0]
            .starts_with(r#"metadata.name: Invalid value: "Bot": a lowercase RFC 1123 subdomain"#),
        "{upper:?}"
    );
    assert_eq!(
        errors(&|object| object["metadata"]["labls"] = json!({})),
        ["unknown field \"metadata.labls\""]
    );
    assert_eq!(
        errors(&|object| object["specs"] = json!({})),
        ["unknown field \"specs\""]
    );
    assert_eq!(
        errors(&|object| object["kind"] = json!("Voiceagent")),
        [r#"kind: no matches for kind "Voiceagent" in version "ringwire.dev/v1alpha1""#]
    );
}

#[test]
fn ignores_a_status_and_drops_nulls() {
    let object = json!({
        "apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent",
        "metadata": {"name": "bot", "creationTimestamp": null},
        "spec": {"echo": {}, "webSocket": null, "limits": null, "connectTimeoutSeconds": null},
        "status": {"anything": 1},
    });
    assert_eq!(validate(&object), []);
    let mut defaulted = object;
    ringwire_crds::schema::apply_defaults(&mut defaulted);
    assert_eq!(
        defaulted["spec"],
        json!({"echo": {}, "limits": {"maxCallSeconds": 7200}, "connectTimeoutSeconds": 5, "cushionMillis": 20, "callerAudio": "Paced"})
    );
}
