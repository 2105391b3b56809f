//! [`FrameSender`](netpath::FrameSender) over a veth pair between two namespaces.

use crate::common::lan::*;
use crate::common::*;
use netpath::{FrameSender, PortError, ReceivePath};

#[test]
fn frame_reaches_the_port_of_the_station_with_the_sender_s_address() {
    on_a_lan(|lan| {
        let (a, mut b) = lan.ports(ReceivePath::Ring);
        let sender = lan.in_a(|| FrameSender::open("va", B_MAC).unwrap());
        for n in 0..3 {
            sender.send(&payload(n)).unwrap();
            assert_eq!(expect_frame(&mut b), frame_to(&a, B_MAC, &payload(n)));
        }
    });
}

#[test]
fn sender_on_a_link_that_is_down_fails_and_sends_again_when_it_is_up() {
    on_a_lan(|lan| {
        let (_a, mut b) = lan.ports(ReceivePath::Ring);
        lan.in_a(|| ip("link set va down"));
        let sender = lan.in_a(|| FrameSender::open("va", B_MAC).unwrap());
        assert!(sender.send(&payload(1)).is_err());
        lan.in_a(|| ip("link set va up"));
        wait_until("the link", || sender.send(&payload(2)).is_ok());
        wait_for_state(&mut b, netpath::LinkState::Up);
        sender.send(&payload(3)).unwrap();
        wait_until("a frame", || expect_frame(&mut b)[14..] == payload(3));
    });
}

#[test]
fn interface_that_does_not_exist_or_is_no_ethernet_is_refused() {
    on_a_lan(|lan| {
        let open = |name: &str| lan.in_a(|| FrameSender::open(name, B_MAC)).map(drop);
        assert!(matches!(open("vx"), Err(PortError::InterfaceMissing { .. })));
        assert!(matches!(open("lo"), Err(PortError::NotEthernet { .. })));
        assert!(matches!(open("a/b"), Err(PortError::BadName { .. })));
    });
}
