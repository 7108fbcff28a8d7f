//! What carriers do to transfer calls: REFER, which is declined, and `Replaces`, which is followed.

use std::time::Duration;

use ringwire_media::tone::speech_like;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::phone::{Message, Phone};
use ringwire_tests::sipp;
use ringwire_tests::wait::seconds;

use crate::{IS_ECHO, agent_gateway, echo_gateway};

fn tag(header: &str) -> &str {
    let tag = header.split_once(";tag=").expect("a tag").1;
    tag.split(';').next().unwrap()
}

/// The header that asks for the place of the call that `answer` began.
fn replaces(answer: &Message, more: &str) -> String {
    format!(
        "Replaces: {};to-tag={};from-tag={}{more}\n",
        answer.header("Call-ID"),
        tag(answer.header("To")),
        tag(answer.header("From")),
    )
}

#[test]
fn a_transfer_by_refer_is_declined_and_the_call_goes_on() {
    let gateway = echo_gateway();
    sipp::run("refer.xml", gateway.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerHungUp");
}

#[test]
fn sipp_takes_the_place_of_its_own_call() {
    let gateway = echo_gateway();
    sipp::run("replaces.xml", gateway.sip(), &[]);
    let reasons: Vec<_> = gateway
        .records()
        .iter()
        .map(|record| record["reason"].clone())
        .collect();
    assert_eq!(reasons, ["Replaced", "CallerHungUp"]);
    gateway.wait_calls(0);
}

#[test]
fn a_call_that_takes_the_place_of_another_goes_on_with_its_agent() {
    let agent = Agent::start(Manner {
        echoes: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut first = Phone::udp(gateway.sip());
    let answer = first.call();
    agent.wait("media");
    let mut second = Phone::udp(gateway.sip());
    // Whoever is sent to us by REFER calls our Contact, which is no number.
    let contact = answer.contact();
    let user = contact
        .split_once(':')
        .unwrap()
        .1
        .split_once('@')
        .unwrap()
        .0;
    second.dial(user);
    let offer = second.sdp("m=audio {port} RTP/AVP 8");
    let taken = second.invite(&replaces(&answer, ""), &offer);
    second.confirm(&taken, "");
    let bye = first.wait_request("BYE", seconds(2));
    first.respond(&bye, 200);
    assert!(bye.header("Reason").contains("Replaced"), "{}", bye.text);

    let samples = speech_like(1200, 12);
    let heard = audio::exchange(
        &second.rtp,
        taken.media(),
        8,
        &samples,
        Duration::from_millis(1700),
    );
    let comparison = audio::compare(&samples, &audio::decode(&heard));
    assert!(comparison.correlation > IS_ECHO, "{comparison:?}");
    assert_eq!(agent.connections(), (1, 1));
    assert_eq!(agent.events("start").len(), 1);
    gateway.wait_calls(1);
    second.hang_up();
    agent.wait("stop");

    let (old, new) = (
        gateway.record_of(first.call_id()),
        gateway.record_of(second.call_id()),
    );
    assert_eq!(old["reason"], "Replaced", "{old}");
    assert_eq!(new["reason"], "CallerHungUp", "{new}");
    for name in ["agent", "number", "provider", "to"] {
        assert_eq!(old[name], new[name], "{name}");
    }
    assert_eq!(new["codec"], "PCMA");
    // The agent hears one stream: its frames are numbered on.
    let frames = agent.events("media");
    let chunks = frames
        .iter()
        .map(|frame| frame.message["media"]["chunk"].clone());
    let expected = (1..=frames.len()).map(|number| number.to_string());
    assert!(chunks.eq(expected.map(serde_json::Value::from)));
}

#[test]
fn what_cannot_be_replaced_is_refused_and_goes_on() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let mut first = Phone::udp(gateway.sip());
    let answer = first.call();
    let mut second = Phone::udp(gateway.sip());
    let good = replaces(&answer, "");
    let cases = [
        (replaces(&answer, ";early-only"), 486),
        (good.replace("from-tag=", "from-tag=x"), 481),
        (good.replace("Replaces: ", "Replaces: other-"), 481),
        ("Replaces: a;to-tag=b;from-tag=c\n".to_owned(), 481),
        (format!("{good}{good}"), 400),
        (format!("{good}Join: a;to-tag=b;from-tag=c\n"), 400),
        ("Replaces: a;to-tag=b\n".to_owned(), 400),
    ];
    for (headers, status) in cases {
        second.new_call();
        let offer = second.offer();
        let refused = second.invite(&headers, &offer);
        assert_eq!(refused.status(), status, "{headers}{}", refused.text);
    }
    // What it cannot agree on costs nobody his call either.
    second.new_call();
    let offer = second.sdp("m=audio {port} RTP/AVP 18");
    assert_eq!(second.invite(&good, &offer).status(), 488);
    assert_eq!(first.ask("OPTIONS", "", "").status(), 200);
    gateway.wait_calls(1);
    first.hang_up();
    // Gone is gone.
    second.new_call();
    let offer = second.offer();
    assert_eq!(second.invite(&good, &offer).status(), 481);
    gateway.wait_calls(0);
}

#[test]
fn a_call_that_rings_cannot_be_replaced() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let gateway = agent_gateway(&agent, "");
    let mut first = Phone::udp(gateway.sip());
    let offer = first.offer();
    let invite = first.request("INVITE", "", &offer);
    first.send(&invite);
    let ringing = first.expect("ringing", |message| message.status() == 180);
    let mut second = Phone::udp(gateway.sip());
    let offer = second.offer();
    // Only who called can have an early call of his replaced.
    assert_eq!(second.invite(&replaces(&ringing, ""), &offer).status(), 481);
    agent.accept();
    let answer = first.finish_invite(&invite);
    first.confirm(&answer, "");
    first.hang_up();
}
