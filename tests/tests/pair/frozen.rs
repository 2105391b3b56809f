//! A host that is frozen for longer than the silence timeout is declared dead by the other host. It
//! must detect that itself when it thaws.

use nix::sys::signal::Signal;
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part, Why};
use tests::pair::{Clients, Process, Rig};
use tests::wait_for;

/// Starts a protected VM: primary on A, backup on B.
fn protected(rig: &Rig) -> [Process; 2] {
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    [primary, backup]
}

fn silence(rig: &Rig) -> Duration {
    Duration::from_millis(rig.silence_ms())
}

#[test]
fn thawed_primary_sends_nothing_and_exits() {
    let rig = Rig::default();
    let [mut primary, mut backup] = protected(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        assert_eq!(rig.vm_port().as_deref(), Some(Host::A.port()));
        primary.signal(Signal::SIGSTOP);
        wait_for!(backup, PairEvent::PrimarySilent { whole: true, .. });
        let live = wait_for!(backup, PairEvent::WentLive);
        assert_eq!(live.term, 2);
        clients.wait_until_served();
        assert_eq!(rig.vm_port().as_deref(), Some(Host::B.port()));
        std::thread::sleep(silence(&rig));
        // Inputs are pending in its tap and in its guest.
        primary.signal(Signal::SIGCONT);
        wait_for!(primary, PairEvent::Halted { why: Why::Replaced, .. });
        let ended = primary.end();
        assert_eq!(ended.code, Some(14), "{ended:?}");
        let last = ended.words.last().expect("it says why");
        assert!(last.contains("the other host took over the VM in term 2"), "{ended:?}");
        clients.wait_until_served();
        assert_eq!(rig.vm_port().as_deref(), Some(Host::B.port()));
    });
    // A frame from the old host would add a third interval.
    assert_eq!(
        clients.host_sequence(),
        [Host::A, Host::B],
        "no frame of the VM from A after B's first"
    );
}

#[test]
fn thawed_backup_is_refused_and_synced_again() {
    let rig = Rig::default();
    let [mut primary, mut backup] = protected(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        backup.signal(Signal::SIGSTOP);
        wait_for!(primary, PairEvent::BackupSilent { .. });
        assert_eq!(wait_for!(primary, PairEvent::TermWon).term, 2);
        clients.wait_until_served();
        wait_for!(backup, PairEvent::Following);
        backup.signal(Signal::SIGCONT);
        wait_for!(backup, PairEvent::Following);
        wait_for!(primary, PairEvent::Protected);
        clients.wait_until_served();
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
    assert_eq!(primary.state().term, 2);
    backup.wait_for_role("following");
    assert_eq!(backup.count(|event| matches!(event, PairEvent::Diverged { .. })), 0);
}
