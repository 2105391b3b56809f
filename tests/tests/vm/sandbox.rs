//! Once a VM runs or is recorded, its process has nothing of the host but what is open.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use testbed::{Namespace, TestbedError};
use tests::patience::wait_until;
use tests::program::{json, run, understudy};
use tests::threads::{Thread, threads, wait_until_sandboxed};

/// Starts a VM in `namespace`, which has a tap.
fn start(namespace: &Namespace, args: &[&str]) -> Child {
    let mut command = Command::new(understudy());
    command.args(args).args(["--tap", "tap0", "--quiet"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    namespace.enter(|| Ok::<_, TestbedError>(command.spawn().unwrap())).unwrap()
}

fn stop(mut vm: Child) {
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGTERM).unwrap();
    let status = vm.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// A recording has all threads that write files and read inputs; it is complete although none of them may open anything.
#[test]
fn every_thread_of_a_recorded_vm_is_in_the_sandbox_and_its_files_are_complete() {
    let namespace = Namespace::with_tap("sandbox").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name).display().to_string();
    let [log, capture, stages] = ["run.ulog", "run.pcap", "stages"].map(name);
    let files = ["--log", &log, "--pcap", &capture, "--trace-stages", &stages];
    let vm = start(&namespace, &[&["record", "--stdin"][..], &files].concat());
    let names =
        ["vcpu0", "signals", "stdout", "stderr", "tap", "pcap", "log", "stdin", "opener-end"];
    wait_until_sandboxed(vm.id(), &names);
    let length = |file: &str| std::fs::metadata(Path::new(file)).map_or(0, |found| found.len());
    // The guest announces itself.
    wait_until("a frame in the capture", || length(&capture) > 24);
    stop(vm);
    assert!(length(&stages) > 0);
    let replay = run(&["replay", &log, "--json"]);
    assert!(replay.status.success(), "{replay:?}");
    assert_eq!(json(&String::from_utf8_lossy(&replay.stdout))["divergences"], 0);
}

/// Returns the names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The opener has the draft of a snapshot. It is renamed when it is complete, and removed when the process is gone.
#[test]
fn vm_that_is_saved_is_in_the_sandbox_and_its_file_appears_when_it_is_complete() {
    let namespace = Namespace::with_tap("saved").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.snap");
    let start = || {
        let vm = start(&namespace, &["save", file.to_str().unwrap()]);
        wait_until_sandboxed(vm.id(), &["vcpu0", "signals", "stdout", "stderr", "opener-end"]);
        let [draft] = &names(folder.path())[..] else { panic!("{:?}", names(folder.path())) };
        assert!(draft.ends_with(".part"), "{draft}");
        vm
    };
    let mut vm = start();
    vm.kill().unwrap();
    vm.wait().unwrap();
    wait_until("the removal of the draft", || names(folder.path()).is_empty());
    stop(start());
    assert_eq!(names(folder.path()), ["s.snap"]);
    let restored = run(&["run", "--restore", file.to_str().unwrap(), "--for", "0.1", "--quiet"]);
    assert!(restored.status.success(), "{restored:?}");
}

/// A replay is short: this looks until it has seen one that runs the guest.
#[test]
fn replay_is_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog").display().to_string();
    let recorded = run(&["record", "--log", &log, "--for", "2", "--quiet"]);
    assert!(recorded.status.success(), "{recorded:?}");
    let is_seen = || {
        let mut command = Command::new(understudy());
        let mut replay = command.args(["replay", &log]).stdout(Stdio::null()).spawn().unwrap();
        let mut is_seen = false;
        while replay.try_wait().unwrap().is_none() {
            let threads = threads(replay.id());
            let has = |name| threads.iter().any(|thread| thread.name == name);
            let is_inside = |thread: &Thread| thread.outside_the_sandbox().is_empty();
            is_seen |= has("vcpu0") && has("signals") && threads.iter().all(is_inside);
        }
        assert!(replay.wait().unwrap().success());
        is_seen
    };
    assert!((0..20).any(|_| is_seen()), "no look has found all threads in the sandbox");
}

/// The progress bar asks for the width of the terminal.
#[test]
fn replay_on_a_terminal_shows_its_progress() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog").display().to_string();
    let recorded = run(&["record", "--log", &log, "--for", "0.5", "--quiet"]);
    assert!(recorded.status.success(), "{recorded:?}");
    let replay = format!("'{}' replay '{log}'", understudy().display());
    let mut script = Command::new("script");
    let output = script.args(["-qec", &replay, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("natural_exits"), "{output:?}");
}

#[test]
fn vm_without_a_sandbox_is_told_apart() {
    let namespace = Namespace::with_tap("open").unwrap();
    let vm = start(&namespace, &["run", "--no-sandbox"]);
    wait_until("a vCPU", || threads(vm.id()).iter().any(|thread| thread.name == "vcpu0"));
    for thread in threads(vm.id()) {
        let found = thread.outside_the_sandbox().join(", ");
        for wrong in ["NoNewPrivs 0", "Seccomp 0", "CapEff", "Uid [\"0\""] {
            assert!(found.contains(wrong), "{wrong}: {found}");
        }
    }
    stop(vm);
}
