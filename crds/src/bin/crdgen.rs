//! Writes the generated `CustomResourceDefinition`s, or checks that those on disk are what would be written.
//!
//! `crdgen DIR` writes one file for each kind; `crdgen --check DIR` changes nothing and fails when a file differs.

use std::path::Path;
use std::process::ExitCode;

use ringwire_crds::generate::{Drift, check, write};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["--check", dir] | [dir, "--check"] => check(Path::new(dir)),
        [dir] if !dir.starts_with('-') => write(Path::new(dir)),
        _ => {
            eprintln!("usage: crdgen [--check] DIR");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Drift::Differs { .. }) => {
            eprintln!(
                "crdgen: {error}; run `cargo run -p ringwire-crds --bin crdgen crds/crds` and commit the result"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}
