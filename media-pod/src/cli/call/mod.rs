//! `ringwire call`: a test call from the command line, so that a trunk, a number and an agent can be tried without a phone.
//!
//! One call at a time and no registration; load is the business of load tools.

mod audio;
mod engine;
mod net;
mod outcome;
#[cfg(test)]
mod tests;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, ValueEnum};
use ringwire_media::{tone, wav};
use ringwire_sip::digest::Credentials;
use ringwire_sip::message::{HeaderName, Host, NameAddr, Scheme, Uri};
use ringwire_sip::sdp::Codec;
use ringwire_sip::transaction::Transport;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::engine::Plan;
use self::outcome::Outcome;
use super::{USAGE, chain, complain, resolve, say};

/// Played when no file is given.
const TEST_SIGNAL_MILLIS: u32 = 5000;
/// The same signal in every call, so that recordings can be compared.
const TEST_SIGNAL_SEED: u64 = 1;
/// The call goes on so long after the last of what is played, for the echo of it.
const TAIL: Duration = Duration::from_secs(1);
/// A key and the pause behind it take less than this.
const KEY: Duration = Duration::from_millis(250);
/// The longest call, in seconds.
const MAX_SECONDS: f64 = 3600.0;
/// Most keys, as many as a stream queues.
const MAX_KEYS: usize = 32;

/// Headers that the call itself writes.
const OWN_HEADERS: [HeaderName; 14] = [
    HeaderName::Via,
    HeaderName::From,
    HeaderName::To,
    HeaderName::CallId,
    HeaderName::CSeq,
    HeaderName::Contact,
    HeaderName::MaxForwards,
    HeaderName::Route,
    HeaderName::ContentType,
    HeaderName::ContentLength,
    HeaderName::Authorization,
    HeaderName::ProxyAuthorization,
    HeaderName::Allow,
    HeaderName::UserAgent,
];

/// Place a test call, and judge what comes back.
///
/// Sends an INVITE, plays a WAV file or a built-in test signal, records what comes back, hangs up, and prints set-up time,
/// codec, packets, loss and jitter. If the other side sends the audio back (an agent with `echo: {}`), it also measures how much later
/// it comes and how much of it is the same: 1 is everything, above 0.95 is a clean call through G.711.
#[derive(clap::Args)]
#[command(
    after_help = "Exit code: 0 the call was answered (and good enough for --min-correlation), 1 it was not, 2 wrong usage.\n\
                  Ctrl-C hangs up; pressed again it leaves at once.\n\n\
                  Examples:\n  \
                  ringwire call sip:+34911234567@127.0.0.1:5060\n  \
                  ringwire call sip:+34911234567@127.0.0.1 --play hello.wav --record answer.wav\n  \
                  ringwire call sip:100@pbx.example.com --transport tcp --username 200 --password-file ./password\n  \
                  ringwire call sips:+34911234567@sip.example.com --ca ./ca.crt\n  \
                  ringwire call sip:+34911234567@127.0.0.1 --dtmf '1#' --json --min-correlation 0.95"
)]
pub struct Args {
    /// Whom to call: sip:NUMBER@HOST[:PORT].
    #[arg(value_name = "URI", value_parser = parse_target)]
    target: Uri,
    /// How SIP travels. Default: the URI's transport parameter, else udp; tls for sips URIs.
    #[arg(long, value_enum)]
    transport: Option<TransportArg>,
    /// File with the authorities (PEM) that may have issued the other side's certificate. Default: the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// WAV file to play. Default: 5 s of a speech-like test signal.
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// WAV file for what comes back, from the answer on.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Seconds from the answer until we hang up. Default: what is played, and one more.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    duration: Option<Duration>,
    /// Seconds to wait for an answer.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "60")]
    timeout: Duration,
    /// Who calls: sip:USER@HOST, or "Name" <sip:USER@HOST>.
    #[arg(long, value_name = "URI", value_parser = parse_from)]
    from: Option<NameAddr>,
    /// User name, if the other side asks for one (digest).
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// File with the password; a line feed at its end does not count.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Codec to offer; repeat for several, the best first. Default: PCMU, PCMA.
    #[arg(long, value_enum, ignore_case = true, action = ArgAction::Append)]
    codec: Vec<CodecArg>,
    /// Keys to press one second after the answer: 0-9, *, #, A-D.
    #[arg(long, value_name = "KEYS", value_parser = parse_keys)]
    dtmf: Option<String>,
    /// Follow the other side to wherever else it says to call (3xx), over the same transport.
    #[arg(long)]
    follow_redirects: bool,
    /// One more header of the INVITE, 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER", value_parser = parse_header, action = ArgAction::Append)]
    header: Vec<(HeaderName, String)>,
    /// Address, or address:port, that the call comes from. Default: what the system's routes choose.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_bind)]
    bind: Option<SocketAddr>,
    /// Print the result as one JSON object; progress goes to standard error.
    #[arg(long)]
    json: bool,
    /// Fail unless the audio comes back with at least this correlation, 0 to 1.
    #[arg(long, value_name = "NUMBER", value_parser = parse_correlation)]
    min_correlation: Option<f64>,
}

/// How SIP travels.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TransportArg {
    Udp,
    Tcp,
    Tls,
}

/// A codec to offer.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CodecArg {
    #[value(name = "PCMU")]
    Pcmu,
    #[value(name = "PCMA")]
    Pcma,
    #[value(name = "G722")]
    G722,
    #[value(name = "Opus")]
    Opus,
    #[value(name = "L16")]
    L16,
    #[cfg(feature = "amr-wb")]
    #[value(name = "AMR-WB")]
    AmrWb,
    #[cfg(feature = "ilbc")]
    #[value(name = "iLBC")]
    Ilbc,
    #[cfg(feature = "g7221")]
    #[value(name = "G7221")]
    G7221,
}

impl CodecArg {
    /// The codecs that are meant, the best first.
    fn codecs(self) -> impl Iterator<Item = Codec> {
        Codec::named(match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16 => "L16",
            #[cfg(feature = "amr-wb")]
            Self::AmrWb => "AMR-WB",
            #[cfg(feature = "ilbc")]
            Self::Ilbc => "iLBC",
            #[cfg(feature = "g7221")]
            Self::G7221 => "G7221",
        })
    }
}

/// Places the call.
pub async fn run(args: Args) -> ExitCode {
    let (json, min_correlation, record) = (args.json, args.min_correlation, args.record.clone());
    let (plan, transport) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(problem) => {
            complain(&format!("ringwire call: {problem}\n"));
            return ExitCode::from(USAGE);
        }
    };
    let plan = match plan.resolve(transport).await {
        Ok(plan) => plan,
        Err(problem) => {
            complain(&format!("ringwire call: {problem}\n"));
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let mut progress = |event: outcome::Progress| {
        let line = event.line() + "\n";
        if json { complain(&line) } else { say(&line) }
    };
    let (mut outcome, recording) = engine::place(plan, &mut progress, &stop).await;
    let mut written = true;
    if let Some(file) = record.filter(|_| outcome.setup.is_some()) {
        match fs::write(&file, wav::write(&recording)) {
            Ok(()) => outcome.recorded = Some(file.display().to_string()),
            Err(error) => {
                written = false;
                complain(&format!(
                    "ringwire call: cannot write {}: {error}\n",
                    file.display()
                ));
            }
        }
    }
    say(&if json {
        format!("{:#}\n", outcome.json())
    } else {
        outcome.text()
    });
    let good = judge(&outcome, min_correlation);
    if let Err(problem) = &good {
        complain(&format!("ringwire call: {problem}\n"));
    }
    if good.is_ok() && written && outcome.failure.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether an answered call's audio is good enough.
fn judge(outcome: &Outcome, min_correlation: Option<f64>) -> Result<(), String> {
    match min_correlation {
        Some(min) if outcome.failure.is_none() && !outcome.is_as_good_as(min) => {
            let found = outcome
                .echo
                .map_or("nothing to compare".to_owned(), |echo| {
                    format!("{:.3}", echo.correlation)
                });
            Err(format!(
                "the correlation should be at least {min}, but is: {found}"
            ))
        }
        _ => Ok(()),
    }
}

/// The first signal hangs up, the second leaves.
async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.is_cancelled() {
            // 128 + SIGINT, as shells have it.
            std::process::exit(130);
        }
        stop.cancel();
    }
}

/// A plan whose target has no address yet.
struct Prepared(Plan);

/// Reads files and settles defaults.
fn prepare(args: Args) -> Result<(Prepared, Transport), String> {
    let Args {
        target,
        transport,
        ca,
        play,
        record,
        duration,
        timeout,
        from,
        username,
        password_file,
        codec,
        dtmf,
        follow_redirects,
        header,
        bind,
        json: _,
        min_correlation: _,
    } = args;
    let transport = match (transport, target.transport().as_deref()) {
        (Some(TransportArg::Tls), _) | (None, Some("tls")) => Transport::Tls,
        (None, _) if target.is_sips() => Transport::Tls,
        (Some(_), _) if target.is_sips() => {
            return Err("a sips URI is called over tls".to_owned());
        }
        (Some(TransportArg::Udp), _) | (None, None | Some("udp")) => Transport::Udp,
        (Some(TransportArg::Tcp), _) | (None, Some("tcp")) => Transport::Tcp,
        (None, Some(other)) => {
            return Err(format!(
                "transport {other} is not spoken here: use udp, tcp or tls"
            ));
        }
    };
    let authorities = match &ca {
        None => None,
        Some(_) if transport != Transport::Tls => {
            return Err("--ca is for calls over tls: add --transport tls".to_owned());
        }
        Some(file) => Some(
            fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
        ),
    };
    let play = match &play {
        Some(file) => read_wav(file)?,
        None => tone::speech_like(TEST_SIGNAL_MILLIS, TEST_SIGNAL_SEED),
    };
    if let Some(file) = &record {
        // Better now than after the call.
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(file)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    let keys = dtmf.unwrap_or_default();
    let played = Duration::from_millis(play.len() as u64 / 8) + KEY * keys.len() as u32;
    let credentials = match (username, password_file) {
        (Some(username), Some(file)) => Some(Credentials {
            username,
            password: read_password(&file)?,
            realm: None,
        }),
        _ => None,
    };
    let mut codecs = Vec::new();
    for codec in if codec.is_empty() {
        vec![CodecArg::Pcmu, CodecArg::Pcma]
    } else {
        codec
    } {
        for codec in codec.codecs() {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
    }
    let plan = Plan {
        target,
        remote: SocketAddr::from(([0, 0, 0, 0], 0)),
        transport,
        authorities,
        follow_redirects,
        bind,
        from,
        credentials,
        headers: header,
        codecs,
        duration: duration.unwrap_or(played + TAIL),
        play,
        keys,
        answer_limit: timeout,
    };
    Ok((Prepared(plan), transport))
}

impl Prepared {
    /// Finds the target's address: of the family of `--bind`, if that is given.
    async fn resolve(self, transport: Transport) -> Result<Plan, String> {
        let Self(mut plan) = self;
        let addresses = match &plan.target.host {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => resolve::addresses(name)
                .await
                .map_err(|error| chain(&error))?,
        };
        let usable = |address: &&IpAddr| {
            plan.bind
                .is_none_or(|bind| bind.is_ipv4() == address.is_ipv4())
        };
        let address = addresses.iter().find(usable).copied().ok_or_else(|| {
            format!(
                "{} has no address of the same family as --bind (IPv4 or IPv6)",
                plan.target.host
            )
        })?;
        let default = if transport == Transport::Tls {
            5061
        } else {
            5060
        };
        plan.remote = SocketAddr::new(address, plan.target.port.unwrap_or(default));
        if plan.target.transport().is_none() && !plan.target.is_sips() {
            match transport {
                Transport::Udp => {}
                Transport::Tcp => plan.target.params.set("transport", Some("tcp")),
                Transport::Tls => plan.target.params.set("transport", Some("tls")),
            }
        }
        Ok(plan)
    }
}

fn read_wav(file: &Path) -> Result<Vec<i16>, String> {
    let problem = |text: String| format!("cannot play {}: {text}", file.display());
    let length = fs::metadata(file)
        .map_err(|error| problem(error.to_string()))?
        .len();
    if length > wav::MAX_BYTES as u64 {
        return Err(problem(
            wav::WavError::TooLarge(length as usize).to_string(),
        ));
    }
    let bytes = fs::read(file).map_err(|error| problem(error.to_string()))?;
    let samples = wav::read(&bytes).map_err(|error| problem(error.to_string()))?;
    if samples.is_empty() {
        return Err(problem("it has no audio".to_owned()));
    }
    Ok(samples)
}

fn read_password(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |text| {
        text.strip_suffix('\r').unwrap_or(text)
    });
    if password.is_empty() {
        Err(format!("{} is empty", file.display()))
    } else {
        Ok(password.to_owned())
    }
}

fn parse_target(text: &str) -> Result<Uri, String> {
    let example = "expected sip:NUMBER@HOST, such as sip:+34911234567@127.0.0.1:5060";
    let uri = Uri::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) || uri.host.is_empty() {
        return Err(example.to_owned());
    }
    Ok(uri)
}

fn parse_from(text: &str) -> Result<NameAddr, String> {
    let mut address = NameAddr::parse(text).map_err(|error| error.to_string())?;
    if address.uri.scheme != Scheme::Sip {
        return Err("expected sip:USER@HOST".to_owned());
    }
    // The tag is the call's own.
    address.params.remove("tag");
    Ok(address)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!(
            "expected more than 0 and at most {MAX_SECONDS} seconds"
        ))
    }
}

fn parse_correlation(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&number) {
        Ok(number)
    } else {
        Err("expected a number from 0 to 1".to_owned())
    }
}

fn parse_keys(text: &str) -> Result<String, String> {
    let keys = text.to_ascii_uppercase();
    let known = |key: char| key.is_ascii_digit() || "*#ABCD".contains(key);
    if let Some(wrong) = keys.chars().find(|key| !known(*key)) {
        return Err(format!("there is no key {wrong:?}: use 0-9, *, # and A-D"));
    }
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(format!("expected 1 to {MAX_KEYS} keys"));
    }
    Ok(keys)
}

fn parse_header(text: &str) -> Result<(HeaderName, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no header name"));
    }
    if value.chars().any(char::is_control) {
        return Err("a header's value has no line feeds or control characters".to_owned());
    }
    let name = HeaderName::from(name);
    if OWN_HEADERS.contains(&name) {
        return Err(format!("{name} is written by the call itself"));
    }
    Ok((name, value.to_owned()))
}

fn parse_bind(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)));
    match address {
        Ok(address) if address.ip().is_unspecified() => {
            Err("expected an address that the other side can answer to".to_owned())
        }
        Ok(address) => Ok(address),
        Err(_) => Err("expected an IP address, or address:port".to_owned()),
    }
}
