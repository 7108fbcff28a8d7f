//! The keys that sign Contacts, in a file of the state folder: one of 64 hexadecimal digits in each line.
//!
//! The first line signs, all are accepted, and the last one makes the users of the Contacts that carriers register, so that a restart
//! doesn't orphan our bindings. A new line at the top replaces the key without a call noticing; the one before may go when the calls
//! that began with it have ended, unless it is the last.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ringwire_config::Secret;
use ringwire_config::token::{GatewayKeys, TokenKey};

/// Digits of a key.
const DIGITS: usize = 64;

/// The keys in force, and where they come from.
pub struct SigningKeys {
    /// `None`: they are not kept.
    pub file: Option<PathBuf>,
    current: GatewayKeys,
}

impl SigningKeys {
    /// The keys of the state folder; a new one if there is none.
    pub fn open(folder: Option<PathBuf>) -> Self {
        let file = folder.map(|folder| folder.join("signing-key"));
        let key = TokenKey::from_bytes(1, rand::random());
        let mut keys = Self {
            file,
            current: GatewayKeys::single(key.clone()),
        };
        match &keys.file {
            Some(file) if !file.exists() => {
                if let Err(error) = write_private(file, key.key.expose()) {
                    tracing::warn!(%error, "cannot keep the signing key in {}; carriers will see a new Contact after a restart", file.display());
                }
            }
            _ => drop(keys.read()),
        }
        keys
    }

    /// The keys as the file has them by now; if it can't be used, as they were.
    pub fn read(&mut self) -> GatewayKeys {
        let Some(file) = &self.file else {
            return self.current.clone();
        };
        match std::fs::read_to_string(file).map(|text| parse(&text)) {
            Ok(Some(keys)) => self.current = keys,
            Ok(None) => tracing::error!(
                "{} cannot be used: each line has to be {DIGITS} hexadecimal digits; the keys stay as they were",
                file.display()
            ),
            Err(error) => tracing::debug!(%error, "{} cannot be read", file.display()),
        }
        self.current.clone()
    }
}

/// Each key's number is that of its line, counted from the end, so that it keeps it when others are put on top.
fn parse(text: &str) -> Option<GatewayKeys> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines = lines.into_iter().filter(|line| !line.is_empty());
    let mut tokens = Vec::new();
    for (id, line) in (1..=u8::MAX).zip(lines.rev()) {
        let good = line.len() == DIGITS && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = Secret::new(good.then_some(line)?);
        tokens.insert(0, TokenKey { id, key });
    }
    let contacts = tokens.last()?.clone();
    Some(GatewayKeys { contacts, tokens })
}

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_signs_and_the_last_makes_contacts() {
        let lines: Vec<String> = ["a", "b", "c"].map(|digit| digit.repeat(DIGITS)).into();
        let keys = parse(&format!("{}\n\n{}\n{}\n", lines[0], lines[1], lines[2])).unwrap();
        let ids: Vec<u8> = keys.tokens.iter().map(|key| key.id).collect();
        assert_eq!(ids, [3, 2, 1]);
        assert_eq!(keys.tokens[0].key.expose(), lines[0]);
        assert_eq!(keys.contacts, keys.tokens[2]);
        let shorter = parse(&lines[1..].join("\n")).unwrap();
        assert_eq!(shorter.tokens, keys.tokens[1..]);
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let good = "a".repeat(DIGITS);
        for text in [
            String::new(),
            "x".repeat(DIGITS),
            format!("{good}\n{good}0"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}
