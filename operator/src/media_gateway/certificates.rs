//! The control port's certificates and the token keys: what has to be made or renewed, and what is in force.
//!
//! Two Secrets: `NAME-control-ca` (the authority, the operator's alone) and `NAME-control` (what the pods get). Both are created if
//! absent, never overwritten blindly: a replacement names the version that it replaces. Decides only; writing is `apply`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ringwire_config::token::{GatewayKeys, TokenKey};
use ringwire_config::{ObjectRef, rotation};
use ringwire_control::issue::{self, CA_VALIDITY, Issued, LEAF_VALIDITY};
use ringwire_control::{GatewayTls, tls::TlsError};
use rustls::ClientConfig;

use super::build::{
    self, CA_CRT, CA_KEY, CONTACT_KEY, Child, ChildKey, ControlData, PREVIOUS_CRT, TLS_CRT,
    TLS_KEY, TOKEN_KEYS,
};
use super::validate::ValidGateway;
use crate::secrets::{Fetched, Lookup};

/// Annotation: when the certificate in the Secret is due to be renewed, two thirds into its validity.
pub const RENEW_AFTER: &str = "ringwire.dev/renew-after";

/// Annotation: when the next step of the token keys' rotation is due ([`rotation`]).
pub const ROTATE_AFTER: &str = "ringwire.dev/rotate-after";

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Issuing failed.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// What was issued cannot be used.
    #[error("the certificates cannot be used")]
    Tls(#[from] TlsError),
    /// They cannot be stored.
    #[error("token keys have no JSON form")]
    Keys(#[from] serde_json::Error),
}

/// A write that is due.
pub enum Write {
    /// The Secret does not exist.
    Create(Child),
    /// It exists in this version and has to change.
    Replace {
        /// The new content.
        child: Child,
        /// UID of what is replaced.
        uid: String,
        /// Version of what is replaced.
        resource_version: String,
    },
}

impl Write {
    /// Which Secret it is about.
    pub fn key(&self) -> &ChildKey {
        match self {
            Self::Create(child)
            | Self::Replace {
                child,
                uid: _,
                resource_version: _,
            } => &child.key,
        }
    }
}

/// What the Secrets of a gateway say.
#[derive(Default)]
pub struct Control {
    /// A write that is due, at most one at a time: the second Secret depends on the first.
    pub write: Option<Write>,
    /// Token keys in force, once there are any.
    pub keys: Option<GatewayKeys>,
    /// How to connect to the gateway's pods.
    pub client: Option<Arc<ClientConfig>>,
    /// A Secret that stands in the way.
    pub foreign: Option<ObjectRef>,
}

/// The authority of a gateway.
struct Authority {
    issued: Issued,
    /// All authorities that count, this one first.
    roots: String,
}

/// The data of the two Secrets, checked as far as needed to work with it.
struct Keys<'a>(&'a Fetched);

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.data.get(key).map(ringwire_config::Secret::expose)
    }
}

fn renewal(now: Timestamp, validity: Duration) -> Timestamp {
    after(now, validity * 2 / 3)
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = jiff::SignedDuration::try_from(wait).unwrap_or(jiff::SignedDuration::ZERO);
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Compares what is there with what there should be.
pub fn check(
    gateway: &ValidGateway<'_>,
    ca: &Lookup,
    control: &Lookup,
    clients: &mut Clients,
    now: Timestamp,
) -> Result<Control, CertificateError> {
    let id = gateway.id();
    let ours = |fetched: &Fetched| fetched.made_for.as_deref() == Some(id.name.as_str());
    let due = |fetched: &Fetched| {
        fetched.renew_after.is_none_or(|time| time <= now)
            || fetched.owner.as_deref() != Some(gateway.uid())
    };
    let mut result = Control::default();
    if let Lookup::Present(fetched) = control
        && ours(fetched)
    {
        result.keys = gateway_keys(fetched);
    }

    let authority = match ca {
        Lookup::Pending | Lookup::Unreadable => return Ok(result),
        Lookup::Present(fetched) if !ours(fetched) => {
            result.foreign = Some(ObjectRef::new(&id.namespace, build::ca_name(&id.name)));
            return Ok(result);
        }
        Lookup::Absent => {
            result.write = Some(Write::Create(new_authority(gateway, None, now)?));
            return Ok(result);
        }
        Lookup::Present(fetched) => {
            let authority = authority(fetched);
            // An authority that cannot issue is as good as none, and is made anew.
            result.client = authority
                .as_ref()
                .and_then(|authority| clients.get(&id, authority, now).ok());
            let usable = authority.filter(|_| result.client.is_some());
            if usable.is_none() || due(fetched) {
                let expired =
                    usable.is_none() || fetched.renew_after.is_none_or(|time| time <= now);
                let child = if expired {
                    new_authority(
                        gateway,
                        Keys(fetched).text(CA_CRT).filter(|_| usable.is_some()),
                        now,
                    )?
                } else {
                    // Only the owner is wrong: the gateway was made anew before its Secrets were collected.
                    build::control_ca(gateway, texts(fetched), fetched.renew_after.unwrap_or(now))
                };
                result.write = Some(replace(child, fetched));
                return Ok(result);
            }
            match usable {
                Some(authority) => authority,
                None => return Ok(result),
            }
        }
    };

    match control {
        Lookup::Pending | Lookup::Unreadable => {}
        Lookup::Present(fetched) if !ours(fetched) => {
            result.foreign = Some(ObjectRef::new(&id.namespace, build::control_name(&id.name)));
        }
        Lookup::Absent => {
            let child = pods_secret(gateway, &authority, Kept::default(), now)?;
            result.write = Some(Write::Create(child));
        }
        Lookup::Present(fetched) => {
            let trusts = Keys(fetched).text(CA_CRT) == Some(authority.roots.as_str());
            let kept = Kept {
                leaf: leaf(fetched).filter(|_| trusts && !due(fetched)),
                contacts: result.keys.as_ref().map(|keys| keys.contacts.clone()),
                tokens: tokens(fetched),
                rotate_after: fetched.rotate_after.filter(|time| *time > now),
            };
            // Whoever is not the owner yet becomes it with a new certificate.
            if !kept.is_complete() || Keys(fetched).text(CONTACT_KEY).is_none() {
                let child = pods_secret(gateway, &authority, kept, now)?;
                result.write = Some(replace(child, fetched));
            }
        }
    }
    Ok(result)
}

fn texts(fetched: &Fetched) -> ControlData {
    let keys = [CA_CRT, CA_KEY, PREVIOUS_CRT];
    keys.into_iter()
        .filter_map(|key| Some((key, Keys(fetched).text(key)?.to_owned())))
        .collect()
}

fn replace(child: Child, fetched: &Fetched) -> Write {
    let Fetched {
        resource_version,
        uid,
        made_for: _,
        owner: _,
        renew_after: _,
        rotate_after: _,
        data: _,
    } = fetched;
    Write::Replace {
        child,
        uid: uid.clone(),
        resource_version: resource_version.clone(),
    }
}

fn authority(fetched: &Fetched) -> Option<Authority> {
    let keys = Keys(fetched);
    let issued = Issued {
        certificate: keys.text(CA_CRT)?.to_owned(),
        key: keys.text(CA_KEY)?.to_owned(),
    };
    let mut roots = issued.certificate.clone();
    if let Some(previous) = keys.text(PREVIOUS_CRT) {
        roots.push_str(previous);
    }
    Some(Authority { issued, roots })
}

fn new_authority(
    gateway: &ValidGateway<'_>,
    previous: Option<&str>,
    now: Timestamp,
) -> Result<Child, CertificateError> {
    let Issued { certificate, key } =
        issue::authority(&gateway.id().to_string(), SystemTime::from(now))?;
    let mut data: ControlData = BTreeMap::from([(CA_CRT, certificate), (CA_KEY, key)]);
    if let Some(previous) = previous {
        data.insert(PREVIOUS_CRT, previous.to_owned());
    }
    Ok(build::control_ca(gateway, data, renewal(now, CA_VALIDITY)))
}

/// What stays of the pods' Secret.
#[derive(Default)]
struct Kept {
    /// Certificate and key, and when they are due.
    leaf: Option<(Issued, Timestamp)>,
    contacts: Option<TokenKey>,
    tokens: Vec<TokenKey>,
    /// When the next step of the rotation is due; `None`: now.
    rotate_after: Option<Timestamp>,
}

impl Kept {
    fn is_complete(&self) -> bool {
        let Self {
            leaf,
            contacts,
            tokens,
            rotate_after,
        } = self;
        leaf.is_some() && contacts.is_some() && !tokens.is_empty() && rotate_after.is_some()
    }
}

fn leaf(fetched: &Fetched) -> Option<(Issued, Timestamp)> {
    let keys = Keys(fetched);
    let issued = Issued {
        certificate: keys.text(TLS_CRT)?.to_owned(),
        key: keys.text(TLS_KEY)?.to_owned(),
    };
    Some((issued, fetched.renew_after?))
}

fn tokens(fetched: &Fetched) -> Vec<TokenKey> {
    let text = Keys(fetched).text(TOKEN_KEYS);
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What is in force. Before there was a key for contact users, they were made with the first token key.
fn gateway_keys(fetched: &Fetched) -> Option<GatewayKeys> {
    let tokens = tokens(fetched);
    let stored = Keys(fetched).text(CONTACT_KEY);
    let contacts = stored.and_then(|text| serde_json::from_str(text).ok());
    let contacts = contacts.or_else(|| tokens.first().cloned())?;
    (!tokens.is_empty()).then_some(GatewayKeys { contacts, tokens })
}

/// The pods' Secret: what is kept, what is missing made anew, and the token keys rotated if that is due.
fn pods_secret(
    gateway: &ValidGateway<'_>,
    authority: &Authority,
    kept: Kept,
    now: Timestamp,
) -> Result<Child, CertificateError> {
    let (issued, renew_after) = match kept.leaf {
        Some(leaf) => leaf,
        None => (
            issue::leaf(&authority.issued, "pods", SystemTime::from(now))?,
            renewal(now, LEAF_VALIDITY),
        ),
    };
    let Issued { certificate, key } = issued;
    let (tokens, rotate_after) = match kept.rotate_after {
        Some(time) if !kept.tokens.is_empty() => (kept.tokens, time),
        _ => {
            let (tokens, wait) = rotation::step(&kept.tokens, rand::random());
            (tokens, after(now, wait))
        }
    };
    let contacts = kept
        .contacts
        .unwrap_or_else(|| TokenKey::from_bytes(1, rand::random()));
    let data = BTreeMap::from([
        (CA_CRT, authority.roots.clone()),
        (TLS_CRT, certificate),
        (TLS_KEY, key),
        (TOKEN_KEYS, serde_json::to_string(&tokens)?),
        (CONTACT_KEY, serde_json::to_string(&contacts)?),
    ]);
    Ok(build::control(gateway, data, renew_after, rotate_after))
}

/// A client of the gateway's pods, with a certificate of its own that is never stored.
fn client(authority: &Authority) -> Result<Arc<ClientConfig>, CertificateError> {
    let leaf = issue::leaf(&authority.issued, "operator", SystemTime::now())?;
    let tls = GatewayTls::from_pem(
        authority.roots.as_bytes(),
        leaf.certificate.as_bytes(),
        leaf.key.as_bytes(),
    )?;
    Ok(tls.client_http)
}

struct ClientEntry {
    roots: String,
    until: Timestamp,
    config: Arc<ClientConfig>,
}

/// The operator's client configuration for each gateway, made anew when the authority changes or the certificate ages.
#[derive(Default)]
pub struct Clients {
    clients: BTreeMap<ObjectRef, ClientEntry>,
}

impl Clients {
    fn get(
        &mut self,
        gateway: &ObjectRef,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Arc<ClientConfig>, CertificateError> {
        if let Some(entry) = self.clients.get(gateway)
            && entry.roots == authority.roots
            && now < entry.until
        {
            return Ok(Arc::clone(&entry.config));
        }
        let config = client(authority)?;
        let until = renewal(now, LEAF_VALIDITY);
        let entry = ClientEntry {
            roots: authority.roots.clone(),
            until,
            config: Arc::clone(&config),
        };
        self.clients.insert(gateway.clone(), entry);
        Ok(config)
    }

    /// Forgets gateways that are gone.
    pub fn retain(&mut self, mut exists: impl FnMut(&ObjectRef) -> bool) {
        self.clients.retain(|gateway, _| exists(gateway));
    }
}

#[cfg(test)]
mod tests;
