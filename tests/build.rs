//! Builds the hard guest and hands it to the crate as `$OUT_DIR/hard.elf`.

#[path = "../vmm/build/nested_cargo.rs"]
mod nested_cargo;

use nested_cargo::variable;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

#[expect(clippy::print_stderr, reason = "cargo shows it")]
fn main() {
    if let Err(error) = run() {
        // Cargo prints what the script wrote, and this line last.
        eprintln!("error: the hard guest was not built: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../vmm/build");
    let embedded = PathBuf::from(variable("OUT_DIR")?).join("hard.elf");
    let built = nested_cargo::build("guests/hard", "hardguest")?;
    fs::copy(&built, &embedded).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(())
}
