//! The Unix socket of `ringwire trace`: a line of JSON with what is wanted goes in, lines of JSON with messages come out until either
//! side closes. Whoever may open the file may listen: it belongs to the process's user alone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::entry::{Line, Request};
use super::tracer::{Hub, Traced};
use super::{summary, tracer};

/// Longest request in bytes.
const MAX_REQUEST: u64 = 4_096;

/// The request has to be there by then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a pod has it.
pub fn path_in_pod() -> PathBuf {
    crate::health::run_directory().join("trace.sock")
}

/// Binds the socket at `path`, replacing what an earlier run has left, and serves it until `stop`. Fails if it cannot be bound.
pub fn serve(
    path: &Path,
    hub: Hub,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + use<>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let path = path.to_owned();
    Ok(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let (hub, stop) = (hub.clone(), stop.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            // It ends when the other side has gone.
                            _ = answer(stream, hub) => {}
                        }
                    });
                } else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                },
            }
        }
        let _ = std::fs::remove_file(path);
    })
}

async fn answer(stream: UnixStream, hub: Hub) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut text = String::new();
    let mut limited = (&mut reader).take(MAX_REQUEST);
    let read = tokio::time::timeout(REQUEST_TIMEOUT, limited.read_line(&mut text));
    if read.await.is_err() {
        return Ok(());
    }
    let request = match serde_json::from_str::<Request>(&text) {
        Ok(request) => request,
        Err(error) => {
            let reason = format!("the request is not understood: {error}");
            return say(&mut write, &Line::Refused { reason }).await;
        }
    };
    let Some(listening) = hub.listen(request.filter) else {
        let reason = "too many are listening already".to_owned();
        return say(&mut write, &Line::Refused { reason }).await;
    };
    let hello = Line::Listening {
        pod: hub.pod().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    say(&mut write, &hello).await?;
    tokio::select! {
        result = tell(&mut write, listening, &hub, request.whole) => result,
        () = closed(reader) => Ok(()),
    }
}

/// Returns when the other side has closed its end.
async fn closed(mut reader: BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 256];
    while let Ok(1..) = reader.read(&mut ignored).await {}
}

async fn tell(
    write: &mut OwnedWriteHalf,
    mut listening: tracer::Listening,
    hub: &Hub,
    whole: bool,
) -> io::Result<()> {
    while let Some(traced) = listening.messages.recv().await {
        let messages = listening.lost();
        if messages > 0 {
            let lost = Line::Lost {
                pod: hub.pod().to_owned(),
                time: Timestamp::now(),
                messages,
            };
            say(write, &lost).await?;
        }
        say(write, &line(&traced, whole)).await?;
    }
    Ok(())
}

fn line(traced: &Traced, whole: bool) -> Line {
    let mut entry = traced.entry.clone();
    entry.message = whole.then(|| summary::whole(&traced.masked));
    Line::Message(Box::new(entry))
}

async fn say(write: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}
