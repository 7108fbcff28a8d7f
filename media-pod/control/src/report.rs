//! A pod's own account of itself: one [`PodState`] that the roles change and subscribers of the control port follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringwire_config::state::PodState;
use tokio::sync::watch;

/// Shared handle on the pod's state. Not for the packet path: it locks.
#[derive(Clone)]
pub struct Reporter {
    state: Arc<Mutex<PodState>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Reporter {
    /// Starts with `state`.
    pub fn new(state: PodState) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Changes the state and wakes the subscribers.
    pub fn update<R>(&self, change: impl FnOnce(&mut PodState) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> PodState {
        self.lock().clone()
    }

    /// Reads a part of the state.
    pub fn read<R>(&self, read: impl FnOnce(&PodState) -> R) -> R {
        read(&self.lock())
    }

    /// Wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, PodState> {
        // A panic while the state was locked leaves it readable: reporting goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
