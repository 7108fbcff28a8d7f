//! A call's SIP side without clock and sockets: its dialog, and how that is told of what the node has for it and what it wants sent.

use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;
use ringwire_config::gateway::MediaEncryption;
use ringwire_config::token::TOKEN_LENGTH;
use ringwire_media::dtls;
use ringwire_sip::dialog::{Action, RespondTo};
use ringwire_sip::message::{NameAddr, Request, Response};
use ringwire_sip::sdp::{Capabilities, Encryption, LocalMedia, Secret};
use ringwire_sip::transaction::ServerId;
use ringwire_sip::uas::{UasCall, UasParams};

use super::decision::Decision;
use crate::media::exchange::{CallKey, FromCall, ToDialog};
use crate::negotiated;
use crate::private;

/// What the provider wants, with a secret of the call's own.
fn encryption(wanted: MediaEncryption, certificate: &dtls::Identity) -> Encryption {
    let sdes = |required| Encryption::Sdes {
        required,
        secret: Secret::new(rand::random()),
    };
    let dtls = |required| Encryption::Dtls {
        required,
        fingerprint: negotiated::told(certificate),
    };
    match wanted {
        MediaEncryption::None => Encryption::None,
        MediaEncryption::SDES => sdes(true),
        MediaEncryption::OptionalSDES => sdes(false),
        MediaEncryption::DTLS => dtls(true),
        MediaEncryption::OptionalDTLS => dtls(false),
    }
}

/// See the module.
pub struct Leg {
    /// The dialog.
    pub uas: UasCall,
    key: CallKey,
    server: ServerId,
    provider: ObjectRef,
}

impl Leg {
    /// The dialog that an INVITE begins.
    ///
    /// # Errors
    /// The response that refuses it.
    pub fn new(
        key: CallKey,
        invite: Request,
        server: ServerId,
        decision: &Decision,
        local: LocalMedia,
        certificate: &dtls::Identity,
        now: Instant,
    ) -> Result<Self, Response> {
        let mut contact = decision.contact.clone();
        contact.user = key.local_tag.get(..TOKEN_LENGTH).map(str::to_owned);
        let params = UasParams {
            contact: NameAddr::new(contact),
            local_tag: key.local_tag.clone(),
            capabilities: Capabilities {
                codecs: decision.codecs.clone(),
                telephone_event: true,
                ptime_millis: 20,
                encryption: encryption(decision.encryption, certificate),
                ice: Some(Secret::new(rand::random())),
            },
            local,
            server: crate::USER_AGENT.to_owned(),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            reliable_provisionals: false,
        };
        let mut uas = UasCall::new(invite, params, now)?;
        uas.take_refer();
        uas.take_replaces();
        Ok(Self {
            uas,
            key,
            server,
            provider: decision.provider.clone(),
        })
    }

    /// Takes what came in.
    pub fn take(&mut self, message: ToDialog, now: Instant) {
        match message {
            ToDialog::Request { server, request } => self.uas.on_request(server, &request, now),
            ToDialog::Ack { request } => self.uas.on_ack(&request, now),
            ToDialog::Cancel { reason } => self.uas.on_cancel(reason, now),
            ToDialog::Response { token, response } => self.uas.on_response(token, &response, now),
            ToDialog::Failed { token } => self.uas.on_failed(token, now),
        }
    }

    /// The next thing that the dialog wants sent.
    pub fn poll(&mut self) -> Option<FromCall> {
        loop {
            return Some(match self.uas.poll_action()? {
                Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                    let server = match to {
                        RespondTo::Invite => self.server,
                        RespondTo::Request(server) => server,
                    };
                    FromCall::Respond { server, response }
                }
                Action::Request { token, request } => FromCall::Request {
                    key: self.key.clone(),
                    token,
                    request: self.to_caller(request),
                },
                Action::Ack { request } => FromCall::Ack {
                    key: self.key.clone(),
                    request: self.to_caller(request),
                },
                // Only outbound calls cancel.
                Action::Cancel { .. } => continue,
            });
        }
    }

    /// A request to the caller, with his provider: where his connection is gone, the one that takes its place has to lead to the same
    /// carrier.
    fn to_caller(&self, mut request: Request) -> Box<Request> {
        let name = private::name(private::PROVIDER);
        request.headers.set(name, self.provider.to_string());
        Box::new(request)
    }
}
