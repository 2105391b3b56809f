//! Builds a guest with a nested cargo. Included by the build scripts of `vmm` and `tests`.
//!
//! A guest is a freestanding program with its own profile, lock file and linker script. It is built in a
//! separate target directory, because the outer build holds the lock on its own target directory while a
//! build script runs. The build needs no network if the registry cache has the crates of both lock files.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The host target, although a guest has no operating system: every toolchain has `core` and `alloc` for it
/// installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the nested cargo on the package `package` in the folder `guest`, below the folder of the calling
/// build script's package. Returns the path of the ELF.
pub(crate) fn build(guest: &str, package: &str) -> Result<PathBuf, Box<dyn Error>> {
    let guest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(guest);
    for input in ["src", "build.rs", "link.ld", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", guest.join(input).display());
    }
    let manifest = guest.join("Cargo.toml");
    let target_dir = PathBuf::from(variable("OUT_DIR")?).join("guest-target");

    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&guest)
        // Cargo parses the standard output of a build script.
        .stdout(Stdio::null());
    for (name, _) in env::vars_os() {
        if shapes_the_build(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    // This variable overrides every .cargo/config.toml in the parent folders, even if it is empty.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(&guest, package)?);

    let status = cargo.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !status.success() {
        let retry = format!("cargo build --release --manifest-path {}", manifest.display());
        return Err(format!("{status}; try: {retry}").into());
    }
    Ok(target_dir.join(TARGET).join("release").join(package))
}

/// Returns flags that make the build reproducible: the code is for the baseline x86-64, and panic messages
/// contain no path of this machine.
fn rustflags(guest: &Path, package: &str) -> Result<String, Box<dyn Error>> {
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
    flags.push(format!("--remap-path-prefix={}={package}", guest.display()));
    Ok(flags.join("\x1f"))
}

/// Returns whether an environment variable of the outer build would change what the nested cargo builds:
/// flags, wrappers such as those of clippy and coverage tools, profile overrides, and the description of the
/// crate that this script belongs to.
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

/// Returns a variable that cargo sets for build scripts.
pub(crate) fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set"))
}
