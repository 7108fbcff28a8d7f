//! Kubernetes Events: a line in `kubectl describe` when a condition that people care about turns.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use ringwire_config::Reason;
use ringwire_crds::{Condition, clip, condition};

/// The conditions whose turns are told.
const TOLD: [&str; 4] = [
    condition::READY,
    condition::REGISTERED,
    condition::BACKEND_REACHABLE,
    condition::ONE_WAY_AUDIO,
];

/// Longest note; the API server refuses more than 1024 bytes.
const MAX_NOTE: usize = 250;

/// An Event to come.
pub struct Told {
    /// What is said.
    pub event: Event,
    /// About which object.
    pub regarding: ObjectReference,
}

impl Told {
    /// Says `reason` about `regarding`.
    pub fn new(type_: EventType, reason: &str, note: &str, regarding: ObjectReference) -> Self {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(clip(note, MAX_NOTE)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        Self { event, regarding }
    }
}

/// Reasons for `False` that somebody asked for.
fn is_wanted(reason: &str) -> bool {
    [Reason::Paused, Reason::RegistrationDisabled]
        .iter()
        .any(|wanted| wanted.as_str() == reason)
}

/// What is to be told of the change from `old` to `new`: failures and recoveries, not the way there.
pub fn turns(old: &[Condition], new: &[Condition], regarding: &ObjectReference) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for condition in new
        .iter()
        .filter(|condition| TOLD.contains(&condition.type_.as_str()))
    {
        let before = old.iter().find(|before| before.type_ == condition.type_);
        let status = |condition: &Condition| condition.status.clone();
        if before.map(status).as_ref() == Some(&condition.status) {
            continue;
        }
        let type_ = match condition.status.as_str() {
            "False" if is_wanted(&condition.reason) => EventType::Normal,
            "False" => EventType::Warning,
            "True" if condition.type_ == condition::ONE_WAY_AUDIO => EventType::Warning,
            // A registration is news; that an object is fine from the start is none.
            "True" if before.is_some() => EventType::Normal,
            "Unknown" if condition.reason == Reason::PodUnreachable.as_str() => EventType::Warning,
            _ => continue,
        };
        // Ready often turns for the very reason for which Registered does.
        let same = |other: &Told| {
            other.event.reason == condition.reason
                && other.event.note.as_deref() == Some(&clip(&condition.message, MAX_NOTE))
        };
        if !told.iter().any(same) {
            told.push(Told::new(
                type_,
                &condition.reason,
                &condition.message,
                regarding.clone(),
            ));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_crds::Time;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: reason.into(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    fn told(old: &[Condition], new: &[Condition]) -> Vec<(EventType, String)> {
        let turns = turns(old, new, &ObjectReference::default());
        turns
            .into_iter()
            .map(|told| (told.event.type_, told.event.reason))
            .collect()
    }

    #[test]
    fn tells_failure_and_recovery_once() {
        let good = [
            condition("Ready", "True", "Registered"),
            condition("Registered", "True", "Registered"),
        ];
        let bad = [
            condition("Ready", "False", "NoAnswer"),
            condition("Registered", "False", "NoAnswer"),
        ];
        assert_eq!(
            told(&good, &bad),
            [(EventType::Warning, "NoAnswer".to_owned())]
        );
        assert_eq!(
            told(&bad, &good),
            [(EventType::Normal, "Registered".to_owned())]
        );
        assert_eq!(told(&bad, &bad), []);
    }

    #[test]
    fn tells_nothing_of_the_way_there_or_of_other_conditions() {
        let unknown = [condition("Ready", "Unknown", "Progressing")];
        assert_eq!(told(&[], &unknown), []);
        assert_eq!(told(&[], &[condition("Ready", "True", "Ready")]), []);
        assert_eq!(
            told(&[], &[condition("Addressed", "False", "NoAddress")]),
            []
        );
        assert_eq!(
            told(&unknown, &[condition("Ready", "Unknown", "WaitingForPod")]),
            []
        );
    }

    #[test]
    fn a_lost_pod_is_a_warning_and_a_pause_is_not() {
        let good = [condition("Registered", "True", "Registered")];
        let lost = [condition("Registered", "Unknown", "PodUnreachable")];
        assert_eq!(
            told(&good, &lost),
            [(EventType::Warning, "PodUnreachable".to_owned())]
        );
        let paused = [condition("Registered", "False", "Paused")];
        assert_eq!(
            told(&good, &paused),
            [(EventType::Normal, "Paused".to_owned())]
        );
    }
}
