//! Finds the static libraries of the decoder and the encoder by asking the C compiler where it has them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where they are, instead of where the compiler looks.
const FOLDER: &str = "RINGWIRE_AMRWB_LIB_DIR";
/// The library, and Debian's package of it.
const LIBRARIES: [(&str, &str); 2] = [
    ("opencore-amrwb", "libopencore-amrwb-dev"),
    ("vo-amrwbenc", "libvo-amrwbenc-dev"),
];

fn folder(library: &str) -> Option<PathBuf> {
    let file = format!("lib{library}.a");
    if let Some(folder) = env::var_os(FOLDER) {
        return Some(PathBuf::from(folder)).filter(|folder| folder.join(&file).is_file());
    }
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let asked = Command::new(compiler)
        .arg(format!("-print-file-name={file}"))
        .output();
    let told = String::from_utf8(asked.ok()?.stdout).ok()?;
    // Of what it does not find it says the name alone.
    let path = Path::new(told.trim());
    path.is_absolute()
        .then(|| path.parent().map(Path::to_owned))?
}

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={FOLDER}");
    if env::var_os("CARGO_FEATURE_LIBRARIES").is_none() {
        return ExitCode::SUCCESS;
    }
    for (library, package) in LIBRARIES {
        let Some(folder) = folder(library) else {
            eprintln!(
                "AMR-WB needs lib{library}.a: install Debian's package {package}, or name the folder that has it in {FOLDER}"
            );
            return ExitCode::FAILURE;
        };
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-lib=static={library}");
    }
    ExitCode::SUCCESS
}
