//! What a registration tells people about itself.

use std::net::SocketAddr;
use std::time::Instant;

/// Whether the carrier knows where to send calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The binding holds.
    Registered,
    /// There is no binding.
    Unregistered,
    /// Not known yet.
    Unknown,
}

/// Why the state is what it is. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first answer is awaited.
    Registering,
    /// All is well.
    Registered,
    /// The last refresh failed; the binding still holds.
    RefreshFailing,
    /// The carrier refused a correct digest answer.
    WrongCredentials,
    /// The carrier refuses the account.
    AccountForbidden,
    /// Nothing came back.
    NoAnswer,
    /// The server's name leads nowhere.
    ServerNotFound,
    /// Nobody listens there.
    ConnectionRefused,
    /// The carrier's certificate is not good for its name.
    TlsUntrusted,
    /// No TLS connection came about.
    TlsFailed,
    /// The carrier wants a longer interval than can be agreed on.
    IntervalTooShort,
    /// The carrier's server is in trouble (5xx).
    ServerError,
    /// The carrier does not know the user (404).
    NotFound,
    /// The carrier said 200, but our Contact is not among its bindings.
    BindingRemoved,
    /// The carrier answered something else that is no success.
    Rejected,
    /// The challenge can't be answered.
    ChallengeUnsupported,
    /// Taken back on purpose.
    Unregistered,
}

impl Reason {
    /// The name as it stands in conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "Registering",
            Self::Registered => "Registered",
            Self::RefreshFailing => "RefreshFailing",
            Self::WrongCredentials => "WrongCredentials",
            Self::AccountForbidden => "AccountForbidden",
            Self::NoAnswer => "NoAnswer",
            Self::ServerNotFound => "ServerNotFound",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::TlsUntrusted => "TlsUntrusted",
            Self::TlsFailed => "TlsFailed",
            Self::IntervalTooShort => "IntervalTooShort",
            Self::ServerError => "ServerError",
            Self::NotFound => "NotFound",
            Self::BindingRemoved => "BindingRemoved",
            Self::Rejected => "Rejected",
            Self::ChallengeUnsupported => "ChallengeUnsupported",
            Self::Unregistered => "Unregistered",
        }
    }
}

/// The state of a registration, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// The state.
    pub state: State,
    /// Its reason.
    pub reason: Reason,
    /// A sentence that says what to do.
    pub message: String,
    /// The last final response: `403 Forbidden`.
    pub last_response: Option<String>,
    /// The Contact as it is bound.
    pub contact: Option<String>,
    /// Since when the binding has held without a gap.
    pub registered_at: Option<Instant>,
    /// Where the registrar saw us come from.
    pub received: Option<SocketAddr>,
}
