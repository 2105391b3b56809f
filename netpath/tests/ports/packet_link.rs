//! [`PacketPort`](netpath::PacketPort) and faults of its interface, before and during use.
//!
//! Each test has its own namespaces; all need root.

use std::time::{Duration, Instant};

use crate::common::lan::*;
use crate::common::*;
use netpath::{
    FRAME_MAX, FramePort, LinkState, NicProbe, PacketConfig, PacketPort, PortError, ReceivePath,
    WaitPolicy, Wake,
};

const PATHS: [ReceivePath; 2] = [ReceivePath::Ring, ReceivePath::Calls];

fn refusal(name: &str) -> String {
    PacketPort::open(&PacketConfig::new(name)).unwrap_err().to_string()
}

/// Returns the changes of the link's state since the last call.
fn events(port: &mut PacketPort) -> Vec<LinkState> {
    std::iter::from_fn(|| port.next_link_event()).collect()
}

#[test]
fn each_refusal_says_what_to_do() {
    in_namespace(|| {
        assert_eq!(refusal("eth9"), "interface eth9 does not exist: 'ip link' lists those that do");
        assert_eq!(
            refusal("a/b"),
            "'a/b' is not an interface name: it contains '/', ':', '%', NUL or white space"
        );
        assert_eq!(
            refusal("lo"),
            "lo is not an Ethernet interface: choose one that 'ip link' shows as link/ether"
        );
        ip("tuntap add dev tun0 mode tun");
        assert!(refusal("tun0").starts_with("tun0 is not an Ethernet interface"));
        ip("link add v0 mtu 575 type veth peer name v1");
        assert_eq!(
            refusal("v0"),
            "the MTU of v0 is 575, at least 576 are needed: 'ip link set v0 mtu 1500'"
        );
        ip("link set v0 mtu 576");
        PacketPort::open(&PacketConfig::new("v0")).unwrap();
        // SAFETY: takes no pointers. The raw system call changes this thread's user only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        assert_eq!(
            refusal("v0"),
            "no permission to open a packet socket: run as root or with CAP_NET_RAW"
        );
    });
}

#[test]
fn interface_that_is_down_opens_and_works_once_it_is_up() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (_, mut b) = lan.ports(path);
            ip("link set va down");
            let mut a = lan.open_a(path, WaitPolicy::BLOCK);
            assert_eq!(a.link(), LinkState::Down);
            let frame = frame_to(&a, B_MAC, b"hello");
            for _ in 0..10 {
                send_now(&mut a, &frame);
            }
            assert_eq!((a.stats().tx_dropped, a.stats().tx_frames), (10, 0));
            assert_eq!(a.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);

            ip("link set va up");
            wait_for_state(&mut a, LinkState::Up);
            send_now(&mut a, &frame);
            assert_eq!(expect_frame(&mut b), frame);
            assert_eq!(events(&mut a).last(), Some(&LinkState::Up));
        });
    }
}

#[test]
fn link_down_and_up_again_is_reported_and_passes_frames() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            let (to_b, to_a) = (frame_to(&a, B_MAC, b"to b"), frame_to(&b, A_MAC, b"to a"));
            for round in 1..=3 {
                ip("link set va down");
                // The loss is detected by blocking in one round and by sending in the next.
                if round % 2 == 1 {
                    let start = Instant::now();
                    let wake = a.wait(Some(Duration::from_millis(30))).unwrap();
                    assert_eq!(wake, Wake::Timeout);
                    assert!(
                        start.elapsed() >= Duration::from_millis(30),
                        "the wait lasts until its timeout"
                    );
                } else {
                    send_now(&mut a, &to_b);
                }
                assert_eq!(a.link(), LinkState::Down);
                assert_eq!(a.stats().link_downs, round);
                let dropped = a.stats().tx_dropped;
                send_now(&mut a, &to_b);
                assert_eq!(a.stats().tx_dropped, dropped + 1);
                // The link of a dead peer accepts frames and loses them.
                wait_for_state(&mut b, LinkState::NoCarrier);
                send_now(&mut b, &to_a);

                ip("link set va up");
                wait_for_state(&mut a, LinkState::Up);
                wait_for_state(&mut b, LinkState::Up);
                send_now(&mut a, &to_b);
                assert_eq!(expect_frame(&mut b), to_b);
                send_now(&mut b, &to_a);
                assert_eq!(expect_frame(&mut a), to_a);
                let events = events(&mut a);
                assert_eq!(
                    (events.first(), events.last()),
                    (Some(&LinkState::Down), Some(&LinkState::Up))
                );
            }
        });
    }
}

#[test]
fn link_found_up_again_by_a_frame_alone() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        ip("link set va down");
        assert_eq!(a.check_link(), LinkState::Down);
        ip("link set va up");
        wait_for_state(&mut b, LinkState::Up);
        assert_eq!(a.link(), LinkState::Down, "the state was not polled");
        let frame = frame_to(&b, A_MAC, b"anybody there?");
        wait_until("the link to be up", || {
            send_now(&mut b, &frame);
            a.receive_with(|_| ()).unwrap().is_some() && a.link() == LinkState::Up
        });
    });
}

/// The link goes down and up again without being polled. The first frame may be refused, which reveals
/// the flap.
#[test]
fn unobserved_link_flap_is_detected() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        ip("link set va down");
        ip("link set va up");
        wait_for_state(&mut b, LinkState::Up);
        let frame = frame_to(&a, B_MAC, b"x");
        for _ in 0..3 {
            send_now(&mut a, &frame);
        }
        assert_eq!(expect_frame(&mut b), frame);
        let stats = a.stats();
        assert_eq!((stats.tx_dropped, stats.tx_frames, stats.link_downs), (1, 2, 1));
        wait_for_state(&mut a, LinkState::Up);
        // The link may already be up again without a carrier.
        let first = events(&mut a).first().copied();
        assert!(matches!(first, Some(LinkState::Down | LinkState::NoCarrier)), "{first:?}");
    });
}

#[test]
fn interface_deleted_in_use_is_gone_permanently_and_does_not_hang() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            let frame = frame_to(&a, B_MAC, b"x");
            let words = frame_to(&b, A_MAC, b"last words");
            send_now(&mut b, &words);
            ip("link delete va");
            // Frames that had arrived before can still be received.
            let last = a.receive_with(|frame| frame[14..].to_vec()).unwrap();
            assert!(last.is_none_or(|frame| frame == b"last words"));
            let error = a.wait(Some(HANG_MAX)).unwrap_err();
            assert_eq!(
                error.to_string(),
                "interface va was deleted while in use: create it again and reopen the port"
            );
            assert_eq!(events(&mut a), [LinkState::Gone]);
            for _ in 0..200 {
                a.send(&frame).unwrap();
            }
            a.flush().unwrap();
            assert_eq!(a.receive(&mut [0; FRAME_MAX]).unwrap(), None);
            assert_eq!((a.stats().tx_dropped, a.stats().link_downs), (200, 1));
            assert!(matches!(a.wait(None), Err(PortError::InterfaceGone { .. })));
            // The other end of the pair was deleted with it.
            send_now(&mut b, &frame);
            assert_eq!(b.link(), LinkState::Gone);

            // A new interface with the same name is a different one: only a new port uses it.
            lan.join();
            assert_eq!(a.check_link(), LinkState::Gone);
            let (mut a, mut b) = lan.ports(path);
            send_now(&mut a, &frame);
            assert_eq!(expect_frame(&mut b), frame);
        });
    }
}

#[test]
fn interface_renamed_or_given_another_address_in_use_stays_in_use() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        ip("link set va down");
        ip("link set va name uplink");
        ip("link set uplink address 02:00:00:00:00:cc");
        ip("link set uplink up");
        wait_for_state(&mut a, LinkState::Up);
        wait_for_state(&mut b, LinkState::Up);
        assert_eq!(a.mac().to_string(), "02:00:00:00:00:cc");
        let frame = frame_to(&b, a.mac(), b"to the new address");
        send_now(&mut b, &frame);
        assert_eq!(expect_frame(&mut a), frame);
    });
}

#[test]
fn interface_moved_away_and_back_is_gone_for_its_port() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            let index = a.index();
            lan.move_a_away_and_back();
            let frame = frame_to(&a, B_MAC, b"x");
            send_now(&mut a, &frame);
            // The kernel has unbound the port's socket, although the index exists again.
            assert_eq!(a.link(), LinkState::Gone);
            assert_eq!(a.check_link(), LinkState::Gone);
            let mut a = lan.open_a(path, WaitPolicy::BLOCK);
            assert_eq!(a.index(), index, "the case that is tested");
            wait_for_state(&mut a, LinkState::Up);
            wait_for_state(&mut b, LinkState::Up);
            send_now(&mut a, &frame);
            assert_eq!(expect_frame(&mut b), frame);
        });
    }
}

#[test]
fn own_frames_that_come_back_are_counted_as_such() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        let frame = frame_to(&a, B_MAC, b"there and back");
        send_now(&mut a, &frame);
        let frame = expect_frame(&mut b);
        send_now(&mut b, &frame);
        wait_until("the frame to come back", || {
            assert_eq!(a.receive(&mut [0; FRAME_MAX]).unwrap(), None);
            a.stats().rx_own == 1
        });
        assert_eq!(a.stats().rx_foreign_mac, 0);
    });
}

#[test]
fn nic_probe_finds_interface_of_name_and_of_index() {
    on_a_lan(|lan| {
        assert!(NicProbe::open("a/b").is_err());
        let mut probe = NicProbe::open("va").unwrap();
        let first = probe.by_name().unwrap().unwrap();
        assert_eq!((first.mac, first.state), (A_MAC, LinkState::Up));
        let mut state = || probe.by_name().unwrap().map(|nic| nic.state);
        lan.in_b(|| ip("link set vb down"));
        assert_eq!(state(), Some(LinkState::NoCarrier));
        lan.in_b(|| ip("link set vb up"));
        ip("link set va down");
        assert_eq!(state(), Some(LinkState::Down));
        ip("link add br0 type bridge");
        ip("link set va up master br0");
        assert_eq!(state(), Some(LinkState::BridgePort));
        ip("link set va nomaster");
        ip("link set va address 02:00:00:00:00:cc");
        assert_eq!(probe.by_name().unwrap().unwrap().mac.to_string(), "02:00:00:00:00:cc");
        ip("link set va down");
        ip("link set va name uplink");
        assert_eq!(probe.by_name().unwrap(), None);
        assert_eq!(probe.by_index(first.index).unwrap().unwrap().index, first.index);
        ip("link del uplink");
        assert_eq!(probe.by_index(first.index).unwrap(), None);
        lan.join();
        let second = probe.by_name().unwrap().unwrap();
        assert_ne!(second.index, first.index);
        // The loopback device has an Ethernet address of zeros, a tun device has none.
        ip("tuntap add dev tun0 mode tun");
        assert_eq!(NicProbe::open("tun0").unwrap().by_name().unwrap(), None);
    });
}
