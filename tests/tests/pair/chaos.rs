//! Short runs of `understudy demo --chaos`: faults of many kinds, one at a time.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use tests::demo::{Figures, demo};
use tests::patience;
use tests::program::json;

/// Length of the run in minutes, and a seed with which it has faults of hosts, networks, the witness and operators.
const RUN: [&str; 4] = ["--chaos", "0.65", "--seed", "1"];

/// Silence timeout on a host of usual speed, milliseconds: other tests may run beside this one.
const SILENCE_MS: u64 = 300;

#[test]
fn short_chaos_loses_nothing_and_ends_protected() {
    let silence = (SILENCE_MS * patience::factor()).to_string();
    let figures = Figures::of(&[&RUN[..], &["--silence", &silence]].concat());
    figures.check_clients("udp");
    for pointer in ["/lost", "/repeated", "/contradictory", "/unprotected"] {
        assert_eq!(figures.number(pointer), 0.0, "{pointer}");
    }
    assert!(figures.has_none("/failure") && figures.has_none("/logs"));
    assert!(figures.number("/faults") > 0.0);
}

/// The VM's process is killed behind the demonstration's back.
#[test]
fn failed_chaos_names_the_command_and_keeps_the_logs() {
    let _alone = tests::alone();
    let folder = tempfile::tempdir().unwrap();
    let args = ["--chaos", "60", "--seed", "3", "--faults", "hangup", "--json"];
    let mut demo =
        demo(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    let process = "host A, primary (process ";
    let started = progress.by_ref().find(|line| line.contains(process)).unwrap();
    let pid = started.split(process).nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    assert!(progress.by_ref().any(|line| line.contains("fault 1: hangup")));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let last = progress.last().unwrap();
    for part in ["(hangup", "seed 3", "--chaos 60 --seed 3 --faults hangup"] {
        assert!(last.contains(part), "{part}: {last}");
    }
    let mut output = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1), "{last}");
    let result = json(&output);
    assert!(result["failure"].as_str().is_some_and(|why| why.contains("SIGKILL")), "{result}");
    let logs = result["logs"].as_str().expect("a folder");
    assert!(logs.starts_with(folder.path().to_str().unwrap()) && last.contains(logs), "{last}");
    for log in ["A-1.log", "B-2.log", "progress.log"] {
        let text = fs::read_to_string(format!("{logs}/{log}")).unwrap();
        assert!(!text.is_empty(), "{log}");
    }
}
