//! Kamailio, as a proxy that keeps transactions and stays in the dialog by Record-Route.

use std::net::SocketAddr;

use ringwire_tests::address::Address;
use ringwire_tests::process::{self, Process, repository};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};

use crate::{NUMBER, Proxy};

pub struct Kamailio {
    process: Process,
    address: Address,
    _scratch: Scratch,
}

impl Kamailio {
    /// Starts one in front of this callee.
    pub fn start(callee: &Address) -> Self {
        let (address, scratch) = (Address::claim(), Scratch::new("kamailio"));
        let template = repository().join("tests/benches/proxy/kamailio.cfg.in");
        let config = std::fs::read_to_string(template)
            .unwrap()
            .replace("@ADDRESS@", &address.to_string())
            .replace("@DIR@", &scratch.path().display().to_string())
            .replace("@NUMBER@", NUMBER);
        let file = |name: &str| scratch.path().join(name);
        std::fs::write(file("kamailio.cfg"), config).unwrap();
        std::fs::write(file("dispatcher.list"), format!("1 sip:{callee}:5060\n")).unwrap();
        let mut command = process::command("kamailio");
        command
            .arg("-f")
            .arg(file("kamailio.cfg"))
            .arg("-Y")
            .arg(scratch.path())
            .args(["-DD", "-E", "-m", "512", "-M", "8"]);
        let process = Process::start("kamailio", command, scratch.path());
        let sip = address.port(5060);
        wait::until(seconds(10), "Kamailio listens", || {
            listens(sip).then_some(())
        });
        Self {
            process,
            address,
            _scratch: scratch,
        }
    }
}

/// Whether somebody has this UDP port.
fn listens(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind(address).is_err()
}

impl Proxy for Kamailio {
    fn name(&self) -> &'static str {
        "Kamailio"
    }

    fn group(&self) -> u32 {
        self.process.id()
    }

    fn sip(&self) -> SocketAddr {
        self.address.port(5060)
    }

    fn check(&mut self) {
        let ended = self.process.ended();
        assert!(ended.is_none(), "{ended:?}: {}", self.process.log());
    }
}
