//! SIP through Services: load balancers and ports of nodes.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use ringwire_media::tone::speech_like;
use ringwire_tests::audio::{self, IS_ECHO};
use ringwire_tests::cluster::{
    self, CARRIER, HERE, PodProcess, Space, assert_echoed, condition, kubectl, ready_pods_in,
    records, wait_contacts, wait_object,
};
use ringwire_tests::manifests::{echo, number, object, static_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

/// The node that most gateways of these tests run on, and its address.
const NODE: &str = ", podTemplate: {nodeSelector: {kubernetes.io/hostname: node1}}";
const NODE_ADDRESS: &str = "198.51.100.11";

/// The address of the other node.
const OTHER_NODE_ADDRESS: &str = "198.51.100.12";

/// An address that leads to that node: what a load balancer would give out. Each test has a port of its own there, for Services go after
/// the pods of their namespace.
const FRONT: &str = "198.51.100.100";

fn front(port: u16) -> SocketAddr {
    SocketAddr::new(FRONT.parse().unwrap(), port)
}

/// A Space with a gateway `edge` of its own on one node, not ready yet.
fn space(name: &str, exposure: &str) -> Space {
    space_with(name, &format!("exposure: {exposure}"), NODE)
}

/// The same behind a load balancer at this port.
fn balanced(name: &str, port: u16) -> Space {
    let sip = format!("exposure: {{type: LoadBalancer}}, udpPort: {port}, tcpPort: {port}");
    space_with(name, &sip, NODE)
}

fn space_with(name: &str, sip: &str, more: &str) -> Space {
    cluster::ready();
    let space = Space::unready(name, "");
    let spec = format!("{{sip: {{{sip}}}, drainSeconds: 5{more}}}");
    space.apply(&object("MediaGateway", "edge", &spec));
    space
}

/// Providers, number and agent for calls through `edge`: from the carrier with a registration, and from here by the address.
fn apply_numbers(space: &Space) {
    let gateway = "gatewayRef: {name: edge}";
    let here = static_trunk(HERE, gateway).replace("name: trunk", "name: here");
    let all = [
        space.account(),
        space.trunk(gateway),
        space.main("bot"),
        here,
        number("direct", &space.phone_number(1), "here", "bot"),
        echo("bot", ""),
    ];
    space.apply(&all.join("---\n"));
}

/// Waits until both numbers are answered.
#[track_caller]
fn wait_answering(space: &Space) {
    space.wait_answering();
    let ready = ("Ready", "True", "Ready");
    space.wait_condition("phonenumber", "direct", ready, seconds(10));
}

/// What a load balancer's controller does.
fn give_address(space: &Space, service: &str) {
    let patch =
        format!("{{\"status\":{{\"loadBalancer\":{{\"ingress\":[{{\"ip\":\"{FRONT}\"}}]}}}}}}");
    wait::until_ok(seconds(20), &format!("the Service {service}"), || {
        let arguments = ["patch", "service", service, "--subresource=status", "-p"];
        let mut all = vec!["--namespace", &space.name];
        all.extend(arguments);
        all.push(&patch);
        kubectl(&all)
    });
}

/// Calls from here to an address of the gateway; gives the source that the record has, without port, and the Contact that it answers with.
#[track_caller]
fn call_from_here(space: &Space, remote: SocketAddr, tcp: bool) -> (String, String) {
    let before = records(&space.name).len();
    let mut phone = Phone::outside(remote, tcp);
    phone.dial(&space.phone_number(1));
    let contact = phone.call().contact();
    phone.hang_up();
    let record = wait::until(seconds(5), "the call's record", || {
        records(&space.name).into_iter().nth(before)
    });
    let source: SocketAddr = record["source"].as_str().unwrap().parse().unwrap();
    (source.ip().to_string(), contact)
}

#[track_caller]
fn wait_edge(space: &Space) {
    let name = &space.name;
    cluster::wait_ready(name, "mediagateway", "edge", "True", seconds(60));
    wait::until_ok(seconds(60), "two ready registrars", || {
        let ready = ready_pods_in(name, "registrar");
        if ready.len() == 2 {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    });
}

#[test]
fn calls_to_a_port_of_a_node_keep_their_source_and_are_told_that_port() {
    let ports = "{udp: 30560, tcp: 30561}";
    let space = space(
        "node-port",
        &format!("{{type: NodePort, service: {{nodePorts: {ports}}}}}"),
    );
    wait_edge(&space);
    let gateway = space.get("mediagateway", "edge");
    assert_eq!(
        gateway["status"]["addresses"].to_string(),
        format!("[\"tcp:{NODE_ADDRESS}:30561\",\"udp:{NODE_ADDRESS}:30560\"]")
    );
    apply_numbers(&space);
    let state = space.wait_registered(seconds(10));
    let contact = state["contact"].as_str().unwrap().to_owned();
    assert!(
        contact.ends_with(&format!("@{NODE_ADDRESS}:30560")),
        "{contact}"
    );
    wait_answering(&space);
    assert_echoed("NodePort", || space.call(&[]));
    let sources: Vec<String> = records(&space.name)
        .iter()
        .map(|record| record["source"].to_string())
        .collect();
    assert!(
        sources
            .iter()
            .all(|source| source.contains(&format!("{CARRIER}:"))),
        "{sources:?}"
    );
    for (tcp, port) in [(false, 30560), (true, 30561)] {
        let remote = SocketAddr::new(NODE_ADDRESS.parse().unwrap(), port);
        let (source, contact) = call_from_here(&space, remote, tcp);
        assert_eq!(source, HERE);
        assert!(
            contact.contains(&format!("@{NODE_ADDRESS}:{port}")),
            "{contact}"
        );
    }
}

#[test]
fn where_registrars_share_no_address_the_survivor_registers_its_own() {
    let ports = "{udp: 30570, tcp: 30571}";
    let sip = format!("exposure: {{type: NodePort, service: {{nodePorts: {ports}}}}}");
    let space = space_with("own-node", &sip, "");
    wait_edge(&space);
    apply_numbers(&space);
    let state = space.wait_registered(seconds(10));
    wait_answering(&space);
    let owner = state["by"].as_str().unwrap().to_owned();
    let first = state["contact"].to_string();
    let other = if first.contains(NODE_ADDRESS) {
        OTHER_NODE_ADDRESS
    } else {
        NODE_ADDRESS
    };
    let process = PodProcess::find(&owner);
    let begun = Instant::now();
    process.signal("STOP");
    let expected = format!("@{other}:30570");
    wait::until_ok(
        seconds(15),
        "the address of the survivor's node at the carrier",
        || {
            let found = cluster::contacts(&space.user);
            if found.iter().any(|contact| contact.contains(&expected)) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    );
    println!(
        "    {other} registered {:?} after the owner fell silent",
        begun.elapsed()
    );
    let remote = SocketAddr::new(other.parse().unwrap(), 30570);
    let (source, contact) = call_from_here(&space, remote, false);
    assert_eq!(source, HERE);
    assert!(contact.contains(&expected), "{contact}");
}

#[test]
fn a_load_balancers_address_is_waited_for_and_its_services_come_and_go_with_the_exposure() {
    let space = balanced("balanced", 5070);
    apply_numbers(&space);
    let missing = ("Addressed", "Unknown", "NoAddress");
    let seen = space.wait_condition("mediagateway", "edge", missing, seconds(30));
    println!("    {}", seen["message"]);
    let state = space.wait_registration("Unregistered", "NoAddress", seconds(30));
    assert!(
        state["message"].to_string().contains("edge-sip-udp"),
        "{state}"
    );
    // Its pods are there long before the address is.
    wait::until(seconds(60), "ready registrars", || {
        (ready_pods_in(&space.name, "registrar").len() == 2).then_some(())
    });
    assert_eq!(cluster::contacts(&space.user), Vec::<String>::new());
    assert_eq!(
        condition(&space.get("mediagateway", "edge"), "Ready")["reason"],
        "NoAddress"
    );

    give_address(&space, "edge-sip-udp");
    give_address(&space, "edge-sip-tcp");
    let state = space.wait_registered(seconds(15));
    let contact = state["contact"].as_str().unwrap().to_owned();
    assert!(contact.ends_with(&format!("@{FRONT}:5070")), "{contact}");
    cluster::wait_ready(&space.name, "mediagateway", "edge", "True", seconds(20));
    wait_answering(&space);
    assert_echoed("LoadBalancer", || space.call(&[]));
    let remote = front(5070);
    for tcp in [false, true] {
        let (source, contact) = call_from_here(&space, remote, tcp);
        assert_eq!(source, HERE);
        assert!(contact.contains(&format!("@{FRONT}:5070")), "{contact}");
    }

    // Somebody wants the other policy, again and again: if the operator is about to write the Service anyhow, that is over before it is seen.
    let cluster_wide = "{\"spec\":{\"externalTrafficPolicy\":\"Cluster\"}}";
    let mut patched = Instant::now();
    space.patch("service", "edge-sip-udp", cluster_wide);
    wait::until(seconds(20), "an Event of the lost source", || {
        if patched.elapsed() > seconds(3) {
            patched = Instant::now();
            space.patch("service", "edge-sip-udp", cluster_wide);
        }
        let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
        events.contains("SourceAddressLost").then_some(())
    });
    let service = wait::until(seconds(10), "the policy that keeps the source", || {
        let service = cluster::get(&space.name, "service", "edge-sip-udp");
        (service["spec"]["externalTrafficPolicy"] == "Local").then_some(service)
    });
    assert_eq!(service["spec"]["sessionAffinity"], "ClientIP");
    cluster::wait_ready(&space.name, "mediagateway", "edge", "True", seconds(10));

    let own = "{\"spec\":{\"sip\":{\"exposure\":{\"type\":\"PodNetwork\"}}}}";
    space.patch("mediagateway", "edge", own);
    wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        seconds(60),
        "registered with a pod's address",
        |object| {
            let contact = object["status"]["registration"]["contact"].to_string();
            contact.contains("@10.244.0.")
        },
    );
    for service in ["edge-sip-udp", "edge-sip-tcp"] {
        wait::until(seconds(10), "no such Service", || {
            cluster::get(&space.name, "service", service)
                .is_null()
                .then_some(())
        });
    }
}

#[test]
fn a_service_of_somebody_else_keeps_what_it_says_and_the_gateway_tells() {
    cluster::ready();
    let space = Space::unready("name-taken", "");
    let theirs = "apiVersion: v1\nkind: Service\nmetadata: {name: edge-sip-udp, labels: {app: web}}\n\
                  spec: {selector: {app: web}, ports: [{name: web, port: 80}]}\n";
    space.apply(theirs);
    let before = cluster::get(&space.name, "service", "edge-sip-udp");
    let spec = format!("{{sip: {{exposure: {{type: LoadBalancer}}}}, drainSeconds: 5{NODE}}}");
    space.apply(&object("MediaGateway", "edge", &spec));
    let taken = ("Ready", "False", "ApplyFailed");
    let seen = space.wait_condition("mediagateway", "edge", taken, seconds(30));
    let message = seen["message"].to_string();
    assert!(
        message.contains(&format!("Service {}/edge-sip-udp exists", space.name)),
        "{message}"
    );
    // What has a name of its own is made all the same.
    wait::until(seconds(20), "the other Service", || {
        let other = cluster::get(&space.name, "service", "edge-sip-tcp");
        (!other.is_null()).then_some(())
    });
    let after = cluster::get(&space.name, "service", "edge-sip-udp");
    assert_eq!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);

    space.kubectl(&["delete", "service", "edge-sip-udp"]);
    wait::until(seconds(90), "a Service of the gateway's own", || {
        let own = cluster::get(&space.name, "service", "edge-sip-udp");
        (own["metadata"]["ownerReferences"][0]["kind"] == "MediaGateway").then_some(())
    });
}

/// The pod that packets from this machine to an address of [`FRONT`] are sent to.
#[track_caller]
fn pod_behind(space: &Space, front: SocketAddr) -> String {
    let (address, port) = (front.ip().to_string(), front.port().to_string());
    let output = Command::new("nsenter")
        .args(["--net=/run/netns/rw-node1", "conntrack", "-L", "-p", "udp"])
        .args(["--src", HERE, "--dst", &address, "--dport", &port])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let pods = cluster::pods(&space.name, "registrar");
    let found: Vec<&str> = pods
        .iter()
        .filter(|pod| {
            // A new one has no address yet.
            let address = pod["status"]["podIP"].as_str();
            address.is_some_and(|address| table.contains(&format!(" src={address} ")))
        })
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    assert_eq!(found.len(), 1, "of {} pods: {table}", pods.len());
    found[0].to_owned()
}

/// What a phone says comes back. On a busy machine frames come late: it may say it again.
#[track_caller]
fn assert_heard(phone: &Phone, media: SocketAddr) {
    let samples = speech_like(1200, 11);
    let mut correlations = (0..3).map(|_| {
        audio::drain(&phone.rtp);
        let heard = audio::exchange(&phone.rtp, media, 0, &samples, seconds(2));
        let correlation = audio::compare(&samples, &audio::decode(&heard)).correlation;
        println!("    heard with correlation {correlation:.4}");
        correlation
    });
    assert!(correlations.any(|correlation| correlation > IS_ECHO));
}

#[test]
fn calls_behind_a_load_balancer_outlive_the_registrar_that_took_them() {
    let space = balanced("outlives", 5072);
    apply_numbers(&space);
    give_address(&space, "edge-sip-udp");
    give_address(&space, "edge-sip-tcp");
    wait_edge(&space);
    space.wait_registered(seconds(10));
    wait_answering(&space);
    let bound = wait_contacts(&space.user, 1, seconds(5));
    let remote = front(5072);
    let mut phones: Vec<Phone> = [false, false, false, false, true]
        .into_iter()
        .map(|tcp| Phone::outside(remote, tcp))
        .collect();
    let mut media = Vec::new();
    for (index, phone) in phones.iter_mut().enumerate() {
        phone.dial(&space.phone_number(1));
        let offer = phone.offer();
        // The first one's session is kept alive by us, at half the interval.
        let timer = "Supported: timer\nSession-Expires: 90;refresher=uas\nMin-SE: 90\nAllow: INVITE, ACK, BYE, UPDATE\n";
        let answer = phone.invite(if index == 0 { timer } else { "" }, &offer);
        phone.confirm(&answer, "");
        media.push(answer.media());
    }
    let answered = Instant::now();
    let [refreshed, reinvites, updates, ends, stream] = &mut phones[..] else {
        unreachable!("five phones")
    };

    let taker = pod_behind(&space, remote);
    let begun = Instant::now();
    PodProcess::find(&taker).signal("KILL");
    let force = ["--force", "--grace-period=0", "--wait=false"];
    let mut delete = vec!["delete", "pod", &taker];
    delete.extend(force);
    space.kubectl(&delete);

    let (answer, sends) = ends.persist("BYE", "", "");
    println!(
        "    BYE after the kill: {} {:?}, sent {sends} times",
        answer.status(),
        begun.elapsed()
    );
    assert_eq!(answer.status(), 200, "{}", answer.text);
    let offer = reinvites.offer();
    let (answer, sends) = reinvites.persist("INVITE", "", &offer);
    println!("    re-INVITE: {}, sent {sends} times", answer.status());
    reinvites.confirm(&answer, "");
    let (answer, _) = updates.persist(
        "UPDATE",
        "Supported: timer\nSession-Expires: 90;refresher=uac\n",
        "",
    );
    assert_eq!(answer.status(), 200, "{}", answer.text);
    stream.reconnect(seconds(10));
    let offer = stream.offer();
    let answer = stream.ask("INVITE", "", &offer);
    stream.confirm(&answer, "");
    assert_ne!(pod_behind(&space, remote), taker);

    // The audio went on all the while.
    for (phone, media) in [(&*reinvites, media[1]), (&*stream, media[4])] {
        assert_heard(phone, media);
    }
    let refresh = refreshed.expect_within(seconds(60), "refresh of the session", |message| {
        ["UPDATE", "INVITE"].contains(&message.method())
    });
    println!(
        "    the session was refreshed by {} from {:?} {:?} after the answer",
        refresh.method(),
        refresh.source,
        answered.elapsed()
    );
    let confirmed =
        "Session-Expires: 90;refresher=uac\nRequire: timer\nContact: <sip:phone@198.51.100.1>\n";
    refreshed.respond_with(&refresh, 200, confirmed);
    for phone in [refreshed, reinvites, updates, stream] {
        phone.hang_up();
    }
    let records = wait::until_ok(seconds(5), "five records", || {
        let records = records(&space.name);
        if records.len() == 5 {
            Ok(records)
        } else {
            Err(format!("{records:?}"))
        }
    });
    for record in records {
        assert_eq!(record["reason"], "CallerHungUp", "{record}");
        assert!(record["source"].to_string().contains(HERE), "{record}");
    }
    // Both share the address, so the carrier's binding stays what it is.
    assert_eq!(wait_contacts(&space.user, 1, seconds(20)), bound);
    assert_echoed("the carrier's next call", || space.call(&[]));
}

#[test]
fn registrars_behind_a_load_balancer_are_replaced_without_a_call_being_refused_or_lost() {
    let space = balanced("rolled-lb", 5074);
    apply_numbers(&space);
    give_address(&space, "edge-sip-udp");
    give_address(&space, "edge-sip-tcp");
    wait_edge(&space);
    wait_answering(&space);
    let before = ready_pods_in(&space.name, "registrar");
    let remote = front(5074);
    // One port all the time, as carriers have it, and one for each call.
    let mut steady = Phone::outside(remote, false);
    let mut standing = Phone::outside(remote, false);
    standing.dial(&space.phone_number(1));
    standing.call();
    space.kubectl(&["rollout", "restart", "deployment/edge-registrar"]);
    let begun = Instant::now();
    let (mut calls, mut resent) = (0, 0);
    let mut call = |phone: &mut Phone| {
        phone.new_call();
        phone.dial(&space.phone_number(1));
        let offer = phone.offer();
        let (answer, sends) = phone.persist("INVITE", "", &offer);
        phone.confirm(&answer, "");
        let (answer, again) = phone.persist("BYE", "", "");
        assert_eq!(answer.status(), 200, "{}", answer.text);
        calls += 1;
        resent += sends + again - 2;
    };
    loop {
        call(&mut steady);
        call(&mut Phone::outside(remote, false));
        let (answer, _) = standing.persist("UPDATE", "", "");
        assert_eq!(answer.status(), 200, "{}", answer.text);
        let gone = before
            .iter()
            .all(|pod| cluster::get(&space.name, "pod", pod).is_null());
        if gone && ready_pods_in(&space.name, "registrar").len() == 2 {
            break;
        }
        assert!(begun.elapsed() < seconds(180), "still {before:?}");
        std::thread::sleep(seconds(1) / 4);
    }
    standing.hang_up();
    println!(
        "    {calls} calls while both registrars were replaced in {:?}; {resent} requests were sent again",
        begun.elapsed()
    );
}
