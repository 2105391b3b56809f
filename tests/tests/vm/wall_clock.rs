//! Hosts with a wrong wall clock, simulated with faketime(1): a VM runs there with the nearest valid
//! time.

use std::path::Path;
use std::process::{Command, Output};
use tests::program::{json, run, understudy};

/// The last second that 64 bits of nanoseconds can represent, in July 2554.
const LAST_UNIX_S: u64 = u64::MAX / 1_000_000_000;

/// Runs the program with the wall clock at `date`.
fn run_at(date: &str, args: &[&str]) -> Output {
    let mut command = Command::new("faketime");
    // Fake only the wall clock. The variable's name depends on the version of faketime, so both are
    // set.
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.arg(date).arg(understudy()).args(args).env("TZ", "UTC");
    command.output().expect("faketime is there: scripts/install.sh --tests installs it")
}

/// Records a VM to `log` at `date`. Returns its standard error and the output of `log stat`.
fn record_at(date: &str, log: &Path) -> (String, serde_json::Value) {
    let log = log.to_str().expect("paths of tests are UTF-8");
    let output = run_at(date, &["record", "--log", log, "--force", "--for", "0.3", "--quiet"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{date}: {}: {errors}", output.status);
    let stat = run(&["log", "stat", log, "--json"]);
    assert!(stat.status.success(), "{date}: {stat:?}");
    assert!(run(&["replay", log]).status.success(), "{date}");
    (errors, json(&String::from_utf8_lossy(&stat.stdout)))
}

#[test]
fn wall_clock_out_of_range_causes_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    for (date, text, unix_s) in
        [("1960-01-01", "before 1970", 0), ("2600-01-01", "after July 2554", LAST_UNIX_S)]
    {
        let (errors, stat) = record_at(date, &log);
        assert!(errors.lines().count() == 1 && errors.contains(text), "{date}: {errors}");
        assert_eq!(stat["recorded_at_unix_s"], unix_s, "{date}");
    }
}

#[test]
fn wall_clock_of_another_century_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    // The first second that 31 bits do not hold (2038), and a year beyond the 32 bits (2106).
    for (date, unix_s) in [("2038-01-19 03:14:08", 1 << 31), ("2300-01-01", 10_413_792_000_u64)] {
        let (errors, stat) = record_at(date, &log);
        assert_eq!(errors, "", "{date}");
        let recorded_at = stat["recorded_at_unix_s"].as_u64().expect("a number");
        assert!((unix_s..unix_s + 3600).contains(&recorded_at), "{date}: {recorded_at}");
    }
}
