//! PhoneNumber: its provider, its agent, and who owns a number that two objects claim.

use std::collections::BTreeMap;

use ringwire_crds::{PhoneNumber, PhoneNumberState};

use super::provider::confusable;
use super::{Compiled, Holds, NumberFindings, Verdict};
use crate::gateway::{Number, Provider};
use crate::object::{ObjectRef, Objects};
use crate::reason::Reason;

/// Fills the numbers into `entries`, and the findings of numbers (and the agents' counts) into `compiled`.
pub(super) fn compile(
    objects: &Objects,
    entries: &mut BTreeMap<ObjectRef, Provider>,
    compiled: &mut Compiled,
) {
    // The older object keeps a number (creation time, then name).
    let mut numbers: Vec<(ObjectRef, &PhoneNumber)> = objects
        .numbers
        .iter()
        .map(|object| (ObjectRef::of(object), object))
        .collect();
    numbers.sort_by(|(a, x), (b, y)| {
        let created = |object: &PhoneNumber| {
            object
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)
        };
        created(x).cmp(&created(y)).then_with(|| a.cmp(b))
    });

    let mut owners: BTreeMap<&str, Vec<(ObjectRef, ObjectRef)>> = BTreeMap::new();
    for (id, object) in numbers {
        let provider = ObjectRef::new(&id.namespace, &object.spec.provider_ref.name);
        let number = object.spec.number.as_str();
        let conflict = owners.get(number).into_iter().flatten().find(|(_, other)| {
            *other == provider
                || match (entries.get(other), entries.get(&provider)) {
                    (Some(a), Some(b)) => {
                        same_gateway(compiled, other, &provider) && confusable(a, b)
                    }
                    _ => false,
                }
        });
        let findings = if let Some((owner, other)) = conflict {
            let message = format!(
                "{number} already belongs to the older PhoneNumber {owner} on provider {other}, and calls of both \
                 providers could not be told apart; delete one of them"
            );
            error(Reason::Conflict, message)
        } else {
            owners
                .entry(number)
                .or_default()
                .push((id.clone(), provider.clone()));
            one(&id, object, &provider, entries, compiled)
        };
        compiled.numbers.insert(id, findings);
    }
}

fn same_gateway(compiled: &Compiled, a: &ObjectRef, b: &ObjectRef) -> bool {
    let gateway = |id| {
        compiled
            .providers
            .get(id)
            .and_then(|findings| findings.gateway.as_ref())
    };
    gateway(a) == gateway(b)
}

fn error(reason: Reason, message: String) -> NumberFindings {
    NumberFindings {
        gateway: None,
        ready: Verdict::no(reason, message),
        state: PhoneNumberState::Error,
        agent: None,
    }
}

fn one(
    id: &ObjectRef,
    object: &PhoneNumber,
    provider: &ObjectRef,
    entries: &mut BTreeMap<ObjectRef, Provider>,
    compiled: &mut Compiled,
) -> NumberFindings {
    let agent = object
        .spec
        .agent_ref
        .as_ref()
        .map(|reference| ObjectRef::new(&id.namespace, &reference.name));
    if let Some(agent) = &agent
        && let Some(findings) = compiled.agents.get_mut(agent)
    {
        findings.numbers += 1;
    }
    let Some(trunk) = compiled.providers.get(provider) else {
        let message = format!("SipProvider {provider} named by spec.providerRef does not exist");
        return error(Reason::ProviderNotFound, message);
    };
    if trunk.accepted.holds == Holds::Unknown {
        let ready = Verdict::unknown(trunk.accepted.reason, trunk.accepted.message.clone());
        return NumberFindings {
            gateway: None,
            ready,
            state: PhoneNumberState::Inactive,
            agent: None,
        };
    }
    if !trunk.accepted.is_yes() {
        let message = format!(
            "SipProvider {provider} cannot be used: {}",
            trunk.accepted.message
        );
        return error(Reason::ProviderNotReady, message);
    }
    let agent_findings = agent
        .as_ref()
        .map(|agent| (agent, compiled.agents.get(agent)));
    let usable = match &agent_findings {
        Some((agent, Some(findings))) if findings.ready.is_yes() => Some((*agent).clone()),
        _ => None,
    };
    let agent_max_calls = usable
        .as_ref()
        .and_then(|agent| compiled.agents.get(agent))
        .and_then(|findings| findings.max_calls);
    if let Some(entry) = entries.get_mut(provider) {
        entry.numbers.insert(
            object.spec.number.clone(),
            Number {
                id: id.clone(),
                agent: usable,
                agent_max_calls,
            },
        );
    }
    let agent_name = agent.as_ref().map(|agent| agent.name.clone());
    let gateway = trunk.gateway.clone();
    let inactive = |reason, message: String| NumberFindings {
        gateway: gateway.clone(),
        ready: Verdict::yes(reason, message),
        state: PhoneNumberState::Inactive,
        agent: agent_name.clone(),
    };
    match agent_findings {
        None => inactive(
            Reason::NoAgent,
            "no spec.agentRef: calls are refused, not answered".into(),
        ),
        Some((agent, None)) => {
            let message = format!("VoiceAgent {agent} named by spec.agentRef does not exist");
            error(Reason::AgentNotFound, message)
        }
        Some((agent, Some(findings))) if !findings.ready.is_yes() => error(
            findings.ready.reason,
            format!(
                "VoiceAgent {agent} cannot be used: {}",
                findings.ready.message
            ),
        ),
        Some(_) if trunk.paused => {
            inactive(Reason::Paused, format!("SipProvider {provider} is paused"))
        }
        Some((agent, Some(_))) => NumberFindings {
            gateway,
            ready: Verdict::yes(
                Reason::Ready,
                format!("calls are answered by {}", agent.name),
            ),
            state: PhoneNumberState::Active,
            agent: agent_name,
        },
    }
}
