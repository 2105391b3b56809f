//! A takeover while the LAN does not work: the VM is announced again when it does.

use nix::sys::signal::Signal;
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part};
use testbed::{GUEST_ADDRESS, command};
use tests::pair::{Clients, Rig};
use tests::patience::wait_until;
use tests::wait_for;

/// Longer than the rounds of announcements that follow a takeover at short intervals.
const ROUNDS_MAX: Duration = Duration::from_secs(3);

/// Waits until the VM answers the client. The switch learns the VM's port from the answer.
fn wait_for_ping(rig: &Rig) {
    let address = GUEST_ADDRESS.to_string();
    let ping = || command("ping", &["-q", "-c1", "-W1", &address]);
    let ping = || rig.scene.network.client().enter(ping);
    wait_until("an answer to a ping", || ping().is_ok());
}

#[test]
fn vm_is_announced_again_when_the_uplink_is_back_after_a_takeover() {
    let rig = Rig::alone();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    wait_for_ping(&rig);
    assert_eq!(rig.vm_port().as_deref(), Some(Host::A.port()));
    let (switch, port) = (rig.scene.network.switch(), Host::B.port());
    switch.ip(&format!("link set {port} down")).unwrap();
    primary.signal(Signal::SIGKILL);
    primary.end();
    wait_for!(backup, PairEvent::WentLive);
    std::thread::sleep(ROUNDS_MAX);
    assert_eq!(rig.vm_port().as_deref(), Some(Host::A.port()), "no announcement has arrived");
    switch.ip(&format!("link set {port} up")).unwrap();
    // Nobody asks the VM for anything: the switch learns its port from announcements alone.
    wait_until("the VM's new port", || rig.vm_port().as_deref() == Some(port));
    Clients::during(&rig, Clients::wait_until_served);
    backup.signal(Signal::SIGTERM);
    assert_eq!(backup.end().code, Some(0), "{}", backup.transcript());
}
