//! Issuing a gateway's certificates: an authority of its own, and leaf certificates that serve both directions.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::tls::SERVER_NAME;

/// Validity of an authority.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Validity of a leaf.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// Clocks of nodes differ.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A certificate and its key, as PEM texts.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Makes the authority of the gateway called `name`.
pub fn authority(name: &str, now: SystemTime) -> Result<Issued, rcgen::Error> {
    let mut params = params(&format!("ringwire {name}"), now, CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Issues a certificate for a process called `name`.
pub fn leaf(authority: &Issued, name: &str, now: SystemTime) -> Result<Issued, rcgen::Error> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(name, now, LEAF_VALIDITY);
    params.subject_alt_names = vec![rcgen::SanType::DnsName(SERVER_NAME.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn params(name: &str, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + validity).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::GatewayTls;

    #[test]
    fn issues_what_the_control_port_accepts() {
        let now = SystemTime::now();
        let ca = authority("voice/default", now).unwrap();
        let leaf = leaf(&ca, "media", now).unwrap();
        GatewayTls::from_pem(
            ca.certificate.as_bytes(),
            leaf.certificate.as_bytes(),
            leaf.key.as_bytes(),
        )
        .unwrap();
    }
}
