//! Findings and reports in, `.status` of every object out.
//!
//! Pure: the same knowledge gives the same status, so a status is written only when something changed. `lastTransitionTime` moves only
//! with a condition's `status`.

mod observed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use ringwire_crds::{
    Condition, MediaGateway, MediaGatewayStatus, PhoneNumber, PhoneNumberState, PhoneNumberStatus,
    RefusalStatus, RegistrationState as StateColumn, RegistrationStatus, SipProvider,
    SipProviderStatus, Time, Transport, VoiceAgent, VoiceAgentStatus, clip, condition,
};

use crate::address;
use crate::compile::{AgentFindings, Holds, NumberFindings, ProviderFindings, Verdict};
use crate::object::ObjectRef;
use crate::reason::Reason;
use crate::shard::Role;
use crate::state::{RegistrationReport, RegistrationState};

pub use observed::{Observed, ObservedPod};

/// Longest message of a condition; the API server refuses more than 32,768 bytes, and nobody reads that.
const MAX_MESSAGE: usize = 1024;

/// How many of a server's addresses are shown.
const MAX_ADDRESSES: usize = 16;

/// How many reasons of refusals are shown.
const MAX_REFUSALS: usize = 8;

/// Builds a condition, keeping the old transition time if the status is the same.
pub fn condition(
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = verdict.holds.as_str();
    let since = old
        .iter()
        .find(|c| c.type_ == kind && c.status == status)
        .map(|c| c.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: clip(&verdict.message, MAX_MESSAGE),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

/// `.status` of a SipProvider.
pub fn sip_provider(
    object: &SipProvider,
    findings: &ProviderFindings,
    observed: &Observed,
    now: Timestamp,
) -> SipProviderStatus {
    let id = ObjectRef::of(object);
    let report = findings
        .gateway
        .as_ref()
        .and_then(|gateway| newest_report(observed, gateway, &id));
    let gateway_pods = || {
        findings
            .gateway
            .iter()
            .flat_map(|gateway| observed.of(gateway))
    };
    let left_out = Observed::newer_version_needed(gateway_pods(), "SipProvider", |left_out| {
        left_out.providers.get(&id)
    });
    // A registrar that understands it may hold the registration.
    let left_out = left_out.filter(|_| report.is_none() && findings.accepted.is_yes());
    let registered = match &left_out {
        Some(left_out) if findings.registers && !findings.paused => left_out.clone(),
        _ => registered(findings, report, observed),
    };
    let ready = left_out.unwrap_or_else(|| provider_ready(findings, &registered));
    let old = object.status.as_ref();
    let old_conditions = old
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let transport = report
        .and_then(|(_, report)| report.transport)
        .unwrap_or(findings.transport);
    let conditions = [
        (condition::READY, &ready),
        (condition::REGISTERED, &registered),
        (condition::CREDENTIALS_RESOLVED, &findings.credentials),
        (condition::GATEWAY_ACCEPTED, &findings.accepted),
    ]
    .map(|(kind, verdict)| (kind, verdict.clone()))
    .into_iter()
    .chain(keys_in_clear(findings, transport).map(|verdict| (condition::KEYS_IN_CLEAR, verdict)))
    .chain(
        findings
            .missing_codecs
            .clone()
            .map(|verdict| (condition::CODECS_BUILT, verdict)),
    )
    .chain(
        one_way(gateway_pods(), &id, old_conditions)
            .map(|verdict| (condition::ONE_WAY_AUDIO, verdict)),
    )
    .map(|(kind, verdict)| condition(kind, &verdict, generation, old_conditions, now))
    .collect();

    let mut resolved: Vec<String> = gateway_pods()
        .filter(|pod| pod.reachable)
        .flat_map(|pod| pod.state.resolved.get(&id).into_iter().flatten())
        .map(ToString::to_string)
        .collect();
    resolved.sort();
    resolved.dedup();
    resolved.truncate(MAX_ADDRESSES);
    let mut refused_sources: Vec<String> = Vec::new();
    for refused in
        gateway_pods().flat_map(|pod| pod.state.refused_sources.get(&id).into_iter().flatten())
    {
        let address = refused.address.to_string();
        if !refused_sources.contains(&address)
            && refused_sources.len() < crate::state::MAX_REFUSED_SOURCES
        {
            refused_sources.push(address);
        }
    }
    SipProviderStatus {
        observed_generation: generation,
        registration: findings
            .registers
            .then(|| registration_status(&registered, findings, report)),
        active_calls: observed.sum(|state| state.calls.providers.get(&id).copied().unwrap_or(0)),
        server: findings.server.clone(),
        transport: Some(transport),
        resolved_addresses: resolved,
        refused_sources,
        refusals: refusals(gateway_pods(), &id),
        conditions,
    }
}

/// Who reads the SIP messages can hear the calls.
fn keys_in_clear(findings: &ProviderFindings, transport: Transport) -> Option<Verdict> {
    (findings.sdes && transport != Transport::TLS).then(|| {
        let message = format!(
            "spec.mediaEncryption sends the keys of calls in SIP messages, which go over {transport:?}: who can read those can hear \
             the calls; set spec.transport to TLS if the carrier has it"
        );
        Verdict::yes(Reason::KeysInClear, message)
    })
}

/// Sound goes one way only, as the last call says that told something. Pods forget at a restart; the object remembers.
fn one_way<'a>(
    pods: impl Iterator<Item = &'a ObservedPod>,
    id: &ObjectRef,
    old: &[Condition],
) -> Option<Verdict> {
    let newest = pods
        .filter_map(|pod| pod.state.sound.get(id))
        .max_by_key(|report| report.at);
    let message = if let Some(report) = newest {
        report.one_way.clone()?
    } else {
        let told = |condition: &&Condition| condition.type_ == condition::ONE_WAY_AUDIO;
        old.iter().find(told)?.message.clone()
    };
    Some(Verdict::yes(Reason::OneWayAudio, message))
}

/// The refusals of a provider's calls, of all pods together, the latest first.
fn refusals<'a>(pods: impl Iterator<Item = &'a ObservedPod>, id: &ObjectRef) -> Vec<RefusalStatus> {
    let mut sums: BTreeMap<Reason, (u64, Timestamp, &str)> = BTreeMap::new();
    for (reason, report) in pods
        .filter_map(|pod| pod.state.provider_refusals.get(id))
        .flatten()
    {
        let (count, at, detail) = sums
            .entry(*reason)
            .or_insert((0, report.at, &report.detail));
        *count += report.count;
        if report.at > *at {
            (*at, *detail) = (report.at, &report.detail);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(reason, (_, at, _))| (std::cmp::Reverse(*at), *reason));
    sums.truncate(MAX_REFUSALS);
    sums.into_iter()
        .map(|(reason, (count, at, detail))| RefusalStatus {
            reason: reason.as_str().to_owned(),
            count,
            message: (!detail.is_empty()).then(|| clip(detail, MAX_MESSAGE)),
            last_at: Some(Time(at)),
        })
        .collect()
}

/// The report that counts: of a pod that can be reached, and of the registration in force, if there is one.
fn newest_report<'a>(
    observed: &'a Observed,
    gateway: &ObjectRef,
    id: &ObjectRef,
) -> Option<(&'a ObservedPod, &'a RegistrationReport)> {
    observed
        .of(gateway)
        .filter(|pod| pod.state.role == Role::Registrar)
        .filter_map(|pod| Some((pod, pod.state.registrations.get(id)?)))
        .max_by_key(|(pod, report)| (pod.reachable, report.state == RegistrationState::Registered))
}

fn registered(
    findings: &ProviderFindings,
    report: Option<(&ObservedPod, &RegistrationReport)>,
    observed: &Observed,
) -> Verdict {
    if findings.paused {
        return Verdict::no(
            Reason::Paused,
            "spec.paused is true: not registered, and calls are refused",
        );
    }
    if !findings.accepted.is_yes() {
        return Verdict {
            holds: findings.accepted.holds,
            ..findings.accepted.clone()
        };
    }
    if !findings.registers {
        let message = if findings.callers_log_in {
            "spec.registration.enabled is false: calls are accepted with user name and password"
        } else {
            "spec.registration.enabled is false: calls are accepted by their source address"
        };
        return Verdict::no(Reason::RegistrationDisabled, message);
    }
    let Some(revision) = &findings.revision else {
        return findings.credentials.clone();
    };
    match report {
        Some((pod, report)) if !pod.reachable => Verdict::unknown(
            Reason::PodUnreachable,
            format!(
                "pod {} has not been seen for 15 s; before, it said: {}",
                pod.state.pod, report.message
            ),
        ),
        Some((_, report))
            if report.revision == *revision && !findings.address_chosen && is_elsewhere(report) =>
        {
            Verdict::yes(Reason::AddressMismatch, elsewhere(report))
        }
        Some((_, report)) if report.revision == *revision => Verdict {
            holds: match report.state {
                RegistrationState::Registered => Holds::True,
                RegistrationState::Unregistered => Holds::False,
                RegistrationState::Unknown => Holds::Unknown,
            },
            reason: report.reason,
            message: report.message.clone(),
        },
        Some(_) => Verdict::unknown(
            Reason::Progressing,
            "the change is on its way to the registrar",
        ),
        None => {
            if let Some(unaddressed) = &findings.unaddressed {
                return unaddressed.clone();
            }
            let registrars = findings
                .gateway
                .iter()
                .flat_map(|gateway| observed.of(gateway));
            let waiting = !registrars
                .into_iter()
                .any(|pod| pod.state.role == Role::Registrar && pod.reachable);
            if waiting {
                Verdict::unknown(
                    Reason::WaitingForPod,
                    "no registrar pod of the gateway has reported yet",
                )
            } else {
                Verdict::unknown(
                    Reason::Progressing,
                    "the provider is on its way to the registrar",
                )
            }
        }
    }
}

/// Whether calls may miss us: the carrier holds a private address of ours, and our packets reach it from another one.
fn is_elsewhere(report: &RegistrationReport) -> bool {
    let bound = report.contact.as_deref().and_then(host_of);
    let seen = report
        .observed_address
        .as_deref()
        .and_then(|text| text.parse::<SocketAddr>().ok());
    report.reason == Reason::Registered
        && bound
            .zip(seen)
            .is_some_and(|(bound, seen)| bound != seen.ip() && address::is_private(bound))
}

fn elsewhere(report: &RegistrationReport) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!(
        "{}; but its Contact {} is private, and the carrier sees our packets come from {}: if calls do not come in, set \
         spec.sip.exposure.addresses of the MediaGateway to an address that leads to it",
        report.message,
        text(&report.contact),
        text(&report.observed_address)
    )
}

/// The address in a SIP URI with a user part.
fn host_of(uri: &str) -> Option<IpAddr> {
    let (_, host) = uri.split_once('@')?;
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?.parse().ok(),
        None => host.split([':', ';']).next()?.parse().ok(),
    }
}

fn provider_ready(findings: &ProviderFindings, registered: &Verdict) -> Verdict {
    if !findings.accepted.is_yes() {
        return findings.accepted.clone();
    }
    if findings.paused {
        return Verdict::yes(Reason::Paused, registered.message.clone());
    }
    if !findings.credentials.is_yes() {
        return findings.credentials.clone();
    }
    if !findings.registers {
        return Verdict::yes(Reason::RegistrationDisabled, registered.message.clone());
    }
    registered.clone()
}

fn registration_status(
    registered: &Verdict,
    findings: &ProviderFindings,
    report: Option<(&ObservedPod, &RegistrationReport)>,
) -> RegistrationStatus {
    let state = match registered.holds {
        // Nothing was sent to the carrier.
        Holds::Unknown if registered.reason == Reason::NoAddress => StateColumn::Unregistered,
        Holds::True => StateColumn::Registered,
        Holds::False => StateColumn::Unregistered,
        Holds::Unknown => StateColumn::Unknown,
    };
    let current = report.filter(|(_, report)| findings.revision.as_ref() == Some(&report.revision));
    let report = current.map(|(_, report)| report);
    RegistrationStatus {
        state,
        reason: Some(registered.reason.as_str().to_owned()),
        message: Some(clip(&registered.message, MAX_MESSAGE)),
        last_response: report.and_then(|report| report.last_response.clone()),
        contact: report.and_then(|report| report.contact.clone()),
        observed_address: report.and_then(|report| report.observed_address.clone()),
        registered_at: report.and_then(|report| report.registered_at).map(Time),
        by: current.map(|(pod, _)| pod.state.pod.clone()),
    }
}

/// `.status` of a PhoneNumber.
pub fn phone_number(
    object: &PhoneNumber,
    findings: &NumberFindings,
    observed: &Observed,
    now: Timestamp,
) -> PhoneNumberStatus {
    let id = ObjectRef::of(object);
    let old = object.status.as_ref();
    let old_conditions = old
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let last = observed
        .all()
        .filter_map(|pod| pod.state.last_call.get(&id))
        .max()
        .copied();
    // Pods forget at a restart; the object remembers.
    let remembered = old
        .and_then(|status| status.last_call_at.as_ref())
        .map(|time| time.0);
    let arrived = is_known(object, findings, observed) || stood(old, findings, generation);
    let on_its_way = Verdict::unknown(
        Reason::Progressing,
        "the change is on its way to the gateway's pods",
    );
    let left_out = number_left_out(object, findings, observed);
    let (ready, state) = if let Some(left_out) = &left_out {
        (left_out, PhoneNumberState::Error)
    } else if arrived {
        (&findings.ready, findings.state)
    } else {
        (&on_its_way, PhoneNumberState::Inactive)
    };
    PhoneNumberStatus {
        observed_generation: generation,
        state: Some(state),
        agent: findings.agent.clone(),
        active_calls: observed.sum(|state| state.calls.numbers.get(&id).copied().unwrap_or(0)),
        last_call_at: last.max(remembered).map(Time),
        conditions: vec![condition(
            condition::READY,
            ready,
            generation,
            old_conditions,
            now,
        )],
    }
}

/// What is to be said of a number that pods of an older version do not understand, or whose provider or agent they don't.
fn number_left_out(
    object: &PhoneNumber,
    findings: &NumberFindings,
    observed: &Observed,
) -> Option<Verdict> {
    let gateway = findings
        .gateway
        .as_ref()
        .filter(|_| findings.ready.is_yes())?;
    let id = ObjectRef::of(object);
    let in_namespace = |name: &str| ObjectRef::new(id.namespace.clone(), name);
    let provider = in_namespace(&object.spec.provider_ref.name);
    let agent = findings.agent.as_deref().map(in_namespace);
    Observed::newer_version_needed(observed.of(gateway), "PhoneNumber", |left_out| {
        left_out.numbers.get(&id)
    })
    .or_else(|| {
        let kind = format!("PhoneNumber's provider {provider}");
        Observed::newer_version_needed(observed.of(gateway), &kind, |left_out| {
            left_out.providers.get(&provider)
        })
    })
    .or_else(|| {
        let agent = agent?;
        let kind = format!("PhoneNumber's agent {agent}");
        Observed::newer_version_needed(observed.of(gateway), &kind, |left_out| {
            left_out.agents.get(&agent)
        })
    })
}

/// Whether the pods know of a number, as far as they need to: calls to it are handled as its status says.
fn is_known(object: &PhoneNumber, findings: &NumberFindings, observed: &Observed) -> bool {
    let Some(gateway) = findings
        .gateway
        .as_ref()
        .filter(|_| findings.ready.is_yes())
    else {
        return true;
    };
    let spec = &object.spec;
    let in_namespace = |name: &str| ObjectRef::new(ObjectRef::of(object).namespace, name);
    let provider = in_namespace(&spec.provider_ref.name);
    let agent = spec
        .agent_ref
        .as_ref()
        .map(|agent| in_namespace(&agent.name));
    observed.know(gateway, Role::Registrar, &provider)
        && agent.is_none_or(|agent| observed.know(gateway, Role::Media, &agent))
}

/// Whether the status said the same before: then what is on its way is about another object in the same shard.
fn stood(
    old: Option<&PhoneNumberStatus>,
    findings: &NumberFindings,
    generation: Option<i64>,
) -> bool {
    old.is_some_and(|old| {
        old.observed_generation == generation
            && old.agent == findings.agent
            && old.state == Some(findings.state)
            && old.conditions.iter().any(|condition| {
                condition.type_ == condition::READY
                    && condition.status == Holds::True.as_str()
                    && condition.reason == findings.ready.reason.as_str()
            })
    })
}

/// `.status` of a VoiceAgent.
pub fn voice_agent(
    object: &VoiceAgent,
    findings: &AgentFindings,
    observed: &Observed,
    now: Timestamp,
) -> VoiceAgentStatus {
    let id = ObjectRef::of(object);
    let old = object.status.as_ref();
    let old_conditions = old
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let newest = observed
        .all()
        .filter_map(|pod| pod.state.agents.get(&id))
        .max_by_key(|report| report.at);
    let last_error = last_error(object, observed);
    let reachable = match newest {
        Some(report) if report.reachable => Verdict::yes(report.reason, report.message.clone()),
        Some(report) => Verdict::no(report.reason, report.message.clone()),
        None => old_conditions
            .iter()
            .find(|c| c.type_ == condition::BACKEND_REACHABLE)
            .and_then(|c| {
                // Pods forget at a restart; the object remembers.
                let reason = *Reason::ALL
                    .iter()
                    .find(|reason| reason.as_str() == c.reason)?;
                match c.status.as_str() {
                    "True" => Some(Verdict::yes(reason, c.message.clone())),
                    "False" => Some(Verdict::no(reason, c.message.clone())),
                    _ => None,
                }
            })
            .unwrap_or_else(|| {
                Verdict::unknown(Reason::NotCalledYet, "the agent has not been called yet")
            }),
    };
    let left_out = Observed::newer_version_needed(observed.all(), "VoiceAgent", |left_out| {
        left_out.agents.get(&id)
    });
    let ready = left_out
        .filter(|_| findings.ready.is_yes())
        .unwrap_or_else(|| findings.ready.clone());
    VoiceAgentStatus {
        observed_generation: generation,
        backend: findings.backend,
        phone_numbers: findings.numbers,
        active_calls: observed.sum(|state| state.calls.agents.get(&id).copied().unwrap_or(0)),
        last_error: last_error.as_ref().map(|(text, _)| text.clone()),
        last_error_at: last_error.and_then(|(_, at)| at),
        conditions: vec![
            condition(condition::READY, &ready, generation, old_conditions, now),
            condition(
                condition::BACKEND_REACHABLE,
                &reachable,
                generation,
                old_conditions,
                now,
            ),
        ],
    }
}

/// The last error of an agent and when it was. Pods forget at a restart; the object remembers.
fn last_error(object: &VoiceAgent, observed: &Observed) -> Option<(String, Option<Time>)> {
    let id = ObjectRef::of(object);
    let reports = observed.all().filter_map(|pod| pod.state.agents.get(&id));
    let newest = reports
        .filter_map(|report| match &report.last_error {
            Some(error) => Some((error.at, error.reason, &error.message)),
            // Older pods say no more than this.
            None => (!report.reachable).then_some((report.at, report.reason, &report.message)),
        })
        .max_by_key(|(at, ..)| *at);
    let status = object.status.as_ref();
    let remembered = status.and_then(|status| {
        let at = status.last_error_at.clone();
        Some((status.last_error.clone()?, at))
    });
    let since = remembered
        .as_ref()
        .and_then(|(_, at)| at.as_ref())
        .map(|at| at.0);
    let newest = newest.filter(|(at, ..)| since.is_none_or(|since| *at >= since));
    newest
        .map(|(at, reason, message)| {
            let text = clip(&format!("{reason}: {message}"), MAX_MESSAGE);
            (text, Some(Time(at)))
        })
        .or(remembered)
}

/// What the operator (or the embedded server) knows of a gateway's pods.
#[derive(Clone, Debug, Default)]
pub struct GatewayWorkload {
    /// Media pods there are.
    pub replicas: i32,
    /// Media pods that are ready.
    pub ready_replicas: i32,
    /// Registrar pods that are ready.
    pub ready_registrars: i32,
    /// Label selector of the media pods.
    pub selector: Option<String>,
    /// What is wrong, if anything: pod security, refused objects, a configuration that is too large.
    pub trouble: Option<(Reason, String)>,
    /// What is to be said of its Services, as [`crate::compile::Compiled::gateway_fronts`] has it.
    pub front: Option<Verdict>,
}

/// `.status` of a MediaGateway.
pub fn media_gateway(
    object: &MediaGateway,
    workload: &GatewayWorkload,
    observed: &Observed,
    now: Timestamp,
) -> MediaGatewayStatus {
    let id = ObjectRef::of(object);
    let old = object.status.as_ref();
    let old_conditions = old
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let mut addresses: Vec<String> = observed
        .of(&id)
        .filter(|pod| pod.reachable && pod.state.role == Role::Registrar)
        .flat_map(|pod| pod.state.addresses.clone())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    let addressed = if let Some(front) = &workload.front {
        front.clone()
    } else if addresses.is_empty() {
        Verdict::unknown(
            Reason::NoAddress,
            "no registrar pod has reported its address yet",
        )
    } else {
        Verdict::yes(
            Reason::AddressKnown,
            format!("carriers reach it at {}", addresses.join(", ")),
        )
    };
    let wanted = object.spec.replicas;
    let ready = if let Some((reason, message)) = &workload.trouble {
        Verdict::no(*reason, message.clone())
    } else if let Some(front) = workload.front.as_ref().filter(|front| !front.is_yes()) {
        front.clone()
    } else if workload.ready_registrars > 0 && (workload.ready_replicas > 0 || wanted == 0) {
        let registrars = object.spec.registrar.replicas;
        let message = if workload.ready_registrars < registrars {
            format!(
                "the gateway takes calls; {} of {registrars} registrar pods are ready",
                workload.ready_registrars
            )
        } else {
            "the gateway takes calls".to_owned()
        };
        Verdict::yes(Reason::Ready, message)
    } else {
        let message = format!(
            "{} of {} registrar pods and {} of {wanted} media pods are ready",
            workload.ready_registrars, object.spec.registrar.replicas, workload.ready_replicas
        );
        Verdict::unknown(Reason::PodsNotReady, message)
    };
    MediaGatewayStatus {
        observed_generation: generation,
        addresses,
        replicas: workload.replicas,
        ready_replicas: workload.ready_replicas,
        active_calls: observed
            .of(&id)
            .filter(|pod| pod.reachable && pod.state.role == Role::Media)
            .map(|pod| pod.state.calls.total)
            .sum(),
        selector: workload.selector.clone(),
        conditions: vec![
            condition(condition::READY, &ready, generation, old_conditions, now),
            condition(
                condition::ADDRESSED,
                &addressed,
                generation,
                old_conditions,
                now,
            ),
        ],
    }
}
