//! A gateway on the network of its nodes.

use ringwire_tests::cluster::{self, Space, assert_echoed, wait_contacts};
use ringwire_tests::manifests::object;
use ringwire_tests::wait::seconds;

/// Ports that the default gateway's pods would not use on a node either.
const SPEC: &str = "{sip: {exposure: {type: HostNetwork}, udpPort: 5070, tcpPort: 5070}, rtp: {exposure: {type: HostNetwork}, portRange: {from: 21000, to: 21099}}}";

#[test]
fn a_host_network_gateway_is_called_at_its_nodes_address() {
    cluster::ready();
    let space = Space::unready("edge", "pod-security.kubernetes.io/enforce: privileged");
    space.apply(&object("MediaGateway", "edge", SPEC));
    let gateway = cluster::wait_ready(&space.name, "mediagateway", "edge", "True", seconds(40));
    println!("    addresses: {}", gateway["status"]["addresses"]);
    let nodes = ["198.51.100.11", "198.51.100.12"];
    let addresses = gateway["status"]["addresses"].to_string();
    assert!(
        nodes
            .iter()
            .any(|node| addresses.contains(&format!("{node}:5070"))),
        "{addresses}"
    );
    space.apply(&space.complete().replace(
        "server: sip.carrier.test",
        "server: sip.carrier.test, gatewayRef: {name: edge}",
    ));
    let state = space.wait_registered(seconds(10));
    let contact = state["contact"].as_str().unwrap().to_owned();
    assert!(
        nodes
            .iter()
            .any(|node| contact.contains(&format!("@{node}:5070"))),
        "{contact}"
    );
    wait_contacts(&space.user, 1, seconds(2));
    space.wait_answering();
    assert_echoed("HostNetwork", || space.call(&[]));
    let records = cluster::pods(&space.name, "media")
        .iter()
        .flat_map(|pod| cluster::log(&space.name, pod["metadata"]["name"].as_str().unwrap()))
        .collect::<Vec<_>>();
    assert!(
        records
            .iter()
            .any(|line| line["target"] == "ringwire::call"),
        "the call went elsewhere"
    );
}

#[test]
fn a_host_network_gateway_in_a_restricted_namespace_is_told_which_label_it_needs() {
    cluster::ready();
    let space = Space::unready("denied", "pod-security.kubernetes.io/enforce: restricted");
    space.apply(&object("MediaGateway", "edge", SPEC));
    let seen = space.wait_condition(
        "mediagateway",
        "edge",
        ("Ready", "False", "PodSecurityDenied"),
        seconds(20),
    );
    println!("    {}", seen["message"]);
    assert!(
        seen["message"]
            .as_str()
            .unwrap()
            .contains("pod-security.kubernetes.io/enforce=privileged"),
        "{seen}"
    );
    space.kubectl(&[
        "label",
        "namespace",
        &space.name,
        "pod-security.kubernetes.io/enforce=privileged",
        "--overwrite",
    ]);
    cluster::wait_ready(&space.name, "mediagateway", "edge", "True", seconds(60));
}
