use super::super::frames::Announcement;
use super::*;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const STATION: Station = Station { mac: MAC, vlan: 0 };
const IPV4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const OTHER_IPV4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 7);
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
const OTHER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 7);

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC.octets());
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn arp_bytes(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation];
    bytes.extend(MAC.octets());
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

fn ipv4_bytes(source: Ipv4Addr, payload: usize) -> Vec<u8> {
    let total = 20 + payload as u8;
    let mut bytes = vec![0x45, 0, 0, total, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(OTHER_IPV4.octets());
    bytes.resize(usize::from(total), 0);
    bytes
}

fn ipv6_bytes(source: Ipv6Addr, hop_limit: u8, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, hop_limit];
    bytes.extend(source.octets());
    bytes.extend(OTHER_IPV6.octets());
    bytes.extend(payload);
    bytes
}

/// A Neighbour Discovery message of type `kind`, with `target` where that type has one.
fn ndp_bytes(kind: u8, flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend(target.octets());
    bytes
}

fn station_only() -> Observation {
    Observation { station: STATION, source: None, router: None, asks_for: None }
}

fn source(address: impl Into<IpAddr>, evidence: Evidence) -> Observation {
    Observation { source: Some((address.into(), evidence)), ..station_only() }
}

fn parse_ndp(source: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Observation {
    parse(&ethernet(0x86dd, &ipv6_bytes(source, hop_limit, 58, message))).unwrap()
}

#[test]
fn frame_of_any_kind_gives_its_station() {
    // Spanning tree (with a length field), an unknown EtherType, no payload.
    for (ethertype, payload) in [(38, &[0x42; 38][..]), (0x88b5, &[1; 46]), (0x0800, &[])] {
        assert_eq!(parse(&ethernet(ethertype, payload)), Some(station_only()));
    }
    assert_eq!(parse(&ethernet(0x0800, &[])[..13]), None);
    for mac in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let mut frame = ethernet(0x0800, &ipv4_bytes(IPV4, 0));
        frame[6..12].copy_from_slice(&mac);
        assert_eq!(parse(&frame), None);
    }
}

#[test]
fn arp_sender_claims_its_address() {
    let parse_arp = |bytes: &[u8]| parse(&ethernet(0x0806, bytes)).unwrap();
    let claimed = source(IPV4, Evidence::Claimed);
    let asking = Observation { asks_for: Some(OTHER_IPV4.into()), ..claimed };
    assert_eq!(parse_arp(&arp_bytes(1, IPV4, OTHER_IPV4)), asking);
    assert_eq!(parse_arp(&arp_bytes(1, IPV4, IPV4)), claimed);
    assert_eq!(parse_arp(&arp_bytes(2, IPV4, OTHER_IPV4)), claimed);
    // A probe (RFC 5227) claims nothing.
    let probe = Observation { asks_for: Some(IPV4.into()), ..station_only() };
    assert_eq!(parse_arp(&arp_bytes(1, Ipv4Addr::UNSPECIFIED, IPV4)), probe);
    assert_eq!(parse_arp(&arp_bytes(3, IPV4, IPV4)), station_only());
    // Truncated, and with each field of the fixed part changed.
    let whole = arp_bytes(2, IPV4, OTHER_IPV4);
    assert_eq!(parse_arp(&whole[..27]), station_only());
    for index in (0..8).chain(8..14) {
        let mut bytes = whole.clone();
        bytes[index] ^= 0x10;
        assert_eq!(parse_arp(&bytes), station_only(), "byte {index}");
    }
}

#[test]
fn ipv4_source_is_seen() {
    let parse_ip = |bytes: &[u8]| parse(&ethernet(0x0800, bytes)).unwrap();
    let whole = ipv4_bytes(IPV4, 8);
    assert_eq!(parse_ip(&whole), source(IPV4, Evidence::Seen));
    let padded = [&whole[..], &[0; 18]].concat();
    assert_eq!(parse_ip(&padded), source(IPV4, Evidence::Seen));
    for length in [0, 19, 20, 27] {
        assert_eq!(parse_ip(&whole[..length]), station_only(), "{length} bytes");
    }
    // Version 5, a header of 16 bytes, a total length within the header.
    for (index, byte) in [(0, 0x55), (0, 0x44), (3, 19)] {
        let mut bytes = whole.clone();
        bytes[index] = byte;
        assert_eq!(parse_ip(&bytes), station_only());
    }
    for address in
        [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]]
    {
        assert_eq!(parse_ip(&ipv4_bytes(address.into(), 8)), station_only(), "{address:?}");
    }
    for address in [[1, 0, 0, 1], [126, 0, 0, 1], [169, 254, 0, 1], [223, 0, 0, 1]] {
        let seen = source(Ipv4Addr::from(address), Evidence::Seen);
        assert_eq!(parse_ip(&ipv4_bytes(address.into(), 8)), seen);
    }
}

#[test]
fn ipv6_source_is_seen() {
    let parse_ip = |bytes: &[u8]| parse(&ethernet(0x86dd, bytes)).unwrap();
    let whole = ipv6_bytes(IPV6, 64, 17, &[0; 8]);
    assert_eq!(parse_ip(&whole), source(IPV6, Evidence::Seen));
    for length in [0, 39, 40, 47] {
        assert_eq!(parse_ip(&whole[..length]), station_only(), "{length} bytes");
    }
    let mut version_4 = whole;
    version_4[0] = 0x40;
    assert_eq!(parse_ip(&version_4), station_only());
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    for address in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, all_nodes] {
        assert_eq!(parse_ip(&ipv6_bytes(address, 64, 17, &[])), station_only(), "{address}");
    }
}

#[test]
fn neighbour_discovery_claims_its_source() {
    let claimed = source(IPV6, Evidence::Claimed);
    assert_eq!(parse_ndp(IPV6, 255, &[133, 0, 0, 0, 0, 0, 0, 0]), claimed);
    let solicit = ndp_bytes(135, 0, OTHER_IPV6);
    let asking = Observation { asks_for: Some(OTHER_IPV6.into()), ..claimed };
    assert_eq!(parse_ndp(IPV6, 255, &solicit), asking);
    // Duplicate address detection (RFC 4862 section 5.4.2) claims nothing.
    let detection = Observation { asks_for: Some(IPV6.into()), ..station_only() };
    assert_eq!(parse_ndp(Ipv6Addr::UNSPECIFIED, 255, &ndp_bytes(135, 0, IPV6)), detection);

    let router = |router| Observation { router: Some(router), ..claimed };
    assert_eq!(parse_ndp(IPV6, 255, &ndp_bytes(136, 0x20, IPV6)), router(false));
    assert_eq!(parse_ndp(IPV6, 255, &ndp_bytes(136, 0xa0, IPV6)), router(true));
    let router_advert = [&[134, 0, 0, 0][..], &[0; 12]].concat();
    assert_eq!(parse_ndp(IPV6, 255, &router_advert), router(true));

    // Forwarded, with another code, of another type, or truncated: treated as an ordinary packet.
    let seen = source(IPV6, Evidence::Seen);
    assert_eq!(parse_ndp(IPV6, 254, &solicit), seen);
    let mut code_1 = solicit.clone();
    code_1[1] = 1;
    assert_eq!(parse_ndp(IPV6, 255, &code_1), seen);
    assert_eq!(parse_ndp(IPV6, 255, &ndp_bytes(137, 0, OTHER_IPV6)), seen);
    for (kind, length) in [(133, 8), (134, 16), (135, 24), (136, 24)] {
        let message = ndp_bytes(kind, 0, OTHER_IPV6);
        assert_eq!(parse_ndp(IPV6, 255, &message[..length - 1]), seen, "type {kind}");
        assert_ne!(parse_ndp(IPV6, 255, &message[..length]), seen, "type {kind}");
    }
}

#[test]
fn tag_is_part_of_the_station() {
    let tagged = |tag: u16, ethertype: u16| {
        let bytes = [&tag.to_be_bytes()[..], &ethertype.to_be_bytes(), &ipv4_bytes(IPV4, 8)];
        ethernet(0x8100, &bytes.concat())
    };
    // Only the VLAN identifier counts; priority and drop eligibility do not.
    for (tag, vlan) in [(5, 5), (0xf005, 5), (0xe000, 0), (0xffe, 0xffe)] {
        let station = Station { mac: MAC, vlan };
        let expected = Observation { station, ..source(IPV4, Evidence::Seen) };
        assert_eq!(parse(&tagged(tag, 0x0800)), Some(expected));
    }
    assert_eq!(parse(&tagged(0xfff, 0x0800)), None);
    // Two tags, or a provider tag.
    for ethertype in [0x8100, 0x88a8, 0x9100] {
        assert_eq!(parse(&tagged(5, ethertype)), None);
    }
    for ethertype in [0x88a8, 0x9100] {
        assert_eq!(parse(&ethernet(ethertype, &[0; 50])), None);
    }
    for length in 14..18 {
        assert_eq!(parse(&tagged(5, 0x0800)[..length]), None, "{length} bytes");
    }
}

/// Parsing an announcement of an address gives that address.
#[test]
fn announcements_parse_to_their_addresses() {
    let station = Station { mac: MAC, vlan: 7 };
    let parse_announcement = |announcement: Announcement| {
        let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
        let length = announcement.build(&mut buffer);
        parse(&buffer[..length]).unwrap()
    };
    let claimed = |address: IpAddr| Observation { station, ..source(address, Evidence::Claimed) };
    let (ipv4, ipv6) = (IPV4, IPV6);
    assert_eq!(
        parse_announcement(Announcement::Rarp { station }),
        Observation { station, ..station_only() }
    );
    let request = Announcement::ArpRequest { station, address: ipv4 };
    assert_eq!(parse_announcement(request), claimed(ipv4.into()));
    assert_eq!(
        parse_announcement(Announcement::ArpReply { station, address: ipv4 }),
        claimed(ipv4.into())
    );
    let advert = Announcement::NeighbourAdvert { station, address: ipv6, router: true };
    assert_eq!(
        parse_announcement(advert),
        Observation { router: Some(true), ..claimed(ipv6.into()) }
    );
}
