//! `ringwire explain`: what the reasons in conditions, Events, logs and call records mean.

use std::fmt::Write as _;
use std::process::ExitCode;

use ringwire_config::Reason;

use super::{complain, say};

/// Say what a reason means.
///
/// Reasons stand in the conditions of objects (`kubectl describe`), in Events, in logs and in call records. Without a name, all of them
/// are listed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ringwire explain\n  ringwire explain SecretKeyMissing AgentTimeout"
)]
pub struct Args {
    /// Reasons, in any case.
    #[arg(value_name = "REASON")]
    reasons: Vec<String>,
}

/// Prints the meanings.
pub fn run(args: &Args) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut found = Vec::new();
    for name in &args.reasons {
        match find(name) {
            Ok(reason) => found.push(reason),
            Err(problem) => {
                complain(&format!("ringwire explain: {problem}\n"));
                code = ExitCode::FAILURE;
            }
        }
    }
    if args.reasons.is_empty() {
        found.extend(Reason::ALL);
    }
    say(&table(&found));
    code
}

fn table(reasons: &[Reason]) -> String {
    let width = reasons
        .iter()
        .map(|reason| reason.as_str().len())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for reason in reasons {
        let _ = writeln!(out, "{:<width$}   {}", reason.as_str(), reason.meaning());
    }
    out
}

fn find(name: &str) -> Result<Reason, String> {
    if let Some(reason) = Reason::ALL
        .iter()
        .find(|reason| reason.as_str().eq_ignore_ascii_case(name))
    {
        return Ok(*reason);
    }
    let wanted = name.to_ascii_lowercase();
    let alike: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|known| !wanted.is_empty() && known.to_ascii_lowercase().contains(&wanted))
        .collect();
    if alike.is_empty() {
        Err(format!(
            "there is no reason {name:?}; `ringwire explain` lists all"
        ))
    } else {
        Err(format!(
            "there is no reason {name:?}; perhaps {}",
            alike.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_reason_in_any_case_and_proposes_those_that_contain_the_text() {
        assert_eq!(find("agenttimeout"), Ok(Reason::AgentTimeout));
        assert!(
            find("Secret")
                .unwrap_err()
                .contains("SecretNotFound, SecretKeyMissing, SecretInvalid")
        );
        assert!(find("nonsense").unwrap_err().contains("lists all"));
    }

    #[test]
    fn every_reason_has_a_meaning() {
        for line in table(Reason::ALL).lines() {
            assert!(
                line.split_once("   ")
                    .is_some_and(|(_, meaning)| meaning.trim().ends_with('.')),
                "{line}"
            );
        }
    }
}
