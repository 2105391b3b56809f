use super::*;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const CARD_STATION: Station = Station { mac: CARD, vlan: 0 };

fn ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 9, number)
}

fn ipv6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number)
}

/// A station that is not the card.
fn station(number: u8) -> Station {
    Station { mac: MacAddr(2, 0, 0, 0, 0, number), vlan: 0 }
}

fn announce(addresses: &mut GuestAddresses, announcement: Announcement) {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let length = announcement.build(&mut buffer);
    addresses.learn(&buffer[..length]);
}

/// The guest claims an address by ARP.
fn claim(addresses: &mut GuestAddresses, station: Station, address: Ipv4Addr) {
    announce(addresses, Announcement::ArpReply { station, address });
}

fn claim_ipv6(addresses: &mut GuestAddresses, address: Ipv6Addr, router: bool) {
    let station = CARD_STATION;
    announce(addresses, Announcement::NeighbourAdvert { station, address, router });
}

/// The guest sends an IPv4 packet.
fn send(addresses: &mut GuestAddresses, station: Station, source: Ipv4Addr) {
    let mut frame = vec![0xff; 6];
    frame.extend(station.mac.octets());
    frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend([10, 9, 9, 1]);
    addresses.learn(&frame);
}

/// The guest sends an IPv6 packet.
fn send_ipv6(addresses: &mut GuestAddresses, source: Ipv6Addr) {
    let mut frame = vec![0xff; 6];
    frame.extend(CARD.octets());
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64]);
    frame.extend(source.octets());
    frame.extend(ipv6(1).octets());
    addresses.learn(&frame);
}

/// The guest sends an ARP request for `target`.
fn ask(addresses: &mut GuestAddresses, station: Station, sender: Ipv4Addr, target: Ipv4Addr) {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let length = Announcement::ArpRequest { station, address: sender }.build(&mut buffer);
    let at = if station.vlan == 0 { 38 } else { 42 };
    buffer[at..at + 4].copy_from_slice(&target.octets());
    addresses.learn(&buffer[..length]);
}

/// Last bytes of the IPv4 addresses that would be announced.
fn announced(addresses: &GuestAddresses) -> Vec<u8> {
    addresses.ipv4().map(|entry| entry.address.octets()[3]).collect()
}

fn announced_ipv6(addresses: &GuestAddresses) -> Vec<u8> {
    addresses.ipv6().map(|entry| entry.address.octets()[15]).collect()
}

fn announced_stations(addresses: &GuestAddresses) -> Vec<MacAddr> {
    addresses.stations().map(|entry| entry.address).collect()
}

#[test]
fn silent_guest_is_announced_by_its_card() {
    let addresses = GuestAddresses::new(CARD);
    let all: Vec<_> = addresses.announcements().collect();
    assert_eq!(all, [Announcement::Rarp { station: CARD_STATION }]);
}

#[test]
fn announcements_cover_each_kind_of_address() {
    let mut addresses = GuestAddresses::new(CARD);
    claim(&mut addresses, CARD_STATION, ipv4(2));
    claim_ipv6(&mut addresses, ipv6(2), true);
    let (station, address) = (CARD_STATION, ipv4(2));
    let expected = [
        Announcement::Rarp { station },
        Announcement::ArpRequest { station, address },
        Announcement::ArpReply { station, address },
        Announcement::NeighbourAdvert { station, address: ipv6(2), router: true },
    ];
    assert_eq!(addresses.announcements().collect::<Vec<_>>(), expected);
}

#[test]
fn claimed_address_outranks_seen_address_of_same_station() {
    let mut addresses = GuestAddresses::new(CARD);
    send(&mut addresses, CARD_STATION, ipv4(2));
    send(&mut addresses, CARD_STATION, ipv4(3));
    assert_eq!(announced(&addresses), [3, 2]);
    claim(&mut addresses, CARD_STATION, ipv4(4));
    assert_eq!(announced(&addresses), [4]);
    // A seen address of another station is announced: that station has claimed none.
    send(&mut addresses, station(1), ipv4(5));
    assert_eq!(announced(&addresses), [5, 4]);
    // An IPv4 claim does not affect IPv6 addresses.
    send_ipv6(&mut addresses, ipv6(6));
    assert_eq!(announced_ipv6(&addresses), [6]);
    claim_ipv6(&mut addresses, ipv6(7), false);
    assert_eq!(announced_ipv6(&addresses), [7]);
    claim_ipv6(&mut addresses, ipv6(6), false);
    assert_eq!(announced_ipv6(&addresses), [6, 7]);
}

#[test]
fn full_table_evicts_least_recently_used_address() {
    let mut addresses = GuestAddresses::new(CARD);
    for number in 1..=8 {
        claim(&mut addresses, CARD_STATION, ipv4(number));
        claim_ipv6(&mut addresses, ipv6(number.into()), false);
    }
    send(&mut addresses, CARD_STATION, ipv4(1));
    claim(&mut addresses, CARD_STATION, ipv4(9));
    assert_eq!(announced(&addresses), [9, 1, 8, 7, 6, 5, 4, 3]);
    claim_ipv6(&mut addresses, ipv6(9), false);
    assert_eq!(announced_ipv6(&addresses), [9, 8, 7, 6, 5, 4, 3, 2]);
    assert_eq!(addresses.announcements().count(), 1 + 2 * 8 + 8);

    for number in 1..=4 {
        claim(&mut addresses, station(number), ipv4(9));
    }
    let expected = [4, 3, 2, 1].map(|number| station(number).mac);
    assert_eq!(announced_stations(&addresses), expected);
}

#[test]
fn forged_sources_do_not_evict_claimed_addresses() {
    let mut addresses = GuestAddresses::new(CARD);
    send(&mut addresses, CARD_STATION, ipv4(200));
    claim(&mut addresses, CARD_STATION, ipv4(2));
    claim(&mut addresses, CARD_STATION, ipv4(3));
    for number in 100..200 {
        send(&mut addresses, CARD_STATION, ipv4(number));
    }
    assert_eq!(announced(&addresses), [3, 2]);
    // The newest forged addresses fill the free entries, and later claims evict them.
    let kept: Vec<u8> = addresses.ipv4.iter().map(|entry| entry.address.octets()[3]).collect();
    assert_eq!(kept, [199, 198, 197, 196, 195, 194, 3, 2]);
    for number in 4..=9 {
        claim(&mut addresses, CARD_STATION, ipv4(number));
    }
    send(&mut addresses, CARD_STATION, ipv4(50));
    assert_eq!(announced(&addresses), [9, 8, 7, 6, 5, 4, 3, 2]);
}

#[test]
fn address_follows_the_station_that_claims_it() {
    let mut addresses = GuestAddresses::new(CARD);
    let at = |addresses: &GuestAddresses| addresses.ipv4().next().unwrap().station;
    send(&mut addresses, station(1), ipv4(2));
    send(&mut addresses, station(2), ipv4(2));
    assert_eq!(at(&addresses), station(2));
    claim(&mut addresses, CARD_STATION, ipv4(2));
    assert_eq!(at(&addresses), CARD_STATION);
    send(&mut addresses, station(1), ipv4(2));
    assert_eq!(at(&addresses), CARD_STATION);
    claim(&mut addresses, station(3), ipv4(2));
    assert_eq!(at(&addresses), station(3));
    assert_eq!(announced(&addresses), [2]);
}

#[test]
fn address_in_two_vlans_has_two_entries() {
    let mut addresses = GuestAddresses::new(CARD);
    for vlan in [0, 5] {
        claim(&mut addresses, Station { mac: CARD, vlan }, ipv4(2));
    }
    assert_eq!(announced(&addresses), [2, 2]);
    let vlans: Vec<u16> = addresses.stations().map(|entry| entry.station.vlan).collect();
    assert_eq!(vlans, [5, 0]);
    ask(&mut addresses, Station { mac: CARD, vlan: 5 }, ipv4(3), ipv4(2));
    let left: Vec<_> = addresses.ipv4().map(|e| (e.address, e.station.vlan)).collect();
    assert_eq!(left, [(ipv4(3), 5), (ipv4(2), 0)]);
}

#[test]
fn address_that_the_guest_resolves_is_removed() {
    let mut addresses = GuestAddresses::new(CARD);
    for number in 2..=4 {
        claim(&mut addresses, CARD_STATION, ipv4(number));
    }
    ask(&mut addresses, CARD_STATION, ipv4(4), ipv4(3));
    assert_eq!(announced(&addresses), [4, 2]);
    ask(&mut addresses, CARD_STATION, Ipv4Addr::UNSPECIFIED, ipv4(2));
    assert_eq!(announced(&addresses), [4]);
    // A guest with two stations resolves an address of its other station: that one stays.
    claim(&mut addresses, station(1), ipv4(5));
    ask(&mut addresses, station(1), ipv4(5), ipv4(4));
    assert_eq!(announced(&addresses), [5, 4]);

    claim_ipv6(&mut addresses, ipv6(2), false);
    let mut solicit = [0; ANNOUNCEMENT_BYTES_MAX];
    let station = CARD_STATION;
    let advert = Announcement::NeighbourAdvert { station, address: ipv6(3), router: false };
    let length = advert.build(&mut solicit);
    solicit[54] = 135;
    solicit[62..78].copy_from_slice(&ipv6(2).octets());
    addresses.learn(&solicit[..length]);
    assert_eq!(announced_ipv6(&addresses), [3]);
}

#[test]
fn router_flag_is_kept_until_an_advert_clears_it() {
    let mut addresses = GuestAddresses::new(CARD);
    let router = |addresses: &GuestAddresses| addresses.ipv6().next().unwrap().router;
    claim_ipv6(&mut addresses, ipv6(2), true);
    send_ipv6(&mut addresses, ipv6(2));
    assert!(router(&addresses));
    claim_ipv6(&mut addresses, ipv6(2), false);
    assert!(!router(&addresses));
}

#[test]
fn aged_address_is_announced_only_after_it_is_used_again() {
    let mut addresses = GuestAddresses::new(CARD);
    claim(&mut addresses, CARD_STATION, ipv4(2));
    claim(&mut addresses, station(1), ipv4(3));
    // The seen address 4 is not announced while the claim of 2 is fresh.
    send(&mut addresses, CARD_STATION, ipv4(4));
    for _ in 0..GUEST_ADDRESS_AGE_FRAMES_MAX - 2 {
        send(&mut addresses, CARD_STATION, ipv4(4));
    }
    assert_eq!(announced(&addresses), [3, 2]);
    send(&mut addresses, CARD_STATION, ipv4(4));
    assert_eq!(announced(&addresses), [4, 3]);
    assert_eq!(announced_stations(&addresses), [CARD, station(1).mac]);
    send(&mut addresses, CARD_STATION, ipv4(4));
    assert_eq!(announced(&addresses), [4]);
    assert_eq!(announced_stations(&addresses), [CARD]);
    send(&mut addresses, station(1), ipv4(3));
    assert_eq!(announced(&addresses), [3, 4]);
}

#[test]
fn same_frames_give_equal_state_and_another_order_does_not() {
    let mut a = GuestAddresses::new(CARD);
    let mut b = GuestAddresses::new(CARD);
    for addresses in [&mut a, &mut b] {
        claim(addresses, CARD_STATION, ipv4(2));
        send_ipv6(addresses, ipv6(2));
    }
    assert_eq!(a, b);
    // The same addresses, but used in a different order.
    send(&mut a, CARD_STATION, ipv4(2));
    send_ipv6(&mut a, ipv6(2));
    send_ipv6(&mut b, ipv6(2));
    send(&mut b, CARD_STATION, ipv4(2));
    assert_ne!(a, b);
}

#[test]
#[should_panic(expected = "ff:ff:ff:ff:ff:ff is no network card's address")]
fn new_with_broadcast_address_panics() {
    GuestAddresses::new(MacAddr::broadcast());
}
