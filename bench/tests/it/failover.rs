//! `bench failover` with one kill and a short watch: the structure of its result, and what follows from
//! the order of events. No durations are checked, because other tests run at the same time.

use crate::running::{measure, number};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::pace::HANG_MAX;

const SILENCE_MS: u64 = 1000;

#[test]
fn failover_reports_stages_of_a_kill_and_a_false_alarm_rate() {
    let folder = tempfile::tempdir().unwrap();
    let result = measure(&[
        "failover",
        "--json",
        "--kills=1",
        &format!("--silences={SILENCE_MS}"),
        "--watch-s=0.5",
        "--rounds=1",
        "--out",
        folder.path().to_str().unwrap(),
    ]);
    let silences = result["silences"].as_array().expect("silences");
    let [silence] = &silences[..] else { panic!("{result}") };
    assert_eq!((&silence["silence_ms"], &silence["kills"]), (&SILENCE_MS.into(), &1.into()));
    assert!(silence["failure"].is_null(), "{silence}");
    let p50_ms = |stage: &str| number(silence, &format!("/{stage}/p50_ns")) / 1e6;
    for stage in ["golive", "outage", "tcp_gap"] {
        assert!(p50_ms(stage) > 0.0, "{silence}");
    }
    for stage in ["detect", "golive", "outage", "tcp_gap"] {
        let max = number(silence, &format!("/{stage}/max_ns"));
        assert!(max >= p50_ms(stage), "{silence}");
        assert!(folder.path().join(format!("failover.silence-{SILENCE_MS}.{stage}.hlog")).exists());
    }
    for load in ["idle", "loaded"] {
        let of = |what: &str| number(silence, &format!("/false_alarms/{load}/{what}"));
        assert_eq!((of("never_protected"), of("watched_s")), (0.0, 0.5), "{silence}");
        assert!(of("protected_s") > 0.0, "{silence}");
        let rate = of("alarms") / of("protected_s") * 60.0;
        assert!((of("alarms_per_protected_minute") - rate).abs() < 1e-6, "{silence}");
    }
}

#[test]
fn failover_interrupted_leaves_no_namespace_and_no_process() {
    let child = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["failover", "--kills=0", "--silences=1000", "--watch-s=60", "--rounds=1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let begun = Instant::now();
    while processes(id).len() < 2 {
        assert!(begun.elapsed() < HANG_MAX, "no pair was started");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (members, mine) = (processes(id), format!("understudy-{id}-"));
    let kill = Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "bench: interrupted\n");
    let left = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with(&mine)), "{left:?}");
    for member in members {
        assert!(!Path::new(&format!("/proc/{member}")).exists(), "process {member} is left");
    }
}

/// Returns the children of process `parent`, from proc_pid_task_children(5) of each of its threads.
fn processes(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    children.iter().flat_map(|line| line.split_whitespace()).flat_map(str::parse).collect()
}
