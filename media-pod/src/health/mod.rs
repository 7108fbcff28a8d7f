//! Whether this process is ready and alive, and how the kubelet asks: `ringwire health` asks over a Unix socket.
//!
//! Not over the network: a pod on the host's network would show its health to strangers, and its port could be another pod's.

pub mod http;
pub mod metrics;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Environment variable with the directory of the socket.
pub const RUN_DIR_VARIABLE: &str = "RINGWIRE_RUN_DIR";

/// The directory without it.
const RUN_DIR: &str = "/run/ringwire";

/// A loop that has not beaten for this long hangs. Loops beat every few seconds at least.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// A question and its answer may take this long.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Questions that are answered at once.
const MAX_QUERIES: usize = 8;

/// Longest question in bytes.
const MAX_QUERY: u64 = 16;

/// What a process needs before it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The gateway's certificates.
    Certificates,
    /// Its whole configuration.
    Configuration,
    /// The SIP sockets.
    SipSockets,
    /// The RTP sockets.
    RtpSockets,
    /// The control port.
    ControlPort,
}

impl Need {
    fn missing(self) -> &'static str {
        match self {
            Self::Certificates => "the gateway's certificates have not been read yet",
            Self::Configuration => "the configuration is not complete yet",
            Self::SipSockets => "the SIP sockets are not bound",
            Self::RtpSockets => "the RTP sockets are not bound",
            Self::ControlPort => "the control port is not bound",
        }
    }
}

/// The health of this process; a handle to be cloned.
#[derive(Clone)]
pub struct Health(Arc<Mutex<State>>);

struct State {
    missing: BTreeSet<Need>,
    draining: bool,
    hearts: Vec<(&'static str, Instant)>,
}

/// What a loop shows that it still runs with.
pub struct Heart {
    health: Health,
    index: usize,
}

impl Heart {
    /// To be called at least every 5 s. A loop that stops calling it for 30 s makes the process count as dead.
    pub fn beat(&self) {
        if let Some((_, last)) = self.health.lock().hearts.get_mut(self.index) {
            *last = Instant::now();
        }
    }
}

impl Health {
    /// A process that is ready once all of `needs` are [met](Self::met).
    pub fn new(needs: impl IntoIterator<Item = Need>) -> Self {
        let state = State {
            missing: needs.into_iter().collect(),
            draining: false,
            hearts: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// One of the needs is there.
    pub fn met(&self, need: Need) {
        self.lock().missing.remove(&need);
    }

    /// From now on the process stops: it is not ready any more, but alive.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// Watches a loop called `name` from now on, until the process ends: if the loop ends before, or panics, it counts as hanging.
    pub fn heart(&self, name: &'static str) -> Heart {
        let mut state = self.lock();
        state.hearts.push((name, Instant::now()));
        Heart {
            health: self.clone(),
            index: state.hearts.len() - 1,
        }
    }

    /// Whether it can take calls; else why not, in words.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.lock();
        if state.draining {
            return Err("stopping".to_owned());
        }
        let missing: Vec<&str> = state.missing.iter().map(|need| need.missing()).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join("; "))
        }
    }

    /// Whether it runs; else what hangs.
    pub fn live(&self) -> Result<(), String> {
        self.live_at(Instant::now())
    }

    fn live_at(&self, now: Instant) -> Result<(), String> {
        let hanging: Vec<String> = self
            .lock()
            .hearts
            .iter()
            .map(|(name, last)| (name, now.saturating_duration_since(*last)))
            .filter(|(_, silent)| *silent > HANGS_AFTER)
            .map(|(name, silent)| format!("{name} has not run for {} s", silent.as_secs()))
            .collect();
        if hanging.is_empty() {
            Ok(())
        } else {
            Err(hanging.join("; "))
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; if it did, the state would still be good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory of a pod's sockets: what [`RUN_DIR_VARIABLE`] names, else `/run/ringwire`.
pub fn run_directory() -> PathBuf {
    PathBuf::from(std::env::var_os(RUN_DIR_VARIABLE).unwrap_or_else(|| OsString::from(RUN_DIR)))
}

/// Where the socket is: `health.sock` in the [`run_directory`].
pub fn socket_path() -> PathBuf {
    run_directory().join("health.sock")
}

/// Binds the socket at `path`, replacing what an earlier run has left, and answers there until `stop`. Fails if it cannot be bound.
pub fn serve(
    path: &Path,
    health: Health,
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + use<>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let path = path.to_owned();
    Ok(async move {
        let slots = Arc::new(Semaphore::new(MAX_QUERIES));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                break;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let health = health.clone();
                    tokio::spawn(async move {
                        let _slot = slot;
                        let _ = tokio::time::timeout(QUERY_TIMEOUT, answer(stream, health)).await;
                    });
                } else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                },
            }
        }
        let _ = std::fs::remove_file(path);
    })
}

async fn answer(mut stream: UnixStream, health: Health) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut question = String::new();
    BufReader::new(read.take(MAX_QUERY))
        .read_line(&mut question)
        .await?;
    let answer = match question.trim_end() {
        "ready" => health.ready(),
        "live" => health.live(),
        _ => Err("the question is not understood".to_owned()),
    };
    let text = match answer {
        Ok(()) => "ok\n".to_owned(),
        Err(reason) => format!("{reason}\n"),
    };
    write.write_all(text.as_bytes()).await
}

/// What `ringwire health` does: asks the process at `path` whether it is ready, or with `live` whether it is alive. Prints the reason if
/// not.
pub fn probe(path: &Path, live: bool) -> ExitCode {
    match ask(path, live) {
        Ok(answer) if answer == "ok" => ExitCode::SUCCESS,
        Ok(reason) => {
            println!("not {}: {reason}", if live { "alive" } else { "ready" });
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no answer at {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn ask(path: &Path, live: bool) -> std::io::Result<String> {
    let mut stream = BlockingUnixStream::connect(path)?;
    stream.set_read_timeout(Some(QUERY_TIMEOUT))?;
    stream.set_write_timeout(Some(QUERY_TIMEOUT))?;
    stream.write_all(if live { b"live\n" } else { b"ready\n" })?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_all_needs_are_met_and_not_while_stopping() {
        let health = Health::new([Need::Configuration, Need::ControlPort]);
        assert!(health.ready().unwrap_err().contains("configuration"));
        health.met(Need::Configuration);
        assert_eq!(
            health.ready(),
            Err("the control port is not bound".to_owned())
        );
        health.met(Need::ControlPort);
        assert_eq!(health.ready(), Ok(()));
        health.drain();
        assert_eq!(health.ready(), Err("stopping".to_owned()));
        assert_eq!(health.live(), Ok(()));
    }

    #[test]
    fn a_loop_that_hangs_is_named() {
        let health = Health::new([]);
        let (sip, _rtp) = (health.heart("the SIP loop"), health.heart("the RTP loop"));
        let start = Instant::now();
        assert_eq!(health.live_at(start + Duration::from_secs(29)), Ok(()));
        health.lock().hearts[1].1 = start;
        health.lock().hearts[0].1 = start + Duration::from_secs(10);
        let reason = health.live_at(start + Duration::from_secs(35)).unwrap_err();
        assert_eq!(reason, "the RTP loop has not run for 35 s");
        sip.beat();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_probe_learns_over_the_socket_what_is_missing() {
        let directory =
            std::env::temp_dir().join(format!("ringwire-health-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("health.sock");
        std::fs::write(&path, "left by an earlier run").unwrap();
        let health = Health::new([Need::SipSockets]);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(&path, health.clone(), stop.clone()).unwrap());
        let ask = |live| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || ask(&path, live))
        };
        assert_eq!(
            ask(false).await.unwrap().unwrap(),
            "the SIP sockets are not bound"
        );
        assert_eq!(ask(true).await.unwrap().unwrap(), "ok");
        health.met(Need::SipSockets);
        assert_eq!(ask(false).await.unwrap().unwrap(), "ok");
        stop.cancel();
        server.await.unwrap();
        assert!(ask(true).await.unwrap().is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
