//! The state of a tap and of its uplink, as the kernel of this host describes it.

use crate::common::*;
use netpath::{BridgeSocket, LanHealth, LanProbe, MacAddr, PortError, TapState, Uplink};
use std::time::{Duration, Instant};

/// Asks until `expected` is the answer. Most changes are visible at once; the state of a bridge's port follows
/// its carrier with a delay.
fn expect(probe: &mut LanProbe, tap: TapState, uplink: Uplink) {
    let mut last = None;
    let expected = LanHealth { tap, uplink, answers: true };
    let start = Instant::now();
    while last != Some(expected) {
        assert!(start.elapsed() < HANG_MAX, "{expected:?} expected, {last:?} found");
        last = Some(probe.ask().unwrap());
    }
}

/// Creates the bridge br0 with the ports tap0 and eth0; the other end of eth0 is wire0.
fn make_bridge() {
    ip("link add br0 type bridge stp_state 0 forward_delay 0");
    ip("link add eth0 type veth peer name wire0");
    ip("link set tap0 master br0");
    ip("link set br0 up");
}

#[test]
fn tap_without_bridge_is_up_down_without_carrier_and_gone() {
    in_namespace(|| {
        make_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        expect(&mut probe, TapState::NoCarrier, Uplink::NoBridge);
        let port = open_tap();
        // The answer is the current state: it does not wait for the kernel's link watch.
        assert_eq!(probe.ask().unwrap().tap, TapState::Up);
        ip("link set tap0 down");
        expect(&mut probe, TapState::Down, Uplink::NoBridge);
        ip("link set tap0 up");
        expect(&mut probe, TapState::Up, Uplink::NoBridge);
        ip("link set tap0 carrier off");
        expect(&mut probe, TapState::NoCarrier, Uplink::NoBridge);
        ip("link set tap0 carrier on");
        expect(&mut probe, TapState::Up, Uplink::NoBridge);
        ip("link set tap0 name vm0");
        expect(&mut probe, TapState::Up, Uplink::NoBridge);
        drop(port);
        ip("link del vm0");
        expect(&mut probe, TapState::Gone, Uplink::NoBridge);
        ip("tuntap add dev tap0 mode tap");
        expect(&mut probe, TapState::Down, Uplink::NoBridge);
    });
}

#[test]
fn address_of_vm_on_the_bridge_or_a_port_of_it_is_named() {
    in_namespace(|| {
        make_tap();
        make_bridge();
        ip("link set eth0 master br0 up");
        ip("link set wire0 up");
        let _port = open_tap();
        let vm = MacAddr(0x52, 0x54, 0, 0x77, 0, 2);
        let mut probe = LanProbe::open("tap0").unwrap().for_vm(vm);
        expect(&mut probe, TapState::Up, Uplink::Up);
        for (interface, other) in [("tap0", 3), ("br0", 4), ("eth0", 5)] {
            ip(&format!("link set {interface} address 52:54:00:77:00:02"));
            expect(&mut probe, TapState::AddressTaken, Uplink::Up);
            ip(&format!("link set {interface} address 52:54:00:77:00:0{other}"));
            expect(&mut probe, TapState::Up, Uplink::Up);
        }
    });
}

#[test]
fn change_ends_the_wait_for_one() {
    in_namespace(|| {
        make_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        let mut wait = |millis| {
            let start = Instant::now();
            probe.wait_for_change(Duration::from_millis(millis));
            start.elapsed() >= Duration::from_millis(millis)
        };
        // The kernel tells late that the tap has no carrier.
        wait_until("no more changes", || wait(1500));
        ip("link set tap0 down");
        assert!(!wait(60_000));
        wait_until("no more changes", || wait(1500));
        ip("link del tap0");
        assert!(!wait(60_000));
    });
}

#[test]
fn uplink_of_bridge_is_followed() {
    in_namespace(|| {
        make_tap();
        make_bridge();
        let _port = open_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        expect(&mut probe, TapState::Up, Uplink::OnlyPort);
        ip("link set eth0 up master br0");
        expect(&mut probe, TapState::Up, Uplink::Down);
        ip("link set wire0 up");
        expect(&mut probe, TapState::Up, Uplink::Up);
        ip("link set wire0 down");
        expect(&mut probe, TapState::Up, Uplink::Down);
        ip("link set wire0 up");
        expect(&mut probe, TapState::Up, Uplink::Up);
        ip("link set eth0 down");
        expect(&mut probe, TapState::Up, Uplink::Down);
        // Another VM's tap is no uplink.
        ip("tuntap add dev tap1 mode tap");
        ip("link set tap1 up master br0");
        expect(&mut probe, TapState::Up, Uplink::Down);
        ip("link set eth0 up");
        expect(&mut probe, TapState::Up, Uplink::Up);
        ip("link set br0 down");
        expect(&mut probe, TapState::Blocked, Uplink::Down);
        ip("link set br0 up");
        expect(&mut probe, TapState::Up, Uplink::Up);
        ip("link set tap0 nomaster");
        expect(&mut probe, TapState::Up, Uplink::LeftBridge);
        ip("link set tap0 master br0");
        expect(&mut probe, TapState::Up, Uplink::Up);
        ip("link del eth0");
        ip("link del tap1");
        expect(&mut probe, TapState::Up, Uplink::Down);
        ip("link del br0");
        expect(&mut probe, TapState::Up, Uplink::LeftBridge);
    });
}

#[test]
fn spanning_tree_that_still_listens_blocks_tap() {
    in_namespace(|| {
        make_tap();
        make_bridge();
        ip("link set br0 type bridge forward_delay 3000 stp_state 1");
        ip("link set eth0 up master br0");
        ip("link set wire0 up");
        let _port = open_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        wait_until("the bridge to listen", || probe.ask().unwrap().tap == TapState::Blocked);
        assert!(!probe.ask().unwrap().passes_frames());
    });
}

#[test]
fn answer_about_bridge_with_many_ports_is_complete() {
    in_namespace(|| {
        make_tap();
        make_bridge();
        for number in 0..100 {
            ip(&format!("link add d{number} type veth peer name e{number}"));
            ip(&format!("link set d{number} master br0"));
        }
        ip("link set e99 up");
        let _port = open_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        expect(&mut probe, TapState::Up, Uplink::Down);
        ip("link set d99 up");
        expect(&mut probe, TapState::Up, Uplink::Up);
    });
}

#[test]
fn probe_of_missing_tap_says_so_and_probe_stays_in_its_namespace() {
    in_namespace(|| {
        let error = LanProbe::open("tap0").unwrap_err();
        assert!(matches!(error, PortError::InterfaceMissing { name } if name == "tap0"));
        make_tap();
        let mut probe = LanProbe::open("tap0").unwrap();
        // The socket belongs to this namespace, whatever the namespace of the thread that asks.
        in_namespace(move || expect(&mut probe, TapState::NoCarrier, Uplink::NoBridge));
    });
}

/// Every carrier is up, and no frame passes.
#[test]
fn address_that_can_not_be_reached_is_noticed_and_found_again() {
    in_namespace(|| {
        make_tap();
        make_bridge();
        ip("link set eth0 up master br0");
        // The switch, and a station behind it. It must not answer through an interface that lacks the address.
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
        ip("link add br1 type bridge stp_state 0 forward_delay 0");
        ip("link set wire0 up master br1");
        ip("link set br1 up");
        ip("addr add 10.77.0.1/24 dev br1");
        let _port = open_tap();
        let open = Box::new(|| BridgeSocket::open("tap0"));
        let mut probe = LanProbe::open("tap0").unwrap().with_address([10, 77, 0, 1].into(), open);
        let mut ask = || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            probe.ask().unwrap()
        };
        let start = Instant::now();
        while start.elapsed() < std::time::Duration::from_secs(3) {
            assert!(ask().answers, "the station answers");
        }
        ip("link set wire0 nomaster");
        wait_until("silence", || !ask().answers);
        let silent = ask();
        assert_eq!((silent.tap, silent.uplink), (TapState::Up, Uplink::Up));
        ip("link set wire0 master br1");
        wait_until("an answer", || ask().answers);
    });
}
