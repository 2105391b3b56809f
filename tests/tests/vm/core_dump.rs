//! A core dump would show the key and the guest's memory.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use tests::patience::wait_until;
use tests::program::understudy;

/// Aborts a VM that was started with `arguments`, and returns whether the kernel dumped its core.
fn dumps_core(arguments: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(understudy());
    command.args(["run", "--quiet"]).args(arguments).current_dir(folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec, the closure only makes system calls.
    unsafe {
        command.pre_exec(|| {
            let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
            Ok(setrlimit(Resource::RLIMIT_CORE, most, most)?)
        })
    };
    let mut vm = command.spawn().unwrap();
    let files = format!("/proc/{}/fd", vm.id());
    let is_vcpu = |file: std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|link| link.ends_with("anon_inode:kvm-vcpu:0"))
    };
    wait_until("a vCPU", || {
        std::fs::read_dir(&files).is_ok_and(|mut files| files.any(|file| file.is_ok_and(is_vcpu)))
    });
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGABRT).unwrap();
    let status = vm.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status:?}");
    status.core_dumped()
}

#[test]
fn core_is_dumped_only_on_request() {
    assert!(!dumps_core(&[]));
    // In the sandbox, the process may not write the core's file.
    assert!(
        dumps_core(&["--dumpable", "--no-sandbox"]),
        "this host dumps no core: see core_pattern and ulimit -Hc"
    );
}
