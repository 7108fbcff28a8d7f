//! The generated definitions: on disk as the types give them, and in a form that every API server takes well.

use std::path::Path;

use kube::CustomResourceExt;
use ringwire_crds::cases::each;
use ringwire_crds::generate::{Kind, check, crds};
use serde_json::{Value, json};

fn each_of_every_kind(mut visit: impl FnMut(&Value, &str)) {
    for kind in Kind::ALL {
        each(kind.schema_json(), "", &mut |schema, path| {
            visit(schema, &format!("{} {path}", kind.name()));
        });
    }
}

#[test]
fn files_on_disk_are_what_the_types_give() {
    check(Path::new("crds"))
        .expect("run `cargo run -p ringwire-crds --bin crdgen crds/crds` and commit the result");
}

#[test]
fn every_definition_is_small() {
    for kind in Kind::ALL {
        assert!(kind.yaml().unwrap().len() < 200_000, "{}", kind.file_name());
    }
}

#[test]
fn definitions_read_back_and_keep_their_rules() {
    for (crd, kind) in crds().unwrap().into_iter().zip(Kind::ALL) {
        assert_eq!(
            serde_json::to_value(crd).unwrap()["spec"]["names"]["kind"],
            kind.name()
        );
    }
    assert_eq!(
        ringwire_crds::MediaGateway::crd().spec.names.plural,
        "mediagateways"
    );
}

#[test]
fn no_format_is_unsigned() {
    each_of_every_kind(|schema, path| {
        let format = schema["format"].as_str().unwrap_or_default();
        assert!(!format.starts_with("uint"), "{path}: {format}");
    });
}

#[test]
fn every_text_list_and_map_is_bounded() {
    each_of_every_kind(|schema, path| match schema["type"].as_str() {
        Some("string") => assert!(schema["maxLength"].is_u64(), "{path} has no maxLength"),
        Some("array") => {
            assert!(schema["maxItems"].is_u64(), "{path} has no maxItems");
            assert!(
                schema["x-kubernetes-list-type"].is_string(),
                "{path} says not how it merges"
            );
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            assert!(
                schema["maxProperties"].is_u64(),
                "{path} has no maxProperties"
            );
        }
        _ => {}
    });
}

#[test]
fn every_number_in_a_spec_has_bounds() {
    each_of_every_kind(|schema, path| {
        if schema["type"] == "integer" && path.contains(" spec.") {
            assert!(
                schema["minimum"].is_i64() && schema["maximum"].is_i64(),
                "{path}"
            );
        }
    });
}

#[test]
fn no_item_of_a_list_and_no_status_has_defaults() {
    each_of_every_kind(|schema, path| {
        if path.contains("[]") || path.contains(" status") {
            assert!(schema.get("default").is_none(), "{path}");
        }
    });
}

#[test]
fn every_field_of_ours_says_what_it_does() {
    each_of_every_kind(|schema, path| {
        if path.ends_with(['}', ']']) || path.contains("conditions[]") {
            return;
        }
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(description.len() > 20, "{path}: {description:?}");
        assert!(
            !description.contains("[`"),
            "{path}: rustdoc in {description:?}"
        );
    });
}

#[test]
fn every_rule_has_a_message_that_names_its_field() {
    each_of_every_kind(|schema, path| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let message = rule["message"].as_str().unwrap_or_default();
            let field = path
                .split(' ')
                .next_back()
                .unwrap()
                .trim_end_matches("[]")
                .rsplit('.')
                .next()
                .unwrap();
            assert!(
                message.contains("spec") || message.contains(field),
                "{path}: {message:?}"
            );
        }
    });
}

/// `spec` with the defaults of the schema.
fn defaulted(kind: Kind, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": ringwire_crds::API_VERSION, "kind": kind.name(), "metadata": {"name": "x"}, "spec": spec,
    });
    ringwire_crds::schema::apply_defaults(&mut object);
    object["spec"].clone()
}

#[test]
fn defaults_of_schema_and_types_are_the_same() {
    fn both<T: serde::de::DeserializeOwned + serde::Serialize>(kind: Kind, spec: &Value) {
        let by_schema = defaulted(kind, spec);
        let by_types: T = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(
            serde_json::to_value(by_types).unwrap(),
            by_schema,
            "{}",
            kind.name()
        );
    }
    both::<ringwire_crds::SipProviderSpec>(Kind::SipProvider, &json!({}));
    both::<ringwire_crds::SipProviderSpec>(
        Kind::SipProvider,
        &json!({"registration": {"fromDomain": "a.example"}}),
    );
    both::<ringwire_crds::PhoneNumberSpec>(
        Kind::PhoneNumber,
        &json!({"number": "+34911234567", "providerRef": {"name": "a"}}),
    );
    both::<ringwire_crds::VoiceAgentSpec>(Kind::VoiceAgent, &json!({"echo": {}}));
    both::<ringwire_crds::VoiceAgentSpec>(
        Kind::VoiceAgent,
        &json!({"webSocket": {"url": "ws://bot/"}, "limits": {}}),
    );
    both::<ringwire_crds::VoiceAgentSpec>(
        Kind::VoiceAgent,
        &json!({"audioSocket": {"address": "bot:9092"}}),
    );
    both::<ringwire_crds::MediaGatewaySpec>(Kind::MediaGateway, &json!({}));
    both::<ringwire_crds::MediaGatewaySpec>(
        Kind::MediaGateway,
        &json!({"sip": {"exposure": {}}, "rtp": {"portRange": {"to": 20099}}, "allowedNamespaces": {}}),
    );
}

#[test]
fn defaults_of_rust_are_those_of_the_schema() {
    let same = |kind, spec: Value| assert_eq!(spec, defaulted(kind, &json!({})), "{}", kind.name());
    same(
        Kind::SipProvider,
        serde_json::to_value(ringwire_crds::SipProviderSpec::default()).unwrap(),
    );
    same(
        Kind::VoiceAgent,
        serde_json::to_value(ringwire_crds::VoiceAgentSpec::default()).unwrap(),
    );
    same(
        Kind::MediaGateway,
        serde_json::to_value(ringwire_crds::MediaGatewaySpec::default()).unwrap(),
    );
}

#[test]
fn any_name_that_kubectl_takes_names_a_kind() {
    for kind in Kind::ALL {
        let names = &kind.crd_json()["spec"]["names"];
        for name in [&names["kind"], &names["plural"], &names["singular"]] {
            assert_eq!(Kind::parse(name.as_str().unwrap()), Some(kind));
        }
        for name in names["shortNames"].as_array().unwrap() {
            assert_eq!(Kind::parse(name.as_str().unwrap()), Some(kind));
        }
    }
    assert_eq!(
        Kind::parse("sipproviders.ringwire.dev"),
        Some(Kind::SipProvider)
    );
    assert_eq!(Kind::parse("pods"), None);
}

#[test]
fn shows_the_columns_of_the_design() {
    let columns = |kind: Kind| -> Vec<String> {
        kind.crd_json()["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|column| column.get("priority").is_none_or(|priority| priority == 0))
            .map(|column| column["name"].as_str().unwrap().to_uppercase())
            .collect()
    };
    assert_eq!(
        columns(Kind::SipProvider),
        [
            "TYPE",
            "SERVER",
            "TRANSPORT",
            "REGISTRATION",
            "CALLS",
            "READY",
            "AGE"
        ]
    );
    assert_eq!(
        columns(Kind::PhoneNumber),
        ["NUMBER", "PROVIDER", "AGENT", "STATE", "CALLS", "AGE"]
    );
    assert_eq!(
        columns(Kind::VoiceAgent),
        ["BACKEND", "NUMBERS", "CALLS", "READY", "AGE"]
    );
    assert_eq!(
        columns(Kind::MediaGateway),
        [
            "REPLICAS",
            "AVAILABLE",
            "ADDRESSES",
            "CALLS",
            "READY",
            "AGE"
        ]
    );
}
