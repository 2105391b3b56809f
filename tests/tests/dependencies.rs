//! The direction of dependencies: between the crates, from their manifests, and between the modules of `vmm`,
//! from the paths in their source. The tests read files only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate of the workspace and the crates of the workspace that it may use.
const CRATES: [(&str, &[&str]); 9] = [
    ("logchan", &[]),
    ("netpath", &[]),
    ("testbed", &[]),
    ("replication", &["logchan"]),
    ("vmm", &["logchan", "netpath", "replication", "testbed"]),
    ("manual", &["vmm"]),
    ("bench", &["logchan", "netpath", "replication", "testbed", "vmm"]),
    ("tests", &["logchan", "netpath", "replication", "testbed", "vmm"]),
    ("fuzz", &["logchan", "replication", "vmm"]),
];

/// The modules of `vmm`: each may use those before it. ARCHITECTURE.md says what they contain.
const MODULES: [&str; 28] = [
    "limits",
    "notify",
    "reservation",
    "files",
    "mem",
    "boot",
    "kvm",
    "sandbox",
    "opener",
    "metrics",
    "telemetry",
    "health",
    "vm_tap",
    "disk",
    "write_queue",
    "message_limit",
    "stdio",
    "link",
    "supervisor",
    "witness",
    "replay",
    "bus",
    "devices",
    "checkpoint",
    "vcpu",
    "pair",
    "demo",
    "cli",
];

/// Uses of a later module: who uses whom, and why.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("checkpoint", "vcpu", "the run loop saves and restores the Machine by taking it apart")];

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn manifest(folder: &Path) -> toml::Table {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn strings(value: &toml::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let root = root();
    let workspace = manifest(&root)["workspace"].clone();
    let manifests: BTreeMap<String, toml::Table> = strings(&workspace["members"])
        .into_iter()
        .map(|folder| manifest(&root.join(folder)))
        .map(|manifest| (manifest["package"]["name"].as_str().unwrap().to_owned(), manifest))
        .collect();
    let listed: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = manifests.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "CRATES must list the members of the workspace");

    for (name, allowed) in CRATES {
        for section in ["dependencies", "build-dependencies"] {
            let Some(section) = manifests[name].get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for used in section.keys().filter(|used| listed.contains(used.as_str())) {
                assert!(allowed.contains(&used.as_str()), "{name} must not depend on {used}");
            }
        }
    }
}

#[test]
fn claimed_rust_version_is_the_pinned_toolchain() {
    let root = root();
    let workspace = manifest(&root)["workspace"].clone();
    let text = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
    let pinned = text.parse::<toml::Table>().unwrap()["toolchain"]["channel"].clone();
    assert_eq!(workspace["package"]["rust-version"], pinned, "Cargo.toml");
    for folder in strings(&workspace["exclude"]) {
        let claimed = &manifest(&root.join(folder))["package"]["rust-version"];
        assert_eq!(*claimed, pinned, "{folder}/Cargo.toml");
    }
}

/// Appends every source file below `folder` to `files`.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the name with which `text` begins.
fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Returns the names that follow the root of the crate in the paths of one line: `crate::`, or as many
/// `super::` as the file's module has ancestors. Fewer may be meant in a nested module, so a name after
/// `super::` counts only if it is a module's. Macros are at the root, whatever module defines them.
fn names_at_the_root(line: &str, ancestors: usize) -> Vec<&str> {
    let absolute = line
        .match_indices("crate::")
        .map(|(at, path)| &line[at + path.len()..])
        .filter(|rest| !rest[first_name(rest).len()..].starts_with('!'));
    let to_the_root = "super::".repeat(ancestors);
    let relative = line
        .match_indices(&to_the_root)
        .map(|(at, path)| &line[at + path.len()..])
        .filter(|rest| MODULES.contains(&first_name(rest)));
    absolute.chain(relative).map(first_name).collect()
}

#[test]
fn modules_of_vmm_use_only_the_modules_below_them() {
    let src = root().join("vmm/src");
    let rank = |module: &str| MODULES.iter().position(|listed| *listed == module);
    let mut files = Vec::new();
    sources(&src, &mut files);

    let mut found = BTreeSet::new();
    let mut used_exceptions = BTreeSet::new();
    for path in files {
        let relative = path.strip_prefix(&src).unwrap();
        let mut module: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
        let file = module.pop().unwrap().trim_end_matches(".rs");
        if file != "mod" {
            module.push(file);
        }
        if ["lib", "main"].contains(&module[0]) {
            continue;
        }
        let user = module[0];
        let Some(user_rank) = rank(user) else {
            panic!("MODULES must list {user}, after every module that it uses");
        };
        found.insert(user.to_owned());

        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let place = format!("vmm/src/{}:{}", relative.display(), number + 1);
            for used in names_at_the_root(code, module.len()) {
                let Some(used_rank) = rank(used) else {
                    panic!("{place}: begin a path in this crate with one module: {}", code.trim());
                };
                if used_rank <= user_rank {
                    continue;
                }
                let exception = EXCEPTIONS.iter().find(|(a, b, _)| (*a, *b) == (user, used));
                let Some((user, used, _)) = exception else {
                    panic!("{place}: {user} must not use {used}: {}", code.trim());
                };
                used_exceptions.insert((*user, *used));
            }
        }
    }
    for module in MODULES {
        assert!(found.contains(module), "MODULES lists {module}, which does not exist");
    }
    for (user, used, _) in EXCEPTIONS {
        assert!(
            used_exceptions.contains(&(user, used)),
            "EXCEPTIONS lists {user} and {used}, but {user} no longer uses {used}"
        );
    }
}
