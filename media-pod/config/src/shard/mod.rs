//! A gateway's configuration as the Secrets that its pods watch.
//!
//! There is a fixed number of shards per role; an entry's name decides its shard, so that an edit rewrites one Secret and a pod's RBAC
//! can name them all. A shard is gzip-compressed JSON: `{"formatVersion": 1, "settings": …, "providers"|"agents": {…}}`. `settings`
//! stand in shard 0 alone, and so do `tls` and `hep`.
//!
//! Operators serve pods of older versions. An entry that a pod does not understand is left out and named in [`NotUnderstood`]; of the
//! gateway's own parts the last one that it understood stays. `formatVersion` grows only when that is not enough.

mod decode;

use std::collections::BTreeMap;
use std::io::Write;

use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::gateway::{
    Agent, GatewayConfig, GatewaySettings, Hep, MediaConfig, Provider, RegistrarConfig, ServerTls,
};
use crate::not_understood::NotUnderstood;
use crate::object::ObjectRef;

pub use decode::decode;

/// How many Secrets carry the configuration of one role.
pub const SHARDS: usize = 8;

/// Key of the compressed configuration within its Secret.
pub const DATA_KEY: &str = "config.json.gz";

/// The format that this version writes; it reads this one and older.
pub const FORMAT_VERSION: u32 = 1;

/// Largest compressed shard. A Secret ends at 1 MiB, of which names and metadata take a little.
pub const MAX_SHARD_BYTES: usize = 1_000_000;

/// Which pods read a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// The SIP edge.
    Registrar,
    /// The media pods.
    Media,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Registrar, Self::Media];

    /// `registrar` or `media`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registrar => "registrar",
            Self::Media => "media",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Secret that holds shard `index` of `role` for the gateway called `gateway`.
pub fn secret_name(gateway: &str, role: Role, index: usize) -> String {
    format!("{gateway}-{role}-{index}")
}

/// Why a shard could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// It does not fit into a Secret.
    #[error(
        "shard {index} has {bytes} bytes compressed, more than the {MAX_SHARD_BYTES} that fit into a Secret"
    )]
    TooLarge {
        /// Which shard.
        index: usize,
        /// Its compressed size.
        bytes: usize,
    },
    /// It was written by a newer version.
    #[error("configuration format {0} is newer than this version reads ({FORMAT_VERSION})")]
    Newer(u32),
    /// It is no gzip stream, or too large when decompressed.
    #[error("configuration cannot be decompressed")]
    Compression(#[from] std::io::Error),
    /// It is no valid configuration. The cause is left out: it could quote a secret.
    #[error(
        "configuration is not valid JSON of format {FORMAT_VERSION} (line {line}, column {column})"
    )]
    Json {
        /// Line of the error.
        line: usize,
        /// Column of the error.
        column: usize,
    },
}

impl From<serde_json::Error> for ShardError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json {
            line: error.line(),
            column: error.column(),
        }
    }
}

/// One shard's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    format_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<GatewaySettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<ServerTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hep: Option<Hep>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    providers: BTreeMap<ObjectRef, Provider>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    agents: BTreeMap<ObjectRef, Agent>,
    /// Entries that are left out above.
    #[serde(skip)]
    not_understood: NotUnderstood,
    /// The gateway's own parts that could not be read, and what was not understood.
    #[serde(skip)]
    parts_not_understood: BTreeMap<Part, String>,
    /// [`digest`] of what it was read from.
    #[serde(skip)]
    digest: String,
}

/// What a shard holds of the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its settings.
    Settings,
    /// SIP over TLS for carriers that connect to us.
    Tls,
    /// Who gets copies of SIP messages.
    Hep,
}

impl Part {
    /// Its key in the shard.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Tls => "tls",
            Self::Hep => "hep",
        }
    }
}

impl Shard {
    /// The entries that were left out.
    pub fn not_understood(&self) -> &NotUnderstood {
        &self.not_understood
    }

    /// The gateway's own parts that could not be read, and what was not understood.
    pub fn parts_not_understood(&self) -> &BTreeMap<Part, String> {
        &self.parts_not_understood
    }
}

/// A short name of a shard's compressed content: pods report it, so that the operator knows what they have taken.
pub fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes)[..8])
}

/// Which shard an object's entry is in.
pub fn index_of(id: &ObjectRef) -> usize {
    usize::from(Sha256::digest(id.to_string().as_bytes())[0]) % SHARDS
}

/// Splits what `role` must know into its shards, in order.
pub fn split(config: &GatewayConfig, role: Role) -> Vec<Shard> {
    let mut shards = vec![
        Shard {
            format_version: FORMAT_VERSION,
            ..Shard::default()
        };
        SHARDS
    ];
    shards[0].settings = Some(config.settings.clone());
    match role {
        Role::Registrar => {
            shards[0].tls.clone_from(&config.tls);
            shards[0].hep.clone_from(&config.hep);
            for (id, provider) in &config.providers {
                shards[index_of(id)]
                    .providers
                    .insert(id.clone(), provider.clone());
            }
        }
        Role::Media => {
            for (id, agent) in &config.agents {
                shards[index_of(id)]
                    .agents
                    .insert(id.clone(), agent.clone());
            }
        }
    }
    shards
}

/// Compresses a shard. The same content gives the same bytes, so that an unchanged shard is not rewritten.
pub fn encode(shard: &Shard, index: usize) -> Result<Vec<u8>, ShardError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&serde_json::to_vec(shard)?)?;
    let bytes = encoder.finish()?;
    if bytes.len() > MAX_SHARD_BYTES {
        return Err(ShardError::TooLarge {
            index,
            bytes: bytes.len(),
        });
    }
    Ok(bytes)
}

/// The shards that a pod has read so far.
#[derive(Debug, Default)]
pub struct Assembly {
    shards: BTreeMap<usize, Shard>,
}

impl Assembly {
    /// Takes shard `index`, replacing its former content but for the gateway's parts that it cannot read.
    pub fn insert(&mut self, index: usize, mut shard: Shard) {
        if let Some(former) = self.shards.remove(&index) {
            for part in shard.parts_not_understood.keys() {
                match part {
                    Part::Settings => shard.settings.clone_from(&former.settings),
                    Part::Tls => shard.tls.clone_from(&former.tls),
                    Part::Hep => shard.hep.clone_from(&former.hep),
                }
            }
        }
        self.shards.insert(index, shard);
    }

    /// Shard `index` as it was taken last.
    pub fn shard(&self, index: usize) -> Option<&Shard> {
        self.shards.get(&index)
    }

    /// Whether all shards are there: before, a missing entry says nothing.
    pub fn is_complete(&self) -> bool {
        self.shards.len() == SHARDS && self.settings().is_some()
    }

    fn settings(&self) -> Option<&GatewaySettings> {
        self.shards.get(&0)?.settings.as_ref()
    }

    /// What a registrar is told, once complete.
    pub fn registrar(&self) -> Option<RegistrarConfig> {
        let settings = self.settings().filter(|_| self.is_complete())?.clone();
        let providers = self
            .shards
            .values()
            .flat_map(|shard| shard.providers.clone())
            .collect();
        let first = self.shards.get(&0);
        Some(RegistrarConfig {
            settings,
            tls: first.and_then(|shard| shard.tls.clone()),
            hep: first.and_then(|shard| shard.hep.clone()),
            providers,
            not_understood: self.not_understood(),
            shards: self.digests(),
        })
    }

    /// What a media pod is told, once complete.
    pub fn media(&self) -> Option<MediaConfig> {
        let settings = self.settings().filter(|_| self.is_complete())?.clone();
        let agents = self
            .shards
            .values()
            .flat_map(|shard| shard.agents.clone())
            .collect();
        Some(MediaConfig {
            settings,
            agents,
            not_understood: self.not_understood(),
            shards: self.digests(),
        })
    }

    fn not_understood(&self) -> NotUnderstood {
        let mut all = NotUnderstood::default();
        for shard in self.shards.values() {
            all.extend(shard.not_understood.clone());
        }
        all
    }

    fn digests(&self) -> Vec<String> {
        let shards = self.shards.values();
        shards.map(|shard| shard.digest.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn config(agents: usize) -> GatewayConfig {
        let agents = (0..agents).map(|n| fixture::agent(&format!("agent-{n}")));
        GatewayConfig {
            settings: GatewaySettings {
                allowed_agent_addresses: vec!["10.0.0.0/8".parse().unwrap()],
                ..fixture::settings()
            },
            tls: None,
            hep: None,
            providers: BTreeMap::new(),
            agents: agents.map(|agent| (agent.id.clone(), agent)).collect(),
        }
    }

    #[test]
    fn gives_back_what_was_split() {
        let config = config(100);
        let mut assembly = Assembly::default();
        let mut shards = Vec::new();
        for (index, shard) in split(&config, Role::Media).iter().enumerate() {
            assert_eq!(assembly.media(), None, "incomplete before shard {index}");
            let bytes = encode(shard, index).unwrap();
            assembly.insert(index, decode(&bytes).unwrap());
            shards.push(digest(&bytes));
        }
        assert_eq!(
            assembly.media(),
            Some(MediaConfig {
                settings: config.settings,
                agents: config.agents,
                not_understood: NotUnderstood::default(),
                shards,
            })
        );
    }

    #[test]
    fn an_edit_changes_one_shard_only() {
        let before = config(100);
        let mut after = before.clone();
        let id = ObjectRef::new("voice", "agent-7");
        after.agents.get_mut(&id).unwrap().max_call_seconds += 1;
        let changed: Vec<usize> = (0..SHARDS)
            .filter(|&index| {
                let encoded = |config| encode(&split(config, Role::Media)[index], index).unwrap();
                encoded(&before) != encoded(&after)
            })
            .collect();
        assert_eq!(changed, [index_of(&id)]);
    }

    #[test]
    fn agents_credentials_do_not_reach_registrars() {
        let shards = split(&config(10), Role::Registrar);
        assert!(shards.iter().all(|shard| shard.agents.is_empty()));
    }

    #[test]
    fn refuses_a_newer_format_and_garbage() {
        let newer = Shard {
            format_version: FORMAT_VERSION + 1,
            ..Shard::default()
        };
        assert!(matches!(
            decode(&encode(&newer, 0).unwrap()),
            Err(ShardError::Newer(2))
        ));
        assert!(matches!(
            decode(b"no gzip"),
            Err(ShardError::Compression(_))
        ));
    }
}
