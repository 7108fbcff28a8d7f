//! What comes back: responses, ACKs, failures; and what we answer ourselves.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;
use ringwire_config::Reason;
use ringwire_sip::message::{HeaderName, Host, Message, Method, NameAddr, Request, Response};
use ringwire_sip::transaction::{ClientError, ClientId, Flow, ServerId};

use super::timers::Timer;
use super::{Edge, Kind, Output, RefusedCall, told};
use crate::registrar::trunks::ALLOW;
use crate::{USER_AGENT, private};

impl Edge {
    pub(super) fn on_ack(&mut self, mut request: Request, flow: &Flow, now: Instant) {
        if self.is_link(flow) {
            let target = request
                .headers
                .routes()
                .first()
                .map_or(&request.uri, |route| &route.uri)
                .clone();
            if let Ok(flow) = self.next_hop(&request, &target, now) {
                let (host, port) = self.via(&flow);
                private::strip(&mut request.headers);
                let via = self.endpoint.new_via(flow.transport, &host, port);
                request.headers.remove(&HeaderName::Via);
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(Message::Request(request), flow);
            }
            return;
        }
        private::strip(&mut request.headers);
        let tag = request
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned))
            .unwrap_or_default();
        if let Some(link) = self
            .pod_of(&request, &tag)
            .and_then(|pod| self.links.get(&pod))
        {
            let link = link.flow.clone();
            // It may have come another way than its INVITE.
            let (name, value) = told::flow(flow);
            request.headers.push(name, value);
            self.endpoint
                .send_stateless(Message::Request(request), link);
        }
    }

    pub(super) fn on_response(&mut self, client: ClientId, response: Response, now: Instant) {
        if let Some(invite) = self.abandoned.get(&client) {
            if response.is_success() {
                self.end_late_answer(&invite.clone(), &response, now);
            }
            return;
        }
        let Some(id) = self.by_client.get(&client).copied() else {
            return;
        };
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let is_call = matches!(relay.kind, Kind::Call { .. });
        let heard_first = matches!(relay.timer, Some((_, Timer::FirstSign)));
        if response.status == 100 {
            // It says nothing of the callee, so it is none that timer C begins anew for (section 16.7).
            if heard_first {
                self.await_answer(id, now);
            }
            return;
        }
        if is_call && response.headers.has(&private::name(private::TRY_ANOTHER)) {
            relay.client = None;
            if let Kind::Call { tried, .. } = &relay.kind
                && let Some(pod) = tried.last()
            {
                self.loads.declined(*pod, now);
            }
            self.by_client.remove(&client);
            return self.next_pod(id, now);
        }
        let mut relayed = response;
        relayed.headers.remove(&HeaderName::Via);
        for (position, via) in relay.request.headers.get_all(&HeaderName::Via).enumerate() {
            if position == 0 {
                relayed.headers.insert_first(HeaderName::Via, via);
            } else {
                relayed.headers.push(HeaderName::Via, via);
            }
        }
        if !matches!(relay.kind, Kind::ToCarrier) {
            private::strip(&mut relayed.headers);
        }
        relay.done |= relayed.status >= 200;
        self.await_answer(id, now);
        if is_call && relayed.status >= 300 {
            self.loads.refused(id);
        }
        self.endpoint.respond(id, relayed, now);
    }

    /// A media pod answered a call that another was asked for meanwhile: acknowledge and end it there.
    pub(super) fn end_late_answer(&mut self, invite: &Request, response: &Response, now: Instant) {
        let contact =
            NameAddr::new(self.contact_base(&Flow::udp(SocketAddr::from(([127, 0, 0, 1], 0)))));
        let Ok(mut dialog) =
            ringwire_sip::dialog::Dialog::from_response(invite, response, &contact)
        else {
            return;
        };
        let tag = response
            .headers
            .to()
            .ok()
            .and_then(|to| to.tag().map(str::to_owned))
            .unwrap_or_default();
        let Some(link) = self
            .pod_of(invite, &tag)
            .and_then(|pod| self.links.get(&pod))
        else {
            return;
        };
        let flow = link.flow.clone();
        let cseq = invite.headers.cseq().map_or(1, |(number, _)| number);
        let us = Host::Name("registrar.invalid".into());
        let mut ack = dialog.ack(cseq);
        let via = self.endpoint.new_via(flow.transport, &us, 5060);
        ack.headers.insert_first(HeaderName::Via, via.to_string());
        self.endpoint
            .send_stateless(Message::Request(ack), flow.clone());
        let bye = dialog.request(Method::BYE);
        self.endpoint.request(bye, flow, &us, 5060, now);
    }

    /// No final response will come to a relayed request.
    pub(super) fn on_failed(&mut self, id: ServerId, error: &ClientError, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let client = relay.client.take();
        if let Some(client) = client {
            self.by_client.remove(&client);
        }
        if let Some(status) = relay.cancelled {
            return self.refuse(id, status, None, now);
        }
        match &relay.kind {
            // Nothing was heard of the pod: another may take the call. Later, its agent may have been reached.
            Kind::Call { .. } if matches!(relay.timer, Some((_, Timer::FirstSign))) => {
                self.next_pod(id, now);
            }
            Kind::Call { .. } => {
                let detail = "the media pod was lost while it connected the call".to_owned();
                self.give_up(id, (480, Reason::InternalError), detail, now);
            }
            Kind::ToPod => self.refuse(id, 481, None, now),
            Kind::ToCarrier if *error == ClientError::Timeout => self.refuse(id, 408, None, now),
            Kind::ToCarrier => self.unreachable(id, now),
        }
    }

    /// There is no way to the carrier at present. A refresh can be tried again as long as the session lasts (RFC 4028 section 10); who
    /// is asked whether he is still there is not.
    pub(super) fn unreachable(&mut self, id: ServerId, now: Instant) {
        let refresh = self
            .relays
            .get(&id)
            .is_some_and(|relay| matches!(relay.request.method, Method::INVITE | Method::UPDATE));
        self.refuse(id, if refresh { 503 } else { 408 }, None, now);
    }

    /// Refuses a call that no media pod takes, and reports it: there is nobody else to do so.
    pub(super) fn give_up(
        &mut self,
        id: ServerId,
        (status, reason): (u16, Reason),
        detail: String,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        if let Kind::Call { refusal, .. } = &relay.kind {
            self.outputs.push_back(Output::Refused(RefusedCall {
                reason,
                status,
                detail,
                ..(**refusal).clone()
            }));
        }
        let mut response = Response::to_request(&relay.request, status, None);
        let (name, value) = reason_header(status, reason.as_str());
        response.headers.push(name, value);
        if status == 503 {
            response.headers.push(HeaderName::RetryAfter, "5");
        }
        self.finish(id, response, now);
    }

    /// Answers a relayed request ourselves.
    pub(super) fn refuse(
        &mut self,
        id: ServerId,
        status: u16,
        extra: Option<(HeaderName, String)>,
        now: Instant,
    ) {
        if let Some(relay) = self.relays.get(&id) {
            let request = relay.request.clone();
            self.answer(id, &request, status, extra, now);
        }
    }

    pub(super) fn answer(
        &mut self,
        id: ServerId,
        request: &Request,
        status: u16,
        extra: impl IntoIterator<Item = (HeaderName, String)>,
        now: Instant,
    ) {
        let mut response = Response::to_request(request, status, None);
        if matches!(status, 200 | 405) {
            response.headers.push(ALLOW.0, ALLOW.1);
        }
        if status == 200 {
            response.headers.push(HeaderName::Accept, "application/sdp");
        }
        for (name, value) in extra {
            response.headers.push(name, value);
        }
        self.finish(id, response, now);
    }

    /// Sends a final response of our own.
    fn finish(&mut self, id: ServerId, mut response: Response, now: Instant) {
        if response.headers.to().is_ok_and(|to| to.tag().is_none()) {
            response.set_to_tag(&format!("{:016x}", self.rng.random::<u64>()));
        }
        response.headers.push(HeaderName::Server, USER_AGENT);
        if let Some(relay) = self.relays.get_mut(&id) {
            relay.done = true;
            self.loads.refused(id);
            self.set_timer(id, None);
        }
        self.endpoint.respond(id, response, now);
    }
}

/// A `Reason` header (RFC 3326).
pub(super) fn reason_header(status: u16, text: &str) -> (HeaderName, String) {
    (
        HeaderName::Reason,
        format!("SIP;cause={status};text=\"{text}\""),
    )
}
