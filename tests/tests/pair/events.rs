//! `understudy events` of both hosts, before and after a takeover.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Process, Rig};
use tests::patience::patience;
use tests::program::{run, understudy};
use tests::schema;
use tests::wait_for;

/// `understudy events --follow --json` of a process.
struct Following {
    child: std::process::Child,
    lines: Receiver<Value>,
    /// Everything that was received.
    seen: Vec<Value>,
}

impl Following {
    fn start(process: &Process) -> Following {
        let mut child = Command::new(understudy())
            .args(["events", "--follow", "--json", "--socket", process.socket()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("understudy starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("a line is a JSON object");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Following { child, lines, seen: Vec::new() }
    }

    /// Waits for `event`, checks that no event is missing before it, and returns it.
    fn wait_for(&mut self, next: &mut u64, event: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(patience());
            let line = line.unwrap_or_else(|error| panic!("no {event}: {error}"));
            assert_eq!((&line["schema"], &line["seq"]), (&1.into(), &(*next).into()), "{line}");
            *next += 1;
            self.seen.push(line.clone());
            if line["event"] == event {
                return line;
            }
        }
    }
}

#[test]
fn events_of_a_backup_are_followed_through_its_takeover_to_its_end() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &["--quiet"]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(backup, PairEvent::Following);

    let past = run(&["events", "--socket", primary.socket()]);
    let past = String::from_utf8_lossy(&past.stdout).into_owned();
    // What --quiet keeps from standard error is there, too.
    for text in ["the process has started", "protected: the backup can take over"] {
        assert!(past.contains(text), "{text}: {past}");
    }

    let mut following = Following::start(&backup);
    let mut next = 0;
    let started = following.wait_for(&mut next, "started");
    assert_eq!(started["role"], "seeking", "{started}");
    following.wait_for(&mut next, "following");
    primary.signal(Signal::SIGKILL);
    let live = following.wait_for(&mut next, "went_live");
    assert_eq!((&live["term"], &live["level"]), (&2.into(), &"warning".into()), "{live}");
    assert!(live["text"].as_str().is_some_and(|text| text.starts_with("LIVE in term 2")));
    wait_for!(backup, PairEvent::WentLive);
    backup.order("stop");
    following.wait_for(&mut next, "ended");
    assert_eq!(backup.end().code, Some(0));
    assert!(following.child.wait().unwrap().success(), "its process has ended in order");
    schema::fits("events", &following.seen);

    let gone = run(&["events", "--follow", "--socket", backup.socket()]);
    assert_eq!(gone.status.code(), Some(15), "{gone:?}");
}

#[test]
fn follower_of_a_process_that_is_killed_says_so() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut following = Following::start(&primary);
    following.wait_for(&mut 0, "started");
    primary.signal(Signal::SIGKILL);
    assert_eq!(following.child.wait().unwrap().code(), Some(15));
}
