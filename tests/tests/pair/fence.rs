//! `--fence`: a command that must succeed before a backup takes the VM over.

use nix::sys::signal::Signal;
use std::fs;
use testbed::pair::{Host, PairEvent, Part};
use testbed::{GUEST_ADDRESS, clients};
use tests::pair::Rig;
use tests::patience::wait_until;
use tests::wait_for;

/// The command fails until the file `off` exists. It reads a clock: a process that inherits a trapped RDTSC can't.
#[test]
fn backup_goes_live_only_after_its_fence_has_succeeded() {
    let rig = Rig::default();
    let (told, off) = (rig.path("told"), rig.path("off"));
    let names = "$UNDERSTUDY_VM $UNDERSTUDY_TERM $UNDERSTUDY_LOST_HOST";
    let fence = format!(
        "date && echo \"{names}\" >>'{}' && {{ test -e '{}' || {{ echo no power switch; exit 1; }} }}",
        told.display(),
        off.display()
    );
    let options = ["--fence", fence.as_str()];
    let mut primary = rig.start(Part::Primary, Host::A, &options);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &options);
    wait_for!(primary, PairEvent::Protected);
    assert!(!told.exists(), "a boot fences nobody");
    primary.signal(Signal::SIGKILL);
    primary.end();
    wait_for!(backup, PairEvent::WitnessUnreachable);
    wait_until("the reason", || {
        let status = backup.status();
        status["witness"]
            .as_str()
            .is_some_and(|text| text.contains("exit status: 1: no power switch"))
    });
    assert_eq!(backup.count(|event| matches!(event, PairEvent::TermWon)), 0);
    fs::write(&off, "").unwrap();
    wait_for!(backup, PairEvent::WentLive);
    let client = rig.scene.network.client();
    client.enter(|| clients::count(GUEST_ADDRESS, 10)).unwrap();
    let told = fs::read_to_string(told).unwrap();
    let expected = format!("0 2 {}", Host::A.log_mac());
    assert!(told.lines().count() >= 2 && told.lines().all(|line| line == expected), "{told}");
}
