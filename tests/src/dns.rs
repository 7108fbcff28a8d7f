//! A carrier's DNS: `CoreDNS` with the zone `carrier.test`, which a test may change while it is served.

use std::cell::Cell;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::process::{self, Process, repository};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// A server. What is read with its [`Self::resolver`] gets its answers.
pub struct Dns {
    address: Address,
    serial: Cell<u32>,
    scratch: Scratch,
    _process: Process,
}

impl Dns {
    /// Serves these records, a line each. Names are relative to `carrier.test`, and every TTL is 1 s.
    pub fn start(records: &str) -> Self {
        let (address, scratch) = (Address::claim(), Scratch::new("dns"));
        let zone = scratch.path().join("zone");
        let corefile = format!(
            "carrier.test:53 {{\n    bind {address}\n    errors\n    file {} {{\n        reload 200ms\n    }}\n}}\n",
            zone.display()
        );
        let file = scratch.path().join("Corefile");
        std::fs::write(&file, corefile).unwrap();
        std::fs::write(
            scratch.path().join("resolv.conf"),
            format!("nameserver {address}\noptions timeout:1 attempts:2\n"),
        )
        .unwrap();
        write(&scratch, 1, records);
        let mut command = process::command(program());
        command.arg("-conf").arg(&file).arg("-quiet");
        let mut process = Process::start("coredns", command, scratch.path());
        wait::until_ok(seconds(10), "the name server answers", || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            answers(&address).then_some(()).ok_or_else(|| process.log())
        });
        Self {
            address,
            serial: Cell::new(1),
            scratch,
            _process: process,
        }
    }

    /// Serves these records from now on.
    pub fn change(&self, records: &str) {
        self.serial.set(self.serial.get() + 1);
        write(&self.scratch, self.serial.get(), records);
    }

    /// What stands in place of `/etc/resolv.conf` for those who ask this server.
    pub fn resolver(&self) -> PathBuf {
        self.scratch.path().join("resolv.conf")
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

fn write(scratch: &Scratch, serial: u32, records: &str) {
    let head = format!(
        "$ORIGIN carrier.test.\n$TTL 1\n@ IN SOA ns hostmaster {serial} 60 60 60 1\n@ IN NS ns\n"
    );
    let new = scratch.path().join("new");
    std::fs::write(&new, head + records).unwrap();
    std::fs::rename(new, scratch.path().join("zone")).unwrap();
}

/// Whether a question for the zone itself is answered.
fn answers(address: &Address) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [&head[..], b"\x07carrier\x04test\0", &[0, 6, 0, 1]].concat();
    let _ = socket.send_to(&question, address.port(53));
    socket.recv(&mut [0; 512]).is_ok()
}

fn program() -> PathBuf {
    let versions = std::fs::read_to_string(repository().join("hack/lib.sh")).unwrap();
    let version = versions
        .lines()
        .find_map(|line| line.strip_prefix("COREDNS_VERSION="))
        .unwrap();
    let path = process::tools().join(format!("coredns-{version}/bin/coredns"));
    assert!(
        path.is_file(),
        "there is no {}: run hack/setup.sh --all",
        path.display()
    );
    path
}
