//! Once a VM runs, its process has nothing of the host but what is open, and goes on without the processes that help it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::threads::{threads, wait_until_sandboxed};
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

/// Returns the child of `process` with the given name.
fn child(process: &Process, name: &str) -> Pid {
    let pid = process.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("it runs");
    let children = children.split_whitespace().map(|child| child.parse().expect("a number"));
    let has_name = |pid: &u32| threads(*pid).first().is_some_and(|thread| thread.name == name);
    let found = children.into_iter().find(has_name);
    Pid::from_raw(found.unwrap_or_else(|| panic!("no child {name}")).cast_signed())
}

#[test]
fn every_thread_of_a_pair_has_a_filter_and_no_permission() {
    let rig = Rig::default();
    let processes = protected(&rig);
    for process in &processes {
        let names = [
            "vcpu0",
            "signals",
            "stdout",
            "stderr",
            "tap",
            "log-nic",
            "health",
            "control",
            "supervisor",
            "witness",
            "witness-check",
            "witness-end",
            "opener-end",
        ];
        wait_until_sandboxed(process.pid(), &names);
    }
    let users = processes.map(|process| threads(process.pid())[0].value("Uid").to_owned());
    assert_ne!(users[0], users[1], "each process has a user of its own");
}

/// Returns what the threads of `process`'s child `name` have under `key` in their status, each value once.
fn values(process: &Process, name: &str, key: &str) -> Vec<String> {
    let threads = threads(child(process, name).as_raw().cast_unsigned());
    let mut values: Vec<_> = threads.iter().map(|thread| thread.value(key).to_owned()).collect();
    values.dedup();
    values
}

/// With `--fence`, the command has all rights of the user, so the process that runs it has, too.
#[test]
fn processes_that_help_a_vm_have_a_filter_unless_they_run_a_fence() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    let backup = rig.start(Part::Backup, Host::B, &["--fence", "/bin/true"]);
    wait_for!(primary, PairEvent::Protected);
    for (process, name) in [(&primary, "opener"), (&backup, "opener"), (&primary, "witness")] {
        for (key, value) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
            assert_eq!(values(process, name, key), [value], "{name} of {}", process.host());
        }
    }
    assert_eq!(values(&backup, "witness", "Seccomp"), ["0"]);
}

/// Kills the process `name` of the primary of a protected pair while clients use the VM. Returns the pair.
fn without_helper(rig: &Rig, name: &str) -> [Process; 2] {
    let [mut primary, backup] = protected(rig);
    let helper = child(&primary, name);
    let ((), _) = Clients::during(rig, |clients| {
        kill(helper, Signal::SIGKILL).expect("it can be killed");
        primary.wait_for_words(&format!("the process '{name}' of this VM has ended"));
        clients.wait_until_served();
        primary.wait_for_role("protected");
    });
    [primary, backup]
}

#[test]
fn vm_goes_on_without_its_opener_and_its_helpers_end_with_it() {
    let rig = Rig::default();
    let [mut primary, backup] = without_helper(&rig, "opener");
    let helpers = ["opener", "witness"].map(|name| child(&backup, name));
    backup.signal(Signal::SIGKILL);
    for helper in helpers {
        wait_until("the end of a helper", || {
            let thread = threads(helper.as_raw().cast_unsigned()).into_iter().next();
            thread.is_none_or(|thread| thread.value("State").starts_with('Z'))
        });
    }
    wait_for!(primary, PairEvent::TermWon);
}

#[test]
fn vm_goes_on_without_the_process_that_asks_its_witness_and_its_backup_takes_over() {
    let rig = Rig::default();
    let [primary, mut backup] = without_helper(&rig, "witness");
    wait_until("its reason", || {
        let status = primary.status();
        status["witness"]
            .as_str()
            .is_some_and(|text| text.contains("the process 'witness' is gone"))
    });
    primary.signal(Signal::SIGKILL);
    wait_for!(backup, PairEvent::WentLive);
}
