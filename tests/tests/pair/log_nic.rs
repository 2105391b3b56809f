//! The interface of the log link is deleted and made again, gets another MAC address, or loses its carrier, while
//! both processes run. A healthy primary goes on, no process has to be restarted, and the VM is protected again.

use nix::sys::signal::Signal;
use testbed::pair::{Host, LOG_LINK, LogSwitch, PairEvent, Part};
use tests::pair::{Clients, Process, Rig, RigOptions};
use tests::patience::wait_until;
use tests::wait_for;

/// A primary on host A and its backup on host B.
struct Pair {
    primary: Process,
    backup: Process,
}

impl Pair {
    fn start(rig: &Rig) -> Pair {
        let mut primary = rig.start(Part::Primary, Host::A, &[]);
        wait_for!(primary, PairEvent::TermWon);
        let backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::Protected);
        Pair { primary, backup }
    }

    fn on(&mut self, host: Host) -> &mut Process {
        match host {
            Host::A => &mut self.primary,
            Host::B => &mut self.backup,
        }
    }

    /// Waits until the process on `host` has said `text`.
    fn wait_for_words(&mut self, host: Host, text: &str) {
        self.on(host).wait_for_words(text);
    }

    /// Returns how many lines of the process on `host` contain `text`.
    fn count_words(&mut self, host: Host, text: &str) -> usize {
        self.on(host).words().iter().filter(|line| line.contains(text)).count()
    }

    /// Checks that the first primary still runs the VM, and that its protection is real: it dies, and the backup
    /// takes over.
    fn check_and_kill(&mut self, clients: &Clients) {
        clients.wait_until_served();
        let Pair { primary, backup } = self;
        assert!(!primary.has_ended() && primary.state().holds_term, "{}", primary.transcript());
        assert!(!backup.has_ended(), "{}", backup.transcript());
        assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
        primary.signal(Signal::SIGKILL);
        primary.end();
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
    }
}

/// Makes the link pass no frames, and then pass them again. The primary goes on alone meanwhile.
fn interrupt(rig: &Rig, cut: impl FnOnce(), mend: impl FnOnce(), checks: impl FnOnce(&mut Pair)) {
    let mut pair = Pair::start(rig);
    Clients::during(rig, |clients| {
        cut();
        wait_for!(pair.primary, PairEvent::TermWon);
        clients.wait_until_served();
        mend();
        wait_for!(pair.primary, PairEvent::Protected);
        checks(&mut pair);
        pair.check_and_kill(clients);
    });
}

#[test]
fn log_nic_of_both_hosts_made_again_is_used() {
    let rig = Rig::default();
    let delete = || drop(rig.ip(Host::A, &format!("link del {LOG_LINK}")));
    let make = || {
        let hosts = Host::ALL.map(|host| rig.scene.network.host(host));
        hosts[0].add_cable(LOG_LINK, hosts[1], LOG_LINK).unwrap();
        for host in Host::ALL {
            let address = format!("address {}", host.log_mac());
            rig.scene.network.host(host).set_up(LOG_LINK, &address).unwrap();
        }
    };
    interrupt(&rig, delete, make, |pair| {
        for host in Host::ALL {
            pair.wait_for_words(host, "the log interface log0 is there again");
            assert_eq!(pair.count_words(host, "the log interface log0 is gone"), 1, "{host}");
        }
    });
}

/// Deletes the log interface of `host` and makes it again, with address `mac`.
fn make_one_again(host: Host, mac: &str) {
    let rig = Rig::default();
    let switch = LogSwitch::insert(&rig.scene.network).unwrap();
    let delete = || drop(rig.ip(host, &format!("link del {LOG_LINK}")));
    interrupt(
        &rig,
        delete,
        || switch.plug_in(&rig.scene.network, host, mac).unwrap(),
        |pair| {
            pair.wait_for_words(host, "the log interface log0 is there again");
            let followed = format!("{mac} instead of {}; following it", host.log_mac());
            pair.wait_for_words(host.other(), &followed);
        },
    );
}

#[test]
fn log_nic_of_the_primary_made_again_with_another_address_is_followed() {
    make_one_again(Host::A, "02:00:00:00:01:0a");
}

/// The backup hears nothing more, as if the primary were dead. Only its own interface shows the difference.
#[test]
fn log_nic_of_the_backup_made_again_with_another_address_is_followed() {
    make_one_again(Host::B, "02:00:00:00:01:0b");
}

#[test]
fn new_address_of_the_primary_is_followed_within_the_session() {
    const MAC: &str = "02:00:00:00:01:0a";
    let rig = Rig::patient();
    let mut pair = Pair::start(&rig);
    Clients::during(&rig, |clients| {
        rig.ip(Host::A, &format!("link set {LOG_LINK} address {MAC}"));
        pair.wait_for_words(Host::A, &format!("log0 has another MAC address now: {MAC}"));
        pair.wait_for_words(Host::B, &format!("another MAC address: {MAC} instead of"));
        assert_eq!(pair.primary.state().term, 1, "the session goes on");
        assert_eq!(pair.count_words(Host::B, "following it"), 1);
        pair.check_and_kill(clients);
    });
}

/// Heartbeats are short and pass, the log does not.
#[test]
fn mtu_of_log_nic_lowered_while_in_use_leaves_the_vm_served_and_is_named() {
    for host in Host::ALL {
        let rig = Rig::default();
        let set = |mtu: u32| drop(rig.ip(host, &format!("link set {LOG_LINK} mtu {mtu}")));
        let mut pair = Pair::start(&rig);
        Clients::during(&rig, |clients| {
            set(600);
            wait_for!(pair.primary, PairEvent::BackupStalled { .. });
            wait_for!(pair.primary, PairEvent::TermWon);
            clients.wait_until_served();
            wait_for!(pair.primary, PairEvent::SyncStalled);
            wait_until("the reason", || {
                let status = pair.primary.status();
                status["protected"].as_str().unwrap().contains("the sync stands still")
            });
            clients.wait_until_served();
            pair.wait_for_words(host, "the MTU of the log interface log0 is 600 now");
            set(1500);
            wait_for!(pair.primary, PairEvent::Protected);
            pair.wait_for_words(host, "the MTU of the log interface log0 is 1500 again");
            assert_eq!(pair.count_words(host, "the MTU of the log interface"), 2);
            assert_eq!(pair.count_words(Host::A, "claiming the next term"), 1);
            pair.check_and_kill(clients);
        });
    }
}

#[test]
fn carrier_lost_and_back_leaves_the_primary_live() {
    for host in Host::ALL {
        let rig = Rig::default();
        let set = |state: &str| drop(rig.ip(host, &format!("link set {LOG_LINK} {state}")));
        interrupt(
            &rig,
            || set("down"),
            || set("up"),
            |pair| {
                pair.wait_for_words(host, "interface log0 is down: 'ip link set log0 up'");
                pair.wait_for_words(host.other(), "interface log0 has no carrier");
                for host in Host::ALL {
                    pair.wait_for_words(host, "the log interface log0 passes frames again");
                }
            },
        );
    }
}

#[test]
fn log_nic_in_a_bridge_is_named() {
    let rig = Rig::default();
    rig.ip(Host::B, "link add br1 type bridge");
    rig.ip(Host::B, &format!("link set {LOG_LINK} master br1"));
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    let nobody = wait_for!(backup, PairEvent::NobodyMet);
    assert_eq!(nobody.term, 0);
    backup.wait_for_words("interface log0 is a port of a bridge");
    rig.ip(Host::B, &format!("link set {LOG_LINK} nomaster"));
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::Protected);
}

/// Without a key, anybody could say to be the other host.
#[test]
fn new_address_without_key_is_reported_and_not_followed() {
    let rig = Rig::new(RigOptions { is_insecure: true, ..RigOptions::default() });
    rig.ip(Host::B, &format!("link set {LOG_LINK} address 02:00:00:00:01:0b"));
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let _backup = rig.start(Part::Backup, Host::B, &[]);
    let named = "frames come from 02:00:00:00:01:0b, not from";
    primary.wait_for_words(named);
    wait_for!(primary, PairEvent::NobodyMet);
    let count = primary.words().iter().filter(|line| line.contains(named)).count();
    assert_eq!(count, 1, "{}", primary.transcript());
    assert_eq!(primary.count(|event| matches!(event, PairEvent::PeerMet)), 0);
}
