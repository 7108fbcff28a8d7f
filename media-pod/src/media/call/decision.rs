//! What the registrar decided on a call, as its private headers say, and the call in the counters.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use ringwire_config::ObjectRef;
use ringwire_config::gateway::MediaEncryption;
use ringwire_media::networks::Networks;
use ringwire_sip::message::{Request, Uri};
use ringwire_sip::sdp::Codec;

use crate::media::shared::Shared;
use crate::negotiated::is_built;
use crate::private;

/// No packets for so long, without hold, and the caller is asked, unless the provider says otherwise.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(30);

/// What the registrar decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The SipProvider.
    pub provider: ObjectRef,
    /// The PhoneNumber.
    pub number: ObjectRef,
    /// The dialled number in E.164.
    pub called: String,
    /// The VoiceAgent.
    pub agent: ObjectRef,
    /// The provider's codecs, the best first.
    pub codecs: Vec<Codec>,
    /// Whether media is encrypted.
    pub encryption: MediaEncryption,
    /// After how many seconds without packets the caller is asked whether he is still there.
    pub media_timeout: Duration,
    /// Our Contact's URI, still without user part.
    pub contact: Uri,
    /// Where the INVITE came from.
    pub source: SocketAddr,
    /// Where the provider's media may come from, besides.
    pub media_sources: Networks,
    /// The address or network that the call is counted for, if it is.
    pub counted_source: Option<IpAddr>,
}

impl Decision {
    /// Reads the private headers; nothing if one is missing or can't be read.
    pub fn read(invite: &Request) -> Option<Self> {
        let text = |name| invite.headers.get(&private::name(name));
        Some(Self {
            provider: text(private::PROVIDER)?.parse().ok()?,
            number: text(private::NUMBER)?.parse().ok()?,
            called: text(private::CALLED)?.to_owned(),
            agent: text(private::AGENT)?.parse().ok()?,
            codecs: codecs(text(private::CODECS)?),
            encryption: match text(private::ENCRYPTION) {
                None => MediaEncryption::None,
                // What a newer registrar may ask for is not to be left out.
                Some(name) => MediaEncryption::from_name(name)?,
            },
            media_timeout: match text(private::MEDIA_TIMEOUT) {
                None => MEDIA_TIMEOUT,
                Some(seconds) => Duration::from_secs(seconds.parse().ok()?),
            },
            contact: Uri::parse(text(private::CONTACT)?).ok()?,
            source: text(private::SOURCE)?.parse().ok()?,
            media_sources: networks(text(private::MEDIA_SOURCES).unwrap_or_default()),
            counted_source: text(private::COUNTED_SOURCE).and_then(|text| text.parse().ok()),
        })
    }

    /// The same for a call that takes this one's place: provider, number and agent stay. Nothing if it comes from elsewhere.
    pub fn succeeded_by(&self, invite: &Request) -> Option<Self> {
        let text = |name| invite.headers.get(&private::name(name));
        let provider = self.provider.to_string();
        let mut providers = text(private::PROVIDER)?.split(',');
        providers.any(|allowed| allowed == provider).then_some(())?;
        Some(Self {
            contact: Uri::parse(text(private::CONTACT)?).ok()?,
            source: text(private::SOURCE)?.parse().ok()?,
            ..self.clone()
        })
    }
}

/// Those of them that this build has: that of the registrar may be another.
fn codecs(names: &str) -> Vec<Codec> {
    let known = names.split(',').flat_map(Codec::named);
    known.filter(|codec| is_built(*codec)).collect()
}

/// Addresses and networks; what a newer registrar may add to them is passed over, for it only says who else could be heard.
fn networks(text: &str) -> Networks {
    let one = |text: &str| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).ok()
    };
    Networks::new(text.split(',').filter_map(one))
}

/// A call in the counters; out of them when it is dropped, even by a panic.
pub struct Counted<'a> {
    shared: &'a Shared,
    provider: ObjectRef,
    number: ObjectRef,
    agent: ObjectRef,
    source: Option<IpAddr>,
}

impl<'a> Counted<'a> {
    /// Counts a call in.
    pub fn new(shared: &'a Shared, decision: &Decision) -> Self {
        let Decision {
            provider,
            number,
            agent,
            counted_source,
            ..
        } = decision;
        shared.count(provider, number, agent, *counted_source, 1);
        Self {
            shared,
            provider: provider.clone(),
            number: number.clone(),
            agent: agent.clone(),
            source: *counted_source,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.shared
            .count(&self.provider, &self.number, &self.agent, self.source, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_sources_are_networks_and_addresses_and_never_everybody() {
        let sources = networks("203.0.113.0/28,192.0.2.5,0.0.0.0/0,::/0,2001:db8::7,?,");
        for (ip, expected) in [
            ("203.0.113.15", true),
            ("203.0.113.16", false),
            ("192.0.2.5", true),
            ("192.0.2.6", false),
            ("2001:db8::7", true),
            ("2001:db8::8", false),
        ] {
            assert_eq!(sources.contains(ip.parse().unwrap()), expected, "{ip}");
        }
        assert!(networks("").is_empty());
    }
}
