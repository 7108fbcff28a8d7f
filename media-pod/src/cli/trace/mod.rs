//! `ringwire trace`: a live ladder of SIP messages, of the server without a cluster or of a gateway's registrar pods.
//!
//! Every source is a Unix socket of a registrar in the end: here, or in pods by way of `pods/exec`, so that the API server says who may.
//! Secrets are masked before anything comes here.

mod cluster;
mod ladder;
mod merge;
mod source;

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};

use self::ladder::Ladder;
use self::merge::Merge;
use self::source::Source;
use super::complain;
use crate::trace::entry::{Line, Request};
use crate::trace::filter::Filter;

/// Lines that wait for the terminal. When it is full the registrars find out, and say what was lost.
const QUEUE: usize = 256;

/// Messages of several registrars come in order of their time if none is later than this.
const PATIENCE: Duration = Duration::from_millis(300);

/// Show SIP messages as they come and go: who to whom, what, and the headers that matter.
///
/// Follows `ringwire run` on this machine, or else all registrar pods that the kubeconfig may exec into (RBAC: list pods, create
/// pods/exec). In a registrar pod it follows that pod: `kubectl exec -it POD -- ringwire trace`.
///
/// Digests, passwords, media keys, DTMF digits and the tokens in our Contacts are masked before they leave the server.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ringwire trace\n  ringwire trace --provider netelip\n  ringwire trace --number +34911234567 --verbose\n  \
                  ringwire trace --call 3848276298220188511@203.0.113.5 -o json\n  ringwire trace -n voice"
)]
pub struct Args {
    /// Only the call with this Call-ID, or those that begin so.
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// Only messages of this SipProvider: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only calls from or to this number, in any notation, or of this PhoneNumber.
    #[arg(long, value_name = "N")]
    number: Option<String>,
    /// Show whole messages.
    #[arg(short, long)]
    verbose: bool,
    /// Output format. Default: a ladder.
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    #[command(flatten)]
    whence: source::Whence,
    /// End when standard input does: for a trace that somebody elsewhere has started here.
    #[arg(long, hide = true)]
    while_stdin: bool,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One JSON object a line, with the whole message.
    Json,
}

/// What sources tell.
#[derive(Debug)]
enum Told {
    /// A line of a registrar.
    Line(Line),
    /// For people.
    Note(String),
    /// Nothing more will come, and why.
    End(String),
}

/// Follows until interrupted, or until what it follows has ended.
pub async fn run(args: Args) -> ExitCode {
    let request = Request {
        filter: Filter {
            call: args.call,
            provider: args.provider,
            number: args.number,
        },
        whole: args.verbose || args.output.is_some(),
    };
    let source = match args.whence.choose().await {
        Ok(source) => source,
        Err(text) => return fail(&text),
    };
    let patience = match source {
        Source::Socket { .. } => Duration::ZERO,
        Source::Cluster { .. } => PATIENCE,
    };
    let (told_in, mut told) = mpsc::channel(QUEUE);
    tokio::spawn(source.follow(request, told_in));
    let mut screen = Screen {
        ladder: match args.output {
            Some(Output::Json) => None,
            None => Some(Ladder::new(colours(), TimeZone::system())),
        },
        merge: Merge::new(patience),
    };
    let mut stdin_ends = args.while_stdin.then(stdin_ends);
    loop {
        let due = screen.merge.next_at();
        let written = tokio::select! {
            news = told.recv() => match news {
                Some(Told::Line(line)) => screen.take(line),
                Some(Told::Note(text)) => {
                    complain(&format!("ringwire trace: {text}\n"));
                    Ok(())
                }
                Some(Told::End(text)) => {
                    let _ = screen.show(None);
                    return fail(&text);
                }
                None => return fail("the source has ended"),
            },
            () = sleep_until(due) => screen.show(Some(Instant::now())),
            () = ended(&mut stdin_ends) => return ExitCode::SUCCESS,
        };
        // Whoever read may have gone (`| head`): that is no error of ours, but the end.
        if written.is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

fn fail(text: &str) -> ExitCode {
    complain(&format!("ringwire trace: {text}\n"));
    ExitCode::FAILURE
}

/// Colours are for terminals, and for those who did not say no (<https://no-color.org>).
fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Told when standard input has ended. A thread of its own: the runtime has no way to wait for it.
fn stdin_ends() -> oneshot::Receiver<()> {
    let (ended, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        let _ = ended.send(());
    });
    told
}

async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(told) => drop(told.await),
        None => std::future::pending().await,
    }
}

/// Where lines go.
struct Screen {
    /// `None`: JSON.
    ladder: Option<Ladder>,
    merge: Merge,
}

impl Screen {
    fn take(&mut self, line: Line) -> io::Result<()> {
        let now = Instant::now();
        self.merge.push(line, now);
        self.show(Some(now))
    }

    /// Shows what is due at `now`, or all there is.
    fn show(&mut self, now: Option<Instant>) -> io::Result<()> {
        let mut text = String::new();
        while let Some(line) = self.merge.pop(now) {
            if let Some(ladder) = &mut self.ladder {
                text.push_str(&ladder.print(&line));
            } else {
                text.push_str(&serde_json::to_string(&line)?);
                text.push('\n');
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }
}
