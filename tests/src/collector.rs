//! A collector of SIP messages: Kamailio's module sipcapture, which tells what it has read in each HEP packet.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::address::Address;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// A message as the collector was told it.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The version of HEP.
    pub version: u32,
    /// What the payload is; 1: SIP.
    pub kind: u32,
    /// 2: IPv4.
    pub family: u32,
    /// As in the IP header.
    pub protocol: u32,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// When, in seconds since 1970.
    pub time: f64,
    /// Who says so.
    pub capture_id: u32,
    /// What he says so with.
    pub password: String,
    /// What messages of a call have in common.
    pub correlation_id: String,
    /// The message.
    pub message: String,
}

impl Collected {
    /// The first word of a request, the status of a response.
    pub fn what(&self) -> &str {
        let line = self.message.strip_prefix("SIP/2.0 ");
        let line = line.unwrap_or(&self.message);
        line.split(' ').next().unwrap_or_default()
    }
}

/// A running collector.
pub struct Collector {
    process: Process,
    place: SocketAddr,
    _scratch: Scratch,
    _address: Option<Address>,
}

impl Collector {
    /// Starts one on an address of its own.
    pub fn start() -> Self {
        Self::start_at(Address::claim())
    }

    /// Starts one on this address.
    pub fn start_at(address: Address) -> Self {
        Self::listen(address.ip(), Some(address))
    }

    /// Starts one on an address that the machine has.
    pub fn start_on(ip: IpAddr) -> Self {
        Self::listen(ip, None)
    }

    fn listen(ip: IpAddr, address: Option<Address>) -> Self {
        let place = SocketAddr::new(ip, 9060);
        let scratch = Scratch::new("collector");
        let folder = scratch.path();
        let config = folder.join("kamailio.cfg");
        std::fs::create_dir(folder.join("db")).unwrap();
        std::fs::write(&config, configuration(place, &folder.join("db"))).unwrap();
        let mut command = process::command("kamailio");
        command.arg("-f").arg(&config).args(["-DD", "-E", "-w"]);
        command.arg(folder).arg("-P").arg(folder.join("pid"));
        let process = Process::start("collector", command, folder);
        let collector = Self {
            process,
            place,
            _scratch: scratch,
            _address: address,
        };
        wait::until_ok(seconds(10), "the collector listens", || {
            let log = collector.process.log();
            if log.contains("processes (at least)") {
                Ok(())
            } else {
                Err(log)
            }
        });
        collector
    }

    /// Where it listens.
    pub fn place(&self) -> SocketAddr {
        self.place
    }

    /// What it has got.
    pub fn collected(&self) -> Vec<Collected> {
        let log = self.process.log();
        let lines = log.lines().filter_map(|line| line.split_once("HEP3 "));
        lines.filter_map(|(_, line)| read(line)).collect()
    }

    /// Waits until it has a message that `wanted` accepts: all that it has.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Collected) -> bool) -> Vec<Collected> {
        wait::until_ok(seconds(10), &format!("the collector gets {what}"), || {
            let all = self.collected();
            if all.iter().any(&wanted) {
                Ok(all)
            } else {
                Err(format!("{all:#?}"))
            }
        })
    }
}

fn configuration(place: SocketAddr, db: &std::path::Path) -> String {
    let chunks = [
        "$hep(version)",
        "$hep(0x00b)",
        "$hep(0x001)",
        "$hep(0x002)",
        "$hep(0x003):$hep(0x007)",
        "$hep(0x004):$hep(0x008)",
        "$hep(0x009)",
        "$hep(0x00a)",
        "$hep(0x00c)",
        "$hep(0x00e)",
        "$hep(0x011)",
        "$(hep(0x00f){s.encode.base64})",
    ];
    format!(
        "#!KAMAILIO\n\
         debug=2\nlog_stderror=yes\nfork=yes\nchildren=1\ndisable_tcp=yes\nauto_aliases=no\n\
         listen=udp:{place}\n\
         loadmodule \"pv.so\"\nloadmodule \"sl.so\"\nloadmodule \"xlog.so\"\nloadmodule \"textops.so\"\n\
         loadmodule \"db_text.so\"\nloadmodule \"sipcapture.so\"\n\
         modparam(\"xlog\", \"buf_size\", 200000)\n\
         modparam(\"sipcapture\", \"db_url\", \"text://{db}\")\n\
         modparam(\"sipcapture\", \"hep_capture_on\", 1)\n\
         modparam(\"sipcapture\", \"nonsip_hook\", 1)\n\
         request_route {{ drop; }}\n\
         event_route[sipcapture:request] {{\n  xlog(\"L_INFO\", \"HEP3 {chunks}\\n\");\n  return 0;\n}}\n",
        db = db.display(),
        chunks = chunks.join(" "),
    )
}

fn read(line: &str) -> Option<Collected> {
    let mut parts = line.split(' ');
    let mut text = || parts.next();
    let number = |text: &str| text.parse::<u32>().ok();
    Some(Collected {
        version: number(text()?)?,
        kind: number(text()?)?,
        family: number(text()?)?,
        protocol: number(text()?)?,
        source: text()?.parse().ok()?,
        destination: text()?.parse().ok()?,
        time: f64::from(number(text()?)?) + f64::from(number(text()?)?) / 1e6,
        capture_id: number(text()?)?,
        password: text()?.to_owned(),
        correlation_id: text()?.to_owned(),
        message: String::from_utf8(BASE64_STANDARD.decode(text()?.trim()).ok()?).ok()?,
    })
}
