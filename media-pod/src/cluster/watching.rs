//! Watches that never end: back-off, and log lines that say once that a watch fails and once, with its next event, that it works again.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;

/// How long one watch request lasts. It also bounds how long a connection that died silently goes unnoticed.
pub(super) const WATCH_SECONDS: u32 = 60;

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(100);

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(2);

/// After this long without a failure the pauses start anew. A watcher reports progress before its first request, so that progress alone
/// says nothing.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// A failure that persists is logged this often.
const REMIND: Duration = Duration::from_secs(60);

/// The events of a watch on one named object, or all that match; failures are logged and retried for ever. `what` names the watched for
/// people.
pub(super) fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    what: String,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut log = FailureLog::default();
    watcher::watcher(api, config.timeout(WATCH_SECONDS))
        .backoff(Pauses::default())
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    // `Init` comes before the first request.
                    if !matches!(event, Event::Init) && log.recovered() {
                        tracing::info!(watched = what, "watching again");
                    }
                    Some(event)
                }
                Err(error) => {
                    if log.failed(Instant::now()) {
                        tracing::warn!(
                            watched = what,
                            error = describe(&error),
                            "cannot watch; trying again"
                        );
                    }
                    None
                }
            };
            std::future::ready(event)
        })
}

/// Decides which failures are worth a line.
#[derive(Default)]
struct FailureLog {
    last: Option<Instant>,
}

impl FailureLog {
    fn failed(&mut self, now: Instant) -> bool {
        let due = self
            .last
            .is_none_or(|last| now.duration_since(last) >= REMIND);
        if due {
            self.last = Some(now);
        }
        due
    }

    fn recovered(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// What failed, without anything that the API server sent as data: it could quote a Secret.
fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe_client(error),
        watcher::Error::WatchError(status) => format!("{} ({})", status.message, status.code),
        watcher::Error::NoResourceVersion => "the answer has no resource version".to_owned(),
    }
}

/// The same for a single request.
pub(super) fn describe_client(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            "the answer cannot be read".to_owned()
        }
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

/// Doubling pauses with jitter.
#[derive(Default)]
struct Pauses {
    next: Option<Duration>,
    last_failure: Option<Instant>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self
            .last_failure
            .is_some_and(|last| now.duration_since(last) > FORGIVEN_AFTER)
        {
            self.next = None;
        }
        self.last_failure = Some(now);
        let pause = self.next.unwrap_or(FIRST);
        self.next = Some((pause * 2).min(LONGEST));
        Some(pause.mul_f64(rand::rng().random_range(0.7..=1.0)))
    }
}

impl Backoff for Pauses {
    // See FORGIVEN_AFTER.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds_and_no_further() {
        let pauses: Vec<Duration> = Pauses::default().take(12).collect();
        assert!(pauses[0] <= FIRST);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[11] >= LONGEST.mul_f64(0.7));
    }

    #[test]
    fn a_persistent_failure_is_logged_once_a_minute() {
        let mut log = FailureLog::default();
        let start = Instant::now();
        assert!(!log.recovered(), "nothing has failed");
        assert!(log.failed(start));
        assert!(!log.failed(start + Duration::from_secs(59)));
        assert!(log.failed(start + Duration::from_secs(60)));
        assert!(log.recovered());
        assert!(!log.recovered());
    }

    #[test]
    fn an_unreadable_secret_is_not_quoted() {
        let error = serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
        let text = describe(&watcher::Error::InitialListFailed(kube::Error::SerdeError(
            error,
        )));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
