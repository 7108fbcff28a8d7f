//! What a media pod is told of a call that it gets, in private headers.

use std::net::IpAddr;

use ringwire_config::gateway::{AllowedSource, MediaEncryption, Provider};
use ringwire_config::route::Route;
use ringwire_sip::message::{HeaderName, Uri};
use ringwire_sip::transaction::Flow;

use crate::private;
use crate::registrar::names::Names;

/// Networks and addresses that media may come from. A name may stand for any number.
const MAX_SOURCES: usize = 128;

/// Of a new call: what was decided. `counted` is the source that it is counted for, if the provider wants that.
pub(super) fn of_call(
    route: &Route<'_>,
    contact: &Uri,
    from: &Flow,
    names: &Names,
    counted: IpAddr,
) -> Vec<(HeaderName, String)> {
    let provider = route.provider;
    let mut headers = vec![
        (private::name(private::PROVIDER), provider.id.to_string()),
        (private::name(private::NUMBER), route.entry.id.to_string()),
        (private::name(private::CALLED), route.number.to_owned()),
        (private::name(private::AGENT), route.agent.to_string()),
        (private::name(private::CODECS), codec_names(provider)),
        (private::name(private::CONTACT), contact.to_string()),
        source(from),
        flow(from),
    ];
    if provider.media_encryption != MediaEncryption::None {
        let name = provider.media_encryption.name();
        headers.push((private::name(private::ENCRYPTION), name.to_owned()));
    }
    let sources = media_sources(provider, names);
    if !sources.is_empty() {
        headers.push((private::name(private::MEDIA_SOURCES), sources));
    }
    if let Some(seconds) = provider.media_timeout_seconds {
        headers.push((private::name(private::MEDIA_TIMEOUT), seconds.to_string()));
    }
    if provider.limits.max_calls_per_source.is_some() {
        headers.push((private::name(private::COUNTED_SOURCE), counted.to_string()));
    }
    headers
}

/// Of a call that takes another's place: all else it knows from that one, which must be of one of these providers.
pub(super) fn of_takeover(
    callers: &[&Provider],
    contact: &Uri,
    from: &Flow,
) -> Vec<(HeaderName, String)> {
    let providers: Vec<String> = callers.iter().map(|caller| caller.id.to_string()).collect();
    vec![
        (private::name(private::PROVIDER), providers.join(",")),
        (private::name(private::CONTACT), contact.to_string()),
        source(from),
        flow(from),
    ]
}

/// The provider's codecs, the best first.
fn codec_names(provider: &Provider) -> String {
    let names: Vec<&str> = provider.codecs.iter().map(|codec| codec.name()).collect();
    names.join(",")
}

/// Who calls for a provider may send the sound of its calls: its servers, and its allowed sources but for everybody. Where calls have to be
/// proved by a password these say who may try, and that is no reason to listen to them: then there are none.
fn media_sources(provider: &Provider, names: &Names) -> String {
    if provider.incoming.is_some() {
        return String::new();
    }
    let networks = provider
        .allowed_sources
        .iter()
        .filter_map(|allowed| match allowed {
            AllowedSource::Net(network) if network.prefix_len() > 0 => Some(network.to_string()),
            AllowedSource::Net(_) | AllowedSource::Name(_) => None,
        });
    let addresses = names.addresses_of(provider);
    let addresses = addresses.iter().map(IpAddr::to_string);
    let sources: Vec<String> = networks.chain(addresses).take(MAX_SOURCES).collect();
    sources.join(",")
}

/// Where a request came from.
pub(super) fn source(from: &Flow) -> (HeaderName, String) {
    (private::name(private::SOURCE), from.remote.to_string())
}

/// What it came over.
pub(super) fn flow(from: &Flow) -> (HeaderName, String) {
    let connection = from.connection.unwrap_or_default();
    (
        private::name(private::FLOW),
        format!("{}:{connection}:{}", from.transport.as_str(), from.remote),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registrar::names::{Lookup, Place, Question, Share};

    fn provider(allowed: &serde_json::Value) -> Provider {
        let provider = json!({
            "id": "voice/trunk", "server": {"name": "carrier.test"}, "port": 5060, "contactUser": "token",
            "contactUserIsSecret": true, "allowedSources": allowed, "codecs": ["PCMA"], "numbers": {},
        });
        serde_json::from_value(provider).unwrap()
    }

    fn names(name: &str, addresses: impl IntoIterator<Item = [u8; 4]>) -> Names {
        let mut names = Names::default();
        let place = |address: [u8; 4]| Place {
            address: address.into(),
            port: None,
            way: None,
            share: Share::default(),
        };
        let found = addresses.into_iter().map(place).collect();
        names.update(Question::Addresses(name.to_owned()), Lookup::Found(found));
        names
    }

    #[test]
    fn media_may_come_from_the_server_and_the_allowed_sources_but_not_from_everybody() {
        let allowed = json!([{"net": "0.0.0.0/0"}, {"net": "::/0"}, {"net": "203.0.113.0/28"}, {"net": "2001:db8::7/128"},
            {"name": "media.carrier.test"}]);
        let provider = provider(&allowed);
        let none = media_sources(&provider, &Names::default());
        assert_eq!(none, "203.0.113.0/28,2001:db8::7/128");
        let of_server = media_sources(&provider, &names("carrier.test", [[192, 0, 2, 5]]));
        assert_eq!(of_server, "203.0.113.0/28,2001:db8::7/128,192.0.2.5");
        let known = names("media.carrier.test", [[192, 0, 2, 9]]);
        let of_name = media_sources(&provider, &known);
        assert_eq!(of_name, "203.0.113.0/28,2001:db8::7/128,192.0.2.9");
        // Who may try to prove himself is not to be listened to for that.
        let proved = Provider {
            incoming: Some(Vec::new()),
            ..provider
        };
        assert_eq!(media_sources(&proved, &known), "");
    }

    #[test]
    fn a_name_with_very_many_addresses_does_not_make_the_header_any_longer() {
        let many = (0..=255).flat_map(|net| (0..=3).map(move |host| [192, 0, net, host]));
        let sources = media_sources(&provider(&json!([])), &names("carrier.test", many));
        assert_eq!(sources.split(',').count(), MAX_SOURCES);
        assert!(sources.len() < 4_096);
    }
}
