//! What went wrong with a request to the API server, and who has to know.

use std::time::Duration;

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The object or its namespace is gone or going: nothing to do, nothing to say.
    #[error("gone")]
    Gone,
    /// Somebody else wrote first; the next attempt will see it.
    #[error("changed meanwhile")]
    Conflict,
    /// The API server refuses it, and says why: only a change helps.
    #[error("{0}")]
    Refused(String),
    /// An object of somebody else has the name.
    #[error("{0}")]
    Foreign(String),
    /// The API server could not be asked, or was in trouble itself.
    #[error("{0}")]
    Unavailable(String),
}

/// A request ends by then.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a request with a time limit.
pub async fn limited<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| Failure::from(&error)),
        Err(_) => Err(Failure::Unavailable(
            "no answer from the API server within 10 s".to_owned(),
        )),
    }
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let terminating = status.message.contains("is being terminated");
                match status.code {
                    404 | 410 => Self::Gone,
                    _ if terminating => Self::Gone,
                    409 => Self::Conflict,
                    429 => Self::Unavailable(status.message.clone()),
                    400..=499 => Self::Refused(status.message.clone()),
                    _ => Self::Unavailable(status.message.clone()),
                }
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// An error with all its causes, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn failure(code: u16, message: &str) -> Failure {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        Failure::from(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_namespace_that_goes_is_no_failure_to_tell() {
        let message = "secrets \"x\" is forbidden: unable to create new content in namespace a because it is being terminated";
        assert_eq!(failure(403, message), Failure::Gone);
        assert_eq!(failure(404, "not found"), Failure::Gone);
    }

    #[test]
    fn a_refusal_keeps_the_servers_words() {
        assert_eq!(
            failure(422, "spec: too long"),
            Failure::Refused("spec: too long".into())
        );
        assert!(matches!(failure(500, "etcd"), Failure::Unavailable(_)));
        assert!(matches!(failure(429, "slow down"), Failure::Unavailable(_)));
    }
}
