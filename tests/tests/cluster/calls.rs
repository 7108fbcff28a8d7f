//! Calls from the telephone network, through Kamailio, to agents.

use std::time::Instant;

use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::audio::IS_ECHO;
use ringwire_tests::cluster::{Space, assert_echoed, call_in, here, median, wait_object};
use ringwire_tests::manifests::{echo, registering_trunk, web_socket};
use ringwire_tests::wait::{self, seconds};

/// A Space whose number `main` is answered by this VoiceAgent `bot`.
fn answered_by(name: &str, agent: &str) -> Space {
    let space = Space::new(name);
    space.apply(
        &[
            space.account(),
            space.trunk(""),
            space.main("bot"),
            agent.to_owned(),
        ]
        .join("---\n"),
    );
    space.wait_answering();
    space
}

fn echoing() -> Agent {
    Agent::start_on(
        here(),
        Manner {
            echoes: true,
            ..Manner::default()
        },
    )
}

#[test]
fn the_echo_agent_sends_the_audio_back() {
    let space = answered_by("echo", &echo("bot", ""));
    assert_echoed("echo", || space.call(&[]));
    let record = space.record();
    println!("    {record}");
    let expected = [
        ("provider", format!("{}/trunk", space.name)),
        ("number", format!("{}/main", space.name)),
        ("agent", format!("{}/bot", space.name)),
        ("ended_by", "caller".to_owned()),
        ("reason", "CallerHungUp".to_owned()),
    ];
    for (key, value) in expected {
        assert_eq!(record[key], value.as_str(), "{key}: {record}");
    }
    for key in [
        "start",
        "answer",
        "end",
        "from",
        "codec",
        "packets_received",
        "packets_sent",
        "packets_lost",
    ] {
        assert!(!record[key].is_null(), "{key}: {record}");
    }
}

#[test]
fn a_web_socket_agent_outside_of_the_cluster_answers() {
    let agent = echoing();
    let space = answered_by("agent", &web_socket("bot", &agent.url(), ""));
    // The agent runs here, beside everything else: where the machine makes it late, silence fills the gap and the rest is shifted.
    let good = (0..3).any(|_| {
        let result = space.call(&[]).end();
        println!(
            "    WebSocket agent: {} set-up {} ms, lost {}",
            result["echo"], result["setupMillis"], result["packetsLost"]
        );
        result["echo"]["correlation"]
            .as_f64()
            .is_some_and(|correlation| correlation > IS_ECHO)
    });
    assert!(good, "no call of three had its audio back");
    wait::until(seconds(5), "the stream ends", || {
        (!agent.events("stop").is_empty()).then_some(())
    });
    let stopped = agent.events("stop").len();
    assert_eq!(
        (agent.events("connected").len(), agent.events("start").len()),
        (agent.connections().0, agent.connections().0)
    );
    assert!(stopped >= 1);
    // Keys take the place of audio, so they have a call of their own.
    space.call(&["--dtmf", "12"]).end();
    let digits: Vec<String> = agent
        .events("dtmf")
        .iter()
        .map(|heard| heard.message["dtmf"]["digit"].to_string())
        .collect();
    assert_eq!(digits, ["\"1\"", "\"2\""]);
}

#[test]
fn an_edit_of_the_agent_holds_from_the_next_call_and_a_running_call_keeps_its_own() {
    let (first, second) = (echoing(), echoing());
    let agents = [
        web_socket("first", &first.url(), ""),
        web_socket("second", &second.url(), ""),
    ]
    .join("---\n");
    let space = Space::new("edit");
    space.apply(
        &[
            space.account(),
            space.trunk(""),
            space.main("first"),
            agents,
        ]
        .join("---\n"),
    );
    space.wait_answering();
    let mut running = space.call(&["--duration", "60"]);
    running.wait_answered();
    let mut times = Vec::new();
    for turn in 0..10 {
        let (name, agent) = if turn % 2 == 0 {
            ("second", &second)
        } else {
            ("first", &first)
        };
        let before = agent.connections().0;
        let begun = Instant::now();
        space.patch(
            "phonenumber",
            "main",
            &format!("{{\"spec\":{{\"agentRef\":{{\"name\":\"{name}\"}}}}}}"),
        );
        // Each probe is a call; the connection it brings tells whom it reached.
        let reached = wait::until(seconds(5), &format!("a call that reaches {name}"), || {
            let placed = begun.elapsed();
            let mut call = space.call(&["--duration", "20"]);
            call.wait_answered();
            call.hang_up();
            (agent.connections().0 > before).then_some(placed)
        });
        times.push(reached);
    }
    let (middle, worst) = median(times);
    println!(
        "    edit (with kubectl itself) to the first call that goes to the new agent: median {middle:?}, worst {worst:?}"
    );
    assert!(middle < seconds(1), "{middle:?}");
    assert!(!running.ended());
    assert_eq!(first.connections().1, 1, "the running call left its agent");
    running.hang_up();
}

#[test]
fn calls_in_progress_and_the_last_call_stand_in_the_status() {
    let space = answered_by("counters", &echo("bot", ""));
    let mut call = space.call(&["--duration", "60"]);
    call.wait_answered();
    for (kind, name) in [
        ("sipprovider", "trunk"),
        ("phonenumber", "main"),
        ("voiceagent", "bot"),
    ] {
        wait_object(&space.name, kind, name, seconds(5), "one call", |object| {
            object["status"]["activeCalls"] == 1
        });
    }
    call.hang_up();
    for (kind, name) in [
        ("sipprovider", "trunk"),
        ("phonenumber", "main"),
        ("voiceagent", "bot"),
    ] {
        wait_object(&space.name, kind, name, seconds(5), "no call", |object| {
            object["status"]["activeCalls"] == 0
        });
    }
    assert!(space.get("phonenumber", "main")["status"]["lastCallAt"].is_string());
}

#[test]
fn unknown_numbers_and_numbers_without_agent_are_refused_unanswered() {
    let space = Space::new("refused");
    space.apply(&[space.account(), space.trunk(""), space.main("")].join("---\n"));
    space.wait_registered(seconds(5));
    space.wait_condition(
        "phonenumber",
        "main",
        ("Ready", "True", "NoAgent"),
        seconds(5),
    );
    let result = space.call_number(&space.phone_number(9), &[]).end();
    assert_eq!(
        (result["answered"].as_bool(), result["status"].as_u64()),
        (Some(false), Some(404)),
        "{result}"
    );
    let result = space.call(&[]).end();
    assert_eq!(
        (result["answered"].as_bool(), result["status"].as_u64()),
        (Some(false), Some(480)),
        "{result}"
    );
}

#[test]
fn a_source_that_is_not_allowed_gets_403_and_is_named_in_the_status() {
    let space = answered_by("source", &echo("bot", ""));
    let contact = space.get("sipprovider", "trunk")["status"]["registration"]["contact"]
        .as_str()
        .unwrap()
        .to_owned();
    let gateway = contact.rsplit('@').next().unwrap().to_owned();
    // From this machine: neither the carrier's address nor the token of the Contact.
    let result = call_in("", &format!("sip:{}@{gateway}", space.phone_number(0)), &[]).end();
    assert_eq!(result["status"], 403, "{result}");
    let seen = wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        seconds(5),
        "the refused source",
        |object| {
            object["status"]["refusedSources"]
                .as_array()
                .is_some_and(|sources| !sources.is_empty())
        },
    );
    println!("    refusedSources: {}", seen["status"]["refusedSources"]);
    let source = seen["status"]["refusedSources"][0]
        .as_str()
        .unwrap()
        .to_owned();
    space.patch(
        "sipprovider",
        "trunk",
        &format!("{{\"spec\":{{\"allowedSources\":[\"{source}\"]}}}}"),
    );
    wait::until_ok(seconds(5), "the source is taken", || {
        let call = call_in(
            "",
            &format!("sip:{}@{gateway}", space.phone_number(0)),
            &["--duration", "1"],
        );
        let result = call.end();
        if result["status"] == 200 {
            Ok(())
        } else {
            Err(result.to_string())
        }
    });
}

#[test]
fn an_unreachable_agent_is_named_and_the_call_refused() {
    // Nothing listens on the discard port.
    let space = answered_by(
        "unreachable",
        &web_socket("bot", "ws://198.51.100.1:9/", ""),
    );
    let result = space.call(&[]).end();
    assert_eq!(result["status"], 480, "{result}");
    assert!(result["reason"].is_string(), "no Reason: {result}");
    let agent = wait_object(
        &space.name,
        "voiceagent",
        "bot",
        seconds(5),
        "BackendReachable=False",
        |agent| ringwire_tests::cluster::condition(agent, "BackendReachable")["status"] == "False",
    );
    println!("    lastError: {}", agent["status"]["lastError"]);
    assert!(
        agent["status"]["lastError"]
            .as_str()
            .unwrap()
            .contains("198.51.100.1"),
        "{agent}"
    );
    assert_eq!(
        ringwire_tests::cluster::condition(&agent, "Ready")["status"],
        "True"
    );
    let bot = echoing();
    space.apply(&web_socket("bot", &bot.url(), ""));
    wait::until_ok(seconds(5), "the edited agent answers", || {
        let result = space.call(&["--duration", "1"]).end();
        if result["status"] == 200 {
            Ok(())
        } else {
            Err(result.to_string())
        }
    });
    space.wait_condition(
        "voiceagent",
        "bot",
        ("BackendReachable", "True", "AgentReachable"),
        seconds(5),
    );
}

#[test]
fn agents_at_nodes_and_loopback_are_refused() {
    let space = answered_by(
        "forbidden",
        &web_socket("bot", "ws://198.51.100.11:10250/", ""),
    );
    for url in [
        "ws://198.51.100.11:10250/",
        "ws://127.0.0.1:9090/",
        "ws://169.254.169.254/",
    ] {
        space.apply(&web_socket("bot", url, ""));
        let host = url
            .trim_start_matches("ws://")
            .split([':', '/'])
            .next()
            .unwrap();
        let seen = wait::until_ok(seconds(5), &format!("{url} is refused"), || {
            let result = space.call(&["--duration", "1"]).end();
            let error = space.get("voiceagent", "bot")["status"]["lastError"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let refused = result["status"] == 480
                && error.contains(host)
                && error
                    .contains("spec.allowedAgentAddresses of MediaGateway ringwire-system/default");
            if refused {
                Ok(error)
            } else {
                Err(format!("{error} {result}"))
            }
        });
        println!("    {seen}");
    }
}

#[test]
fn two_trunks_of_two_namespaces_do_not_mix() {
    let (one, two) = (
        answered_by("one", &echo("bot", "")),
        answered_by("two", &echo("bot", "")),
    );
    // By the trunk of one, the number of the other is unknown.
    let result = one.call_number(&two.phone_number(0), &[]).end();
    assert_eq!(result["status"], 404, "{result}");
    two.apply(&registering_trunk(
        "other",
        "sip.carrier.test",
        "paused: true",
    ));
    assert_eq!(two.call(&["--duration", "1"]).end()["status"], 200);
    assert_eq!(one.call(&["--duration", "1"]).end()["status"], 200);
}
