//! What wakes the reconcile loop, and the time it waits so that changes that come together are handled together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Changes within this time are handled in one pass.
pub const DEBOUNCE: Duration = Duration::from_millis(20);

/// Wakes the loop. Holds no events: the loop always looks at everything.
#[derive(Debug, Default)]
pub struct Signal {
    notify: Notify,
    objects: AtomicBool,
}

impl Signal {
    /// Something changed that compilation reads: a kind, Secret, namespace or node.
    pub fn objects_changed(&self) {
        self.objects.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Something changed that only statuses or children depend on.
    pub fn state_changed(&self) {
        self.notify.notify_one();
    }

    /// Whether objects changed since the last call.
    pub fn take_objects(&self) -> bool {
        self.objects.swap(false, Ordering::AcqRel)
    }

    /// Returns [`DEBOUNCE`] after the first change since the last return.
    pub async fn changed(&self) {
        self.notify.notified().await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_burst_wakes_once() {
        let signal = Signal::default();
        for _ in 0..100 {
            signal.objects_changed();
        }
        signal.changed().await;
        assert!(signal.take_objects());
        assert!(!signal.take_objects());
        assert!(
            signal.notify.notified().now_or_never().is_none(),
            "nothing is left to wake for"
        );
    }

    #[tokio::test]
    async fn a_change_during_a_pass_is_not_lost() {
        let signal = Signal::default();
        signal.state_changed();
        signal.changed().await;
        assert!(!signal.take_objects());
        signal.objects_changed();
        signal.changed().await;
        assert!(signal.take_objects());
    }
}
