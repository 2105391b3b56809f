//! Builds the reference guest and hands it to the crate as `$OUT_DIR/guest.elf`.
//!
//! `UNDERSTUDY_GUEST_ELF` names a ready-made ELF to embed instead.

#[path = "build/nested_cargo.rs"]
mod nested_cargo;

use nested_cargo::variable;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const OVERRIDE: &str = "UNDERSTUDY_GUEST_ELF";

#[expect(clippy::print_stderr, reason = "cargo shows it")]
fn main() {
    if let Err(error) = run() {
        // Cargo prints what the script wrote, and this line last.
        eprintln!("error: the reference guest was not built: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let embedded = PathBuf::from(variable("OUT_DIR")?).join("guest.elf");
    let built = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            PathBuf::from(path)
        }
        None => nested_cargo::build("guest", "refguest")?,
    };
    fs::copy(&built, &embedded).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(())
}
