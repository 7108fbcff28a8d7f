//! What calls tell of an agent, as the pod reports it.
//!
//! A verdict stands until a call proves another one. Where a connection alone proves that the right program listens (a WebSocket's 101),
//! that is a proof; over plain TCP it is what the agent says, or that it has borne a call for a while. So whatever else listens at an
//! agent's port fails call after call without the report changing in between.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ringwire_config::Reason;
use ringwire_config::state::{AgentError, AgentReport, SoundReport};

/// A call of this length that the agent did not break off proves as much as a word of it: some only listen.
pub const BORNE: Duration = Duration::from_secs(2);

/// The time of a failure that goes on is told again after this time.
const SAME_FAILURE: SignedDuration = SignedDuration::from_secs(60);

/// The report after a call has proved that the agent can be reached; `None`: nothing is new.
pub fn after_proof(before: Option<&AgentReport>, now: Timestamp) -> Option<AgentReport> {
    let message = "the agent accepted the last call";
    let known = before.is_some_and(|report| report.reachable);
    (!known).then(|| AgentReport {
        reachable: true,
        reason: Reason::AgentReachable,
        message: message.to_owned(),
        at: now,
        last_error: before.and_then(|report| report.last_error.clone()),
    })
}

/// The report after a call has failed because of the agent; `None`: nothing is new. `reachable`: the agent said so itself, so that it can
/// be reached.
pub fn after_failure(
    before: Option<&AgentReport>,
    reachable: bool,
    (reason, message): (Reason, &str),
    now: Timestamp,
) -> Option<AgentReport> {
    let error = AgentError {
        reason,
        message: message.to_owned(),
        at: now,
    };
    let told = before.and_then(|report| report.last_error.as_ref());
    let is_old = told.is_some_and(|told| {
        (told.reason, &*told.message) == (reason, message)
            && now.duration_since(told.at) < SAME_FAILURE
    });
    let last_error = if is_old { told.cloned() } else { Some(error) };
    if reachable {
        let report = after_proof(before, now).or_else(|| before.cloned())?;
        let report = AgentReport {
            last_error,
            ..report
        };
        return (before != Some(&report)).then_some(report);
    }
    let stands = before.filter(|report| {
        !report.reachable && (report.reason, &*report.message) == (reason, message)
    });
    let report = AgentReport {
        reachable: false,
        reason,
        message: message.to_owned(),
        at: stands.map_or(now, |report| report.at),
        last_error,
    };
    (before != Some(&report)).then_some(report)
}

/// What is reported of a provider's sound after a call has told that it goes both ways, or one way only; `None`: nothing is new. That it
/// goes both ways is told once even if nothing else was known: another pod may have told of another call.
pub fn after_sound(
    before: Option<&SoundReport>,
    one_way: Option<String>,
    now: Timestamp,
) -> Option<SoundReport> {
    let stands = before.is_some_and(|report| match (&report.one_way, &one_way) {
        (None, None) => true,
        // Each call has other ports; that would be news without end.
        (Some(_), Some(_)) => now.duration_since(report.at) < SAME_FAILURE,
        _ => false,
    });
    (!stands).then_some(SoundReport { one_way, at: now })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: (Reason, &str) = (Reason::AgentProtocolError, "kind 0x48");
    const CODE: (Reason, &str) = (Reason::AgentFailed, "code 4");

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_failure_stands_until_a_call_proves_something_else() {
        let failed = after_failure(None, false, PROTOCOL, at(1)).unwrap();
        assert!(!failed.reachable);
        assert_eq!(failed.last_error.as_ref().unwrap().at, at(1));
        assert_eq!(after_failure(Some(&failed), false, PROTOCOL, at(2)), None);
        let again = after_failure(Some(&failed), false, PROTOCOL, at(61)).unwrap();
        assert_eq!(
            (again.at, again.last_error.as_ref().unwrap().at),
            (at(1), at(61)),
            "the verdict is as old as it was, the last error is not"
        );
        let works = after_proof(Some(&again), at(70)).unwrap();
        assert!(works.reachable);
        assert_eq!(works.last_error, again.last_error, "it was the last one");
        assert_eq!(after_proof(Some(&works), at(71)), None);
    }

    #[test]
    fn one_way_sound_stands_until_a_call_has_both() {
        let missing = |text: &str| Some(text.to_owned());
        let told = after_sound(None, missing("a"), at(1)).unwrap();
        assert_eq!(after_sound(Some(&told), missing("b"), at(30)), None);
        let again = after_sound(Some(&told), missing("b"), at(61)).unwrap();
        assert_eq!(again.one_way.as_deref(), Some("b"));
        let both = after_sound(Some(&again), None, at(62)).unwrap();
        assert_eq!((both.one_way.as_deref(), both.at), (None, at(62)));
        assert_eq!(after_sound(Some(&both), None, at(900)), None);
        assert!(after_sound(None, None, at(1)).is_some());
    }

    #[test]
    fn an_error_that_the_agent_tells_is_its_last_error_and_no_reason_to_call_it_unreachable() {
        let works = after_proof(None, at(1)).unwrap();
        let told = after_failure(Some(&works), true, CODE, at(2)).unwrap();
        assert_eq!((told.reachable, told.at), (true, at(1)));
        let error = told.last_error.as_ref().unwrap();
        assert_eq!(
            (error.reason, &*error.message, error.at),
            (CODE.0, CODE.1, at(2))
        );
        assert_eq!(after_failure(Some(&told), true, CODE, at(3)), None);
        // Also as the first that is heard of it.
        assert!(after_failure(None, true, CODE, at(2)).unwrap().reachable);
    }
}
