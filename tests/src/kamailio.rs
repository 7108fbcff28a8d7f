//! Kamailio with a few lines of configuration, for parts that the carrier of `hack/carrier.sh` does not play.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::address::Address;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// Modules that every configuration may use.
const MODULES: [&str; 9] = [
    "corex", "tm", "sl", "rr", "pv", "siputils", "textops", "xlog", "maxfwd",
];

/// A running one.
pub struct Kamailio {
    address: Address,
    process: Process,
    _scratch: Scratch,
}

impl Kamailio {
    /// Starts one that speaks UDP and TCP on an address of its own, with these further modules and this behind them: parameters and
    /// routes. OPTIONS from this machine are answered before any of it, except within a dialog.
    pub fn start(modules: &[&str], routes: &str) -> Self {
        let (address, scratch) = (Address::claim(), Scratch::new("kamailio"));
        let listen = address.port(5060);
        let load = |name: &&str| format!("loadmodule \"{name}.so\"\n");
        let modules: String = MODULES.iter().chain(modules).map(load).collect();
        let config = format!(
            "#!KAMAILIO\ndebug=2\nlog_stderror=yes\nchildren=1\ntcp_children=1\ndisable_sctp=yes\nauto_aliases=no\n\
             listen=udp:{listen}\nlisten=tcp:{listen}\n{modules}\n\
             request_route {{\n    if (is_method(\"OPTIONS\") && !has_totag()) {{\n        sl_send_reply(\"200\", \"OK\");\n        \
             exit;\n    }}\n    route(REQUEST);\n}}\n{routes}"
        );
        let file = scratch.path().join("kamailio.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = process::command("kamailio");
        command.arg("-f").arg(&file).arg("-Y").arg(scratch.path());
        command.args(["-DD", "-E", "-m", "32", "-M", "4"]);
        let mut process = Process::start("kamailio", command, scratch.path());
        wait::until_ok(seconds(10), "Kamailio answers", || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            is_there(listen).then_some(()).ok_or_else(|| process.log())
        });
        Self {
            address,
            process,
            _scratch: scratch,
        }
    }

    /// Where it speaks SIP.
    pub fn sip(&self) -> SocketAddr {
        self.address.port(5060)
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Whether something answers there.
fn is_there(remote: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let local = socket.local_addr().unwrap();
    let ping = format!(
        "OPTIONS sip:{remote} SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bKping{0}\r\nMax-Forwards: 70\r\n\
         From: <sip:test@{local}>;tag=1\r\nTo: <sip:{remote}>\r\nCall-ID: ping{0}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        local.port()
    );
    let _ = socket.send_to(ping.as_bytes(), remote);
    socket.recv(&mut [0; 2048]).is_ok()
}
