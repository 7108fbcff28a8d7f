//! What thousands of objects cost to compile: nothing grows with their square.
//!
//! ```text
//! cargo test --profile image -p ringwire-config --test thousands -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::compile::compile;
use ringwire_config::manifests::{self, Manifests};
use ringwire_config::shard::{self, Assembly, Role};
use ringwire_config::state::{PodState, RegistrationReport, RegistrationState};
use ringwire_config::token::{GatewayKeys, Incarnation, TokenKey};
use ringwire_config::{ObjectRef, Objects, Reason, Settings};

/// Providers at one carrier, each with a Secret and a number of its own, that one agent answers.
fn objects(count: usize) -> (Objects, Duration) {
    let mut text = String::from(
        "apiVersion: ringwire.dev/v1alpha1\nkind: MediaGateway\nmetadata: {name: default}\nspec: {}\n---\n\
         apiVersion: ringwire.dev/v1alpha1\nkind: VoiceAgent\nmetadata: {name: bot}\nspec: {echo: {}}\n",
    );
    for number in 0..count {
        write!(
            text,
            "---\napiVersion: ringwire.dev/v1alpha1\nkind: SipProvider\nmetadata: {{name: t{number}}}\n\
             spec: {{server: sip.carrier.test, credentialsSecretRef: {{name: t{number}}}}}\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: t{number}}}\n\
             stringData: {{username: t{number}, password: p{number}}}\n\
             ---\napiVersion: ringwire.dev/v1alpha1\nkind: PhoneNumber\nmetadata: {{name: t{number}}}\n\
             spec: {{number: \"+3480{number:07}\", providerRef: {{name: t{number}}}, agentRef: {{name: bot}}}}\n"
        )
        .unwrap();
    }
    let folder = std::env::temp_dir().join(format!("rw-thousands-{}-{count}", std::process::id()));
    std::fs::write(&folder, text).unwrap();
    let begun = Instant::now();
    let Manifests {
        mut objects,
        problems,
        ..
    } = manifests::read(Path::new(&folder)).unwrap();
    let took = begun.elapsed();
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(problems, []);
    let key = TokenKey::from_bytes(1, [1; 32]);
    objects.keys.insert(gateway(), GatewayKeys::single(key));
    (objects, took)
}

fn gateway() -> ObjectRef {
    ObjectRef::new("default", "default")
}

/// The shortest of three runs.
fn time<T>(mut run: impl FnMut() -> T) -> (T, Duration) {
    let once = |run: &mut dyn FnMut() -> T| {
        let begun = Instant::now();
        let result = run();
        (result, begun.elapsed())
    };
    let mut best = once(&mut run);
    for _ in 1..3 {
        let next = once(&mut run);
        if next.1 < best.1 {
            best = next;
        }
    }
    best
}

/// How long each step takes.
fn measure(count: usize) -> Vec<(&'static str, Duration)> {
    let (objects, read) = objects(count);
    let settings = Settings {
        default_gateway: gateway(),
        shared_gateway_namespaces: [].into(),
        restrict_agent_addresses: false,
        services: false,
    };
    let (compiled, compiling) = time(|| compile(&objects, &settings));
    let config = &compiled.gateways[&gateway()];
    assert_eq!(config.providers.len(), count);
    let (encoded, encoding) = time(|| {
        let shards = shard::split(config, Role::Registrar);
        let shards = shards.iter().enumerate();
        shards
            .map(|(index, shard)| shard::encode(shard, index).unwrap())
            .collect::<Vec<_>>()
    });
    let largest = encoded.iter().map(Vec::len).max().unwrap();
    assert!(largest < shard::MAX_SHARD_BYTES / 4, "{largest} bytes");
    let (config, decoding) = time(|| {
        let mut assembly = Assembly::default();
        for (index, bytes) in encoded.iter().enumerate() {
            assembly.insert(index, shard::decode(bytes).unwrap());
        }
        assembly.registrar().unwrap()
    });
    assert_eq!(config.providers.len(), count);
    vec![
        ("read the manifests", read),
        ("compile", compiling),
        ("write the shards", encoding),
        ("read the shards", decoding),
    ]
}

#[test]
fn costs_grow_with_the_number_of_objects_and_not_faster() {
    let (few, many) = if cfg!(debug_assertions) {
        (200, 800)
    } else {
        (1_250, 5_000)
    };
    println!("{:<20} {few:>8} trunks {many:>8} trunks", "");
    let (few, many) = (measure(few), measure(many));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        println!("{what:<20} {few:>15.1?} {many:>15.1?}");
        // The square would be 16 times as much.
        let limit = few * 9 + Duration::from_millis(50);
        assert!(many <= limit, "{what}: {few:?}, then {many:?}");
    }
}

#[test]
fn a_small_change_of_a_large_report_costs_little() {
    let report = |number: usize| RegistrationReport {
        revision: format!("{number:016x}"),
        state: RegistrationState::Registered,
        reason: Reason::Registered,
        message: "registered at sip.carrier.test".into(),
        last_response: Some("200 OK".into()),
        transport: None,
        contact: Some(format!("sip:{number:026}@192.0.2.9:5060")),
        observed_address: Some("192.0.2.9:5060".into()),
        registered_at: None,
    };
    let id = |number: usize| ObjectRef::new("default", format!("t{number}"));
    let mut state = PodState::new("registrar-0", Role::Registrar, Incarnation(1));
    state.registrations = Arc::new(
        (0..5_000)
            .map(|number| (id(number), report(number)))
            .collect(),
    );
    let address = "192.0.2.1".parse().unwrap();
    state.resolved = Arc::new(
        (0..5_000)
            .map(|number| (id(number), vec![address]))
            .collect(),
    );
    let called = |number| (id(number), jiff::Timestamp::UNIX_EPOCH);
    state.last_call = Arc::new((0..5_000).map(called).collect());

    let (line, whole) = time(|| serde_json::to_value(&state).unwrap().to_string());
    println!(
        "{:<20} {whole:>8.1?}, {} KiB",
        "the whole report",
        line.len() >> 10
    );
    let (_, copied) = time(|| state.clone());
    println!("{:<20} {copied:>8.1?}", "a copy of it");
    let mut called = state.clone();
    let (patch, after_call) = time(|| {
        Arc::make_mut(&mut called.last_call).insert(id(17), jiff::Timestamp::now());
        called.patch_from(&state).unwrap().to_string()
    });
    println!("{:<20} {after_call:>8.1?}, {} bytes", "a call", patch.len());
    let mut changed = state.clone();
    let (patch, after_change) = time(|| {
        Arc::make_mut(&mut changed.registrations).insert(id(17), report(18));
        changed.patch_from(&state).unwrap().to_string()
    });
    println!(
        "{:<20} {after_change:>8.1?}, {} bytes",
        "a registration",
        patch.len()
    );
    assert!(patch.len() < 400, "{patch}");
    assert!(copied * 20 < whole, "{copied:?} of {whole:?}");
    assert!(after_call * 3 < whole, "{after_call:?} of {whole:?}");
    assert!(after_change * 3 < whole, "{after_change:?} of {whole:?}");
}
