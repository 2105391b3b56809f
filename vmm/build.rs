//! Builds the reference guest and hands it to the crate as `$OUT_DIR/guest.elf`.
//!
//! The guest is a freestanding program with its own profile, lock file and link map, so a cargo of its own
//! builds it, in a target directory of its own: the outer build holds the lock on its target directory
//! while this script runs. It needs no network once the registry cache has the crates of both lock files.
//!
//! `UNDERSTUDY_GUEST_ELF` names a ready-made ELF to embed instead.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The host target, though the guest has no operating system: its standard library parts are the ones
/// that every toolchain has installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const OVERRIDE: &str = "UNDERSTUDY_GUEST_ELF";

fn main() {
    if let Err(error) = run() {
        // Cargo prints what the script wrote, and this line last.
        eprintln!("error: the reference guest was not built: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let embedded = out_dir.join("guest.elf");
    let built = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            PathBuf::from(path)
        }
        None => build(&out_dir)?,
    };
    fs::copy(&built, &embedded).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(())
}

/// Runs the nested cargo. Returns the path of the ELF.
fn build(out_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let guest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("guest");
    for input in ["src", "build.rs", "link.ld", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", guest.join(input).display());
    }
    let manifest = guest.join("Cargo.toml");
    let target_dir = out_dir.join("guest-target");

    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&guest)
        // Standard output of a build script is a protocol.
        .stdout(Stdio::null());
    for (name, _) in env::vars_os() {
        if shapes_the_build(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    // Even when empty, this one wins over every .cargo/config.toml above us.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(&guest)?);

    let status = cargo.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !status.success() {
        let retry = format!("cargo build --release --manifest-path {}", manifest.display());
        return Err(format!("{status}; try: {retry}").into());
    }
    Ok(target_dir.join(TARGET).join("release/refguest"))
}

/// The guest is the same bytes whoever builds it: code for the oldest x86-64, and no path of this machine
/// in a panic message.
fn rustflags(guest: &Path) -> Result<String, Box<dyn Error>> {
    let mut flags = vec!["-Crelocation-model=static".to_owned(), "-Ctarget-cpu=x86-64".to_owned()];
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(variable("HOME")?).join(".cargo"),
    };
    // The registry's folder name holds a hash of its address, which a mirror changes.
    let mut crates: Vec<PathBuf> = fs::read_dir(cargo_home.join("registry/src"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    crates.sort();
    flags.push(format!("--remap-path-prefix={}=crates", cargo_home.display()));
    for folder in crates {
        flags.push(format!("--remap-path-prefix={}=crates", folder.display()));
    }
    flags.push(format!("--remap-path-prefix={}=refguest", guest.display()));
    Ok(flags.join("\x1f"))
}

/// Whether a variable that the outer build set for us (or the user for the outer build) would change what
/// the nested cargo builds: flags, wrappers such as clippy's and coverage's, profile overrides, and the
/// description of the crate this script belongs to.
fn shapes_the_build(name: &str) -> bool {
    const KEPT: [&str; 4] =
        ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS", "CARGO_TERM_COLOR"];
    const KEPT_PREFIXES: [&str; 3] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    const DROPPED: [&str; 14] = [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTC_LINKER",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "OUT_DIR",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
    ];
    let cargo_setting = name.starts_with("CARGO_")
        && !KEPT.contains(&name)
        && !KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    cargo_setting || name.starts_with("SMOLTCP_") || DROPPED.contains(&name)
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set"))
}
