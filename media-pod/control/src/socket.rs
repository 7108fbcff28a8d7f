//! TCP settings of both ends of the control port.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// An idle connection is probed after this time…
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);

/// …and this often…
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);

/// …and is closed after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection ends when what was sent is not acknowledged for this long. Without it a node that vanished would keep its connections
/// for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Small messages go out at once, and a peer that is gone is noticed.
pub(crate) fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}
