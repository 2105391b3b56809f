//! Builds the test guests and hands them to the crate as `$OUT_DIR/hard.elf` and `$OUT_DIR/hostile.elf`.

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
        eprintln!("error: a test guest was not built: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../vmm/build");
    for name in ["hard", "hostile"] {
        let embedded = PathBuf::from(variable("OUT_DIR")?).join(name).with_extension("elf");
        let built = nested_cargo::build(&format!("guests/{name}"), &format!("{name}guest"))?;
        fs::copy(&built, &embedded).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    }
    Ok(())
}
