//! `ringwire check`: judges manifests as the API server and the operator would, without either.
//!
//! What a file says wrongly is an error. What it lacks is a warning, for on a cluster the missing object may be there already. Addresses,
//! names and accounts are not tried.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use ringwire_config::compile::{Compiled, Holds, Verdict, compile};
use ringwire_config::manifests::{self, Manifests};
use ringwire_config::token::{GatewayKeys, TokenKey};
use ringwire_config::{ObjectRef, Objects, Reason, Settings};
use ringwire_crds::{Kind, MediaGateway, MediaGatewaySpec, NamespacesFrom};
use serde_json::{Value, json};

use super::{USAGE, chain, complain, say};

/// Most that is read from standard input.
const MAX_INPUT: u64 = 8 << 20;

/// Check manifests without a cluster.
///
/// Every object goes through the schema and the rules that the API server applies, with the same messages, and then through the same
/// compilation as in the operator. Mistakes in the files are errors. What is missing (a Secret, an agent, a gateway) is a warning, for
/// it may exist on the cluster; values of Secrets are never printed. A default gateway is assumed where the files have none.
#[derive(clap::Args)]
#[command(
    after_help = "Exit code: 0 no errors, 1 errors (with --strict: or warnings), 2 the files cannot be read.\n\n\
                  Examples:\n  ringwire check -f config/samples\n  kubectl kustomize . | ringwire check -f - --strict"
)]
pub struct Args {
    /// Folders or files with YAML or JSON; - reads standard input. May be repeated.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Output format.
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    /// Count warnings as errors.
    #[arg(long)]
    strict: bool,
}

/// Output formats.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    /// Worth a line, but as it was asked for.
    Note,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing to say.
#[derive(Debug)]
struct Finding {
    level: Level,
    file: Option<PathBuf>,
    document: Option<usize>,
    object: Option<String>,
    reason: Option<Reason>,
    message: String,
}

impl Finding {
    fn line(&self) -> String {
        let mut out = format!("{}:", self.level.name());
        if let Some(file) = &self.file {
            let _ = write!(out, " {}", file.display());
            if let Some(document) = self.document {
                let _ = write!(out, " (document {document})");
            }
            out.push(':');
        }
        if let Some(object) = &self.object {
            let _ = write!(out, " {object}:");
        }
        let _ = write!(out, " {}", self.message);
        if let Some(reason) = self.reason {
            let _ = write!(out, " [{reason}]");
        }
        out
    }

    fn json(&self) -> Value {
        json!({
            "level": self.level.name(),
            "file": self.file.as_ref().map(|file| file.display().to_string()),
            "document": self.document,
            "object": self.object,
            "reason": self.reason.map(Reason::as_str),
            "message": self.message,
        })
    }
}

/// All there is to say.
#[derive(Debug, Default)]
struct Judgement {
    objects: usize,
    findings: Vec<Finding>,
}

impl Judgement {
    fn count(&self, level: Level) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }

    fn summary(&self) -> String {
        let plural = |count: usize, word: &str| {
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        format!(
            "{}, {}, {}",
            plural(self.objects, "object"),
            plural(self.count(Level::Error), "error"),
            plural(self.count(Level::Warning), "warning")
        )
    }
}

/// Checks, prints, and gives the exit code.
pub fn run(args: &Args) -> ExitCode {
    let mut all = Vec::new();
    for path in &args.paths {
        match read(path) {
            Ok(manifests) => all.push((path.clone(), manifests)),
            Err(problem) => {
                complain(&format!("ringwire check: {problem}\n"));
                return ExitCode::from(USAGE);
            }
        }
    }
    let judgement = judge(all, args.strict);
    if args.output == Some(Output::Json) {
        let found: Vec<Value> = judgement.findings.iter().map(Finding::json).collect();
        let report = json!({
            "objects": judgement.objects,
            "errors": judgement.count(Level::Error),
            "warnings": judgement.count(Level::Warning),
            "findings": found,
        });
        say(&format!("{report:#}\n"));
    } else {
        let lines: String = judgement
            .findings
            .iter()
            .map(|finding| finding.line() + "\n")
            .collect();
        say(&format!("{lines}{}\n", judgement.summary()));
    }
    if judgement.count(Level::Error) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn read(path: &Path) -> Result<Manifests, String> {
    if path != Path::new("-") {
        return manifests::read(path).map_err(|error| chain(&error));
    }
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_INPUT + 1)
        .read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 > MAX_INPUT => {
            Err(format!("standard input has more than {MAX_INPUT} bytes"))
        }
        Ok(_) => {
            let mut manifests = Manifests::default();
            manifests.add_text(Path::new("standard input"), &text);
            Ok(manifests)
        }
        Err(error) => Err(format!("cannot read standard input: {error}")),
    }
}

fn judge(all: Vec<(PathBuf, Manifests)>, strict: bool) -> Judgement {
    let mut judgement = Judgement::default();
    let mut objects = Objects::default();
    let mut seen = BTreeSet::new();
    for (path, manifests) in all {
        add(&path, manifests, &mut objects, &mut seen, &mut judgement);
    }
    judgement.objects += seen.len();
    let compiled = compile_offline(&mut objects);
    add_findings(&compiled, &mut judgement.findings);
    if strict {
        for finding in judgement
            .findings
            .iter_mut()
            .filter(|finding| finding.level == Level::Warning)
        {
            finding.level = Level::Error;
        }
    }
    judgement.findings.sort_by_key(|finding| finding.level);
    judgement
}

/// Takes the objects of one path, unless an earlier path had them.
fn add(
    path: &Path,
    manifests: Manifests,
    objects: &mut Objects,
    seen: &mut BTreeSet<String>,
    judgement: &mut Judgement,
) {
    let mut broken = BTreeSet::new();
    for problem in manifests.problems {
        if !problem.ignored && problem.object.is_some() {
            broken.insert((
                problem.file.clone(),
                problem.document,
                problem.object.clone(),
            ));
        }
        judgement.findings.push(Finding {
            level: if problem.ignored {
                Level::Note
            } else {
                Level::Error
            },
            file: Some(problem.file),
            document: Some(problem.document).filter(|number| *number > 0),
            object: problem.object,
            reason: None,
            message: problem.message,
        });
    }
    judgement.objects += broken.len();
    let mut is_new = |kind: &str, id: &str| {
        let label = format!("{kind} {id}");
        if seen.insert(label.clone()) {
            return true;
        }
        judgement.findings.push(Finding {
            level: Level::Error,
            file: Some(path.to_owned()),
            document: None,
            object: Some(label),
            reason: None,
            message: "stands already in another of these paths".to_owned(),
        });
        false
    };
    let mut new = manifests.objects;
    new.providers
        .retain(|object| is_new(Kind::SipProvider.name(), &ObjectRef::of(object).to_string()));
    new.numbers
        .retain(|object| is_new(Kind::PhoneNumber.name(), &ObjectRef::of(object).to_string()));
    new.agents
        .retain(|object| is_new(Kind::VoiceAgent.name(), &ObjectRef::of(object).to_string()));
    new.gateways.retain(|object| {
        is_new(
            Kind::MediaGateway.name(),
            &ObjectRef::of(object).to_string(),
        )
    });
    new.secrets
        .retain(|id, _| is_new("Secret", &id.to_string()));
    new.namespaces.retain(|name, _| is_new("Namespace", name));
    objects.providers.append(&mut new.providers);
    objects.numbers.append(&mut new.numbers);
    objects.agents.append(&mut new.agents);
    objects.gateways.append(&mut new.gateways);
    objects.secrets.append(&mut new.secrets);
    objects.namespaces.append(&mut new.namespaces);
}

/// Compiles as the operator would, with its default gateway and signing keys that sign nothing.
fn compile_offline(objects: &mut Objects) -> Compiled {
    let default_gateway = match &objects.gateways[..] {
        [only] => ObjectRef::of(only),
        _ => ObjectRef::new("default", "default"),
    };
    if objects.gateways.is_empty() {
        let mut spec = MediaGatewaySpec::default();
        // As the operator makes it.
        spec.allowed_namespaces.from = NamespacesFrom::All;
        let mut gateway = MediaGateway::new(&default_gateway.name, spec);
        gateway.metadata.namespace = Some(default_gateway.namespace.clone());
        objects.gateways.push(gateway);
    }
    for gateway in &objects.gateways {
        objects.keys.insert(
            ObjectRef::of(gateway),
            GatewayKeys::single(TokenKey::from_bytes(1, [0; 32])),
        );
    }
    let settings = Settings {
        default_gateway,
        shared_gateway_namespaces: BTreeSet::new(),
        restrict_agent_addresses: true,
        services: false,
    };
    compile(objects, &settings)
}

fn add_findings(compiled: &Compiled, findings: &mut Vec<Finding>) {
    let mut note = |kind: Kind, id: &ObjectRef, verdict: &Verdict| {
        if let Some(level) = level(verdict) {
            findings.push(Finding {
                level,
                file: None,
                document: None,
                object: Some(format!("{} {id}", kind.name())),
                reason: Some(verdict.reason),
                message: verdict.message.clone(),
            });
        }
    };
    for (id, found) in &compiled.providers {
        note(Kind::SipProvider, id, &found.accepted);
        note(Kind::SipProvider, id, &found.credentials);
        if found.paused {
            note(
                Kind::SipProvider,
                id,
                &Verdict::yes(Reason::Paused, "spec.paused is true"),
            );
        }
    }
    for (id, found) in &compiled.numbers {
        note(Kind::PhoneNumber, id, &found.ready);
    }
    for (id, found) in &compiled.agents {
        note(Kind::VoiceAgent, id, &found.ready);
    }
}

/// How bad a verdict is; `None` if all is well.
fn level(verdict: &Verdict) -> Option<Level> {
    match (verdict.holds, verdict.reason) {
        (Holds::True, Reason::NoAgent | Reason::Paused) => Some(Level::Note),
        (Holds::True, _) => None,
        // No other object can heal these.
        (
            _,
            Reason::InvalidSpec
            | Reason::Conflict
            | Reason::SecretKeyMissing
            | Reason::SecretInvalid,
        ) => Some(Level::Error),
        _ => Some(Level::Warning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUNK: &str = "
apiVersion: ringwire.dev/v1alpha1
kind: SipProvider
metadata: {name: trunk, namespace: voice}
spec: {type: Netelip, credentialsSecretRef: {name: account}}
---
apiVersion: ringwire.dev/v1alpha1
kind: PhoneNumber
metadata: {name: main, namespace: voice}
spec: {number: \"+34911234567\", providerRef: {name: trunk}, agentRef: {name: echo}}
";
    const ACCOUNT: &str = "
apiVersion: v1
kind: Secret
metadata: {name: account, namespace: voice}
stringData: {username: alice, password: hunter2}
";
    const AGENT: &str = "
apiVersion: ringwire.dev/v1alpha1
kind: VoiceAgent
metadata: {name: echo, namespace: voice}
spec: {echo: {}}
";

    fn check(texts: &[&str], strict: bool) -> Judgement {
        let all = texts.iter().enumerate().map(|(index, text)| {
            let path = PathBuf::from(format!("{index}.yaml"));
            let mut manifests = Manifests::default();
            manifests.add_text(&path, text);
            (path, manifests)
        });
        judge(all.collect(), strict)
    }

    #[test]
    fn finds_nothing_to_say_about_a_whole_set() {
        let judgement = check(&[TRUNK, ACCOUNT, AGENT], true);
        assert_eq!(
            judgement.summary(),
            "4 objects, 0 errors, 0 warnings",
            "{judgement:?}"
        );
    }

    #[test]
    fn warns_of_what_the_cluster_may_have_and_refuses_it_when_strict() {
        let judgement = check(&[TRUNK], false);
        assert_eq!(judgement.summary(), "2 objects, 0 errors, 2 warnings");
        let lines: Vec<String> = judgement.findings.iter().map(Finding::line).collect();
        assert!(
            lines[0].starts_with("warning: SipProvider voice/trunk: Secret voice/account named by"),
            "{lines:?}"
        );
        assert!(lines[0].ends_with("[SecretNotFound]"), "{lines:?}");
        assert!(
            lines[1].ends_with("does not exist [AgentNotFound]"),
            "{lines:?}"
        );
        assert_eq!(
            check(&[TRUNK], true).summary(),
            "2 objects, 2 errors, 0 warnings"
        );
    }

    #[test]
    fn says_what_the_api_server_would_say_with_file_and_document() {
        let judgement = check(&[TRUNK, &AGENT.replace("echo: {}", "eco: {}")], false);
        let line = judgement.findings[0].line();
        assert!(
            line.starts_with("error: 1.yaml (document 1): VoiceAgent voice/echo: unknown field"),
            "{line}"
        );
        assert_eq!(judgement.findings[0].json()["level"], "error");
        assert_eq!(judgement.objects, 3);
    }

    #[test]
    fn a_secret_without_its_key_is_an_error_that_does_not_show_values() {
        let judgement = check(
            &[TRUNK, AGENT, &ACCOUNT.replace("password:", "pasword:")],
            false,
        );
        assert_eq!(judgement.summary(), "4 objects, 1 error, 0 warnings");
        let line = judgement.findings[0].line();
        assert!(
            line.contains("SecretKeyMissing") && !line.contains("hunter2"),
            "{line}"
        );
    }

    #[test]
    fn refuses_the_same_object_from_two_paths() {
        let judgement = check(&[AGENT, AGENT], false);
        assert!(
            judgement.findings[0]
                .line()
                .contains("VoiceAgent voice/echo: stands already"),
            "{judgement:?}"
        );
        assert_eq!(judgement.objects, 1);
    }

    #[test]
    fn only_notes_what_was_asked_for_or_is_not_ours() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
        let lonely = TRUNK.replace(", agentRef: {name: echo}", "");
        let judgement = check(&[&lonely, ACCOUNT, deployment], true);
        assert_eq!(judgement.summary(), "3 objects, 0 errors, 0 warnings");
        assert_eq!(judgement.count(Level::Note), 2, "{judgement:?}");
    }
}
