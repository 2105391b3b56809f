//! Faults of one host other than a guest exit or a stop request: the VM continues, and never on both
//! hosts.

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use testbed::TAP;
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use tests::pair::{Clients, Rig};
use tests::patience::wait_until;
use tests::program::understudy;
use tests::wait_for;

/// The tap is deleted and made again on the primary, then on the host that is live alone: no process ends, and each
/// uses the new tap.
#[test]
fn deleted_taps_are_used_again_when_they_are_there_again() {
    let rig = Rig::patient();
    let mut a = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(a, PairEvent::TermWon);
    let mut b = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(a, PairEvent::Protected);
    let delete = |host| rig.ip(host, &format!("link del {TAP}"));
    let restore = |host| rig.scene.network.restore_tap(host).unwrap();
    let ((), _clients) = Clients::during(&rig, |clients| {
        delete(Host::A);
        wait_for!(a, PairEvent::HandingOver { .. });
        wait_for!(b, PairEvent::WentLive);
        clients.wait_until_served();
        wait_for!(b, PairEvent::Protected);
        let reason = "no: the backup is unfit: its VM can't reach the LAN";
        wait_until("the unfit backup", || b.status()["protected"] == reason);
        assert!(a.status()["lan"].as_str().unwrap().contains("was deleted"), "{:?}", a.status());
        restore(Host::A);
        wait_until("protection", || b.status()["protected"] == "yes");
        b.order("handover");
        wait_for!(a, PairEvent::WentLive);
        wait_for!(a, PairEvent::Protected);
        b.signal(Signal::SIGKILL);
        wait_for!(a, PairEvent::BackupGone { .. });
        wait_for!(a, PairEvent::TermWon);
        delete(Host::A);
        wait_for!(a, PairEvent::LanLost);
        restore(Host::A);
        wait_for!(a, PairEvent::LanBack);
        clients.wait_until_served();
    });
    assert!(!a.has_ended(), "{}", a.transcript());
}

/// As under nohup(1) or a terminal that closes.
#[test]
fn inherited_ignored_hangup_stays_ignored() {
    let rig = Rig::default();
    let program = rig.path("understudy-without-hangup");
    let script = format!("#!/bin/sh\nexec env --ignore-signal=HUP,INT {:?} \"$@\"\n", understudy());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut primary = rig.start_program(&program, Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let ((), _clients) = Clients::during(&rig, |clients| {
        for signal in [Signal::SIGHUP, Signal::SIGINT] {
            primary.signal(signal);
            clients.wait_until_served();
            assert!(!primary.has_ended(), "{signal}: {}", primary.transcript());
        }
    });
    assert_eq!(primary.state().term, 1);
    primary.order("stop");
    assert_eq!(primary.end().code, Some(0), "{}", primary.transcript());
    assert_eq!(backup.end().code, Some(0), "{}", backup.transcript());
}

/// The shared storage is not mounted on one host, which sees an empty folder in its place.
#[test]
fn different_witness_on_the_other_host_is_refused() {
    let rig = Rig::default();
    let other = rig.path("not-mounted");
    fs::create_dir(&other).unwrap();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let options = ["--witness", other.to_str().unwrap()];
    let mut backup = rig.start(Part::Backup, Host::B, &options);
    for process in [&mut primary, &mut backup] {
        let refused = wait_for!(process, PairEvent::PeerRefused { .. });
        let PairEvent::PeerRefused { reason } = refused.event else { unreachable!("awaited") };
        assert!(reason.contains("the peer's witness is"), "{reason}");
    }
    rig.ip(Host::A, &format!("link set {LOG_LINK} down"));
    // Longer than the silence timeout: a host that could take over would do so.
    std::thread::sleep(Duration::from_millis(3 * rig.silence_ms()));
    assert_eq!(primary.count(|event| matches!(event, PairEvent::Protected)), 0);
    assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
    assert_eq!(
        (primary.status()["role"].as_str(), backup.status()["role"].as_str()),
        (Some("alone"), Some("seeking"))
    );
}

/// The storage is unmounted while the pair runs, and then the primary dies: the backup does not
/// continue before the storage is back.
#[test]
fn unmounted_witness_grants_no_term_before_it_is_back() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let (mount_point, away) = (rig.path("witness"), rig.path("away"));
    fs::rename(&mount_point, &away).unwrap();
    fs::create_dir(&mount_point).unwrap();
    primary.signal(Signal::SIGKILL);
    primary.end();
    wait_for!(backup, PairEvent::WitnessUnreachable);
    assert_eq!(
        fs::read_dir(&mount_point).unwrap().count(),
        0,
        "no term was claimed in the empty folder"
    );
    fs::remove_dir(&mount_point).unwrap();
    fs::rename(&away, &mount_point).unwrap();
    wait_for!(backup, PairEvent::WentLive);
}

/// Somebody who can write to the witness's folder puts a file in the place of the next claim, and the primary
/// dies: nobody wins or loses the term before the file is removed, and the backup says why.
#[test]
fn file_in_place_of_the_next_claim_grants_no_term_before_it_is_removed() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let claim = rig.path("witness/vm-0.term-2");
    nix::unistd::mkfifo(&claim, Mode::S_IRWXU).unwrap();
    primary.signal(Signal::SIGKILL);
    primary.end();
    wait_for!(backup, PairEvent::WitnessUnreachable);
    backup.wait_for_words("vm-0.term-2 is a FIFO");
    fs::remove_file(&claim).unwrap();
    // If the backup's claim was first, there is nothing to forge.
    if let Ok(mut file) = fs::File::create_new(&claim) {
        file.write_all(b"understudy-claim 2 000000000000000a - host\n").unwrap();
        backup.wait_for_words("vm-0.term-2 has no tag");
        assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
        fs::remove_file(&claim).unwrap();
    }
    wait_for!(backup, PairEvent::WentLive);
    let escape = backup.words().into_iter().find(|line| line.contains('\x1b'));
    assert_eq!(escape, None, "no control characters, because this is no terminal");
}
