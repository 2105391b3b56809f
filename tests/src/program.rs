//! The program under test and its output.

use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testbed::vm_process;

/// Returns the path of `understudy`, built in the same profile as this code.
///
/// # Panics
///
/// If it was not built.
pub fn understudy() -> PathBuf {
    vm_process::understudy().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `understudy` with `args` and waits until it exits.
pub fn run(args: &[&str]) -> Output {
    Command::new(understudy()).args(args).output().expect("understudy starts")
}

/// Parses the JSON object on the last line of `output`.
///
/// # Panics
///
/// If there is none.
pub fn json(output: &str) -> Value {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {output:?}"))
}

/// Writes a file that only its owner can read, as logs and snapshots are.
///
/// # Panics
///
/// If it can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("a file is written");
}

/// Runs `understudy` with `args` and requires exit code `code` and one line on standard error that
/// contains `text`.
///
/// # Panics
///
/// If it ends otherwise.
pub fn fails(args: &[&str], code: i32, text: &str) {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
    assert!(errors.contains(text), "{args:?}: {errors}");
}
