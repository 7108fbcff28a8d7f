//! What is told, and when it is tried again, where there is no binding or no refresh of it.

use std::time::{Duration, Instant};

use super::{Goal, Reason, Registration, RegistrationStatus, State};
use crate::transaction::{ClientError, TransportError};

impl Registration {
    /// The request with that token got no answer.
    pub fn on_failed(&mut self, token: u64, error: &ClientError, now: Instant) {
        if self.flight(token).is_none() {
            return;
        }
        if matches!(self.goal, Goal::Unregister(_)) {
            return self.done();
        }
        let server = &self.server;
        let (reason, message) = match error {
            ClientError::Timeout => (
                Reason::NoAnswer,
                format!("no reply from {server} in 32 s: firewall or wrong transport?"),
            ),
            ClientError::Transport(TransportError::TimedOut) => (
                Reason::NoAnswer,
                format!("no connection to {server}: firewall or wrong transport?"),
            ),
            ClientError::Transport(TransportError::Refused) => (
                Reason::ConnectionRefused,
                format!("{server} refused the connection: wrong port or transport?"),
            ),
            ClientError::Transport(TransportError::Untrusted(why)) => (
                Reason::TlsUntrusted,
                format!(
                    "the certificate of {server} is not trusted ({why}): name its authority in spec.tls.caSecretRef, or the name \
                     that it is issued for in spec.tls.serverName"
                ),
            ),
            ClientError::Transport(TransportError::Tls(why)) => (
                Reason::TlsFailed,
                format!(
                    "no TLS connection to {server} ({why}): does this port speak TLS, and does it ask for a client certificate?"
                ),
            ),
            ClientError::Transport(error) => (
                Reason::NoAnswer,
                format!("no reply from {server}: {error}; wrong port or transport?"),
            ),
        };
        self.fail(reason, message, now);
    }

    pub(super) fn fail(&mut self, reason: Reason, message: String, now: Instant) {
        let pause = self.backoff.failed(now, &mut self.rng);
        self.fail_for(reason, message, pause, now);
    }

    pub(super) fn fail_for(
        &mut self,
        reason: Reason,
        message: String,
        pause: Duration,
        now: Instant,
    ) {
        self.in_flight = None;
        self.action = None;
        self.next_try = Some(now + pause);
        self.set_failure(reason, message, now);
    }

    /// Tells of a failure: while the binding holds, calls still come in.
    pub(super) fn set_failure(&mut self, reason: Reason, message: String, now: Instant) {
        self.failure = Some((reason, message.clone()));
        let holds = self
            .binding
            .as_ref()
            .is_some_and(|binding| binding.expires_at > now);
        let status = self.status.clone();
        self.set_status(if holds {
            let message = format!("the binding still holds, but its refresh fails: {message}");
            RegistrationStatus {
                state: State::Registered,
                reason: Reason::RefreshFailing,
                message,
                ..status
            }
        } else {
            RegistrationStatus {
                state: State::Unregistered,
                reason,
                message,
                contact: None,
                registered_at: None,
                ..status
            }
        });
    }
}
