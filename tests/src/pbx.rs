//! A PBX that logs in to place calls: Kamailio, which answers challenges with its module uac.

use std::net::SocketAddr;

use crate::address::Address;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// A running one. What calls it is sent on to the gateway.
pub struct Pbx {
    address: Address,
    _process: Process,
    _scratch: Scratch,
}

impl Pbx {
    /// One with an account at this gateway.
    pub fn start(gateway: SocketAddr, username: &str, password: &str) -> Self {
        let (address, scratch) = (Address::claim(), Scratch::new("pbx"));
        let listen = address.port(5060);
        let config = format!(
            r#"#!KAMAILIO
debug=2
log_stderror=yes
children=1
listen=udp:{listen}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "xlog.so"
loadmodule "uac.so"
modparam("uac", "credential", "{username}:ringwire:{password}")
request_route {{
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (is_method("OPTIONS")) {{
        sl_send_reply("200", "OK");
        exit;
    }}
    record_route();
    t_on_failure("ASKED");
    $du = "sip:{gateway}";
    t_relay();
}}
failure_route[ASKED] {{
    if (t_check_status("401|407") && uac_auth()) {{
        $du = "sip:{gateway}";
        t_relay();
    }}
}}
"#
        );
        let file = scratch.path().join("kamailio.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = process::command("kamailio");
        command.arg("-f").arg(&file).arg("-Y").arg(scratch.path());
        command.args(["-DD", "-E", "-m", "32", "-M", "4"]);
        let mut process = Process::start("kamailio", command, scratch.path());
        wait::until_ok(seconds(10), "the PBX answers", || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            is_there(listen).then_some(()).ok_or_else(|| process.log())
        });
        Self {
            address,
            _process: process,
            _scratch: scratch,
        }
    }

    /// Where it is called.
    pub fn sip(&self) -> SocketAddr {
        self.address.port(5060)
    }
}

/// Whether something answers there.
fn is_there(remote: SocketAddr) -> bool {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
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
