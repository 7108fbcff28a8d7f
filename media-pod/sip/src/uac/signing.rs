//! Challenges to our requests, and the answers to them.

use std::time::Instant;

use super::{UacCall, UacParams};
use crate::digest::{Asked, Challenge, DigestClient};
use crate::message::{HeaderName, Method, Response};

impl UacCall {
    /// A response to a request of ours inside the dialog.
    pub(super) fn on_dialog_response(&mut self, token: u64, response: &Response, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        let (bye, refresh) = (
            session.bye_token() == Some(token),
            session.is_refresh(token),
        );
        if matches!(response.status, 401 | 407) && (bye || refresh) {
            let asked = if bye {
                &mut self.bye_asked
            } else {
                &mut self.refresh_asked
            };
            let signed = if bye {
                let uri = session.dialog.remote_target().to_string();
                Some((Method::BYE, uri, Vec::new()))
            } else {
                session.refresh_request().map(|request| {
                    let uri = request.uri.to_string();
                    (request.method.clone(), uri, request.body.clone())
                })
            };
            if let Some((method, uri, body)) = signed
                && is_answered(asked, &self.params, response)
                && let Some(headers) = sign(
                    &mut self.digest,
                    &self.params,
                    asked.challenges(),
                    &method,
                    &uri,
                    &body,
                )
            {
                return if bye {
                    session.repeat_bye(headers, &mut self.out);
                } else {
                    session.send_refresh(headers, &mut self.out);
                };
            }
        }
        if refresh && !response.is_provisional() {
            self.refresh_asked.begin();
        }
        session.on_response(token, response, now, &mut self.out);
    }

    /// The answers to all that was asked of the INVITE.
    pub(super) fn sign_invite(&mut self) -> Option<Vec<(HeaderName, String)>> {
        let uri = self.params.target.to_string();
        sign(
            &mut self.digest,
            &self.params,
            self.asked.challenges(),
            &Method::INVITE,
            &uri,
            &self.invite.body,
        )
    }
}

/// Whether a 401 or 407 is answered, which takes credentials for what it asks.
pub(super) fn is_answered(asked: &mut Asked, params: &UacParams, response: &Response) -> bool {
    let challenges = Challenge::from_response(response);
    // With a client of its own, so that no nonce count is used up.
    let trial = &mut DigestClient::new();
    sign(trial, params, &challenges, &Method::OPTIONS, "", &[]).is_some() && asked.take(challenges)
}

/// The answer to these challenges, if we have credentials for them.
pub(super) fn sign(
    digest: &mut DigestClient,
    params: &UacParams,
    challenges: &[Challenge],
    method: &Method,
    uri: &str,
    body: &[u8],
) -> Option<Vec<(HeaderName, String)>> {
    let credentials = params.credentials.as_ref()?;
    digest
        .answer(
            challenges,
            credentials,
            method,
            uri,
            body,
            params.cnonce.clone(),
        )
        .ok()
}
