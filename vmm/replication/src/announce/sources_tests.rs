use super::super::frames::Announcement;
use super::super::table::Station;
use super::*;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const OTHER_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x57);
const OWN4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

fn mac_only() -> AllowedSources {
    AllowedSources::Vm { card: CARD, ips: Vec::new() }
}

fn with_ips() -> AllowedSources {
    AllowedSources::Vm { card: CARD, ips: vec![OWN4.into(), OWN6.into()] }
}

fn built(announcement: Announcement) -> Vec<u8> {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let length = announcement.build(&mut buffer);
    buffer[..length].to_vec()
}

fn arp(address: Ipv4Addr) -> Vec<u8> {
    built(Announcement::ArpReply { station: Station { mac: CARD, vlan: 0 }, address })
}

fn advert(address: Ipv6Addr) -> Vec<u8> {
    let station = Station { mac: CARD, vlan: 0 };
    built(Announcement::NeighbourAdvert { station, address, router: false })
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &CARD.octets(), &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4(source: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend([10, 9, 9, 7]);
    ethernet(0x0800, &packet)
}

fn ipv6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
    packet.extend(source.octets());
    packet.extend(OWN6.octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// Inserts a VLAN tag.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
}

/// Replaces the Ethernet source.
fn from_other(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&OTHER_MAC.octets());
    frame
}

#[test]
fn frame_of_another_station_is_refused_whatever_it_has() {
    for frame in [arp(OWN4), advert(OWN6), ipv4(OWN4), ethernet(0x88b5, &[1; 46])] {
        for sources in [mac_only(), with_ips()] {
            assert!(sources.allow(&frame), "{frame:02x?}");
            assert!(sources.allow(&tagged(&frame)), "{frame:02x?}");
            assert!(!sources.allow(&from_other(frame.clone())), "{frame:02x?}");
            assert!(!sources.allow(&frame[..13]));
        }
        assert!(AllowedSources::Any.allow(&from_other(frame)));
    }
}

#[test]
fn arp_speaks_only_for_the_card() {
    let mut frame = arp(OWN4);
    // The sender's MAC address in the payload.
    frame[22..28].copy_from_slice(&OTHER_MAC.octets());
    for sources in [mac_only(), with_ips()] {
        assert!(!sources.allow(&frame) && !sources.allow(&tagged(&frame)));
        assert!(!sources.allow(&arp(OWN4)[..40]), "cut short");
    }
    assert!(AllowedSources::Any.allow(&frame));
}

#[test]
fn address_of_another_host_is_refused_if_the_vms_are_known() {
    let frames = [
        (arp(OWN4), arp(GATEWAY4)),
        (ipv4(OWN4), ipv4(GATEWAY4)),
        (advert(OWN6), advert(GATEWAY6)),
        (ipv6(OWN6, 17, &[0; 8]), ipv6(GATEWAY6, 17, &[0; 8])),
    ];
    for (own, gateways) in frames {
        assert!(with_ips().allow(&own) && with_ips().allow(&tagged(&own)), "{own:02x?}");
        assert!(!with_ips().allow(&gateways), "{gateways:02x?}");
        assert!(!with_ips().allow(&tagged(&gateways)), "{gateways:02x?}");
        assert!(mac_only().allow(&gateways), "its addresses are not known");
    }
}

#[test]
fn addresses_of_a_guest_that_has_none_yet_are_allowed() {
    for frame in [
        arp(Ipv4Addr::UNSPECIFIED),
        ipv4(Ipv4Addr::UNSPECIFIED),
        ipv6(Ipv6Addr::UNSPECIFIED, 58, &[135, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(LINK_LOCAL, 17, &[0; 8]),
        advert(LINK_LOCAL),
    ] {
        assert!(with_ips().allow(&frame), "{frame:02x?}");
    }
}

#[test]
fn advertisement_behind_extension_headers_is_found() {
    let target = |address: Ipv6Addr| [&[136, 0, 0, 0, 0, 0, 0, 0][..], &address.octets()].concat();
    let hop_by_hop = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    for (address, is_allowed) in [(OWN6, true), (GATEWAY6, false)] {
        assert_eq!(with_ips().allow(&ipv6(OWN6, 58, &target(address))), is_allowed);
        let behind = [&hop_by_hop(60)[..], &hop_by_hop(58), &target(address)].concat();
        assert_eq!(with_ips().allow(&ipv6(OWN6, 0, &behind)), is_allowed);
    }
    let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
    assert!(!with_ips().allow(&ipv6(OWN6, 60, &endless)));
    assert!(!with_ips().allow(&ipv6(OWN6, 60, &hop_by_hop(58)[..4])), "cut short");
    assert!(!with_ips().allow(&ipv6(OWN6, 58, &target(OWN6)[..20])), "cut short");
}

#[test]
fn what_two_tags_hide_is_refused() {
    for sources in [mac_only(), with_ips()] {
        assert!(!sources.allow(&tagged(&tagged(&arp(OWN4)))));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let frames = [arp(OWN4), advert(OWN6), ipv4(OWN4), ipv6(OWN6, 0, &[0; 40]), tagged(&arp(OWN4))];
    for _ in 0..200_000 {
        let mut frame = frames[random.usize(..frames.len())].clone();
        for _ in 0..random.usize(..4) {
            let at = random.usize(12..frame.len());
            frame[at] = random.u8(..);
        }
        frame.truncate(random.usize(..=frame.len()));
        with_ips().allow(&frame);
        mac_only().allow(&frame);
    }
}
