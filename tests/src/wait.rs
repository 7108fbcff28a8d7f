//! Waiting for a state: polls with a limit and says what did not happen.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// A duration in seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Polls until `look` finds something. Panics after `limit`, telling `what` was awaited.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    until_ok(limit, what, || look().ok_or_else(String::new))
}

/// As [`until`]; the panic tells the last error, too.
#[track_caller]
pub fn until_ok<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() >= end => {
                panic!("{what}: not within {limit:?}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
