//! Builds the reference guest and copies it to `$OUT_DIR/guest.elf`, which the crate embeds.
//!
//! If `UNDERSTUDY_GUEST_ELF` is set, it names an existing ELF file to embed instead.

#[path = "build/nested_cargo.rs"]
mod nested_cargo;

use nested_cargo::variable;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const OVERRIDE: &str = "UNDERSTUDY_GUEST_ELF";

#[expect(clippy::print_stderr, reason = "cargo shows the output of a build script that fails")]
fn main() {
    if let Err(error) = run() {
        // Cargo prints the output of a failed build script; this is its last line.
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
