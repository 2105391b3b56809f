//! `understudy up`: the witness decides each host's part, and a host that was replaced comes back as the backup. And what
//! such a process tells the service manager that has started it.

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Process, Rig};
use tests::patience::{Waiting, patience};
use tests::program::understudy;
use tests::wait_for;

/// Starts `understudy up` with `options` on a host, as a shell does after `setup`.
fn up(rig: &Rig, host: Host, options: &str, setup: &str) -> Process {
    // The first argument is the name of another command.
    let text = format!(
        "#!/bin/sh\n{setup}\nshift\nexec '{}' up {options} \"$@\"\n",
        understudy().display()
    );
    let script = script(rig, &text);
    rig.start_program(&script, Part::Backup, host, &[])
}

fn script(rig: &Rig, text: &str) -> PathBuf {
    let mut paths = (0..).map(|number: u32| rig.path(&format!("up-{number}.sh")));
    let path = paths.find(|path| !path.exists()).expect("a number is free");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn hosts_take_their_parts_by_the_witness_before_and_after_a_takeover() {
    let rig = Rig::default();
    let mut b = up(&rig, Host::B, "", "");
    b.wait_for_words("waiting for a host that boots it");
    let mut a = up(&rig, Host::A, "--boot first", "");
    wait_for!(a, PairEvent::TermWon);
    wait_for!(a, PairEvent::Protected);
    a.signal(Signal::SIGKILL);
    a.end();
    wait_for!(b, PairEvent::WentLive);
    // The host that boots a VM that nobody runs finds one that somebody runs.
    let mut a = up(&rig, Host::A, "--boot first", "");
    a.wait_for_words("this host is the backup");
    wait_for!(b, PairEvent::Protected);
    b.order("stop");
    for process in [&mut a, &mut b] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
    let mut b = up(&rig, Host::B, "--boot first", "");
    b.wait_for_words("this host boots it");
    wait_for!(b, PairEvent::TermWon);
}

#[test]
fn hosts_that_boot_at_the_same_time_boot_one_vm() {
    let rig = Rig::patient();
    let start = |host| up(&rig, host, "--boot first", "");
    let is_protected = |host: &mut Process| host.count(|e| matches!(e, PairEvent::Protected)) > 0;
    let mut hosts = [Host::A, Host::B].map(start);
    let waiting = Waiting::default();
    // The loser asks the witness before the winner has the term, and ends, or after that, and is a backup.
    while !hosts.iter_mut().any(is_protected) {
        for process in &mut hosts {
            if process.has_ended() {
                assert_eq!(process.end().code, Some(14), "{}", process.transcript());
                *process = start(process.host());
            }
        }
        waiting.pause(|| hosts.iter_mut().map(Process::transcript).collect());
    }
    let booted = |host: &mut Process| host.count(|event| matches!(event, PairEvent::TermWon));
    assert_eq!(hosts.iter_mut().map(booted).sum::<usize>(), 1);
}

#[test]
fn witness_that_is_not_there_is_waited_for() {
    let rig = Rig::patient();
    let (folder, away) = (rig.path("witness"), rig.path("away"));
    fs::rename(&folder, &away).unwrap();
    let mut a = up(&rig, Host::A, "--boot first", "");
    a.wait_for_words("waiting for the witness: ");
    fs::rename(&away, &folder).unwrap();
    wait_for!(a, PairEvent::TermWon);
}

/// Receives messages of a service until one begins with `text`. Returns how many came.
fn receive_until(socket: &UnixDatagram, text: &str) -> usize {
    let mut buffer = [0; 512];
    for count in 1.. {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {text}: {error}"));
        if buffer[..length].starts_with(text.as_bytes()) {
            return count;
        }
    }
    unreachable!("counting does not end")
}

/// Its threads may make no socket, and its vCPU thread tells the service manager.
#[test]
fn service_manager_learns_that_the_loop_turns_until_it_does_not() {
    let rig = Rig::patient();
    let path = rig.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let setup = format!("export NOTIFY_SOCKET='{}' WATCHDOG_USEC=400000", path.display());
    let mut a = up(&rig, Host::A, "--boot first", &setup);
    receive_until(&socket, "READY=1");
    receive_until(&socket, "STATUS=primary (alone), term 1; protected: no: ");
    for _ in 0..3 {
        receive_until(&socket, "WATCHDOG=1");
    }
    a.signal(Signal::SIGSTOP);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // What was sent before; then nothing for ten times the interval.
    let sent = std::iter::repeat_with(|| socket.recv(&mut [0; 512])).take_while(Result::is_ok);
    assert!(sent.take(1000).count() < 1000, "a process that stands still proves that it lives");
    socket.set_read_timeout(Some(patience())).unwrap();
    a.signal(Signal::SIGCONT);
    receive_until(&socket, "WATCHDOG=1");
    a.order("stop");
    receive_until(&socket, "STOPPING=1");
    assert_eq!(a.end().code, Some(0), "{}", a.transcript());
}

#[test]
fn each_line_for_the_journal_has_a_priority() {
    let rig = Rig::patient();
    let setup = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)";
    let mut a = up(&rig, Host::A, "--boot first", setup);
    wait_for!(a, PairEvent::TermWon);
    a.order("stop");
    let words = a.end().words;
    assert!(
        words.iter().all(|line| line.starts_with("<6>") || line.starts_with("<4>")),
        "{words:?}"
    );
    assert!(words.iter().any(|line| line.starts_with("<6>understudy: ")), "{words:?}");
}
