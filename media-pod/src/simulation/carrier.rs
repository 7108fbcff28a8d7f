//! The carrier: one call to us, and what it hears of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringwire_sip::dialog::{Action, CallEvent, EndedBy, RespondTo};
use ringwire_sip::message::{HeaderName, Host, Message, NameAddr, Uri};
use ringwire_sip::sdp::{Capabilities, Codec, Encryption, LocalMedia};
use ringwire_sip::transaction::{
    ClientId, Endpoint, EndpointConfig, Event, Flow, Transmit, Transport, TransportError,
};
use ringwire_sip::uac::{UacCall, UacParams};

/// See the module.
pub struct Carrier {
    address: SocketAddr,
    pub endpoint: Endpoint,
    call: UacCall,
    clients: HashMap<ClientId, u64>,
    /// Over which it sends; replaced when it breaks.
    pub flow: Flow,
    /// UPDATEs and re-INVITEs that came, and those of its own that were answered.
    pub refreshes: u32,
    /// From here on it hears and says nothing.
    pub mute: bool,
    pub answered: bool,
    pub ended: Option<EndedBy>,
}

/// What it says of the session timer in its INVITE: who refreshes.
pub fn session_expires(refresher: &str) -> (HeaderName, String) {
    let value = format!("1800;refresher={refresher}");
    (HeaderName::SessionExpires, value)
}

impl Carrier {
    pub fn new(
        address: SocketAddr,
        flow: Flow,
        number: &str,
        headers: Vec<(HeaderName, String)>,
        now: Instant,
    ) -> Self {
        let name = |text: &str| NameAddr::parse(text).unwrap();
        let contact = match flow.transport {
            Transport::Udp => format!("<sip:carrier@{address}>"),
            Transport::Tcp => format!("<sip:carrier@{address};transport=tcp>"),
            Transport::Tls => format!("<sip:carrier@{address};transport=tls>"),
        };
        let to = format!("<sip:{number}@{}>", flow.remote);
        let params = UacParams {
            follow_redirects: false,
            target: Uri::parse(&to[1..to.len() - 1]).unwrap(),
            from: name(&format!("<sip:+34600000000@{address}>")),
            to: name(&to),
            contact: name(&contact),
            call_id: "simulated".to_owned(),
            local_tag: "carrier".to_owned(),
            cnonce: "c".to_owned(),
            capabilities: Capabilities {
                codecs: vec![Codec::Pcma],
                telephone_event: true,
                ptime_millis: 20,
                encryption: Encryption::None,
                ice: None,
            },
            local: LocalMedia {
                address: address.ip(),
                rtp_port: 4000,
                session_id: 1,
                version: 1,
            },
            credentials: None,
            routes: Vec::new(),
            headers,
            user_agent: "carrier".to_owned(),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
        };
        Self {
            address,
            endpoint: Endpoint::new(EndpointConfig::default(), 7),
            call: UacCall::new(params, now),
            clients: HashMap::new(),
            flow,
            refreshes: 0,
            mute: false,
            answered: false,
            ended: None,
        }
    }

    pub fn receive(&mut self, message: Message, flow: Flow, now: Instant) {
        if !self.mute {
            if flow.connection.is_some() {
                self.flow = flow.clone();
            }
            self.endpoint.receive(message, flow, now);
        }
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let transmit = self.endpoint.poll_transmit()?;
            if !self.mute {
                return Some(transmit);
            }
        }
    }

    /// Its connection broke: the next request goes over a new one.
    pub fn disconnected(&mut self, now: Instant) {
        let flow = self.flow.clone();
        self.flow.connection = None;
        self.endpoint
            .flow_failed(&flow, TransportError::Closed, now);
        self.settle(now);
    }

    pub fn hang_up(&mut self, now: Instant) {
        self.call.hang_up(None, now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.endpoint.poll_timeout(), self.call.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.call.handle_timeout(now);
    }

    /// Moves everything between call and endpoint; whether there was anything.
    pub fn settle(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(event) = self.endpoint.poll_event() {
            moved = true;
            self.on_event(event, now);
        }
        while let Some(action) = self.call.poll_action() {
            moved = true;
            self.carry_out(action, now);
        }
        while let Some(event) = self.call.poll_event() {
            moved = true;
            match event {
                CallEvent::Answered => self.answered = true,
                CallEvent::Ended { by, .. } => self.ended = Some(by),
                _ => {}
            }
        }
        moved
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Request { id, request, .. } => {
                let refreshes = request.headers.has(&HeaderName::SessionExpires);
                self.refreshes += u32::from(refreshes);
                self.call.on_request(id, &request, now);
            }
            Event::Ack { request, .. } => self.call.on_ack(&request, now),
            Event::Response { id, response, .. } => {
                let refreshed = self.answered
                    && response.is_success()
                    && response.headers.has(&HeaderName::SessionExpires);
                self.refreshes += u32::from(refreshed);
                if let Some(token) = self.clients.get(&id) {
                    self.call.on_response(*token, &response, now);
                }
            }
            Event::Failed { id, .. } => {
                if let Some(token) = self.clients.get(&id) {
                    self.call.on_failed(*token, now);
                }
            }
            Event::ClientEnded { id } => drop(self.clients.remove(&id)),
            _ => {}
        }
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        let (host, port) = (Host::from(self.address.ip()), self.address.port());
        match action {
            Action::Respond {
                to: RespondTo::Request(id),
                response,
            }
            | Action::ResendFinal {
                to: RespondTo::Request(id),
                response,
            } => self.endpoint.respond(id, response, now),
            Action::Respond { .. } | Action::ResendFinal { .. } => panic!("it was not called"),
            Action::Request { token, request } => {
                let flow = self.flow.clone();
                let id = self.endpoint.request(request, flow, &host, port, now);
                self.clients.insert(id, token);
            }
            Action::Ack { mut request } => {
                let via = self.endpoint.new_via(self.flow.transport, &host, port);
                request
                    .headers
                    .insert_first(HeaderName::Via, via.to_string());
                self.endpoint
                    .send_stateless(Message::Request(request), self.flow.clone());
            }
            Action::Cancel { .. } => panic!("it does not give up"),
        }
    }
}
