//! Files that a VM uses for as long as it runs: a log that is recorded, a snapshot that it was started from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tests::patience::{factor, wait_until};
use tests::program::{json, run, understudy};

/// Starts `understudy`.
fn start(args: &[&str]) -> Child {
    Command::new(understudy())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("understudy starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Requires exit code 6 and one line on standard error, which names `path` and says `what`.
fn refused(output: &Output, path: &str, what: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains(path) && errors.contains(what), "{errors}");
}

struct Rig {
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        Rig { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Saves a snapshot of the reference guest.
    fn save(&self, name: &str) {
        let output = run(&["save", &self.name(name), "--for", "0.5", "--quiet"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Starts a VM from the snapshot and waits until it has its memory: then the thread of its vCPU starts.
    fn restore(&self, name: &str) -> Child {
        let seconds = (2 * factor()).to_string();
        let vm = start(&["run", "--restore", &self.name(name), "--for", &seconds, "--quiet"]);
        let threads = format!("/proc/{}/task", vm.id());
        let is_vcpu = |thread: fs::DirEntry| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "vcpu0")
        };
        wait_until("the vCPU's thread", || {
            fs::read_dir(&threads)
                .is_ok_and(|mut threads| threads.any(|thread| thread.is_ok_and(is_vcpu)))
        });
        vm
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn second_recording_on_a_log_is_refused_and_the_first_is_complete() {
    let rig = Rig::new();
    let (path, log) = (rig.path("run.ulog"), rig.name("run.ulog"));
    let seconds = (2 * factor()).to_string();
    let first = start(&["record", "--log", &log, "--for", &seconds, "--quiet", "--json"]);
    wait_until("a log", || length(&path) > 0);
    let second = run(&["record", "--log", &log, "--for", "0.1", "--quiet", "--force"]);
    refused(&second, &log, "in use");
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let recorded = json(&text(&first.stdout));
    assert_eq!(recorded["log_bytes"], length(&path));
    let replayed = run(&["replay", &log, "--json"]);
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    assert_eq!(json(&text(&replayed.stdout))["memory_digest"], recorded["memory_digest"]);
    // Nobody writes it any more.
    let third = run(&["record", "--log", &log, "--for", "0.1", "--quiet", "--force"]);
    assert!(third.status.success(), "{}", text(&third.stderr));
}

#[test]
fn log_in_place_of_a_snapshot_that_a_vm_runs_from_is_refused() {
    let rig = Rig::new();
    rig.save("s.snap");
    let before = fs::read(rig.path("s.snap")).unwrap();
    let vm = rig.restore("s.snap");
    let snapshot = rig.name("s.snap");
    let output = run(&["record", "--log", &snapshot, "--for", "0.1", "--quiet", "--force"]);
    refused(&output, &snapshot, "in use");
    assert!(fs::read(rig.path("s.snap")).unwrap() == before);
    let ended = vm.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
}

#[test]
fn snapshot_saved_anew_while_a_vm_runs_from_it_leaves_the_vm_its_own() {
    let rig = Rig::new();
    rig.save("s.snap");
    let vm = rig.restore("s.snap");
    rig.save("s.snap");
    let ended = vm.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
}

#[test]
fn vm_outlives_changes_of_its_snapshot() {
    let rig = Rig::new();
    rig.save("s.snap");
    let vm = rig.restore("s.snap");
    // At the latest, the digest of memory at the end reads every page.
    File::create(rig.path("s.snap")).unwrap();
    let ended = vm.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
}
