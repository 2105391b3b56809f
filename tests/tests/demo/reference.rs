//! The demonstration of a protected VM: two hosts, real clients, and kill -9 of the primary.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use tests::demo::{Figures, demo, nothing_is_left};
use tests::program::run;

#[test]
fn demo_with_two_kills_loses_nothing_and_leaves_nothing_behind() {
    Figures::of(&["--kills", "2"]).check_failovers(2.0, "udp");
}

#[test]
fn demo_with_two_handovers_loses_nothing() {
    let figures = Figures::of(&["--handovers", "2"]);
    figures.check_clients("udp");
    let handovers = ["ordered", "completed"].map(|of| figures.number(&format!("/handovers/{of}")));
    assert_eq!((handovers, figures.number("/kills")), ([2.0, 2.0], 0.0));
    assert!(figures.number("/handovers/outage_ms/p50") > 0.0);
}

#[test]
fn interrupted_demo_leaves_nothing_behind() {
    let _alone = tests::alone();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(folder.path(), &["--kills", "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut progress = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut printed = Vec::new();
        // During a failover: the primary is dead and the clients wait.
        for line in progress.by_ref() {
            printed.push(line);
            if printed.last().is_some_and(|line| line.contains("kill 1")) {
                break;
            }
        }
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        printed.extend(progress);
        let status = demo.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{signal}: {printed:#?}");
        assert!(printed.last().unwrap().ends_with("interrupted"), "{signal}: {printed:#?}");
        nothing_is_left(demo.id(), folder.path());
    }
}

#[test]
fn demo_with_wrong_options_is_refused() {
    let wrong = [
        &["--kills", "0"][..],
        &["--silence", "1"],
        &["--standalone", "--kills", "1"],
        &["--chaos", "0"],
        &["--chaos", "1", "--kills", "1"],
        &["--chaos", "1", "--faults", "boredom"],
        &["--faults", "kill-primary"],
    ];
    for args in wrong {
        let output = run(&[&["demo"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
