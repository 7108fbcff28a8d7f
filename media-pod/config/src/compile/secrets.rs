//! Reading a Secret that an object refers to, with findings that say what is missing where.

use ringwire_crds::{SecretRef, secret_key};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Verdict;
use crate::gateway::Certificate;
use crate::object::{ObjectRef, Objects, SecretData};
use crate::reason::Reason;
use crate::secret::Secret;

/// A Secret that exists.
pub(super) struct Referenced<'a> {
    id: ObjectRef,
    /// All that it holds.
    pub(super) data: &'a SecretData,
}

/// Finds the Secret that `field` of an object in `namespace` names; `keys` are what it has to have, if that is known.
pub(super) fn find<'a>(
    objects: &'a Objects,
    namespace: &str,
    reference: &SecretRef,
    field: &str,
    keys: &[&str],
) -> Result<Referenced<'a>, Verdict> {
    let id = ObjectRef::new(namespace, &reference.name);
    if let Some(data) = objects.secrets.get(&id) {
        return Ok(Referenced { id, data });
    }
    let with = match keys {
        [] => String::new(),
        [only] => format!(" with key {only}"),
        _ => format!(" with keys {}", keys.join(" and ")),
    };
    let message = format!(
        "Secret {id} named by {field} does not exist; create it in namespace {namespace}{with}"
    );
    Err(Verdict::no(Reason::SecretNotFound, message))
}

impl Referenced<'_> {
    /// A value without the line ends that editors leave.
    pub(super) fn optional(&self, key: &str) -> Option<String> {
        let value = self.data.get(key)?;
        Some(value.expose().trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A value that has to be there.
    pub(super) fn required(&self, key: &str) -> Result<String, Verdict> {
        let secret = &self.id;
        let message = match self.optional(key) {
            Some(value) if !value.is_empty() => return Ok(value),
            Some(_) => format!("key {key:?} of Secret {secret} is empty"),
            None => format!("Secret {secret} has no key {key:?}; it has {}", self.keys()),
        };
        Err(Verdict::no(Reason::SecretKeyMissing, message))
    }

    /// It is there, and cannot be used.
    pub(super) fn invalid(&self, key: &str, why: &str) -> Verdict {
        let message = format!("key {key:?} of Secret {} {why}", self.id);
        Verdict::no(Reason::SecretInvalid, message)
    }

    /// Certificates, PEM.
    pub(super) fn certificates(&self, key: &str) -> Result<String, Verdict> {
        let text = self.required(key)?;
        let mut found = CertificateDer::pem_slice_iter(text.as_bytes()).peekable();
        if found.peek().is_none() || found.any(|certificate| certificate.is_err()) {
            return Err(self.invalid(key, "holds no certificates in PEM form"));
        }
        Ok(text)
    }

    /// A certificate and its private key, as in Secrets of type `kubernetes.io/tls`.
    pub(super) fn certificate(&self) -> Result<Certificate, Verdict> {
        let chain = self.certificates(secret_key::CERTIFICATE)?;
        let key = self.required(secret_key::PRIVATE_KEY)?;
        if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
            return Err(self.invalid(secret_key::PRIVATE_KEY, "holds no private key in PEM form"));
        }
        Ok(Certificate {
            chain,
            key: Secret::new(key),
        })
    }

    fn keys(&self) -> String {
        if self.data.is_empty() {
            return "no keys".to_owned();
        }
        let keys: Vec<&str> = self.data.keys().map(String::as_str).collect();
        keys.join(", ")
    }
}
