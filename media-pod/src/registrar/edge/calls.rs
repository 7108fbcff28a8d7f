//! What carriers ask: new calls and their way to a media pod, and requests within calls.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use rand::rngs::StdRng;
use ringwire_config::Reason;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_config::object::{NodeAddresses, ObjectRef};
use ringwire_config::route::{self, IncomingCall, Refusal};
use ringwire_config::token::{self, Incarnation};
use ringwire_sip::message::{HeaderName, Host, Method, Request, Scheme, Uri};
use ringwire_sip::refer::Replaces;
use ringwire_sip::transaction::{Flow, ServerId, Transport};

use super::limits;
use super::proof::{self, Proof};
use super::timers::{FIRST_SIGN, Timer};
use super::told;
use super::{Edge, Kind, Link, MAX_TRIES, Output, Parties, RefusedCall, reason_header};
use crate::private;

impl Edge {
    pub(super) fn on_carrier_request(
        &mut self,
        id: ServerId,
        mut request: Request,
        flow: &Flow,
        now: Instant,
    ) {
        private::strip(&mut request.headers);
        let to_tag = request
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned));
        if let Some(tag) = to_tag {
            let pod = self.pod_of(&request, &tag);
            match pod.and_then(|pod| self.links.get(&pod)) {
                Some(link) => {
                    let link = link.flow.clone();
                    self.relay(id, request, Kind::ToPod, now);
                    let headers = vec![told::flow(flow), told::source(flow)];
                    self.forward(id, &link, &headers, now);
                    self.await_answer(id, now);
                }
                None => self.answer(id, &request, 481, None, now),
            }
            return;
        }
        if request.headers.max_forwards() == Some(0) && request.method != Method::OPTIONS {
            return self.answer(id, &request, 483, None, now);
        }
        if matches!(request.uri.scheme, Scheme::Other(_)) {
            return self.answer(id, &request, 416, None, now);
        }
        if request.method == Method::INVITE {
            self.on_invite(id, request, flow, now);
        } else if request.method == Method::OPTIONS {
            // We serve these as well as any, but extensions belong to calls (RFC 3261 section 8.2.2.3).
            let required: Vec<&str> = request.headers.get_all(&HeaderName::Require).collect();
            if !required.is_empty() {
                let unsupported = (HeaderName::Unsupported, required.join(", "));
                return self.answer(id, &request, 420, Some(unsupported), now);
            }
            let status = if self.draining { 503 } else { 200 };
            self.answer(id, &request, status, None, now);
        } else if request.method == Method::BYE
            || request.method == Method::UPDATE
            || request.method == Method::INFO
            || request.method == Method::PRACK
        {
            self.answer(id, &request, 481, None, now);
        } else {
            self.answer(id, &request, 405, None, now);
        }
    }

    /// The media pod of an in-dialog request: by our Contact's token, else by the one in our tag.
    pub(super) fn pod_of(&self, request: &Request, to_tag: &str) -> Option<Incarnation> {
        let keys = &self.config.settings.token_keys;
        let by_contact = request
            .uri
            .user
            .as_deref()
            .and_then(|user| token::verify(keys, user));
        by_contact.or_else(|| token::verify(keys, to_tag))
    }

    pub(super) fn on_invite(&mut self, id: ServerId, request: Request, flow: &Flow, now: Instant) {
        let user_of = |name: &HeaderName| {
            let first = request.headers.readable(name).into_iter().next()?;
            first.uri.user_unescaped()
        };
        let request_user = request.uri.user_unescaped();
        let called_party = user_of(&HeaderName::PCalledPartyId);
        let to = user_of(&HeaderName::To);
        let refused = |reason,
                       status,
                       provider: Option<ObjectRef>,
                       number: Option<String>,
                       detail: String| RefusedCall {
            reason,
            status,
            source: flow.remote,
            call_id: request.headers.call_id().unwrap_or_default().to_owned(),
            from: user_of(&HeaderName::From).unwrap_or_default(),
            to: to
                .clone()
                .or_else(|| request_user.clone())
                .unwrap_or_default(),
            provider,
            number,
            detail,
        };
        if self.draining {
            let refused = refused(
                Reason::Draining,
                503,
                None,
                None,
                "this gateway is stopping".into(),
            );
            self.outputs.push_back(Output::Refused(refused));
            return self.answer(
                id,
                &request,
                503,
                Some((HeaderName::RetryAfter, "10".into())),
                now,
            );
        }
        if self.endpoint.is_merged(id) {
            return self.answer(id, &request, 482, None, now);
        }
        let config = Arc::clone(&self.config);
        let (source, time) = (flow.remote.ip(), self.time(now));
        let proof = self.proofs.check(&config, &request, source, time);
        if matches!(proof, Proof::Wrong | Proof::TooOften | Proof::Of(_)) {
            let call_id = request.headers.call_id();
            self.proofs.answered(call_id.unwrap_or_default());
        }
        if proof == Proof::Wrong {
            self.outputs.push_back(Output::WrongCredentials(source));
        }
        let proved = match &proof {
            Proof::Of(providers) => providers.as_slice(),
            _ => &[],
        };
        let call = IncomingCall {
            source: flow.remote.ip(),
            request_user: request_user.as_deref(),
            called_party_user: called_party.as_deref(),
            to_user: to.as_deref(),
            proved,
        };
        if let Some(to_tag) = replaced_tag(&request) {
            // It need not dial a number of ours: our Contact does as well. Several trunks of one carrier share its addresses.
            let callers = route::callers(&config, call, &self.names);
            if !callers.is_empty() {
                let contact = self.contact_for(&request, flow);
                let headers = told::of_takeover(&callers, &contact, flow);
                return self.on_takeover(id, request, &to_tag, &headers, now);
            }
        }
        let route = match route::route(&config, call, &self.names) {
            Ok(route) => route,
            Err(refusal) => {
                let refused = match refusal {
                    Refusal::SourceNotAllowed {
                        dialled: Some((provider, number)),
                    } if provider.incoming.as_ref().is_some_and(Vec::is_empty) => refused(
                        Reason::CredentialsRefused,
                        403,
                        Some(provider.id.clone()),
                        Some(number.to_owned()),
                        format!(
                            "the Secret of spec.incomingCredentialsSecretRef of {} cannot be read: nobody can log in",
                            provider.id
                        ),
                    ),
                    Refusal::SourceNotAllowed { dialled } => {
                        let source = flow.remote.ip();
                        let lost = is_of_a_node(&config, source);
                        let mut detail = match dialled {
                            Some((provider, _)) => format!(
                                "add {source} to spec.allowedSources of {} to let it in",
                                provider.id
                            ),
                            None => "no provider accepts this source".into(),
                        };
                        if lost {
                            detail = format!(
                                "{source} is the address of a node: unless the caller is there, its own was lost on the way, \
                                 for instance in a load balancer that puts another in its place; if it is there, {detail}"
                            );
                        }
                        let reason = if lost {
                            Reason::SourceAddressLost
                        } else {
                            Reason::SourceNotAllowed
                        };
                        let (provider, number) = dialled.unzip();
                        refused(
                            reason,
                            403,
                            provider.map(|provider| provider.id.clone()),
                            number.map(str::to_owned),
                            detail,
                        )
                    }
                    Refusal::Unproved { dialled } => {
                        let provider = dialled.map(|(provider, _)| provider.id.clone());
                        let number = dialled.map(|(_, number)| number.to_owned());
                        // Whoever has proved another account may have two here.
                        if matches!(proof, Proof::None | Proof::Stale | Proof::Of(_)) {
                            let detail = "the caller was asked for a user name and password";
                            let reason = Reason::CredentialsMissing;
                            let call = refused(reason, 401, provider, number, detail.into());
                            let forgotten = self.proofs.asked(call, now);
                            self.outputs.extend(forgotten.map(Output::Refused));
                            let is_stale = proof == Proof::Stale;
                            let keys = &config.settings.token_keys;
                            let made = (time, self.rng.random());
                            let challenges = proof::challenges(keys, source, is_stale, made);
                            return self.answer(id, &request, 401, challenges, now);
                        }
                        let detail = match proof {
                            Proof::TooOften => {
                                "too many wrong passwords came from this address; it has to wait a minute"
                            }
                            _ => "the user name or password is wrong",
                        };
                        let reason = Reason::CredentialsRefused;
                        refused(reason, 403, provider, number, detail.into())
                    }
                    Refusal::NumberNotFound { provider, compared } => refused(
                        Reason::NumberNotFound,
                        404,
                        Some(provider.id.clone()),
                        None,
                        format!(
                            "compared {} with the numbers of {}",
                            compared.join(", "),
                            provider.id
                        ),
                    ),
                    Refusal::NoAgent {
                        provider,
                        number,
                        entry,
                    } => {
                        let id = &entry.id;
                        let (reason, detail) = if config.not_understood.numbers.contains_key(id) {
                            let detail = format!(
                                "PhoneNumber {id} needs a newer version of the registrar pod"
                            );
                            (Reason::NewerVersionNeeded, detail)
                        } else {
                            let detail = format!("PhoneNumber {id} has no agent that could answer");
                            (Reason::NoAgent, detail)
                        };
                        refused(
                            reason,
                            480,
                            Some(provider.id.clone()),
                            Some(number.to_owned()),
                            detail,
                        )
                    }
                };
                let extra = Some(reason_header(refused.status, refused.reason.as_str()));
                let status = refused.status;
                self.outputs.push_back(Output::Refused(refused));
                return self.answer(id, &request, status, extra, now);
            }
        };
        let counted = limits::counted(source);
        if let Err(detail) = self.rates.admit(&route, counted, &self.loads, now) {
            let refused = refused(
                Reason::AtCapacity,
                486,
                Some(route.provider.id.clone()),
                Some(route.number.to_owned()),
                detail,
            );
            let extra = Some(reason_header(486, refused.reason.as_str()));
            self.outputs.push_back(Output::Refused(refused));
            return self.answer(id, &request, 486, extra, now);
        }
        let contact = self.contact_for(&request, flow);
        let headers = told::of_call(&route, &contact, flow, &self.names, counted);
        self.outputs.push_back(Output::Forwarded {
            number: route.entry.id.clone(),
            source: source.to_canonical(),
        });
        let number = Some(route.number.to_owned());
        let refusal = refused(
            Reason::AtCapacity,
            503,
            Some(route.provider.id.clone()),
            number,
            String::new(),
        );
        let kind = Kind::Call {
            headers,
            tried: Vec::new(),
            parties: Parties {
                provider: route.provider.id.clone(),
                agent: route.agent.clone(),
                source: counted,
            },
            refusal: Box::new(refusal),
        };
        self.relay(id, request, kind, now);
        self.next_pod(id, now);
    }

    /// A call that takes the place of another (RFC 3891) goes to the media pod that has that one, and nowhere else.
    fn on_takeover(
        &mut self,
        id: ServerId,
        request: Request,
        to_tag: &str,
        headers: &[(HeaderName, String)],
        now: Instant,
    ) {
        let pod = token::verify(&self.config.settings.token_keys, to_tag);
        let Some(link) = pod.and_then(|pod| self.links.get(&pod)) else {
            return self.answer(id, &request, 481, None, now);
        };
        let link = link.flow.clone();
        self.relay(id, request, Kind::ToPod, now);
        self.forward(id, &link, headers, now);
        self.await_answer(id, now);
    }

    /// The URI of our Contact in a dialog that this INVITE begins, still without user part. Where the caller wants TLS on the whole way,
    /// and we can be reached so, it says that too (RFC 3261 section 12.1.1).
    fn contact_for(&self, invite: &Request, flow: &Flow) -> Uri {
        let mut uri = self.contact_base(flow);
        let headers = &invite.headers;
        let back = headers.record_routes().into_iter().next();
        let back = back.or_else(|| headers.contact().ok().flatten());
        let wanted = invite.uri.is_sips() || back.is_some_and(|back| back.uri.is_sips());
        if wanted && (flow.transport == Transport::Tls || self.config.tls.is_some()) {
            uri.scheme = Scheme::Sips;
            let towards = || (self.source_towards)(flow.remote.ip());
            match self.local.told(Transport::Tls, towards) {
                Some((host, port)) => (uri.host, uri.port) = (host, Some(port)),
                None => uri.port = Some(self.local.tls_port),
            }
            // Whatever comes to it comes over TLS.
            uri.params.remove("transport");
        }
        uri
    }

    /// The URI of our Contact towards a peer, still without user part.
    pub(super) fn contact_base(&self, flow: &Flow) -> Uri {
        let (host, port) = self.via(flow);
        let mut uri = Uri::sip(None, host, Some(port));
        match flow.transport {
            Transport::Udp => {}
            Transport::Tcp => uri.params.set("transport", Some("tcp")),
            Transport::Tls => uri.params.set("transport", Some("tls")),
        }
        uri
    }

    /// Hands a call to a media pod that was not asked yet, or refuses it if none is left.
    pub(super) fn next_pod(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        if let Some(client) = relay.client.take() {
            self.by_client.remove(&client);
            self.abandoned.insert(client, relay.request.clone());
            self.endpoint.cancel(client, None, now);
        }
        self.loads.take_back(id);
        let Kind::Call {
            headers,
            tried,
            parties,
            ..
        } = &mut relay.kind
        else {
            return;
        };
        if let Some(status) = relay.cancelled {
            return self.refuse(id, status, None, now);
        }
        let mut candidates: Vec<Incarnation> = untried(&self.links, tried).collect();
        if candidates.is_empty() || tried.len() >= MAX_TRIES {
            let detail = match tried.len() {
                0 => "no media pod takes calls".to_owned(),
                asked => format!("none of {asked} media pods has taken the call"),
            };
            return self.give_up(id, (503, Reason::AtCapacity), detail, now);
        }
        let declines = |pod: &Incarnation| self.loads.declines(*pod, now);
        if !candidates.iter().all(declines) {
            candidates.retain(|pod| !declines(pod));
        }
        // The better of two drawn at random: spreads calls evenly although reports of load are late.
        let draw = |rng: &mut StdRng| candidates[rng.random_range(0..candidates.len())];
        let (a, b) = (draw(&mut self.rng), draw(&mut self.rng));
        let load = |pod: &Incarnation| self.loads.of_pod(*pod, now);
        let pod = if load(&b) < load(&a) { b } else { a };
        tried.push(pod);
        let headers = headers.clone();
        self.loads.hand(id, pod, parties.clone(), now);
        if let Some(link) = self.links.get(&pod) {
            let flow = link.flow.clone();
            self.forward(id, &flow, &headers, now);
            self.set_timer(id, Some((now + FIRST_SIGN, Timer::FirstSign)));
        }
    }

    /// Forwards a relayed request to a media pod. Its Vias stay here: responses get them back from the original.
    pub(super) fn forward(
        &mut self,
        id: ServerId,
        flow: &Flow,
        headers: &[(HeaderName, String)],
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let mut request = relay.request.clone();
        request.headers.remove(&HeaderName::Via);
        request.headers.remove(&HeaderName::Route);
        request.headers.remove(&HeaderName::Authorization);
        let hops = request
            .headers
            .max_forwards()
            .unwrap_or(70)
            .saturating_sub(1);
        request
            .headers
            .set(HeaderName::MaxForwards, hops.to_string());
        for (name, value) in headers {
            request.headers.push(name.clone(), value.clone());
        }
        let client = self.endpoint.request(
            request,
            flow.clone(),
            &Host::Name("registrar.invalid".into()),
            5060,
            now,
        );
        relay.client = Some(client);
        self.by_client.insert(client, id);
    }
}

/// Our tag of the call whose place an INVITE wants to take. What can't be read is for the media pod to refuse.
fn replaced_tag(invite: &Request) -> Option<String> {
    invite.headers.has(&HeaderName::Replaces).then_some(())?;
    let replaces = Replaces::take(&mut invite.clone()).ok()??;
    Some(replaces.to_tag)
}

/// Whether a node of the cluster has this address.
fn is_of_a_node(config: &RegistrarConfig, address: IpAddr) -> bool {
    config.settings.nodes.values().any(|node| {
        let NodeAddresses {
            annotated: _,
            external,
            internal,
        } = node;
        *external == Some(address) || internal.contains(&address)
    })
}

/// The media pods that a call can still go to.
pub(super) fn untried<'a>(
    links: &'a BTreeMap<Incarnation, Link>,
    tried: &'a [Incarnation],
) -> impl Iterator<Item = Incarnation> + use<'a> {
    links
        .iter()
        .filter(|(pod, link)| link.accepting && !tried.contains(pod))
        .map(|(pod, _)| *pod)
}
