//! The engine is pure: time is an argument, and it performs no I/O. These tests check that its files name
//! only paths on a short list.

use std::fs;
use std::path::Path;

/// Prefixes of the paths that the engine may name. None of them leads to a clock, a thread, a file, a socket
/// or the kernel.
const ALLOWED: &[&str] = &[
    "super::",
    "self::",
    "logchan::",
    "netpath::hold::",
    "netpath::announce::",
    "netpath::limits::",
    "netpath::MacAddr",
    "crate::checkpoint::",
    "crate::replay::boundary::",
    "xxhash_rust::",
    "std::collections::",
    "std::convert::",
    "std::fmt::",
    "std::mem::",
];

/// Crates that can reach outside of the process, and our own crates that use them.
const ROOTS: &[&str] = &[
    "std",
    "core",
    "alloc",
    "crate",
    "netpath",
    "libc",
    "nix",
    "kvm_ioctls",
    "crossbeam",
    "fastrand",
];

/// Returns the names in a line of code that the engine must not use.
fn forbidden_names(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for root in ROOTS {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let is_part = code[..at].ends_with(|c: char| is_word(c) || c == ':');
            let path = &code[at..];
            let end = path.find(|c: char| !is_word(c) && c != ':').unwrap_or(path.len());
            if !is_part && !ALLOWED.iter().any(|allowed| path[..end].starts_with(allowed)) {
                found.push(path[..end].to_owned());
            }
        }
    }
    let words = code.split(|c: char| !is_word(c));
    let hidden =
        ["unsafe", "println", "eprintln", "thread_local", "static", "Instant", "SystemTime"];
    found.extend(words.filter(|word| hidden.contains(word)).map(str::to_owned));
    found
}

#[test]
fn engine_files_use_only_allowed_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/replica");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with("_tests.rs") {
            continue;
        }
        files += 1;
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            // The lifetime 'static is not a static variable.
            let found = forbidden_names(&line.replace("'static", ""));
            assert!(found.is_empty(), "{name}:{}: the engine must not use {found:?}", number + 1);
        }
    }
    assert!(files >= 20, "only {files} files were read");
}

#[test]
fn forbidden_names_are_found() {
    for line in [
        "let now = std::time::Instant::now();",
        "use std::{fs, time};",
        "use crate::kvm::clock;",
        "use netpath::PacketPort;",
        "    libc::getpid();",
        "static COUNT: AtomicU64 = AtomicU64::new(0);",
        "    unsafe { read() }",
        "println!(\"{x}\");",
    ] {
        assert!(!forbidden_names(line).is_empty(), "{line}");
    }
    for line in
        ["use std::collections::BTreeMap;", "use super::engine::Replica;", "// std::fs::read"]
    {
        assert!(forbidden_names(line).is_empty(), "{line}");
    }
}
