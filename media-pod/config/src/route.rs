//! Which provider is calling, which number is called, who answers (DESIGN §5).
//!
//! Pure look-ups: no DNS here. Addresses of host names come in as [`ResolvedAddresses`], kept up to date by the registrar.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringwire_crds::CalledNumberFrom;

use crate::gateway::{AllowedSource, Host, Number, Provider, RegistrarConfig};
use crate::number;
use crate::object::ObjectRef;

/// What an INVITE says about where it comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct IncomingCall<'a> {
    /// Where the packet came from.
    pub source: IpAddr,
    /// User part of the Request-URI, unescaped; the number of a `tel:` URI.
    pub request_user: Option<&'a str>,
    /// User part of P-Called-Party-ID.
    pub called_party_user: Option<&'a str>,
    /// User part of To.
    pub to_user: Option<&'a str>,
    /// The providers whose user name and password the caller has proved to know.
    pub proved: &'a [ObjectRef],
}

/// The addresses of the host names in a configuration.
pub trait ResolvedAddresses {
    /// Whether `name` has `address` at present.
    fn has(&self, name: &str, address: IpAddr) -> bool;
}

impl ResolvedAddresses for BTreeMap<String, Vec<IpAddr>> {
    fn has(&self, name: &str, address: IpAddr) -> bool {
        self.get(name)
            .is_some_and(|addresses| addresses.contains(&address))
    }
}

/// A call that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The trunk it came over.
    pub provider: &'a Provider,
    /// The dialled number in E.164.
    pub number: &'a str,
    /// The number's object and agent.
    pub entry: &'a Number,
    /// Who answers.
    pub agent: &'a ObjectRef,
}

/// Why a call may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// No provider accepts this source: 403. `dialled` is the provider and number of ours that it was for, if any.
    SourceNotAllowed {
        /// The provider whose number was dialled, and the number.
        dialled: Option<(&'a Provider, &'a str)>,
    },
    /// The caller has to prove who it is: 401. `dialled` as above.
    Unproved {
        /// The provider whose number was dialled, and the number.
        dialled: Option<(&'a Provider, &'a str)>,
    },
    /// The provider has no such number: 404. `compared` is what was looked for.
    NumberNotFound {
        /// The trunk it came over.
        provider: &'a Provider,
        /// Every reading that was compared, in order.
        compared: Vec<String>,
    },
    /// The number has no agent: 480.
    NoAgent {
        /// The trunk it came over.
        provider: &'a Provider,
        /// The dialled number in E.164.
        number: &'a str,
        /// Its object.
        entry: &'a Number,
    },
}

/// Decides about a call.
pub fn route<'a>(
    config: &'a RegistrarConfig,
    call: IncomingCall<'_>,
    resolved: &impl ResolvedAddresses,
) -> Result<Route<'a>, Refusal<'a>> {
    let callers = callers(config, call, resolved);
    let unproved = || {
        let all = config.providers.values();
        all.filter(|provider| has_to_prove(provider, call, resolved))
    };
    let Some(&first) = callers.first() else {
        let dialled = |provider: &'a Provider| {
            let (number, _) = find_number(provider, call).ok()?;
            Some((provider, number))
        };
        let of_unproved = unproved().find_map(dialled);
        let of_any = config.providers.values().find_map(dialled);
        return Err(match of_any {
            None if unproved().next().is_some() => Refusal::Unproved { dialled: None },
            _ if of_unproved.is_some() => Refusal::Unproved {
                dialled: of_unproved,
            },
            dialled => Refusal::SourceNotAllowed { dialled },
        });
    };
    // Several trunks of one carrier share its addresses: the one with the number is meant.
    let mut compared = Vec::new();
    for provider in &callers {
        match find_number(provider, call) {
            Ok((number, entry)) => {
                return match &entry.agent {
                    Some(agent) => Ok(Route {
                        provider,
                        number,
                        entry,
                        agent,
                    }),
                    None => Err(Refusal::NoAgent {
                        provider,
                        number,
                        entry,
                    }),
                };
            }
            Err(tried) => compared.extend(tried.into_iter().filter(|text| !text.is_empty())),
        }
    }
    // Trunks that share an address may differ in what they ask for.
    for provider in unproved() {
        if let Ok((number, _)) = find_number(provider, call) {
            let dialled = Some((provider, number));
            return Err(Refusal::Unproved { dialled });
        }
    }
    compared.dedup();
    Err(Refusal::NumberNotFound {
        provider: first,
        compared,
    })
}

/// The providers that may be calling: by secret contact user exactly one, else those of whom the caller has proved to be, and all that
/// accept the source and ask for no proof.
pub fn callers<'a>(
    config: &'a RegistrarConfig,
    call: IncomingCall<'_>,
    resolved: &impl ResolvedAddresses,
) -> Vec<&'a Provider> {
    if let Some(user) = call.request_user
        && let Some(provider) = config
            .providers
            .values()
            .find(|p| p.contact_user_is_secret && p.contact_user.eq_ignore_ascii_case(user))
    {
        let is_proved = provider.incoming.is_none() || call.proved.contains(&provider.id);
        return is_proved.then_some(provider).into_iter().collect();
    }
    let all = config.providers.values();
    let (proved, others): (Vec<_>, Vec<_>) =
        all.partition(|provider| call.proved.contains(&provider.id));
    let proved = proved
        .into_iter()
        .filter(|provider| may_prove_from(provider, call.source, resolved));
    let others = others.into_iter().filter(|provider| {
        provider.incoming.is_none() && accepts_source(provider, call.source, resolved)
    });
    proved.chain(others).collect()
}

/// Whether the call may be one of `provider` if the caller proves it.
fn has_to_prove(
    provider: &Provider,
    call: IncomingCall<'_>,
    resolved: &impl ResolvedAddresses,
) -> bool {
    let asks = provider
        .incoming
        .as_ref()
        .is_some_and(|accounts| !accounts.is_empty());
    let knows_contact = provider.contact_user_is_secret
        && call
            .request_user
            .is_some_and(|user| provider.contact_user.eq_ignore_ascii_case(user));
    asks && !call.proved.contains(&provider.id)
        && (knows_contact || may_prove_from(provider, call.source, resolved))
}

/// Whether whoever proves to be `provider` may call from `source`.
fn may_prove_from(provider: &Provider, source: IpAddr, resolved: &impl ResolvedAddresses) -> bool {
    provider.allowed_sources.is_empty() || accepts_source(provider, source, resolved)
}

/// Whether `provider` takes calls from `source` without further proof.
pub fn accepts_source(
    provider: &Provider,
    source: IpAddr,
    resolved: &impl ResolvedAddresses,
) -> bool {
    let source = source.to_canonical();
    let is_host = |host: &Host| match host {
        Host::Address(address) => *address == source,
        Host::Name(name) => resolved.has(name, source),
    };
    is_host(&provider.server)
        || provider
            .outbound_proxy
            .as_ref()
            .is_some_and(|(host, _)| is_host(host))
        || provider
            .allowed_sources
            .iter()
            .any(|allowed| match allowed {
                AllowedSource::Net(net) => net.contains(&source),
                AllowedSource::Name(name) => resolved.has(name, source),
            })
}

fn is_number(user: &str, provider: &Provider) -> bool {
    !number::candidates(user, provider.country_code.as_deref()).is_empty()
}

/// The number of `provider` that is called, or everything that was compared.
fn find_number<'a>(
    provider: &'a Provider,
    call: IncomingCall<'_>,
) -> Result<(&'a str, &'a Number), Vec<String>> {
    let request_user = call
        .request_user
        .filter(|user| !user.eq_ignore_ascii_case(&provider.contact_user));
    let places = match provider.called_number_from {
        Some(CalledNumberFrom::RequestUri) => [call.request_user, None, None],
        Some(CalledNumberFrom::PCalledPartyId) => [call.called_party_user, None, None],
        Some(CalledNumberFrom::To) => [call.to_user, None, None],
        // The contact user itself may be the number, as with carriers that register one number each.
        None if request_user.is_none() && !provider.contact_user_is_secret => {
            [call.called_party_user, call.to_user, call.request_user]
        }
        // A number in the Request-URI is the one that is called, whether or not it is ours: after a diversion, To has another one.
        None => match request_user {
            Some(user) if is_number(user, provider) => [Some(user), None, None],
            _ => [request_user, call.called_party_user, call.to_user],
        },
    };
    let mut compared = Vec::new();
    for user in places.into_iter().flatten() {
        let readings = number::candidates(user, provider.country_code.as_deref());
        if readings.is_empty() {
            compared.push(user.to_owned());
        }
        for reading in readings {
            if let Some((number, entry)) = provider.numbers.get_key_value(&reading) {
                return Ok((number, entry));
            }
            compared.push(reading);
        }
    }
    Err(compared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::gateway::Account;
    use crate::secret::Secret;

    const CARRIER: &str = "203.0.113.5";

    fn provider(name: &str, numbers: &[(&str, Option<&str>)]) -> Provider {
        let numbers = numbers
            .iter()
            .map(|(number, agent)| {
                let id = ObjectRef::new("voice", format!("number-{number}"));
                (
                    (*number).to_owned(),
                    Number {
                        id,
                        agent: agent.map(|agent| ObjectRef::new("voice", agent)),
                        agent_max_calls: None,
                    },
                )
            })
            .collect();
        Provider {
            server: Host::Name("sip.carrier.test".into()),
            contact_user: format!("token-of-{name}"),
            allowed_sources: vec![AllowedSource::Net("198.51.100.0/24".parse().unwrap())],
            country_code: Some("34".into()),
            numbers,
            ..fixture::provider(name)
        }
    }

    fn config(providers: Vec<Provider>) -> RegistrarConfig {
        fixture::registrar(providers)
    }

    fn call<'a>(source: &str, user: &'a str) -> IncomingCall<'a> {
        IncomingCall {
            source: source.parse().unwrap(),
            request_user: Some(user),
            called_party_user: None,
            to_user: None,
            proved: &[],
        }
    }

    /// A provider whose callers have to prove who they are; without a list of sources.
    fn proving(name: &str, number: &str) -> Provider {
        let account = Account {
            username: "pbx".into(),
            password: Secret::new("secret"),
        };
        Provider {
            allowed_sources: vec![],
            incoming: Some(vec![account]),
            ..provider(name, &[(number, Some("sales"))])
        }
    }

    #[test]
    fn whoever_has_to_prove_who_he_is_is_asked_and_may_then_call_from_anywhere() {
        let pbx = proving("pbx", "+34911234567");
        let id = [pbx.id.clone()];
        let config = config(vec![pbx]);
        for (source, user) in [
            ("192.0.2.1", "911234567"),
            (CARRIER, "911234567"),
            ("192.0.2.1", "100"),
            ("192.0.2.1", "token-of-pbx"),
        ] {
            let mut call = call(source, user);
            call.to_user = Some("911234567");
            let refusal = route(&config, call, &dns()).unwrap_err();
            assert!(matches!(refusal, Refusal::Unproved { .. }), "{refusal:?}");
            call.proved = &id;
            let proved = route(&config, call, &dns());
            assert_eq!(proved.is_ok(), user != "100", "{proved:?}");
        }
    }

    #[test]
    fn a_list_of_sources_holds_beside_the_proof() {
        let mut pbx = proving("pbx", "+34911234567");
        pbx.allowed_sources = vec![AllowedSource::Net("198.51.100.0/24".parse().unwrap())];
        let id = [pbx.id.clone()];
        let config = config(vec![pbx]);
        let mut call = call("192.0.2.1", "911234567");
        call.proved = &id;
        let refusal = route(&config, call, &dns()).unwrap_err();
        assert!(matches!(refusal, Refusal::SourceNotAllowed { .. }));
        call.source = "198.51.100.7".parse().unwrap();
        assert!(route(&config, call, &dns()).is_ok());
    }

    #[test]
    fn without_its_secret_a_trunk_takes_no_calls() {
        let mut pbx = proving("pbx", "+34911234567");
        pbx.incoming = Some(vec![]);
        let config = config(vec![pbx]);
        for user in ["911234567", "token-of-pbx"] {
            let refusal = route(&config, call(CARRIER, user), &dns()).unwrap_err();
            assert!(matches!(refusal, Refusal::SourceNotAllowed { .. }));
        }
    }

    #[test]
    fn trunks_of_one_address_are_asked_for_what_they_need_only() {
        let config = config(vec![
            provider("open", &[("+34911111111", Some("sales"))]),
            proving("pbx", "+34922222222"),
        ]);
        assert!(route(&config, call(CARRIER, "+34911111111"), &dns()).is_ok());
        let refusal = route(&config, call(CARRIER, "+34922222222"), &dns()).unwrap_err();
        assert!(matches!(refusal, Refusal::Unproved { dialled: Some(_) }));
        let refusal = route(&config, call(CARRIER, "+34933333333"), &dns()).unwrap_err();
        assert!(matches!(refusal, Refusal::NumberNotFound { .. }));
        // Whoever misses a source in the other's list is told so in its status.
        let refusal = route(&config, call("192.0.2.1", "+34911111111"), &dns()).unwrap_err();
        assert!(matches!(
            refusal,
            Refusal::SourceNotAllowed { dialled: Some(_) }
        ));
    }

    fn dns() -> BTreeMap<String, Vec<IpAddr>> {
        BTreeMap::from([(
            "sip.carrier.test".to_owned(),
            vec![CARRIER.parse().unwrap()],
        )])
    }

    #[test]
    fn finds_the_agent_of_the_dialled_number() {
        let config = config(vec![provider("a", &[("+34911234567", Some("sales"))])]);
        for source in [CARRIER, "198.51.100.77", "::ffff:198.51.100.77"] {
            let route = route(&config, call(source, "911234567"), &dns()).unwrap();
            assert_eq!(
                (route.number, route.agent.name.as_str()),
                ("+34911234567", "sales")
            );
        }
    }

    #[test]
    fn refuses_a_call_from_an_unlisted_source_and_names_whom_it_was_for() {
        let config = config(vec![provider("a", &[("+34911234567", Some("sales"))])]);
        let refusal = route(&config, call("192.0.2.1", "911234567"), &dns()).unwrap_err();
        let Refusal::SourceNotAllowed {
            dialled: Some((provider, number)),
        } = refusal
        else {
            panic!("{refusal:?}")
        };
        assert_eq!((provider.id.name.as_str(), number), ("a", "+34911234567"));
        let refusal = route(&config, call("192.0.2.1", "100"), &dns()).unwrap_err();
        assert_eq!(refusal, Refusal::SourceNotAllowed { dialled: None });
    }

    #[test]
    fn accepts_a_registered_carrier_from_any_source_and_reads_the_number_elsewhere() {
        let config = config(vec![provider("a", &[("+34911234567", Some("sales"))])]);
        let mut call = call("192.0.2.1", "token-of-a");
        call.to_user = Some("+34911234567");
        assert_eq!(route(&config, call, &dns()).unwrap().number, "+34911234567");
        call.to_user = Some("trunk-user");
        call.called_party_user = Some("0034911234567");
        assert_eq!(route(&config, call, &dns()).unwrap().number, "+34911234567");
    }

    #[test]
    fn a_guessable_contact_user_proves_nothing() {
        let mut guessable = provider("a", &[("+34911234567", Some("sales"))]);
        guessable.contact_user = "34911234567".into();
        guessable.contact_user_is_secret = false;
        let config = config(vec![guessable]);
        assert!(matches!(
            route(&config, call("192.0.2.1", "34911234567"), &dns()),
            Err(Refusal::SourceNotAllowed { .. })
        ));
        assert_eq!(
            route(&config, call(CARRIER, "34911234567"), &dns())
                .unwrap()
                .number,
            "+34911234567"
        );
    }

    #[test]
    fn tells_trunks_of_one_carrier_apart_by_number() {
        let config = config(vec![
            provider("a", &[("+34911111111", Some("sales"))]),
            provider("b", &[("+34922222222", Some("support"))]),
        ]);
        assert_eq!(
            route(&config, call(CARRIER, "+34922222222"), &dns())
                .unwrap()
                .agent
                .name,
            "support"
        );
    }

    #[test]
    fn says_what_was_compared_when_no_number_fits() {
        let config = config(vec![provider("a", &[("+34911234567", Some("sales"))])]);
        let refusal = route(&config, call(CARRIER, "0044123456"), &dns()).unwrap_err();
        let Refusal::NumberNotFound { compared, .. } = refusal else {
            panic!("{refusal:?}")
        };
        assert!(compared.contains(&"+44123456".to_owned()), "{compared:?}");
    }

    #[test]
    fn refuses_a_number_without_agent() {
        let config = config(vec![provider("a", &[("+34911234567", None)])]);
        assert!(matches!(
            route(&config, call(CARRIER, "+34911234567"), &dns()),
            Err(Refusal::NoAgent { .. })
        ));
    }

    #[test]
    fn looks_only_where_the_provider_says() {
        let mut strict = provider("a", &[("+34911234567", Some("sales"))]);
        strict.called_number_from = Some(CalledNumberFrom::To);
        let config = config(vec![strict]);
        let mut call = call(CARRIER, "+34911234567");
        call.to_user = Some("+34900000000");
        assert!(matches!(
            route(&config, call, &dns()),
            Err(Refusal::NumberNotFound { .. })
        ));
    }
}
