//! Terms at the witness: they are never used again, whatever happens to the claims.

use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use testbed::pair::{Host, PairEvent, Part, Why};
use tests::pair::{Clients, Rig};
use tests::patience::wait_until;
use tests::program::run;
use tests::wait_for;

fn claim(rig: &Rig, term: u64) -> PathBuf {
    rig.path("witness").join(format!("vm-0.term-{term}"))
}

fn forget(rig: &Rig, options: &[&str]) -> std::process::Output {
    let (witness, key) = (rig.path("witness"), rig.path("key"));
    let paths = [witness, key].map(|path| path.to_str().unwrap().to_string());
    let args = ["forget", "--witness", &paths[0], "--key", &paths[1]];
    run(&[&args[..], options].concat())
}

#[test]
fn stopped_vm_is_booted_again_in_a_new_term() {
    let rig = Rig::patient();
    let mut first = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(first, PairEvent::TermWon);
    first.order("stop");
    assert_eq!(first.end().code, Some(0), "{}", first.transcript());
    let mut second = rig.start(Part::Primary, Host::B, &[]);
    wait_for!(second, PairEvent::TermWon);
    assert_eq!(second.state().term, 3, "the VM's end has term 2");
}

/// Both hosts lose power.
#[test]
fn vm_of_dead_hosts_is_booted_only_by_order() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    for process in [&mut backup, &mut primary] {
        process.signal(Signal::SIGKILL);
        process.end();
    }
    let newest = if claim(&rig, 2).exists() { 2 } else { 1 };
    rig.start(Part::Primary, Host::A, &[]).end().failure(14, "--boot-again");
    let mut again = rig.start(Part::Primary, Host::A, &["--boot-again"]);
    wait_for!(again, PairEvent::TermWon);
    assert_eq!(again.state().term, newest + 1);
    again.signal(Signal::SIGKILL);
    again.end();
    let refused = forget(&rig, &[]);
    assert_eq!(refused.status.code(), Some(2));
    let forgotten = forget(&rig, &["--yes"]);
    assert_eq!(forgotten.status.code(), Some(0), "{forgotten:?}");
    let mut third = rig.start(Part::Primary, Host::B, &[]);
    wait_for!(third, PairEvent::TermWon);
    assert_eq!(third.state().term, newest + 3);
}

/// An operator forgets a VM that runs, or boots it elsewhere: the older one stops by itself.
#[test]
fn primary_of_a_forgotten_vm_stops() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    assert_eq!(forget(&rig, &["--yes"]).status.code(), Some(0));
    wait_for!(primary, PairEvent::Halted { why: Why::Replaced, .. });
    assert_eq!(primary.end().code, Some(14), "{}", primary.transcript());
}

/// A program that cleans up removes the claim of a running VM: nobody can boot a second one, and a takeover works.
#[test]
fn removed_claim_is_made_again() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let ((), _clients) = Clients::during(&rig, |clients| {
        fs::remove_file(claim(&rig, 1)).unwrap();
        wait_until("the claim", || claim(&rig, 1).exists());
        // With a tap and a log interface of its own: it is refused those of the backup before it asks for the claim.
        rig.ip(Host::B, "tuntap add dev tap9 mode tap");
        rig.ip(Host::B, "link add log9 type veth peer name log9-peer");
        let own = ["--tap", "tap9", "--interface", "log9"];
        let refused = rig.start(Part::Primary, Host::B, &own).end();
        assert_eq!(refused.code, Some(14), "{refused:?}");
        primary.signal(Signal::SIGKILL);
        primary.end();
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
    });
}

/// The witness vanishes while nobody needs it, and comes back.
#[test]
fn vanished_witness_is_told_once_and_shown() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let (folder, away) = (rig.path("witness"), rig.path("away"));
    fs::rename(&folder, &away).unwrap();
    for process in [&mut primary, &mut backup] {
        wait_for!(process, PairEvent::WitnessLost);
    }
    std::thread::sleep(std::time::Duration::from_millis(2500));
    wait_until("the unfit backup", || {
        primary.status()["protected"] == "no: the backup is unfit: it can't reach the witness"
    });
    let status = primary.status();
    assert!(status["witness"].as_str().unwrap().contains(folder.to_str().unwrap()), "{status:?}");
    fs::rename(&away, &folder).unwrap();
    for process in [&mut primary, &mut backup] {
        wait_for!(process, PairEvent::WitnessBack);
        assert_eq!(process.count(|event| matches!(event, PairEvent::WitnessLost)), 1);
        let named = |line: &&String| line.contains(folder.to_str().unwrap());
        process.wait_for_words(folder.to_str().unwrap());
        let lines = process.words();
        assert_eq!(lines.iter().filter(named).count(), 1, "{lines:?}");
    }
    wait_until("protection", || primary.status()["protected"] == "yes");
}
