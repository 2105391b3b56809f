//! Once a VM runs or is recorded, its process has nothing of the host but what is open.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use testbed::{Namespace, TestbedError};
use tests::patience::wait_until;
use tests::program::{json, run, understudy};
use tests::threads::{threads, wait_until_sandboxed};

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
