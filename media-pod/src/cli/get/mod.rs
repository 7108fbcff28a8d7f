//! `ringwire get`: the objects that `ringwire run` serves, printed as `kubectl get` would print them.
//!
//! It reads the server's HTTP interface and knows no cluster; there, kubectl is the tool.

pub(in crate::cli) mod client;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use ringwire_crds::{GROUP, Kind, table};
use serde_json::{Value, json};

use self::client::Server;
use super::{USAGE, chain, complain, say};

/// How often `--watch` asks.
const POLL: Duration = Duration::from_millis(500);

/// Show the objects that `ringwire run` serves, as kubectl would.
///
/// Same names, same columns and same output formats as `kubectl get`, for the server without a cluster.
#[derive(clap::Args)]
#[command(
    after_help = "Kinds: sipproviders (sipp, trunk), phonenumbers (did), voiceagents (vagent), mediagateways (mgw); all or \
                  ringwire for every one.\n\n\
                  Examples:\n  ringwire get all\n  ringwire get sipp,did -o wide\n  ringwire get trunk local -o yaml\n  \
                  ringwire get sipproviders -w"
)]
pub struct Args {
    /// Kinds, as a comma list.
    #[arg(value_name = "KINDS", default_value = "all", value_parser = parse_kinds)]
    kinds: Kinds,
    /// Only the objects of these names.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Output format. Default: a table.
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    /// The namespace to look in.
    #[arg(
        short = 'n',
        long,
        default_value = "default",
        conflicts_with = "all_namespaces"
    )]
    namespace: String,
    /// Look in all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Keep running, and print what changes.
    #[arg(short = 'w', long)]
    watch: bool,
    /// Leave out the line with the columns' names.
    #[arg(long)]
    no_headers: bool,
    /// The server's HTTP address.
    #[arg(
        long,
        env = "RINGWIRE_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    server: String,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
}

/// The kinds that were asked for, each once, in the order in which people read them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kinds(Vec<Kind>);

fn parse_kinds(text: &str) -> Result<Kinds, String> {
    let mut wanted = Vec::new();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match (name, Kind::parse(name)) {
            ("all" | "ringwire", _) => wanted.extend(Kind::ALL),
            (_, Some(kind)) => wanted.push(kind),
            _ => {
                return Err(format!(
                    "there is no kind {name:?}: use sipproviders, phonenumbers, voiceagents, mediagateways"
                ));
            }
        }
    }
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| wanted.contains(kind))
        .collect();
    if kinds.is_empty() {
        Err("expected a kind, such as sipproviders".to_owned())
    } else {
        Ok(Kinds(kinds))
    }
}

/// Prints once, or until interrupted.
pub async fn run(args: Args) -> ExitCode {
    let server = match Server::parse(&args.server) {
        Ok(server) => server,
        Err(error) => return fail(&chain(&error), USAGE),
    };
    let Kinds(kinds) = &args.kinds;
    if !args.names.is_empty() && (kinds.len() > 1 || args.all_namespaces) {
        return fail(
            "a name needs one kind and one namespace, such as `ringwire get trunk NAME -n NAMESPACE`",
            USAGE,
        );
    }
    let objects = match server.objects().await {
        Ok(objects) => objects,
        Err(error) => return fail(&chain(&error), 1),
    };
    let view = View::of(&args, Timestamp::now());
    let (chosen, missing) = view.choose(&objects);
    say(&view.print(&chosen));
    for name in &missing {
        let kind = kinds
            .first()
            .map_or_else(String::new, |kind| kind.plural().to_owned());
        complain(&format!(
            "Error from server (NotFound): {kind}.{GROUP} {name:?} not found\n"
        ));
    }
    if chosen.is_empty()
        && args.names.is_empty()
        && !matches!(args.output, Some(Output::Json | Output::Yaml))
    {
        let place = if args.all_namespaces {
            String::new()
        } else {
            format!(" in {} namespace", args.namespace)
        };
        complain(&format!("No resources found{place}.\n"));
    }
    if !args.watch {
        return if missing.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    watch(&server, &args, chosen).await
}

fn fail(text: &str, code: u8) -> ExitCode {
    complain(&format!("ringwire get: {text}\n"));
    ExitCode::from(code)
}

/// Prints what is new, changed or gone since the last look.
async fn watch(server: &Server, args: &Args, first: Vec<Value>) -> ExitCode {
    let mut known = by_name(first);
    let mut away = false;
    loop {
        tokio::time::sleep(POLL).await;
        let objects = match server.objects().await {
            Ok(objects) => objects,
            Err(error) => {
                // Told once: the server may be restarting.
                if !std::mem::replace(&mut away, true) {
                    complain(&format!("ringwire get: {}\n", chain(&error)));
                }
                continue;
            }
        };
        away = false;
        let view = View::of(args, Timestamp::now());
        let now = by_name(view.choose(&objects).0);
        say(&view.changes(&known, &now));
        known = now;
    }
}

type ByName = BTreeMap<(String, String, String), Value>;

fn by_name(objects: Vec<Value>) -> ByName {
    objects
        .into_iter()
        .map(|object| (key(&object), object))
        .collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn key(object: &Value) -> (String, String, String) {
    (
        text(object, "/kind").to_owned(),
        text(object, "/metadata/namespace").to_owned(),
        text(object, "/metadata/name").to_owned(),
    )
}

/// What to show, and how.
struct View<'a> {
    args: &'a Args,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn of(args: &'a Args, now: Timestamp) -> Self {
        Self { args, now }
    }

    /// The objects that were asked for, kind after kind and sorted, and the names that do not exist.
    fn choose(&self, objects: &[Value]) -> (Vec<Value>, Vec<String>) {
        let args = self.args;
        let mut chosen = Vec::new();
        for kind in &args.kinds.0 {
            let mut of_kind: Vec<&Value> = objects
                .iter()
                .filter(|object| text(object, "/kind") == kind.name())
                .filter(|object| {
                    args.all_namespaces || text(object, "/metadata/namespace") == args.namespace
                })
                .filter(|object| {
                    args.names.is_empty()
                        || args
                            .names
                            .iter()
                            .any(|name| name == text(object, "/metadata/name"))
                })
                .collect();
            of_kind.sort_by_key(|object| key(object));
            chosen.extend(of_kind.into_iter().cloned());
        }
        let exists = |name: &&String| {
            chosen
                .iter()
                .any(|object| text(object, "/metadata/name") == name.as_str())
        };
        let missing = args
            .names
            .iter()
            .filter(|name| !exists(name))
            .cloned()
            .collect();
        (chosen, missing)
    }

    fn print(&self, chosen: &[Value]) -> String {
        match self.args.output {
            Some(Output::Json) => json_text(&self.document(chosen)),
            Some(Output::Yaml) => yaml_text(&self.document(chosen)),
            None | Some(Output::Wide) => {
                let tables: Vec<String> = self.tables(chosen).map(|(_, table)| table).collect();
                tables.join("\n")
            }
        }
    }

    /// One table for each kind that has objects.
    fn tables<'b>(&'b self, chosen: &'b [Value]) -> impl Iterator<Item = (Kind, String)> + 'b {
        self.args.kinds.0.iter().filter_map(move |kind| {
            let objects: Vec<Value> = chosen
                .iter()
                .filter(|object| text(object, "/kind") == kind.name())
                .cloned()
                .collect();
            let options = table::Options {
                wide: self.args.output == Some(Output::Wide),
                namespaces: self.args.all_namespaces,
                with_kind: self.args.kinds.0.len() > 1,
                headers: !self.args.no_headers,
                now: self.now,
            };
            (!objects.is_empty()).then(|| (*kind, table::print(*kind, &objects, &options)))
        })
    }

    /// One object as it is, several as a list.
    fn document(&self, chosen: &[Value]) -> Value {
        match (&self.args.names[..], chosen) {
            ([_], [only]) => only.clone(),
            _ => {
                json!({"apiVersion": "v1", "items": chosen, "kind": "List", "metadata": {"resourceVersion": ""}})
            }
        }
    }

    /// The lines of what changed; of what is gone, its last line.
    fn changes(&self, before: &ByName, now: &ByName) -> String {
        let fresh = now
            .iter()
            .filter(|(key, object)| before.get(*key) != Some(object));
        let gone = before.iter().filter(|(key, _)| !now.contains_key(*key));
        let changed: ByName = fresh
            .chain(gone)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        match self.args.output {
            Some(Output::Json) => changed.values().map(json_text).collect(),
            Some(Output::Yaml) => changed
                .values()
                .flat_map(|object| ["---\n".to_owned(), yaml_text(object)])
                .collect(),
            None | Some(Output::Wide) => {
                // Laid out together with the others, so that columns stay where they are.
                let mut all = now.clone();
                all.extend(changed.clone());
                let objects: Vec<Value> = all.values().cloned().collect();
                let headers = usize::from(!self.args.no_headers);
                let mut out = String::new();
                for (kind, table) in self.tables(&objects) {
                    let keys = all.keys().filter(|(of, ..)| of == kind.name());
                    for (_, line) in keys
                        .zip(table.lines().skip(headers))
                        .filter(|(key, _)| changed.contains_key(*key))
                    {
                        out.push_str(line);
                        out.push('\n');
                    }
                }
                out
            }
        }
    }
}

fn json_text(value: &Value) -> String {
    // Four blanks, as kubectl indents.
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned() + "\n",
        Err(error) => format!("{error}\n"),
    }
}

fn yaml_text(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_else(|error| format!("# {error}\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Cli::try_parse_from([&["get"], line].concat())
            .map_or_else(|error| panic!("{error}"), |cli| cli.args)
    }

    fn objects() -> Vec<Value> {
        let object = |kind: &str, namespace: &str, name: &str| {
            json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": kind,
                   "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
                   "spec": {"type": "Generic", "number": "+34911234567", "echo": {}}})
        };
        vec![
            object("VoiceAgent", "default", "echo"),
            object("SipProvider", "voice", "c"),
            object("SipProvider", "default", "b"),
            object("SipProvider", "default", "a"),
        ]
    }

    fn print(line: &[&str]) -> String {
        let args = args(line);
        let view = View::of(&args, "2026-01-01T00:00:07Z".parse().unwrap());
        let (chosen, _) = view.choose(&objects());
        view.print(&chosen)
    }

    #[test]
    fn one_kind_is_a_table_of_plain_names_in_order() {
        let text = print(&["trunk"]);
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(names, ["NAME", "a", "b"]);
        assert!(text.lines().all(|line| !line.contains(GROUP)), "{text}");
    }

    #[test]
    fn several_kinds_are_tables_of_full_names_with_a_line_between() {
        let text = print(&["all"]);
        assert!(text.contains("sipprovider.ringwire.dev/b "), "{text}");
        assert!(text.contains("\n\nNAME"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("NAME")).count(),
            2,
            "{text}"
        );
    }

    #[test]
    fn all_namespaces_are_a_column() {
        let text = print(&["sipp", "-A"]);
        assert!(text.starts_with("NAMESPACE   NAME"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn a_named_object_is_printed_alone_and_others_as_a_list() {
        let one: Value = serde_json::from_str(&print(&["trunk", "a", "-o", "json"])).unwrap();
        assert_eq!(one["metadata"]["name"], "a");
        let all: Value = serde_yaml::from_str(&print(&["trunk", "-o", "yaml"])).unwrap();
        assert_eq!(
            (&all["kind"], all["items"].as_array().map(Vec::len)),
            (&json!("List"), Some(2))
        );
    }

    #[test]
    fn names_that_do_not_exist_are_told() {
        let args = args(&["trunk", "a", "zzz"]);
        let (chosen, missing) = View::of(&args, Timestamp::UNIX_EPOCH).choose(&objects());
        assert_eq!((chosen.len(), missing), (1, vec!["zzz".to_owned()]));
    }

    #[test]
    fn a_change_prints_its_lines_without_headers() {
        let args = args(&["sipp,vagent"]);
        let view = View::of(&args, "2026-01-01T00:00:07Z".parse().unwrap());
        let before = by_name(view.choose(&objects()).0);
        let mut after = objects();
        after[2]["status"] = json!({"server": "192.0.2.1:5060"});
        after.remove(0);
        let text = view.changes(&before, &by_name(view.choose(&after).0));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].starts_with("sipprovider.ringwire.dev/b ")
                && lines[0].contains("192.0.2.1:5060"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("voiceagent.ringwire.dev/echo"),
            "the one that is gone: {text}"
        );
        assert_eq!(view.changes(&before, &before), "");
    }

    #[test]
    fn kinds_go_by_any_of_their_names() {
        assert_eq!(
            parse_kinds("did, sipp"),
            Ok(Kinds(vec![Kind::SipProvider, Kind::PhoneNumber]))
        );
        assert_eq!(parse_kinds("ringwire").map(|kinds| kinds.0.len()), Ok(4));
        for wrong in ["pods", "", ","] {
            assert!(parse_kinds(wrong).is_err(), "{wrong}");
        }
    }
}
