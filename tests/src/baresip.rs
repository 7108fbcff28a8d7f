//! baresip, a phone with ears, in a namespace of its own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// Where Debian and others have its modules.
const MODULES: [&str; 3] = [
    "/usr/lib/baresip/modules",
    "/usr/local/lib/baresip/modules",
    "/usr/lib64/baresip/modules",
];

/// A running baresip with the account `phone` of [`crate::carrier::Carrier`], which doesn't register. Fields are dropped in order: the phone before its network.
pub struct Baresip {
    process: Process,
    control: TcpStream,
    scratch: Scratch,
    namespace: Namespace,
}

/// A WAV file of these samples (8 kHz) at the rate and with the channels of a codec such as `opus/48000/2`, which baresip does not change.
fn play(samples: &[i16], codec: &str) -> Vec<u8> {
    let mut parts = codec.split('/').skip(1).map(|part| part.parse().unwrap());
    let (rate, channels) = (parts.next().unwrap(), parts.next().unwrap_or(1));
    let sound = crate::audio::resample(samples, 8000, rate);
    let length = sound.len() as u32 * 2 * channels;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    file.extend((channels as u16).to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * 2 * channels).to_le_bytes());
    file.extend((2 * channels as u16).to_le_bytes());
    file.extend(b"\x10\0data");
    file.extend(length.to_le_bytes());
    for sample in sound {
        (0..channels).for_each(|_| file.extend(sample.to_le_bytes()));
    }
    file
}

impl Baresip {
    /// Starts one that plays these samples and offers these codecs, such as `PCMU/8000/1`.
    pub fn start(samples: &[i16], codecs: &str) -> Self {
        Self::trusting(samples, codecs, "", "", &[])
    }

    /// The same with further parameters of its account, such as `;mediaenc=srtp-mand`, and modules that do what they ask for.
    pub fn with(samples: &[i16], codecs: &str, parameters: &str, modules: &[&str]) -> Self {
        Self::trusting(samples, codecs, "", parameters, modules)
    }

    /// The same, one that calls over TLS and trusts this authority (PEM).
    pub fn over_tls(samples: &[i16], codecs: &str, authority: &str) -> Self {
        Self::trusting(samples, codecs, authority, "", &[])
    }

    fn trusting(
        samples: &[i16],
        codecs: &str,
        authority: &str,
        parameters: &str,
        more: &[&str],
    ) -> Self {
        let namespace = Namespace::new();
        let scratch = Scratch::new("baresip");
        let folder = scratch.path();
        let modules = MODULES
            .iter()
            .find(|path| Path::new(path).is_dir())
            .expect("baresip is installed (hack/setup.sh --sip)");
        std::fs::write(folder.join("play.wav"), play(samples, codecs)).unwrap();
        let there = namespace.there();
        let config = format!(
            "module_path {modules}\n\
             sip_listen {there}:5060\n\
             net_interface eth0\n\
             audio_player aubridge,sink\n\
             audio_source aufile,{0}/play.wav\n\
             audio_alert aubridge,alert\n\
             audio_level no\n\
             snd_path {0}\n\
             ctrl_tcp_listen {there}:4444\n\
             rtp_ports 10000-10100\n\
             jitter_buffer_delay 2-5\n\
             module g711.so\nmodule g722.so\nmodule l16.so\nmodule opus.so\nopus_inbandfec yes\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
             module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n",
            folder.display(),
        );
        let more = more.iter().fold(String::new(), |text, name| {
            text + "module "
                + name
                + ".so
"
        });
        let config = config + &more;
        std::fs::write(folder.join("ca.crt"), authority).unwrap();
        let (tls, transport) = if authority.is_empty() {
            (String::new(), "")
        } else {
            let file = folder.join("ca.crt");
            let tls = format!("sip_cafile {}\nsip_verify_server yes\n", file.display());
            (tls, ";transport=tls")
        };
        std::fs::write(folder.join("config"), config + &tls).unwrap();
        let account = format!(
            "<sip:phone@{there}{transport}>;auth_user=phone;auth_pass=secret2;regint=0;audio_codecs={codecs};ptime=20{parameters}\n"
        );
        std::fs::write(folder.join("accounts"), account).unwrap();
        std::fs::write(folder.join("contacts"), "").unwrap();
        let mut command = namespace.command("baresip");
        command.arg("-f").arg(folder).current_dir(folder);
        let mut process = Process::start("baresip", command, folder);
        wait::until_ok(seconds(10), "baresip is ready", || {
            assert!(
                process.ended().is_none(),
                "baresip ended: {}",
                process.log()
            );
            if process.log().contains("baresip is ready") {
                Ok(())
            } else {
                Err(process.log())
            }
        });
        let control = wait::until(seconds(5), "baresip takes commands", || {
            TcpStream::connect((there, 4444)).ok()
        });
        Self {
            process,
            control,
            scratch,
            namespace,
        }
    }

    /// The address at which it can reach this machine.
    pub fn here(&self) -> IpAddr {
        self.namespace.here()
    }

    /// Its own address.
    pub fn there(&self) -> IpAddr {
        self.namespace.there()
    }

    /// From now on nothing of what is sent to its ports for RTP and RTCP gets there.
    pub fn lose_media(&self) {
        let rule = "-A INPUT -p udp --dport 10000:10101 -j DROP";
        let mut command = self.namespace.command("iptables");
        let status = command.args(rule.split(' ')).status().unwrap();
        assert!(status.success(), "iptables {rule}");
    }

    /// Runs a command: `dial` with a URI, `hangup`, `sndcode` with a key.
    pub fn command(&mut self, command: &str, parameter: &str) {
        let text = format!(r#"{{"command":"{command}","params":"{parameter}","token":"t"}}"#);
        self.control
            .write_all(format!("{}:{text},", text.len()).as_bytes())
            .unwrap();
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Events and answers that have come since the last time, as they are.
    pub fn events(&mut self) -> String {
        self.control
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let mut text = String::new();
        let mut buffer = [0; 16_384];
        while let Ok(length @ 1..) = self.control.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    }

    /// Waits until an event of that type has come, such as `CALL_ESTABLISHED`.
    #[track_caller]
    pub fn wait_event(&mut self, event: &str, limit: Duration) {
        let mut seen = String::new();
        wait::until_ok(limit, &format!("baresip tells {event}"), || {
            seen.push_str(&self.events());
            if seen.contains(event) {
                Ok(())
            } else {
                Err(seen.clone())
            }
        });
    }

    /// The recording of what it sent (`enc`) or heard (`dec`) in its only call, once the call is over.
    #[track_caller]
    pub fn recording(&self, side: &str) -> Vec<i16> {
        let find = || -> Option<PathBuf> {
            let files = std::fs::read_dir(self.scratch.path())
                .ok()?
                .flatten()
                .map(|entry| entry.path());
            files
                .into_iter()
                .find(|path| path.to_string_lossy().ends_with(&format!("-{side}.wav")))
        };
        let path = wait::until(seconds(5), &format!("baresip's recording {side}"), find);
        crate::audio::read_wav(&path)
    }
}
