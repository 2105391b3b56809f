//! What the threads of a running process may do, from proc_pid_status(5).

use crate::patience::Waiting;
use std::fs;

/// How many looks at a process with all its threads may find one outside the sandbox. Not a time: on a busy host the looks
/// are late, too.
const LOOKS_MAX: u32 = 1000;

/// A thread of a process.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its name.
    pub name: String,
    status: String,
}

/// Returns the threads of process `pid`; none if it has ended.
pub fn threads(pid: u32) -> Vec<Thread> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // A thread may end meanwhile.
    let statuses = entries.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses.map(|status| Thread { name: value(&status, "Name").to_owned(), status }).collect()
}

/// Returns the value of `key` in a status.
fn value<'s>(status: &'s str, key: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

impl Thread {
    /// Returns the value of `key` in the thread's status.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn value(&self, key: &str) -> &str {
        value(&self.status, key)
    }

    /// Returns what the thread has that no thread in the sandbox of a VM's process has, or lacks: one text each.
    pub fn outside_the_sandbox(&self) -> Vec<String> {
        let mut expected = vec![("NoNewPrivs", "1"), ("Seccomp", "2"), ("Groups", "")];
        let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
        expected.extend(capabilities.map(|set| (set, "0000000000000000")));
        let differs = |(key, right)| {
            let found = self.value(key);
            (found != right).then(|| format!("{}: {key} {found}", self.name))
        };
        let mut wrong: Vec<_> = expected.into_iter().filter_map(differs).collect();
        for key in ["Uid", "Gid"] {
            // Real, effective, saved, and that of the file system.
            let ids: Vec<_> = self.value(key).split_whitespace().collect();
            if ids.len() != 4 || ids.iter().any(|id| *id != ids[0] || *id == "0") {
                wrong.push(format!("{}: {key} {ids:?}", self.name));
            }
        }
        wrong
    }
}

/// Waits until every thread of process `pid` is in the sandbox of a VM's process, and there is one of each of `names`. A
/// thread enters at its beginning, so a busy host may show one before it has.
///
/// # Panics
///
/// If it is not so in time.
pub fn wait_until_sandboxed(pid: u32, names: &[&str]) {
    let waiting = Waiting::default();
    let mut looks = 0;
    loop {
        let threads = threads(pid);
        let wrong: Vec<_> = threads.iter().flat_map(Thread::outside_the_sandbox).collect();
        let is_here = |name: &&&str| threads.iter().any(|thread| thread.name == **name);
        let missing: Vec<_> = names.iter().filter(|name| !is_here(name)).collect();
        if wrong.is_empty() && missing.is_empty() {
            return;
        }
        looks += u32::from(missing.is_empty());
        assert!(looks < LOOKS_MAX, "not in the sandbox: {wrong:?}");
        waiting.pause(|| format!("the threads of {pid}: {wrong:?}; not there: {missing:?}"));
    }
}
