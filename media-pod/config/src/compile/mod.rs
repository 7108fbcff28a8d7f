//! Kinds and Secrets in, gateway configurations and findings per object out.
//!
//! [`compile`] always looks at everything, so its result depends on the present alone and not on the order of events. An object that
//! cannot be used gets a finding and is left out; it never stops the others.

mod agent;
mod gateway;
mod number;
mod provider;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};

use ringwire_crds::{BackendKind, PhoneNumberState, Transport};

use crate::gateway::GatewayConfig;
use crate::object::{ObjectRef, Objects, Settings};
use crate::reason::Reason;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    True,
    /// It does not.
    False,
    /// We cannot tell yet.
    Unknown,
}

impl Holds {
    /// The text of the condition's `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition's worth of knowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub holds: Holds,
    /// Why.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds: Holds::True,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds: Holds::False,
            reason,
            message: message.into(),
        }
    }

    /// We cannot tell yet.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds: Holds::Unknown,
            reason,
            message: message.into(),
        }
    }

    /// Whether it holds.
    pub fn is_yes(&self) -> bool {
        self.holds == Holds::True
    }
}

/// What is known of a SipProvider without asking the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFindings {
    /// The gateway that serves it.
    pub gateway: Option<ObjectRef>,
    /// Condition `GatewayAccepted`.
    pub accepted: Verdict,
    /// Condition `CredentialsResolved`.
    pub credentials: Verdict,
    /// Whether it is paused.
    pub paused: bool,
    /// The server in force, `host:port`.
    pub server: Option<String>,
    /// The transport in force.
    pub transport: Transport,
    /// The revision of the registration in force; `None`: it does not register.
    pub revision: Option<String>,
    /// Whether `spec.registration.enabled` is true.
    pub registers: bool,
    /// Whether somebody chose the address that carriers are told.
    pub address_chosen: bool,
    /// Why no address is known that carriers could be told, where that is so.
    pub unaddressed: Option<Verdict>,
    /// Whether callers have to prove that they know a password.
    pub callers_log_in: bool,
    /// Whether keys of media stand in SIP messages.
    pub sdes: bool,
    /// Condition `CodecsBuilt`, where a codec is listed that this build does not have.
    pub missing_codecs: Option<Verdict>,
}

/// What is known of a PhoneNumber without asking the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberFindings {
    /// Condition Ready.
    pub ready: Verdict,
    /// The column STATE.
    pub state: PhoneNumberState,
    /// The agent that answers.
    pub agent: Option<String>,
    /// The gateway whose pods have to know of it; `None` if they need not.
    pub gateway: Option<ObjectRef>,
}

/// What is known of a VoiceAgent without asking the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFindings {
    /// Condition Ready.
    pub ready: Verdict,
    /// The column BACKEND.
    pub backend: Option<BackendKind>,
    /// How many numbers it answers.
    pub numbers: u32,
    /// How many calls it takes at a time, if that is limited.
    pub max_calls: Option<u32>,
}

/// The result of a compilation.
#[derive(Debug, Default)]
pub struct Compiled {
    /// What the pods of each gateway are told. Gateways without a signing key are left out.
    pub gateways: BTreeMap<ObjectRef, GatewayConfig>,
    /// What is wrong with gateways although their pods are told all else.
    pub gateway_troubles: BTreeMap<ObjectRef, Verdict>,
    /// What is to be said of the Services through which carriers reach a gateway, where that is not just that they do.
    pub gateway_fronts: BTreeMap<ObjectRef, Verdict>,
    /// Findings per SipProvider.
    pub providers: BTreeMap<ObjectRef, ProviderFindings>,
    /// Findings per PhoneNumber.
    pub numbers: BTreeMap<ObjectRef, NumberFindings>,
    /// Findings per VoiceAgent.
    pub agents: BTreeMap<ObjectRef, AgentFindings>,
}

/// Compiles everything.
pub fn compile(objects: &Objects, settings: &Settings) -> Compiled {
    let mut compiled = Compiled::default();
    for gateway in &objects.gateways {
        let id = ObjectRef::of(gateway);
        if let Some(mut config) = gateway::config(gateway, objects, settings) {
            match gateway::tls(gateway, objects) {
                Ok(tls) => config.tls = tls,
                Err(trouble) => drop(compiled.gateway_troubles.insert(id.clone(), trouble)),
            }
            let (fronts, verdict) = gateway::fronts(gateway, objects, settings);
            config.settings.sip_fronts = fronts;
            if let Some(verdict) = verdict {
                compiled.gateway_fronts.insert(id.clone(), verdict);
            }
            match gateway::hep(gateway, objects) {
                Ok(hep) => config.hep = hep,
                Err(trouble) => {
                    compiled
                        .gateway_troubles
                        .entry(id.clone())
                        .or_insert(trouble);
                }
            }
            compiled.gateways.insert(id, config);
        }
    }

    // Entries of providers that are in service, numbers still missing.
    let mut entries = BTreeMap::new();
    for object in &objects.providers {
        let (mut findings, entry) = provider::compile(object, objects, settings);
        let front = findings
            .gateway
            .as_ref()
            .and_then(|gateway| compiled.gateway_fronts.get(gateway));
        findings.unaddressed = front
            .filter(|front| front.reason == Reason::NoAddress)
            .cloned();
        if let Some(entry) = entry {
            entries.insert(entry.id.clone(), entry);
        }
        compiled.providers.insert(ObjectRef::of(object), findings);
    }

    let mut agents = BTreeMap::new();
    for object in &objects.agents {
        let id = ObjectRef::of(object);
        match agent::compile(object, objects) {
            Ok(entry) => {
                let ready = Verdict::yes(Reason::Ready, "the agent can be called");
                compiled.agents.insert(
                    id.clone(),
                    AgentFindings {
                        ready,
                        backend: agent::kind(object),
                        numbers: 0,
                        max_calls: object.spec.limits.max_calls,
                    },
                );
                agents.insert(id, entry);
            }
            Err(ready) => {
                compiled.agents.insert(
                    id,
                    AgentFindings {
                        ready,
                        backend: agent::kind(object),
                        numbers: 0,
                        max_calls: object.spec.limits.max_calls,
                    },
                );
            }
        }
    }

    number::compile(objects, &mut entries, &mut compiled);

    // Each gateway gets its providers, and the agents that their numbers name.
    for (id, entry) in entries {
        let gateway = compiled
            .providers
            .get(&id)
            .and_then(|findings| findings.gateway.clone());
        let Some(config) = gateway.and_then(|gateway| compiled.gateways.get_mut(&gateway)) else {
            continue;
        };
        let named: BTreeSet<&ObjectRef> = entry
            .numbers
            .values()
            .filter_map(|number| number.agent.as_ref())
            .collect();
        for agent in named {
            if let Some(entry) = agents.get(agent) {
                config.agents.insert(agent.clone(), entry.clone());
            }
        }
        config.providers.insert(id, entry);
    }
    compiled
}

#[cfg(test)]
mod tests;
