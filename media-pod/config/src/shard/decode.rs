//! Reading a shard entry by entry, so that one that was written for a newer version takes no other with it.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{FORMAT_VERSION, Part, Shard, ShardError, digest};
use crate::gateway::{Number, Provider};
use crate::not_understood::NotUnderstood;
use crate::object::ObjectRef;

/// Largest shard after decompression; a shard above it is refused instead of filling the pod's memory.
const MAX_DECOMPRESSED_BYTES: u64 = 64 << 20;

/// How much is told of a name that is not understood.
const MAX_DETAIL: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

/// A shard whose entries are not read yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    settings: Option<&'a RawValue>,
    #[serde(borrow)]
    tls: Option<&'a RawValue>,
    #[serde(borrow)]
    hep: Option<&'a RawValue>,
    #[serde(borrow, default)]
    providers: BTreeMap<ObjectRef, &'a RawValue>,
    #[serde(borrow, default)]
    agents: BTreeMap<ObjectRef, &'a RawValue>,
}

/// Reads a shard.
///
/// # Errors
/// It is no shard, or its format is newer than this version's. An entry that is not understood is no error.
pub fn decode(bytes: &[u8]) -> Result<Shard, ShardError> {
    let mut json = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_DECOMPRESSED_BYTES)
        .read_to_end(&mut json)?;
    // The version first: a newer format may not even parse.
    let Version { format_version } = serde_json::from_slice(&json)?;
    if format_version > FORMAT_VERSION {
        return Err(ShardError::Newer(format_version));
    }
    let Envelope {
        settings,
        tls,
        hep,
        providers,
        agents,
    } = serde_json::from_slice(&json)?;
    let mut shard = Shard {
        format_version,
        digest: digest(bytes),
        ..Shard::default()
    };
    let parts = &mut shard.parts_not_understood;
    shard.settings = part(Part::Settings, settings, parts);
    shard.tls = part(Part::Tls, tls, parts);
    shard.hep = part(Part::Hep, hep, parts);
    let not_understood = &mut shard.not_understood;
    for (id, text) in providers {
        match provider(text, not_understood) {
            Ok(provider) => drop(shard.providers.insert(id, provider)),
            Err(error) => drop(not_understood.providers.insert(id, detail(&error))),
        }
    }
    for (id, text) in agents {
        match serde_json::from_str(text.get()) {
            Ok(agent) => drop(shard.agents.insert(id, agent)),
            Err(error) => drop(not_understood.agents.insert(id, detail(&error))),
        }
    }
    Ok(shard)
}

fn part<T: DeserializeOwned>(
    part: Part,
    text: Option<&RawValue>,
    not_understood: &mut BTreeMap<Part, String>,
) -> Option<T> {
    match serde_json::from_str(text?.get()) {
        Ok(value) => Some(value),
        Err(error) => {
            not_understood.insert(part, detail(&error));
            None
        }
    }
}

/// A trunk. A number of it that is not understood stays as one without agent, so that calls to it are refused for now and not for good.
fn provider(text: &RawValue, not_understood: &mut NotUnderstood) -> serde_json::Result<Provider> {
    let error = match serde_json::from_str(text.get()) {
        Ok(provider) => return Ok(provider),
        Err(error) => error,
    };
    let mut entry: Value = serde_json::from_str(text.get())?;
    let Some(numbers) = entry.get_mut("numbers").and_then(Value::as_object_mut) else {
        return Err(error);
    };
    let mut left_out = BTreeMap::new();
    numbers.retain(|e164, number| {
        let Err(error) = Number::deserialize(&*number) else {
            return true;
        };
        let id = number.get("id").and_then(Value::as_str);
        if let Some(id) = id.and_then(|id| id.parse::<ObjectRef>().ok()) {
            left_out.insert(e164.clone(), (id, detail(&error)));
        }
        false
    });
    let mut provider = Provider::deserialize(entry)?;
    for (e164, (id, detail)) in left_out {
        not_understood.numbers.insert(id.clone(), detail);
        let number = Number {
            id,
            agent: None,
            agent_max_calls: None,
        };
        provider.numbers.insert(e164, number);
    }
    Ok(provider)
}

/// What was not understood. Only names are told, for a value could be a secret.
fn detail(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let name = text
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.split_once("`, expected"));
    match name {
        Some((name, _)) => {
            let name: String = name.chars().take(MAX_DETAIL).collect();
            format!("unknown value {name:?}")
        }
        None => "unknown form".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::super::{Assembly, Role, SHARDS, encode, index_of, split};
    use super::*;
    use crate::fixture;
    use crate::gateway::{Account, GatewayConfig, Hep, Host, RegistrarConfig};
    use crate::secret::Secret;

    fn id(name: &str) -> ObjectRef {
        ObjectRef::new("voice", name)
    }

    fn config() -> GatewayConfig {
        let number = |name: &str| Number {
            id: id(name),
            agent: Some(id("sales")),
            agent_max_calls: None,
        };
        let mut trunk = fixture::provider("trunk");
        trunk.numbers = [("+34911234567", "a"), ("+34917654321", "b")]
            .map(|(e164, name)| (e164.to_owned(), number(name)))
            .into();
        trunk.incoming = Some(vec![Account {
            username: "pbx".into(),
            password: Secret::new("hunter2"),
        }]);
        let other = fixture::provider("other");
        let agents = ["sales", "support"].map(fixture::agent);
        GatewayConfig {
            settings: fixture::settings(),
            tls: None,
            hep: Some(Hep {
                host: Host::Name("homer.test".into()),
                port: 9060,
                capture_id: 1,
                password: None,
            }),
            providers: [trunk, other].map(|it| (it.id.clone(), it)).into(),
            agents: agents.map(|it| (it.id.clone(), it)).into(),
        }
    }

    fn compress(json: &Value) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(json.to_string().as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Takes all shards of `role` as a newer operator would write them.
    fn assemble(assembly: &mut Assembly, role: Role, newer: impl Fn(&mut Value)) {
        for (index, shard) in split(&config(), role).iter().enumerate() {
            let mut json = serde_json::to_value(shard).unwrap();
            newer(&mut json);
            assembly.insert(index, decode(&compress(&json)).unwrap());
        }
    }

    fn registrar(newer: impl Fn(&mut Value)) -> RegistrarConfig {
        let mut assembly = Assembly::default();
        assemble(&mut assembly, Role::Registrar, newer);
        assembly.registrar().unwrap()
    }

    /// Sets a field in the shard that has the object around it.
    fn set(pointer: &'static str, value: Value) -> impl Fn(&mut Value) {
        let (object, field) = pointer.rsplit_once('/').unwrap();
        move |shard| {
            if let Some(object) = shard.pointer_mut(object) {
                object[field] = value.clone();
            }
        }
    }

    fn told(not_understood: &NotUnderstood) -> Vec<String> {
        let all = not_understood.all();
        all.map(|(kind, id, detail)| format!("{kind} {id}: {detail}"))
            .collect()
    }

    #[test]
    fn an_agent_of_an_unknown_kind_is_left_out_and_the_others_stay() {
        let mut assembly = Assembly::default();
        let newer = json!({"telepathy": {"strength": 3}});
        assemble(
            &mut assembly,
            Role::Media,
            set("/agents/voice~1sales/backend", newer),
        );
        let media = assembly.media().unwrap();
        let agents: Vec<_> = media.agents.keys().collect();
        assert_eq!(agents, [&id("support")]);
        assert_eq!(
            told(&media.not_understood),
            ["VoiceAgent voice/sales: unknown value \"telepathy\""]
        );
        assert!(media.shards.iter().all(|digest| !digest.is_empty()));
    }

    #[test]
    fn a_number_that_is_not_understood_stays_without_agent() {
        let newer = json!({"schedule": []});
        let registrar = registrar(set(
            "/providers/voice~1trunk/numbers/+34911234567/agent",
            newer,
        ));
        let numbers = &registrar.providers[&id("trunk")].numbers;
        assert_eq!(numbers["+34911234567"].agent, None);
        assert_eq!(numbers["+34911234567"].id, id("a"));
        assert_eq!(numbers["+34917654321"].agent, Some(id("sales")));
        assert_eq!(
            told(&registrar.not_understood),
            ["PhoneNumber voice/a: unknown form"]
        );
    }

    #[test]
    fn a_provider_that_is_not_understood_is_left_out_and_the_others_stay() {
        let registrar = registrar(set(
            "/providers/voice~1trunk/calledNumberFrom",
            json!("Diversion"),
        ));
        let providers: Vec<_> = registrar.providers.keys().collect();
        assert_eq!(providers, [&id("other")]);
        assert_eq!(
            told(&registrar.not_understood),
            ["SipProvider voice/trunk: unknown value \"Diversion\""]
        );
    }

    #[test]
    fn what_is_said_of_an_entry_quotes_no_secret() {
        // A password in a place where this version expects a list.
        let registrar = registrar(set("/providers/voice~1trunk/incoming", json!("hunter2")));
        let said = told(&registrar.not_understood);
        assert_eq!(said, ["SipProvider voice/trunk: unknown form"]);
    }

    #[test]
    fn a_part_of_the_gateway_that_is_not_understood_leaves_the_last_one() {
        let mut assembly = Assembly::default();
        assemble(&mut assembly, Role::Registrar, |_| {});
        let before = assembly.registrar().unwrap();
        assemble(&mut assembly, Role::Registrar, |shard| {
            set("/settings/sipUdpPort", json!("any"))(shard);
            set("/hep/host", json!({"socket": "/run/homer"}))(shard);
            set("/providers/voice~1other/countryCode", json!("49"))(shard);
        });
        let after = assembly.registrar().unwrap();
        assert_eq!(
            (&after.settings, &after.hep),
            (&before.settings, &before.hep)
        );
        assert_eq!(
            after.providers[&id("other")].country_code.as_deref(),
            Some("49"),
            "the rest of the shard is taken"
        );
        let unread = assembly.shard(0).unwrap().parts_not_understood();
        assert_eq!(
            unread.keys().collect::<Vec<_>>(),
            [&Part::Settings, &Part::Hep]
        );
    }

    #[test]
    fn without_settings_that_it_understands_a_pod_has_no_configuration() {
        let mut assembly = Assembly::default();
        assemble(
            &mut assembly,
            Role::Media,
            set("/settings/drainSeconds", json!("long")),
        );
        assert_eq!(assembly.media(), None);
    }

    #[test]
    fn a_newer_or_unknown_envelope_is_refused_as_a_whole_and_the_last_shard_stays() {
        let index = index_of(&id("sales"));
        let mut assembly = Assembly::default();
        assemble(&mut assembly, Role::Media, |_| {});
        let written = serde_json::to_value(&split(&config(), Role::Media)[index]).unwrap();
        for (version, newer) in [
            (json!(FORMAT_VERSION + 1), Some(FORMAT_VERSION + 1)),
            (json!("v2"), None),
            (json!(null), None),
        ] {
            let mut shard = written.clone();
            shard["formatVersion"] = version;
            match (decode(&compress(&shard)), newer) {
                (Err(ShardError::Newer(seen)), Some(newer)) => assert_eq!(seen, newer),
                (Err(ShardError::Json { .. }), None) => {}
                (other, _) => panic!("{other:?}"),
            }
        }
        assert!(assembly.media().unwrap().agents.contains_key(&id("sales")));
        // Fields that only a newer version knows are no reason to refuse anything.
        let mut shard = written;
        shard["forecast"] = json!([1, 2]);
        shard["agents"]["voice/sales"]["mood"] = json!("sunny");
        let read = decode(&compress(&shard)).unwrap();
        assert!(read.agents.contains_key(&id("sales")) && read.not_understood.is_empty());
    }

    #[test]
    fn what_this_version_writes_it_understands() {
        for role in Role::ALL {
            for (index, shard) in split(&config(), role).iter().enumerate() {
                let bytes = encode(shard, index).unwrap();
                let read = decode(&bytes).unwrap();
                assert!(read.not_understood.is_empty() && read.parts_not_understood.is_empty());
                let expected = Shard {
                    digest: digest(&bytes),
                    ..shard.clone()
                };
                assert_eq!(read, expected);
            }
        }
        assert_eq!(split(&config(), Role::Media).len(), SHARDS);
    }
}
