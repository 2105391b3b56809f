//! A new pre-shared key, while the VM is protected and used.

use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::wait_for;
use vmm::link::key_file;

/// Replaces the backup of `primary` by one with other keys, and waits until the VM is protected.
fn restart_backup(
    rig: &Rig,
    (primary, backup): (&mut Process, &mut Process),
    key: &PathBuf,
    options: &[&str],
) {
    backup.signal(Signal::SIGTERM);
    wait_for!(primary, PairEvent::BackupLeft);
    assert_eq!(backup.end().code, Some(0), "{}", backup.transcript());
    *backup = rig.start_with(Part::Backup, backup.host(), Some(key), options);
    wait_for!(primary, PairEvent::Protected);
}

fn hand_over(from: &mut Process, to: &mut Process) {
    from.order("handover");
    wait_for!(to, PairEvent::WentLive);
    wait_for!(to, PairEvent::Protected);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}

/// The steps of docs/operations.md. The clients see no error, and each claim is read by the other host.
#[test]
fn key_is_replaced_while_the_vm_is_used() {
    let rig = Rig::patient();
    let (old, new) = (rig.path("key"), rig.path("key-new"));
    key_file::create(&new).unwrap();
    let mut a = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(a, PairEvent::TermWon);
    let mut b = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(a, PairEvent::Protected);
    let ((), _clients) = Clients::during(&rig, |clients| {
        restart_backup(&rig, (&mut a, &mut b), &old, &["--key-next", text(&new)]);
        hand_over(&mut a, &mut b);
        clients.wait_until_served();
        restart_backup(&rig, (&mut b, &mut a), &new, &[]);
        // Host A can read the claim of host B, which has a tag of each key, and B that of A.
        hand_over(&mut b, &mut a);
        clients.wait_until_served();
        restart_backup(&rig, (&mut a, &mut b), &new, &[]);
        // A host with the old key is nobody to the pair, and its backup is still there.
        b.signal(Signal::SIGTERM);
        wait_for!(a, PairEvent::BackupLeft);
        b.end();
        let mut stolen = rig.start_with(Part::Backup, Host::B, Some(&old), &[]);
        // It says that it meets nobody: host A keeps the session of a backup that left for a silence timeout, and has
        // another key after that.
        stolen.wait_for_words("host");
        std::thread::sleep(Duration::from_millis(rig.silence_ms() + 2_000));
        assert_eq!(stolen.count(|event| matches!(event, PairEvent::PeerMet)), 0);
        assert!(a.state().protected.is_none(), "{}", a.transcript());
        stolen.signal(Signal::SIGKILL);
        stolen.end();
        b = rig.start_with(Part::Backup, Host::B, Some(&new), &[]);
        wait_for!(a, PairEvent::Protected);
        // The last claim is the one that decides: a takeover works with the new key.
        a.signal(Signal::SIGKILL);
        a.end();
        wait_for!(b, PairEvent::WentLive);
        clients.wait_until_served();
    });
    assert_eq!(b.state().term, 4);
}
