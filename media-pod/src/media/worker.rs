//! The threads that carry the calls' dialogs; their packets have threads of their own ([`ringwire_media::plane`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::call::{self, NewCall};
use super::exchange::FromCall;
use super::shared::Shared;

/// New calls that wait for a thread; beyond it another pod may take them.
const QUEUE: usize = 256;

/// A thread that carries calls, and where it gets them.
pub fn start(
    index: usize,
    shared: &Arc<Shared>,
) -> (mpsc::Sender<NewCall>, std::thread::JoinHandle<()>) {
    let (sender, calls) = mpsc::channel::<NewCall>(QUEUE);
    let shared = Arc::clone(shared);
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime for a worker");
                std::process::abort();
            }
        };
        let local = tokio::task::LocalSet::new();
        runtime.block_on(local.run_until(serve(calls, shared)));
    };
    #[expect(
        clippy::expect_used,
        reason = "a pod that cannot have threads cannot carry calls"
    )]
    let thread = std::thread::Builder::new()
        .name(format!("media-{index}"))
        .spawn(body)
        .expect("a thread");
    (sender, thread)
}

async fn serve(mut calls: mpsc::Receiver<NewCall>, shared: Arc<Shared>) {
    let mut running = tokio::task::JoinSet::new();
    let mut keys = std::collections::HashMap::new();
    loop {
        tokio::select! {
            call = calls.recv() => match call {
                Some(call) => {
                    let key = call.key.clone();
                    let task = running.spawn_local(call::run(call, Arc::clone(&shared)));
                    keys.insert(task.id(), key);
                }
                None => break,
            },
            Some(ended) = running.join_next_with_id() => match ended {
                Ok((task, ())) => drop(keys.remove(&task)),
                // A call that could not even be ended in order is over; the others go on.
                Err(error) => {
                    tracing::error!(%error, "a call failed");
                    if let Some(key) = keys.remove(&error.id()) {
                        shared.tell(FromCall::Ended(key)).await;
                    }
                }
            },
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        while running.join_next().await.is_some() {}
    })
    .await;
}
