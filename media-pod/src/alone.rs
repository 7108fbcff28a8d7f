//! A thread with a runtime of its own, for what passes messages on: what comes in over one connection and leaves over another wakes
//! nobody else in between.

use std::io;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// There is nothing to wait for.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The system gave no thread, or no runtime.
    #[error("cannot start the thread {name}")]
    Start {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A fault, which the thread has logged.
    #[error("a fault ended the thread {0}")]
    Fault(&'static str),
}

/// Makes a future on a thread of that name and runs it there to its end, from now on; what it spawns, locally or not, stays there and ends
/// with it. The thread goes on if nobody waits.
pub fn run<F, T>(
    name: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> impl Future<Output = Result<T, Failed>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let started = start(name, make);
    async move {
        let result = started.map_err(|source| Failed::Start { name, source })?;
        result.await.map_err(|_| Failed::Fault(name))
    }
}

fn start<F, T>(
    name: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<oneshot::Receiver<T>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (told, result) = oneshot::channel();
    let body = move || {
        let local = LocalSet::new();
        let result = runtime.block_on(local.run_until(async { make().await }));
        drop(local);
        drop(runtime);
        // Whoever asked may have something better to do by now.
        let _ = told.send(result);
    };
    std::thread::Builder::new().name(name.into()).spawn(body)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_spawns_runs_on_its_thread_and_its_result_comes_back() {
        let name = || std::thread::current().name().map(str::to_owned);
        let spawned = run("here", move || async move {
            let local = tokio::task::spawn_local(async move { name() });
            let other = tokio::spawn(async move { name() });
            (local.await.unwrap(), other.await.unwrap())
        });
        let here = || Some("here".to_owned());
        assert_eq!(spawned.await.unwrap(), (here(), here()));
    }

    #[tokio::test]
    async fn a_fault_is_told() {
        let broken = run("broken", || async { panic!("on purpose") });
        let result: Result<(), Failed> = broken.await;
        assert!(matches!(result, Err(Failed::Fault("broken"))), "{result:?}");
    }
}
