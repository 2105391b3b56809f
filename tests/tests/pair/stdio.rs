//! Hosts of a pair whose standard streams cannot be written: the VM does not depend on them.

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testbed::pair::{Host, PairEvent, Part};
use tests::fifo::Fifo;
use tests::pair::{Clients, Process, Rig};
use tests::program::understudy;
use tests::wait_for;

/// Starts a backup with `redirections`, and requires that it takes over.
fn backup_takes_over(redirections: &str) {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start_redirected(Part::Backup, Host::B, &[], redirections);
    takes_over(&rig, primary, &backup);
}

/// Kills the primary, and requires that the backup takes over, serves the VM's clients, and counts the lines that it
/// could not write.
fn takes_over(rig: &Rig, mut primary: Process, backup: &Process) {
    wait_for!(primary, PairEvent::Protected);
    backup.wait_for_role("following");
    let ((), clients) = Clients::during(rig, |clients| {
        primary.signal(Signal::SIGKILL);
        clients.wait_until_served();
        backup.wait_for_role("alone");
        counts_what_it_lost(backup);
    });
    assert_eq!(clients.host_sequence(), [Host::A, Host::B]);
}

/// Waits until a process's status counts the output that it could not write. The status is updated
/// slightly later than the output.
fn counts_what_it_lost(process: &Process) {
    let end = std::time::Instant::now() + tests::patience::patience();
    while process.figure("messages_dropped") == 0.0 {
        assert!(std::time::Instant::now() < end, "nothing dropped: {:?}", process.status());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn backup_whose_standard_error_is_full_takes_over() {
    backup_takes_over("2>/dev/full");
}

#[test]
fn backup_whose_standard_output_is_full_takes_over() {
    backup_takes_over(">/dev/full");
}

#[test]
fn backup_whose_standard_streams_are_full_takes_over() {
    backup_takes_over(">/dev/full 2>&1");
}

/// The signal of that limit ends a process by default.
#[test]
fn backup_whose_messages_have_reached_the_limit_of_file_sizes_takes_over() {
    let rig = Rig::default();
    let (script, messages) = (rig.path("limited.sh"), rig.path("messages"));
    // A block has 512 bytes.
    fs::write(&messages, [b'\n'; 512]).unwrap();
    let (program, file) = (understudy(), messages.display());
    let text = format!("#!/bin/sh\nulimit -f 1\nexec '{}' \"$@\" 2>>'{file}'\n", program.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start_program(&script, Part::Backup, Host::B, &[]);
    takes_over(&rig, primary, &backup);
    assert_eq!(fs::metadata(&messages).unwrap().len(), 512);
}

#[test]
fn backup_whose_standard_streams_are_closed_takes_over() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start_redirected(Part::Backup, Host::B, &[], "<&- >&- 2>&-");
    wait_for!(primary, PairEvent::Protected);
    backup.wait_for_role("following");
    Clients::during(&rig, |clients| {
        primary.signal(Signal::SIGKILL);
        clients.wait_until_served();
        backup.wait_for_role("alone");
    });
}

#[test]
fn primary_with_closed_output_pipe_outlives_the_backup() {
    let rig = Rig::default();
    let pipe = Fifo::new(rig.path("pipe"));
    let redirections = format!("2>'{}'", pipe.path());
    let mut primary = rig.start_redirected(Part::Primary, Host::A, &[], &redirections);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let ((), clients) = Clients::during(&rig, |clients| {
        drop(pipe);
        backup.signal(Signal::SIGKILL);
        wait_for!(primary, PairEvent::BackupGone { .. });
        clients.wait_until_served();
        primary.wait_for_role("alone");
        counts_what_it_lost(&primary);
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
}

#[test]
fn primary_whose_standard_streams_stall_stays_protected() {
    let rig = Rig::default();
    let pipe = Fifo::new(rig.path("pipe"));
    pipe.fill();
    let redirections = format!(">'{}' 2>&1", pipe.path());
    // The lines of the frames fill the queue of standard error.
    let options = ["--trace-frames"];
    let mut primary = rig.start_redirected(Part::Primary, Host::A, &options, &redirections);
    primary.wait_for_role("alone");
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(backup, PairEvent::Following);
    primary.wait_for_role("protected");
    let ((), clients) = Clients::during(&rig, |clients| {
        counts_what_it_lost(&primary);
        clients.wait_until_served();
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    primary.wait_for_role("protected");
    assert_eq!(backup.status()["role"], "following");
    // Still nobody reads the pipe.
    primary.order("stop");
    assert_eq!(primary.end().code, Some(0));
    drop(pipe);
}
