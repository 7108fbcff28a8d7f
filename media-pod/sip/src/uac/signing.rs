//! Challenges to our requests, and the answers to them.

use std::time::Instant;

use super::{UacCall, UacParams};
use crate::digest::{Challenge, DigestClient};
use crate::message::{HeaderName, Method, Response};

/// Most challenges that are answered for one request.
const MAX_ANSWERS: u32 = 3;

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
            let answers = if bye {
                &mut self.bye_answers
            } else {
                &mut self.refresh_answers
            };
            let challenges = Challenge::from_response(response);
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
                && may_answer(&challenges, *answers)
                && let Some(headers) = sign(
                    &mut self.digest,
                    &self.params,
                    &challenges,
                    &method,
                    &uri,
                    &body,
                )
            {
                *answers += 1;
                return if bye {
                    session.repeat_bye(headers, &mut self.out);
                } else {
                    session.send_refresh(headers, &mut self.out);
                };
            }
        }
        if refresh && !response.is_provisional() {
            self.refresh_answers = 0;
        }
        session.on_response(token, response, now, &mut self.out);
    }

    pub(super) fn sign_invite(
        &mut self,
        challenges: &[Challenge],
    ) -> Option<Vec<(HeaderName, String)>> {
        let uri = self.params.target.to_string();
        sign(
            &mut self.digest,
            &self.params,
            challenges,
            &Method::INVITE,
            &uri,
            &self.invite.body,
        )
    }
}

/// Whether these challenges are to be answered: the first time, and again when our answer was merely stale.
pub(super) fn may_answer(challenges: &[Challenge], answers: u32) -> bool {
    let stale = challenges.iter().any(|challenge| challenge.stale);
    answers == 0 || (stale && answers < MAX_ANSWERS)
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
