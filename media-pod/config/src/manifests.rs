//! Manifests from files: what `ringwire run` serves and `ringwire check` judges.
//!
//! Every document goes through the same schema (types, patterns, CEL rules) that the API server applies, with the same messages. A
//! document that fails is reported and left out; the others count.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ringwire_crds::{API_VERSION, Kind, schema};
use serde::Deserialize;
use serde_json::Value;

use crate::object::{ObjectRef, Objects, SecretData};
use crate::secret::Secret;

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Something in a file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Which document of the file, from 1.
    pub document: usize,
    /// `Kind namespace/name`, as far as it is known.
    pub object: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Whether the document is merely passed over (another project's kind, say).
    pub ignored: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.document > 0 {
            write!(f, " (document {})", self.document)?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The folder itself could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct ReadError {
    /// The folder or file.
    pub path: PathBuf,
    /// What failed.
    #[source]
    pub source: std::io::Error,
}

/// What a folder holds.
#[derive(Default)]
pub struct Manifests {
    /// All usable objects. Signing keys, nodes and default gateway are the caller's.
    pub objects: Objects,
    /// All that is not usable.
    pub problems: Vec<Problem>,
    seen: BTreeMap<String, (PathBuf, usize)>,
}

/// Reads every `.yaml`, `.yml` and `.json` file of a folder (not of folders in it, as `kubectl -f`), or a single file.
pub fn read(path: &Path) -> Result<Manifests, ReadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError { path, source }
    };
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            let wanted = file
                .extension()
                .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|x| e == *x));
            let hidden = file
                .file_name()
                .is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if wanted && !hidden && file.is_file() {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let mut manifests = Manifests::default();
    for file in files {
        match read_file(&file) {
            Ok(text) => manifests.add_text(&file, &text),
            Err(error) => manifests.problem(&file, 0, None, format!("cannot be read: {error}")),
        }
    }
    Ok(manifests)
}

fn read_file(file: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(file)?.len();
    if length > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!(
            "{length} bytes are more than the {MAX_FILE_BYTES} that are read"
        )));
    }
    std::fs::read_to_string(file)
}

/// The parts of a Secret that count.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretDocument {
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
}

impl Manifests {
    /// Takes the documents of one file.
    pub fn add_text(&mut self, file: &Path, text: &str) {
        for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
            let number = index + 1;
            // The text may hold a Secret: only the place of the error is told.
            let value = match serde_yaml::Value::deserialize(document) {
                Ok(value) => value,
                Err(error) => {
                    let place = error.location().map_or_else(String::new, |at| {
                        format!(" at line {}, column {}", at.line(), at.column())
                    });
                    self.problem(file, number, None, format!("is not valid YAML{place}"));
                    return;
                }
            };
            if value.is_null() {
                continue;
            }
            match serde_json::to_value(value) {
                Ok(value) => self.add_document(file, number, value),
                Err(_) => self.problem(
                    file,
                    number,
                    None,
                    "is not valid YAML for Kubernetes: keys must be strings".into(),
                ),
            }
        }
    }

    fn problem(&mut self, file: &Path, document: usize, object: Option<String>, message: String) {
        self.problems.push(Problem {
            file: file.to_owned(),
            document,
            object,
            message,
            ignored: false,
        });
    }

    fn add_document(&mut self, file: &Path, number: usize, mut value: Value) {
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind, name) =
            (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if kind == "List" {
            let items = value
                .get_mut("items")
                .and_then(Value::as_array_mut)
                .map(std::mem::take)
                .unwrap_or_default();
            for item in items {
                self.add_document(file, number, item);
            }
            return;
        }
        let namespace = Some(text("/metadata/namespace"))
            .filter(|ns| !ns.is_empty())
            .unwrap_or("default".into());
        let label = (!kind.is_empty()).then(|| {
            if name.is_empty() {
                kind.clone()
            } else {
                format!("{kind} {namespace}/{name}")
            }
        });
        let ours = if api_version == API_VERSION {
            Kind::parse(&kind)
        } else {
            None
        };
        let core = api_version == "v1" && (kind == "Secret" || kind == "Namespace");
        if ours.is_none() && !core {
            let ignored =
                !api_version.starts_with(&format!("{}/", ringwire_crds::GROUP)) && !kind.is_empty();
            let message = if kind.is_empty() {
                "is no Kubernetes object: it has no kind".to_owned()
            } else if ignored {
                format!("{api_version} {kind} is not used here")
            } else {
                format!("there is no kind {kind} in {api_version}")
            };
            self.problems.push(Problem {
                file: file.to_owned(),
                document: number,
                object: label,
                message,
                ignored,
            });
            return;
        }
        if name.is_empty() {
            self.problem(file, number, label, "metadata.name is missing".into());
            return;
        }
        let key = format!("{kind} {namespace}/{name}");
        if let Some((other, document)) = self.seen.get(&key) {
            let message = format!(
                "stands already in {} (document {document})",
                other.display()
            );
            self.problem(file, number, label, message);
            return;
        }
        self.seen.insert(key, (file.to_owned(), number));
        let Some(kind) = ours else {
            self.add_core(file, number, &kind, &ObjectRef::new(namespace, name), value);
            return;
        };
        let errors = schema::validate(&value);
        if !errors.is_empty() {
            for error in errors {
                self.problem(file, number, label.clone(), error.to_string());
            }
            return;
        }
        schema::apply_defaults(&mut value);
        value["metadata"]["namespace"] = Value::from(namespace);
        if let Err(error) = self.add_kind(kind, value) {
            self.problem(file, number, label, error.to_string());
        }
    }

    fn add_kind(&mut self, kind: Kind, value: Value) -> Result<(), serde_json::Error> {
        let objects = &mut self.objects;
        match kind {
            Kind::SipProvider => objects.providers.push(serde_json::from_value(value)?),
            Kind::PhoneNumber => objects.numbers.push(serde_json::from_value(value)?),
            Kind::VoiceAgent => objects.agents.push(serde_json::from_value(value)?),
            Kind::MediaGateway => objects.gateways.push(serde_json::from_value(value)?),
        }
        Ok(())
    }

    fn add_core(&mut self, file: &Path, number: usize, kind: &str, id: &ObjectRef, value: Value) {
        let label = Some(format!("{kind} {id}"));
        if kind == "Namespace" {
            let labels = value
                .pointer("/metadata/labels")
                .cloned()
                .unwrap_or_default();
            let labels = serde_json::from_value(labels).unwrap_or_default();
            self.objects.namespaces.insert(id.name.clone(), labels);
            return;
        }
        // No cause in the message: it could quote the secret.
        let Ok(secret) = serde_json::from_value::<SecretDocument>(value) else {
            self.problem(
                file,
                number,
                label,
                "data and stringData must map keys to strings".into(),
            );
            return;
        };
        let mut data = SecretData::new();
        for (key, encoded) in secret.data {
            let decoded = BASE64
                .decode(encoded.trim().as_bytes())
                .ok()
                .map(String::from_utf8);
            match decoded {
                Some(Ok(text)) => drop(data.insert(key, Secret::new(text))),
                // A value that is no text is of no use to us, but is a legal Secret.
                Some(Err(_)) => {}
                None => self.problem(
                    file,
                    number,
                    label.clone(),
                    format!("data.{key} is not base64"),
                ),
            }
        }
        data.extend(
            secret
                .string_data
                .into_iter()
                .map(|(key, text)| (key, Secret::new(text))),
        );
        self.objects.secrets.insert(id.clone(), data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Manifests {
        let mut manifests = Manifests::default();
        manifests.add_text(Path::new("a.yaml"), text);
        manifests
    }

    const GOOD: &str = "
apiVersion: ringwire.dev/v1alpha1
kind: VoiceAgent
metadata: {name: echo}
spec: {echo: {}}
---
apiVersion: v1
kind: Secret
metadata: {name: trunk, namespace: voice}
data: {username: dHJ1bmsx}
stringData: {password: hunter2}
";

    #[test]
    fn reads_objects_and_secrets() {
        let manifests = load(GOOD);
        assert_eq!(manifests.problems, []);
        assert_eq!(
            ObjectRef::of(&manifests.objects.agents[0]),
            ObjectRef::new("default", "echo")
        );
        let secret = &manifests.objects.secrets[&ObjectRef::new("voice", "trunk")];
        assert_eq!(
            (secret["username"].expose(), secret["password"].expose()),
            ("trunk1", "hunter2")
        );
    }

    #[test]
    fn names_file_document_and_object_of_a_mistake_and_keeps_the_rest() {
        let bad = "apiVersion: ringwire.dev/v1alpha1\nkind: PhoneNumber\nmetadata: {name: main}\n\
                   spec: {number: 34911, providerRef: {name: a}}\n";
        let manifests = load(&format!("{bad}---{GOOD}"));
        let text = manifests.problems[0].to_string();
        assert!(
            text.starts_with("a.yaml (document 1): PhoneNumber default/main: "),
            "{text}"
        );
        assert!(text.contains("spec.number"), "{text}");
        assert_eq!(manifests.objects.agents.len(), 1);
    }

    #[test]
    fn refuses_the_same_object_twice() {
        let manifests = load(&format!("{GOOD}---{GOOD}"));
        assert_eq!(manifests.problems.len(), 2);
        assert!(
            manifests.problems[0]
                .message
                .contains("stands already in a.yaml")
        );
    }

    #[test]
    fn passes_over_other_kinds_and_broken_documents_without_quoting_them() {
        let manifests = load(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\nkind: {oops: hunter2\n",
        );
        assert!(manifests.problems[0].ignored);
        assert!(!manifests.problems[1].to_string().contains("hunter2"));
    }
}
