//! SipProvider: presets, gateway, credentials.

use std::collections::BTreeMap;

use ringwire_crds::{Codec, ProviderType, SipExposureType, SipProvider, Transport, secret_key};

use super::gateway::{network, serves};
use super::{ProviderFindings, Verdict, secrets};
use crate::gateway::{Account, AllowedSource, Host, Limits, Provider, ProviderTls, Registration};
use crate::object::{ObjectRef, Objects, Settings};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::token::TokenKey;

/// What a preset fills in: the carrier's published server, and the port where the carrier gives one.
fn preset(kind: ProviderType) -> Option<(&'static str, Option<u16>)> {
    match kind {
        ProviderType::Generic => None,
        ProviderType::Netelip => Some(("sip.netelip.com", Some(SIP_PORT))),
        ProviderType::Zadarma => Some(("sip.zadarma.com", None)),
        ProviderType::Telnyx => Some(("sip.telnyx.com", None)),
        ProviderType::VoIPms => Some(("atlanta.voip.ms", None)),
        ProviderType::OVH => Some(("sip.ovh.net", None)),
    }
}

/// Port of SIP over UDP and TCP (RFC 3261 section 19.1.2).
const SIP_PORT: u16 = 5060;

/// Port of SIP over TLS.
const SIPS_PORT: u16 = 5061;

fn default_port(transport: Option<Transport>) -> u16 {
    match transport {
        Some(Transport::TLS) => SIPS_PORT,
        _ => SIP_PORT,
    }
}

/// Findings, and the entry if the provider is in service. The numbers are filled in later.
pub(super) fn compile(
    object: &SipProvider,
    objects: &Objects,
    settings: &Settings,
) -> (ProviderFindings, Option<Provider>) {
    let id = ObjectRef::of(object);
    let spec = &object.spec;
    let preset = preset(spec.type_);
    let server = spec
        .server
        .as_deref()
        .or(preset.map(|(server, _)| server))
        .map(Host::parse);
    let port = spec.port.or(preset.and_then(|(_, port)| port));
    let transport = spec.transport.or(preset.map(|_| Transport::default()));
    let gateway = find_gateway(object, &id, objects, settings);
    let credentials = credentials(object, &id, objects);
    let incoming = incoming(object, &id, objects);
    // Whom a password may be shown to is part of it.
    let (tls, credentials) = match tls(object, &id, objects) {
        Ok(tls) => (tls, credentials),
        Err(verdict) => (ProviderTls::default(), Err(verdict)),
    };

    let (codecs, missing_codecs) = codecs(object);

    let mut findings = ProviderFindings {
        gateway: gateway.as_ref().ok().map(|(id, _)| id.clone()),
        accepted: match &gateway {
            Ok((gateway, _)) => {
                Verdict::yes(Reason::Accepted, format!("served by gateway {gateway}"))
            }
            Err(verdict) => verdict.clone(),
        },
        credentials: match (&credentials, &incoming) {
            (Err(verdict), _) | (_, Err(verdict)) => verdict.clone(),
            (Ok(None), Ok(None)) => Verdict::yes(
                Reason::NotNeeded,
                "registration is disabled, so no credentials are needed",
            ),
            (Ok(_), Ok(_)) => Verdict::yes(Reason::Resolved, "user name and password were read"),
        },
        paused: spec.paused,
        server: server
            .as_ref()
            .map(|server| format!("{server}:{}", port.unwrap_or(default_port(transport)))),
        transport: transport.unwrap_or_default(),
        revision: None,
        registers: spec.registration.enabled,
        address_chosen: gateway.as_ref().is_ok_and(|(id, _)| {
            let mut gateways = objects.gateways.iter();
            let gateway = gateways.find(|gateway| ObjectRef::of(*gateway) == *id);
            gateway.is_some_and(|gateway| {
                let exposure = &gateway.spec.sip.exposure;
                !exposure.addresses.is_empty() || exposure.type_ == SipExposureType::LoadBalancer
            })
        }),
        unaddressed: None,
        callers_log_in: spec.incoming_credentials_secret_ref.is_some(),
        sdes: spec.media_encryption.is_sdes(),
        missing_codecs,
    };
    let Some(server) = server else {
        // The schema refuses this; an object from before the rule may still say it.
        findings.accepted = Verdict::no(
            Reason::InvalidSpec,
            "spec.server is required when spec.type is Generic",
        );
        return (findings, None);
    };
    if let Some(verdict) = findings
        .missing_codecs
        .as_ref()
        .filter(|_| codecs.is_empty())
    {
        findings.accepted = verdict.clone();
        return (findings, None);
    }
    let (Ok((_, key)), false) = (gateway, spec.paused) else {
        return (findings, None);
    };

    let subject = object
        .metadata
        .uid
        .clone()
        .unwrap_or_else(|| id.to_string());
    let contact_user = spec.registration.contact_user.clone();
    let mut entry = Provider {
        server,
        port,
        transport,
        tls,
        outbound_proxy: spec.outbound_proxy.as_deref().map(host_port),
        registration: None,
        contact_user_is_secret: contact_user.is_none(),
        contact_user: contact_user.unwrap_or_else(|| key.derive("contact-user", &subject)),
        allowed_sources: spec
            .allowed_sources
            .iter()
            .map(|text| allowed_source(text))
            .collect(),
        // Without its Secret a trunk must not be open to everybody.
        incoming: incoming.map_or(Some(Vec::new()), |account| {
            account.map(|account| vec![account])
        }),
        codecs,
        media_encryption: spec.media_encryption,
        media_timeout_seconds: spec.media_timeout_seconds,
        called_number_from: spec.called_number_from,
        country_code: spec.country_code.clone(),
        limits: Limits {
            max_calls: spec.limits.max_calls,
            calls_per_second: spec.limits.calls_per_second,
            max_calls_per_source: spec.limits.max_calls_per_source,
            calls_per_second_per_source: spec.limits.calls_per_second_per_source,
        },
        numbers: BTreeMap::new(),
        id,
    };
    if let Ok(Some(credentials)) = credentials {
        let registration = registration(object, &entry, credentials, key);
        findings.revision = Some(registration.revision.clone());
        entry.registration = Some(registration);
    }
    (findings, Some(entry))
}

/// The feature that a codec has to be built with, if this build is without it.
fn missing_feature(codec: Codec) -> Option<&'static str> {
    match codec {
        Codec::PCMU | Codec::PCMA | Codec::G722 | Codec::Opus | Codec::L16 => None,
        Codec::AmrWb => (!cfg!(feature = "amr-wb")).then_some("amr-wb"),
        Codec::Ilbc => (!cfg!(feature = "ilbc")).then_some("ilbc"),
        Codec::G7221 => (!cfg!(feature = "g7221")).then_some("g7221"),
    }
}

/// Those of its codecs that this build has, and which it has not.
fn codecs(object: &SipProvider) -> (Vec<Codec>, Option<Verdict>) {
    let asked = &object.spec.codecs;
    if asked.is_empty() {
        return (vec![Codec::PCMA, Codec::PCMU], None);
    }
    let mut built = asked.clone();
    built.retain(|codec| missing_feature(*codec).is_none());
    let missing: Vec<String> = asked
        .iter()
        .filter_map(|codec| {
            let feature = missing_feature(*codec)?;
            Some(format!("{} (feature {feature})", codec.name()))
        })
        .collect();
    let rest: Vec<&str> = built.iter().map(|codec| codec.name()).collect();
    let consequence = if rest.is_empty() {
        "it has no other".to_owned()
    } else {
        format!("calls use {}", rest.join(", "))
    };
    let verdict = (!missing.is_empty()).then(|| {
        let message = format!(
            "spec.codecs lists {}, which this build of Ringwire does not have: {consequence}; take it out, or build with the feature, \
             see docs/codecs.md",
            missing.join(", ")
        );
        Verdict::no(Reason::CodecNotBuilt, message)
    });
    (built, verdict)
}

fn find_gateway<'a>(
    object: &SipProvider,
    id: &ObjectRef,
    objects: &'a Objects,
    settings: &Settings,
) -> Result<(ObjectRef, &'a TokenKey), Verdict> {
    let wanted = match &object.spec.gateway_ref {
        None => settings.default_gateway.clone(),
        Some(reference) => {
            let namespace = reference.namespace.as_deref().unwrap_or(&id.namespace);
            let wanted = ObjectRef::new(namespace, &reference.name);
            let reachable = namespace == id.namespace
                || wanted == settings.default_gateway
                || settings.shared_gateway_namespaces.contains(namespace);
            if !reachable {
                let message = format!(
                    "gateway {wanted} is in another namespace; a provider may use gateways of its own namespace, the \
                     default gateway {}, and those in the operator's --shared-gateway-namespaces",
                    settings.default_gateway
                );
                return Err(Verdict::no(Reason::NamespaceNotAllowed, message));
            }
            wanted
        }
    };
    let Some(gateway) = objects
        .gateways
        .iter()
        .find(|gateway| ObjectRef::of(*gateway) == wanted)
    else {
        return Err(Verdict::no(
            Reason::GatewayNotFound,
            format!("MediaGateway {wanted} does not exist"),
        ));
    };
    if !serves(gateway, &id.namespace, objects) {
        let message = format!(
            "MediaGateway {wanted} does not serve namespace {}; see its spec.allowedNamespaces",
            id.namespace
        );
        return Err(Verdict::no(Reason::NamespaceNotAllowed, message));
    }
    match objects.keys.get(&wanted) {
        Some(keys) => Ok((wanted, &keys.contacts)),
        None => Err(Verdict::unknown(
            Reason::Progressing,
            format!("MediaGateway {wanted} is being set up"),
        )),
    }
}

/// What a registration authenticates with.
struct Credentials {
    username: String,
    auth_username: String,
    password: Secret,
    realm: Option<String>,
}

/// The credentials; `None` if none are needed.
fn credentials(
    object: &SipProvider,
    id: &ObjectRef,
    objects: &Objects,
) -> Result<Option<Credentials>, Verdict> {
    if !object.spec.registration.enabled {
        return Ok(None);
    }
    let Some(reference) = &object.spec.credentials_secret_ref else {
        let message =
            "spec.credentialsSecretRef is required when spec.registration.enabled is true";
        return Err(Verdict::no(Reason::InvalidSpec, message));
    };
    let secret = secrets::find(
        objects,
        &id.namespace,
        reference,
        "spec.credentialsSecretRef",
        &[secret_key::USERNAME, secret_key::PASSWORD],
    )?;
    let username = secret.required(secret_key::USERNAME)?;
    let password = Secret::new(secret.required(secret_key::PASSWORD)?);
    let user_is_clean = username
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"<>\"@;?,\\".contains(&byte));
    if !user_is_clean {
        let why = "has characters that a SIP user name cannot have; give the user part alone, without sip: and without @host";
        return Err(secret.invalid(secret_key::USERNAME, why));
    }
    Ok(Some(Credentials {
        auth_username: secret
            .optional(secret_key::AUTH_USERNAME)
            .unwrap_or_else(|| username.clone()),
        realm: secret
            .optional(secret_key::REALM)
            .filter(|realm| !realm.is_empty()),
        username,
        password,
    }))
}

/// What callers have to prove to know; `None` if nothing.
fn incoming(
    object: &SipProvider,
    id: &ObjectRef,
    objects: &Objects,
) -> Result<Option<Account>, Verdict> {
    let Some(reference) = &object.spec.incoming_credentials_secret_ref else {
        return Ok(None);
    };
    let field = "spec.incomingCredentialsSecretRef";
    let keys = [secret_key::USERNAME, secret_key::PASSWORD];
    let secret = secrets::find(objects, &id.namespace, reference, field, &keys)?;
    Ok(Some(Account {
        username: secret.required(secret_key::USERNAME)?,
        password: Secret::new(secret.required(secret_key::PASSWORD)?),
    }))
}

/// How TLS with the carrier is done.
fn tls(object: &SipProvider, id: &ObjectRef, objects: &Objects) -> Result<ProviderTls, Verdict> {
    let spec = &object.spec.tls;
    let find = |reference, field, keys: &[&str]| {
        secrets::find(objects, &id.namespace, reference, field, keys)
    };
    let authorities = match &spec.ca_secret_ref {
        Some(reference) => {
            let secret = find(reference, "spec.tls.caSecretRef", &[secret_key::CA])?;
            Some(secret.certificates(secret_key::CA)?)
        }
        None => None,
    };
    let certificate = match &spec.client_certificate_secret_ref {
        Some(reference) => {
            let keys = [secret_key::CERTIFICATE, secret_key::PRIVATE_KEY];
            let secret = find(reference, "spec.tls.clientCertificateSecretRef", &keys)?;
            Some(secret.certificate()?)
        }
        None => None,
    };
    Ok(ProviderTls {
        server_name: spec.server_name.as_deref().map(str::to_ascii_lowercase),
        authorities,
        certificate,
    })
}

fn registration(
    object: &SipProvider,
    entry: &Provider,
    credentials: Credentials,
    key: &TokenKey,
) -> Registration {
    let spec = &object.spec.registration;
    let from_domain = spec
        .from_domain
        .clone()
        .unwrap_or_else(|| entry.server.to_string());
    let Credentials {
        username,
        auth_username,
        password,
        realm,
    } = credentials;
    let relevant = serde_json::json!([
        entry.server,
        entry.port,
        entry.transport,
        entry.tls,
        entry.outbound_proxy,
        entry.contact_user,
        username,
        auth_username,
        password,
        realm,
        from_domain,
        spec.expiry_seconds,
    ]);
    Registration {
        revision: key.derive("registration", &relevant.to_string()),
        username,
        auth_username,
        password,
        realm,
        from_domain,
        expiry_seconds: spec.expiry_seconds,
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn host_port(text: &str) -> (Host, Option<u16>) {
    let split = text
        .rsplit_once(':')
        .filter(|(host, _)| host.ends_with(']') || !host.contains(':'));
    match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (Host::parse(host), Some(port)),
        None => (Host::parse(text), None),
    }
}

fn allowed_source(text: &str) -> AllowedSource {
    match network(text) {
        Some(net) => AllowedSource::Net(net),
        None => AllowedSource::Name(text.trim_end_matches('.').to_ascii_lowercase()),
    }
}

/// Whether calls of one provider could be taken for calls of the other: they share an address or name, or one of them has an account that
/// may be used from anywhere. Different user names tell them apart, but one account alone does not: whoever has none to prove is not
/// asked. Passwords are not compared, or a conflict would tell that one was guessed.
pub(super) fn confusable(a: &Provider, b: &Provider) -> bool {
    let from_anywhere = |provider: &Provider| {
        let accounts = provider.incoming.as_ref();
        accounts.is_some_and(|accounts| !accounts.is_empty()) && provider.allowed_sources.is_empty()
    };
    if let (Some(of_a), Some(of_b)) = (&a.incoming, &b.incoming) {
        let names = |accounts: &[Account]| -> Vec<String> {
            accounts
                .iter()
                .map(|account| account.username.clone())
                .collect()
        };
        if names(of_a) != names(of_b) {
            return false;
        }
    }
    if from_anywhere(a) || from_anywhere(b) {
        return true;
    }
    let hosts = |provider: &Provider| {
        let proxy = provider
            .outbound_proxy
            .as_ref()
            .map(|(host, _)| host.clone());
        std::iter::once(provider.server.clone())
            .chain(proxy)
            .map(|host| match host {
                Host::Address(address) => AllowedSource::Net(address.into()),
                Host::Name(name) => AllowedSource::Name(name),
            })
    };
    let sources = |provider: &Provider| -> Vec<AllowedSource> {
        hosts(provider)
            .chain(provider.allowed_sources.iter().cloned())
            .collect()
    };
    let (a, b) = (sources(a), sources(b));
    a.iter().any(|x| {
        b.iter().any(|y| match (x, y) {
            (AllowedSource::Net(x), AllowedSource::Net(y)) => x.contains(y) || y.contains(x),
            (AllowedSource::Name(x), AllowedSource::Name(y)) => x == y,
            // What a name stands for may change at any time, and be in the network tomorrow.
            _ => true,
        })
    })
}
