//! The demonstration of a protected VM: two hosts, real clients, kill -9 of the primary.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tests::program::{json, run, understudy};

/// `understudy demo` with temporary files in `folder`.
fn demo(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(understudy());
    command.arg("demo").args(args).env("TMPDIR", folder);
    command
}

/// Asserts that nothing is left of demonstration `pid`, whose temporary files were in `folder`.
fn nothing_is_left(pid: u32, folder: &Path) {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let prefix = format!("understudy-{pid}-");
    let mut namespaces = names(Path::new("/run/netns"));
    namespaces.retain(|name| name.starts_with(&prefix));
    assert_eq!(namespaces, [""; 0]);
    assert_eq!(names(folder), [""; 0]);
    // Each process of the pair has the folder in its command line, ping the VM's address.
    let folder = folder.to_str().unwrap();
    for process in names(Path::new("/proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(folder), "process {process} is left: {line}");
    }
}

#[test]
fn demo_with_two_kills_loses_nothing_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &["--kills", "2", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = demo.id();
    let output = demo.wait_with_output().unwrap();
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{account}{stdout}");
    assert!(output.status.success());
    let result = json(&stdout);
    let number = |pointer: &str| {
        let value = result.pointer(pointer).and_then(serde_json::Value::as_f64);
        value.unwrap_or_else(|| panic!("{pointer} is no number in {result}"))
    };
    assert_eq!(number("/kills"), 2.0);
    assert_eq!(number("/completed_failovers"), 2.0);
    let never = [
        "/tcp/lost",
        "/tcp/repeated",
        "/tcp/resets",
        "/udp/wrong",
        "/failed_clients",
        "/divergences",
        "/double_live",
    ];
    for pointer in never {
        assert_eq!(number(pointer), 0.0, "{pointer}");
    }
    // Everybody was there.
    let some = ["/tcp/requests", "/udp/sent", "/ping/sent", "/echo/transfers", "/http/pages"];
    for pointer in some {
        assert!(number(pointer) > 0.0, "{pointer}");
    }
    assert!(number("/lan/frames") > number("/tcp/requests"));
    // Nobody notices a death before it is due, and no client could go on before that.
    for gap in ["/outage_ms", "/tcp_gap_ms"] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|of| number(&format!("{gap}/{of}")));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{gap}");
        assert!(max >= number("/silence_ms") * 0.8, "{gap}");
    }
    for figure in ["/detect_ms/p99", "/golive_ms/p99", "/sync_pause_ms/max"] {
        assert!(number(figure) > 0.0, "{figure}");
    }
    assert!(number("/seed") >= 0.0);
    nothing_is_left(pid, folder.path());
}

#[test]
fn interrupted_demo_leaves_nothing_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(folder.path(), &["--kills", "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut account = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said = Vec::new();
        // In the middle of a failover: the primary is dead, the clients wait.
        for line in account.by_ref() {
            said.push(line);
            if said.last().is_some_and(|line| line.contains("kill 1")) {
                break;
            }
        }
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        said.extend(account);
        let status = demo.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{signal}: {said:#?}");
        assert!(said.last().unwrap().ends_with("interrupted"), "{signal}: {said:#?}");
        nothing_is_left(demo.id(), folder.path());
    }
}

#[test]
fn wrong_use_of_the_demo_is_refused() {
    for args in [&["--kills", "0"][..], &["--silence", "1"], &["--standalone", "--kills", "1"]] {
        let output = run(&[&["demo"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
