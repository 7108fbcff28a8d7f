//! Folders of one test, gone when it ends, also those of test runs that were killed.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "rw-t";

static NEXT: AtomicU32 = AtomicU32::new(0);
static TIDY: Once = Once::new();

/// A folder that is removed when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one. The path is short: sockets live in it.
    pub fn new(name: &str) -> Self {
        TIDY.call_once(remove_stale);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("RINGWIRE_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The process that a name like `rw-t123-…` belongs to, if it is gone.
pub(crate) fn owner_is_gone(name: &str) -> bool {
    let digits: String = name
        .strip_prefix(PREFIX)
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    !digits.is_empty() && !Path::new("/proc").join(digits).exists()
}

fn remove_stale() {
    for entry in std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if owner_is_gone(&entry.file_name().to_string_lossy()) {
            // A carrier is the only process that doesn't end with its test's process.
            crate::carrier::end_stale(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
