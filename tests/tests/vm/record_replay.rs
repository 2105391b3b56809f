//! A recording replays to the same state, bit for bit.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testbed::{GUEST_ADDRESS, clients};
use tests::patience::{factor, wait_until};
use tests::program::{json, run, understudy};
use tests::recording::{
    count_in_log, difference, kill_hard, record_hard_guest, record_under_load, replay_under_kicks,
    start_vm,
};
use tests::schema;

#[test]
fn replay_of_a_run_under_load_and_kicks_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("load.ulog");
    let seed = fastrand::u64(..);
    println!(
        "again: cargo run --release -p tests --bin soak -- --runs 1 --seconds 5 --seed {seed}"
    );
    let (recorded, load) = record_under_load(&log, 5 * factor(), seed, &[]).unwrap();
    let (status, replayed) = replay_under_kicks(&log, seed ^ 1).unwrap();
    println!("{load:?}\n{replayed}");
    assert_eq!(difference(&recorded, &replayed), None);
    assert!(status.success());
    for key in
        ["interrupts", "natural_exits", "windows", "checkpoints", "memory_digest", "log_bytes"]
    {
        assert!(!replayed[key].is_null(), "{key} is missing in {replayed}");
    }
    // The load had its effect: every kind of log position occurred.
    for key in ["interrupts", "natural_exits", "windows", "checkpoints"] {
        assert!(recorded[key].as_u64() > Some(1), "{key} in {recorded}");
    }
    assert!(load.counter > 0 && load.fetched > 0 && load.kicks > 100, "{load:?}");
}

/// What the limits decide is in the log: a replay, which has none, repeats it.
#[test]
fn replay_of_a_run_beyond_its_limits_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("limited.ulog");
    let limits = ["--limit-rng", "1", "--limit-tap", "300", "--limit-console", "8"];
    let (recorded, load) = record_under_load(&log, 3 * factor(), 1, &limits).unwrap();
    let (status, replayed) = replay_under_kicks(&log, 2).unwrap();
    println!("{load:?}\n{recorded}\n{replayed}");
    assert_eq!(difference(&recorded, &replayed), None);
    assert!(status.success() && load.counter > 0);
    for limit in ["entropy_requests", "frames", "console_bytes"] {
        assert!(recorded["over_limit"][limit].as_u64() > Some(0), "{limit}: {recorded}");
    }
}

#[test]
fn replay_of_the_hard_guest_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("hard.ulog");
    let seed = fastrand::u64(..);
    println!(
        "again: cargo run --release -p tests --bin soak -- --runs 1 --seconds 4 --seed {seed} --guest hard"
    );
    let (recorded, load) = record_hard_guest(&log, 4 * factor(), seed, &[]).unwrap();
    let (status, replayed) = replay_under_kicks(&log, seed ^ 1).unwrap();
    println!("{load:?}\n{replayed}");
    assert_eq!(difference(&recorded, &replayed), None);
    assert!(status.success());
    for key in ["interrupts", "natural_exits", "windows", "checkpoints"] {
        assert!(recorded[key].as_u64() > Some(20), "{key} in {recorded}");
    }
}

#[test]
fn log_of_a_killed_recording_replays_to_its_last_flush() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("killed.ulog");
    let log = log.to_str().unwrap();
    let rig = start_vm(&["record", "--log", log]).unwrap();
    rig.namespace.enter(|| clients::count(GUEST_ADDRESS, 300)).unwrap();
    // Each request takes at least an input frame, a halt and a kick.
    wait_until("600 exits in the log", || count_in_log(Path::new(log), "exit") > 600);
    kill_hard(rig.vm).unwrap();

    let output = run(&["replay", log, "--json"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(10), "{error}");
    assert!(error.contains("truncated"), "{error}");
    let result = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(result["divergences"], 0);
    assert_eq!(result["complete"], false);
    assert!(result["natural_exits"].as_u64() > Some(600), "{result}");

    // A log cut in the middle of a block replays to the end of the previous block.
    let file = OpenOptions::new().write(true).open(log).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 5).unwrap();
    let output = run(&["replay", log, "--json"]);
    assert_eq!(output.status.code(), Some(10));
    let cut = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(cut["divergences"], 0);
    assert!(cut["natural_exits"].as_u64() <= result["natural_exits"].as_u64());
}

#[test]
fn console_input_is_logged_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("console.ulog");
    let log = log.to_str().unwrap();
    let mut recorder = Command::new(understudy())
        .args(["record", "--stdin", "--quiet", "--log", log])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    recorder.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    wait_until("the line in the log", || count_in_log(Path::new(log), "console") > 0);
    kill(Pid::from_raw(recorder.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(recorder.wait().unwrap().success());

    let stat = run(&["log", "stat", log, "--json"]);
    let stat = json(&String::from_utf8_lossy(&stat.stdout));
    schema::fits("log-stat", std::slice::from_ref(&stat));
    assert_eq!(stat["kinds"]["console"]["count"], 1, "{stat}");
    let output = run(&["replay", log, "--json"]);
    assert!(output.status.success());
    assert_eq!(json(&String::from_utf8_lossy(&output.stdout))["divergences"], 0);
}

#[test]
fn recording_ends_when_its_log_is_long_and_is_replayed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog").display().to_string();
    let bytes_max = 300_000;
    let limit = bytes_max.to_string();
    // Without the limit it would run for ever.
    let output = run(&["record", "--log", &log, "--log-max-bytes", &limit, "--quiet", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("the recording ended because") && errors.lines().count() == 1,
        "{errors}"
    );
    let recorded = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(recorded["log_full"], true);
    assert!(recorded["log_bytes"].as_u64() >= Some(bytes_max), "{recorded}");
    let replayed = run(&["replay", &log, "--json"]);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    let replayed = json(&String::from_utf8_lossy(&replayed.stdout));
    assert_eq!(replayed["memory_digest"], recorded["memory_digest"]);
    schema::fits("record", &[recorded]);
    schema::fits("replay", &[replayed]);
}
