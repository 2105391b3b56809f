//! Planned switchovers: by order, by signal, and because the primary's VM can't reach the LAN.

use nix::sys::signal::Signal;
use std::net::UdpSocket;
use std::time::Duration;
use testbed::clients::ECHO_PORT;
use testbed::pair::{Host, PairEvent, Part, Why};
use testbed::{GUEST_ADDRESS, TAP, TestbedError};
use tests::pair::{Clients, Process, Rig};
use tests::patience::{factor, wait_until};
use tests::program::run;
use tests::wait_for;

/// Starts a protected pair: the primary on host A.
fn protected(rig: &Rig) -> [Process; 2] {
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    [primary, backup]
}

fn handover(process: &Process) -> std::process::Output {
    run(&["handover", "--socket", process.socket()])
}

#[test]
fn handover_and_back_loses_nothing_and_swaps_the_roles() {
    let rig = Rig::patient();
    let [mut a, mut b] = protected(&rig);
    let refused = handover(&b);
    assert_eq!(refused.status.code(), Some(17));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this host is the backup"));
    let ((), clients) = Clients::during(&rig, |clients| {
        let output = handover(&a);
        assert_eq!(output.status.code(), Some(0), "{output:?}: {}", a.transcript());
        wait_for!(b, PairEvent::WentLive);
        clients.wait_until_served();
        wait_for!(b, PairEvent::Protected);
        let output = handover(&b);
        assert_eq!(output.status.code(), Some(0), "{output:?}: {}", b.transcript());
        wait_for!(a, PairEvent::WentLive);
        clients.wait_until_served();
        wait_for!(a, PairEvent::Protected);
    });
    assert_eq!(clients.host_sequence(), [Host::A, Host::B, Host::A]);
    assert_eq!((a.state().term, b.state().term), (3, 3));
    wait_until("the status", || a.status()["protected"] == "yes");
    let status = a.status();
    assert_eq!((&status["handovers"], &status["handovers_failed"]), (&1.into(), &0.into()));
    let stopped = run(&["stop", "--socket", a.socket()]);
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    for process in [&mut a, &mut b] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
}

#[test]
fn handover_without_backup_is_refused() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    primary.wait_for_role("alone");
    let refused = handover(&primary);
    assert_eq!(refused.status.code(), Some(17));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no backup holds the whole VM"));
    assert_eq!(primary.status()["protected"], "no: there is no synced backup");
}

/// As `systemctl stop` on the primary's host.
#[test]
fn terminated_primary_hands_the_vm_over_and_ends() {
    let rig = Rig::patient();
    let [mut primary, mut backup] = protected(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        primary.signal(Signal::SIGTERM);
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
        wait_for!(primary, PairEvent::Halted { why: Why::HandedOver, .. });
        assert_eq!(primary.end().code, Some(0), "{}", primary.transcript());
    });
    assert_eq!(clients.host_sequence(), [Host::A, Host::B]);
    let is_loss = |event: &PairEvent| {
        matches!(event, PairEvent::PrimarySilent { .. } | PairEvent::PrimaryGone { .. })
    };
    assert_eq!(backup.count(is_loss), 0);
}

/// The backup is frozen for a while. Until it is live, the switch delivers the client's frames to the old primary.
#[test]
fn handover_passes_on_the_frames_of_the_old_tap() {
    const DATAGRAMS: u8 = 25;
    let rig = Rig::patient();
    let [mut a, mut b] = protected(&rig);
    let socket = || {
        let socket = UdpSocket::bind(("0.0.0.0", 0));
        socket.map_err(TestbedError::client("opening a socket"))
    };
    let socket = rig.scene.network.client().enter(socket).unwrap();
    socket.connect((GUEST_ADDRESS, ECHO_PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10 * factor()))).unwrap();
    let receive = || {
        let mut number = [0];
        socket.recv(&mut number).unwrap_or_else(|error| panic!("no answer: {error}"));
        number[0]
    };
    socket.send(&[DATAGRAMS]).unwrap();
    assert_eq!(receive(), DATAGRAMS);

    b.signal(Signal::SIGSTOP);
    a.order("handover");
    wait_for!(a, PairEvent::HandingOver { .. });
    for number in 0..DATAGRAMS {
        socket.send(&[number]).unwrap();
    }
    let passed_on = |a: &Process| a.status()["frames_passed_on"].as_u64().unwrap();
    wait_until("the frames", || passed_on(&a) >= u64::from(DATAGRAMS));
    b.signal(Signal::SIGCONT);
    wait_for!(b, PairEvent::WentLive);
    let mut answers: Vec<_> = (0..DATAGRAMS).map(|_| receive()).collect();
    answers.sort_unstable();
    assert_eq!(answers, Vec::from_iter(0..DATAGRAMS), "each once");

    wait_for!(b, PairEvent::Protected);
    // Each host publishes its status at intervals, so either may be from before the last frame.
    wait_until("equal counts", || b.status()["passed_frames_taken"] == passed_on(&a));
    assert_eq!(b.status()["passed_frames_dropped"], 0);
    assert_eq!(a.status()["passed_frames_taken"], 0);
}

/// The backup is frozen when the VM is handed over: the primary continues.
#[test]
fn handover_to_a_backup_that_fails_is_taken_back() {
    let rig = Rig::default();
    let [mut primary, mut backup] = protected(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        backup.signal(Signal::SIGSTOP);
        primary.order("handover");
        wait_for!(primary, PairEvent::HandingOver { .. });
        wait_for!(primary, PairEvent::HandoverFailed);
        clients.wait_until_served();
        backup.signal(Signal::SIGCONT);
        // It claims the term, finds it taken, and follows again.
        wait_for!(primary, PairEvent::Protected);
        clients.wait_until_served();
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
}

/// The log link is fine, and the VM's tap is not.
#[test]
fn primary_whose_tap_is_down_hands_the_vm_over() {
    let rig = Rig::patient();
    let [mut a, mut b] = protected(&rig);
    let ((), _clients) = Clients::during(&rig, |clients| {
        rig.ip(Host::A, &format!("link set {TAP} down"));
        wait_for!(a, PairEvent::LanLost);
        wait_for!(b, PairEvent::WentLive);
        clients.wait_until_served();
        wait_for!(b, PairEvent::Protected);
        let reason = "no: the backup is unfit: its VM can't reach the LAN";
        wait_until("the unfit backup", || b.status()["protected"] == reason);
        assert!(a.status()["lan"].as_str().unwrap().contains("is down"), "{:?}", a.status());
        rig.ip(Host::A, &format!("link set {TAP} up"));
        wait_until("protection", || b.status()["protected"] == "yes");
    });
    let said = a.words().iter().filter(|line| line.contains("the VM can't reach the LAN")).count();
    assert_eq!(said, 1, "{}", a.transcript());
}

/// The switch has the carriers of both hosts, and forwards nothing of one of them.
#[test]
fn primary_whose_lan_does_not_answer_hands_the_vm_over() {
    let rig = Rig::patient();
    let probe = ["--probe", "10.77.0.1"];
    let mut a = rig.start(Part::Primary, Host::A, &probe);
    wait_for!(a, PairEvent::TermWon);
    let mut b = rig.start(Part::Backup, Host::B, &probe);
    wait_for!(a, PairEvent::Protected);
    let switch = rig.scene.network.switch();
    let port = Host::A.port();
    let ((), _clients) = Clients::during(&rig, |clients| {
        switch.ip(&format!("link set {port} nomaster")).unwrap();
        wait_for!(a, PairEvent::LanLost);
        wait_for!(b, PairEvent::WentLive);
        clients.wait_until_served();
        let said = a.status()["lan"].as_str().unwrap().to_owned();
        assert!(said.contains("--probe does not answer"), "{said}");
        switch.ip(&format!("link set {port} master br0")).unwrap();
        wait_until("protection", || b.status()["protected"] == "yes");
    });
}

/// A backup that can't serve the VM does not take it from a primary that can.
#[test]
fn backup_whose_tap_is_down_leaves_the_vm_to_the_primary() {
    let rig = Rig::default();
    let [mut primary, mut backup] = protected(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        rig.ip(Host::B, &format!("link set {TAP} down"));
        wait_for!(primary, PairEvent::BackupHealth { unfit: Some(_) });
        let said = "the VM is not protected, because the backup is unfit";
        wait_until("the message", || primary.words().iter().any(|line| line.contains(said)));
        // Both hosts claim the next term.
        rig.ip(Host::A, &format!("link set {} down", testbed::pair::LOG_LINK));
        wait_for!(primary, PairEvent::TermWon);
        clients.wait_until_served();
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
}
