//! Once a VM runs, its process has nothing of the host but what is open, and goes on without the processes that help it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::wait_for;

/// Starts a protected VM: primary on A, backup on B.
fn protected(rig: &Rig) -> [Process; 2] {
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(backup, PairEvent::Following);
    [primary, backup]
}

/// Returns the value of `key` in the text of `/proc/PID/status`.
fn value<'t>(status: &'t str, key: &str) -> &'t str {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

/// Returns the status of each thread of a process, with the thread's name.
fn threads(process: &Process) -> Vec<(String, String)> {
    let entries = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("it runs");
    let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
    entries
        .flatten()
        .filter_map(status)
        .map(|status| (value(&status, "Name").to_owned(), status))
        .collect()
}

/// Returns the child of `process` with the given name.
fn child(process: &Process, name: &str) -> Option<Pid> {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let mut processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
            value(&status, "Name") == name && value(&status, "PPid") == process.pid().to_string()
        })
    };
    processes.find(is_it).map(|pid| Pid::from_raw(pid.cast_signed()))
}

#[test]
fn every_thread_of_a_pair_has_a_filter_and_no_permission() {
    let rig = Rig::default();
    let processes = protected(&rig);
    for process in &processes {
        let mut names = Vec::new();
        for (name, status) in threads(process) {
            for zero in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(value(&status, zero), "0000000000000000", "{name}: {zero}");
            }
            assert_eq!(
                (value(&status, "NoNewPrivs"), value(&status, "Seccomp")),
                ("1", "2"),
                "{name}"
            );
            for ids in ["Uid", "Gid"] {
                let ids: Vec<_> = value(&status, ids).split_whitespace().collect();
                assert!(
                    ids.len() == 4 && ids.iter().all(|id| *id == ids[0] && *id != "0"),
                    "{name}"
                );
            }
            assert_eq!(value(&status, "Groups"), "", "{name}");
            names.push(name);
        }
        for name in [
            "vcpu0", "signals", "stdout", "stderr", "tap", "log-nic", "health", "control",
            "witness",
        ] {
            assert!(names.iter().any(|found| found == name), "no thread {name}: {names:?}");
        }
    }
    let users = processes.map(|process| value(&threads(&process)[0].1, "Uid").to_owned());
    assert_ne!(users[0], users[1], "each process has a user of its own");
}

#[test]
fn vm_goes_on_without_its_opener_and_its_opener_ends_with_it() {
    let rig = Rig::default();
    let [mut primary, backup] = protected(&rig);
    let opener = child(&primary, "opener").expect("it has one");
    let ((), _) = Clients::during(&rig, |clients| {
        kill(opener, Signal::SIGKILL).expect("it can be killed");
        wait_until("a warning", || {
            primary.words().iter().any(|line| line.contains("the process 'opener' of this VM"))
        });
        clients.wait_until_served();
        primary.wait_for_role("protected");
    });
    let helpers = ["opener", "witness"].map(|name| child(&backup, name).expect("it has one"));
    backup.signal(Signal::SIGKILL);
    for helper in helpers {
        wait_until("the end of a helper", || {
            let status = fs::read_to_string(format!("/proc/{helper}/status"));
            status.map_or(true, |status| value(&status, "State").starts_with('Z'))
        });
    }
    wait_for!(primary, PairEvent::TermWon);
}
