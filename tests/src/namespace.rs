//! A network namespace with one cable to this machine, for peers that refuse loopback addresses. Needs root.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;
use crate::scratch::owner_is_gone;

static NEXT: AtomicU32 = AtomicU32::new(0);
static TIDY: Once = Once::new();

/// A namespace; gone when dropped.
pub struct Namespace {
    name: String,
    here: Ipv4Addr,
    there: Ipv4Addr,
}

fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("ip {arguments}: {}", text(&output.stderr)))
    }
}

impl Namespace {
    /// Makes one. Addresses are of 198.18.0.0/15, which is meant for tests (RFC 2544).
    pub fn new() -> Self {
        TIDY.call_once(remove_stale);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Also the name of the cable's end here, which may have 15 characters.
        let name = format!("rw-t{}-{number}", std::process::id());
        let block = (std::process::id().wrapping_mul(31).wrapping_add(number) % 32_000) as u16;
        let [third, fourth] = (block << 2).to_be_bytes();
        let second = 18 + (block >> 14) as u8;
        let (here, there) = (
            Ipv4Addr::new(198, second, third, fourth | 1),
            Ipv4Addr::new(198, second, third, fourth | 2),
        );
        let namespace = Self { name, here, there };
        let name = &namespace.name;
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add {here}/30 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {there}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&command).unwrap_or_else(|error| panic!("{error} (these tests need root)"));
        }
        namespace
    }

    /// Our end's address.
    pub fn here(&self) -> IpAddr {
        self.here.into()
    }

    /// Its end's address.
    pub fn there(&self) -> IpAddr {
        self.there.into()
    }

    /// A [`process::command`] that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = process::command("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(program);
        command
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = ip(&format!("link del {}", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn remove_stale() {
    for line in ip("netns list").unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if owner_is_gone(name) {
            let _ = ip(&format!("link del {name}"));
            let _ = ip(&format!("netns del {name}"));
        }
    }
}
