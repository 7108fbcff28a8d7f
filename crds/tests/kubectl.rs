//! Tables against those of kubectl: `tests/kubectl` holds objects as an API server gave them, and what
//! `kubectl get -o wide` printed of them at the time.
#![expect(
    clippy::unwrap_used,
    reason = "a fixture that can't be read fails its test"
)]

use ringwire_crds::generate::Kind;
use ringwire_crds::table::{Options, print};
use serde_json::Value;

fn same(kind: Kind, objects: &str, printed: &str) {
    let objects: Vec<Value> = serde_json::from_str(objects).unwrap();
    let created: k8s_openapi::jiff::Timestamp = objects[0]["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // What kubectl printed tells when it did.
    let age = printed
        .split_whitespace()
        .find_map(|word| word.strip_suffix('s')?.parse::<i64>().ok())
        .unwrap();
    let now = k8s_openapi::jiff::Timestamp::from_second(created.as_second() + age).unwrap();
    let options = Options {
        wide: true,
        ..Options::new(now)
    };
    assert_eq!(print(kind, &objects, &options), printed);
}

#[test]
fn prints_what_kubectl_prints() {
    same(
        Kind::SipProvider,
        include_str!("kubectl/sipp.json"),
        include_str!("kubectl/sipp.txt"),
    );
    same(
        Kind::PhoneNumber,
        include_str!("kubectl/did.json"),
        include_str!("kubectl/did.txt"),
    );
    same(
        Kind::VoiceAgent,
        include_str!("kubectl/vagent.json"),
        include_str!("kubectl/vagent.txt"),
    );
    same(
        Kind::MediaGateway,
        include_str!("kubectl/mgw.json"),
        include_str!("kubectl/mgw.txt"),
    );
}
