//! The program under test and its output.

use serde_json::Value;
use std::path::PathBuf;
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
