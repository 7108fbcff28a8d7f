//! What a trunk tells people.

use ringwire_config::Reason;
use ringwire_config::state::{RegistrationReport, RegistrationState};
use ringwire_crds::Transport as ConfigTransport;
use ringwire_sip::registration;
use ringwire_sip::transaction::Transport;
use std::time::Instant;

use super::trunk::Trunk;

/// Its report as it stands.
pub fn report(trunk: &Trunk, wall: jiff::Timestamp, now: Instant) -> RegistrationReport {
    use registration::Reason as Sip;
    let status = trunk.registration.status();
    RegistrationReport {
        revision: trunk.account.registration.revision.clone(),
        state: match status.state {
            registration::State::Registered => RegistrationState::Registered,
            registration::State::Unregistered => RegistrationState::Unregistered,
            registration::State::Unknown => RegistrationState::Unknown,
        },
        reason: match status.reason {
            Sip::Registering => Reason::Registering,
            Sip::Registered => Reason::Registered,
            Sip::RefreshFailing => Reason::RefreshFailing,
            Sip::WrongCredentials => Reason::WrongCredentials,
            Sip::AccountForbidden => Reason::AccountForbidden,
            Sip::NoAnswer => Reason::NoAnswer,
            Sip::ServerNotFound => Reason::ServerNotFound,
            Sip::ConnectionRefused => Reason::ConnectionRefused,
            Sip::TlsUntrusted => Reason::TlsUntrusted,
            Sip::TlsFailed => Reason::TlsFailed,
            Sip::IntervalTooShort => Reason::IntervalTooShort,
            Sip::ServerError => Reason::ServerError,
            Sip::NotFound => Reason::AccountNotFound,
            Sip::BindingRemoved => Reason::BindingRemoved,
            Sip::Rejected => Reason::RegistrationRejected,
            Sip::ChallengeUnsupported => Reason::ChallengeUnsupported,
            Sip::Unregistered => Reason::Paused,
        },
        message: status.message.clone(),
        last_response: status.last_response.clone(),
        transport: trunk.target.map(|target| match target.transport {
            Transport::Udp => ConfigTransport::UDP,
            Transport::Tcp => ConfigTransport::TCP,
            Transport::Tls => ConfigTransport::TLS,
        }),
        contact: status.contact.clone(),
        observed_address: status.received.map(|address| address.to_string()),
        registered_at: status
            .registered_at
            .and_then(|at| wall.checked_sub(now.saturating_duration_since(at)).ok())
            // Whole seconds: the moment itself does not change between two reports.
            .and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok()),
    }
}
