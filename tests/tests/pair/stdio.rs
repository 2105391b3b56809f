//! Hosts of a pair whose standard streams cannot be written: the VM does not depend on them.

use nix::sys::signal::Signal;
use testbed::pair::{Host, PairEvent, Part};
use tests::fifo::Fifo;
use tests::pair::{Clients, Process, Rig};
use tests::wait_for;

/// Kills the primary and requires that the backup, started with `redirections`, takes over and serves
/// the VM's clients.
fn backup_takes_over(redirections: &str) {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start_redirected(Part::Backup, Host::B, &[], redirections);
    wait_for!(primary, PairEvent::Protected);
    backup.wait_for_role("following");
    let ((), clients) = Clients::during(&rig, |clients| {
        primary.signal(Signal::SIGKILL);
        clients.wait_until_served();
        backup.wait_for_role("alone");
        counts_what_it_lost(&backup);
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
