//! Describes where and how figures were measured.

use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Returns the machine, the command line and the commit, which every result contains.
pub(crate) fn describe() -> Value {
    json!({
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "cpu": cpu_model(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kvm_module": kvm_module(),
        "loadavg": first_line("/proc/loadavg"),
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "commit": commit(),
    })
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.to_string())
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Returns the vendor module behind `/dev/kvm`, if one is loaded.
fn kvm_module() -> Option<&'static str> {
    let is_loaded = |name: &&str| fs::exists(format!("/sys/module/{name}")).unwrap_or(false);
    ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter().find(is_loaded)
}

/// Returns the commit of the source tree, with a suffix if files were changed.
fn commit() -> Option<String> {
    let git = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"])
        .output()
        .ok()?;
    let text = String::from_utf8(git.stdout).ok()?;
    git.status.success().then(|| text.trim().to_string())
}
