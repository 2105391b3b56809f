use pnet::packet::Packet;
use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::ipv6::Ipv6Packet;

use super::*;

const MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const UNTAGGED: Station = Station { mac: MAC, vlan: 0 };
const TAGGED: Station = Station { mac: MAC, vlan: 0x123 };
const IPV4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);

/// The frame with this name in the fixture, as hexadecimal digits.
fn golden(name: &str) -> String {
    let fixture = include_str!("../../fixtures/announcements.hex");
    let mut lines = fixture.lines().skip_while(|line| *line != format!("# = {name}"));
    lines.next().unwrap_or_else(|| panic!("no {name}"));
    lines.take_while(|line| !line.starts_with('#')).collect()
}

/// Builds the frame into a buffer that is not zeroed.
fn build(announcement: Announcement) -> Vec<u8> {
    let mut buffer = [0xee; ANNOUNCEMENT_BYTES_MAX + 10];
    let length = announcement.build(&mut buffer);
    assert!(buffer[ANNOUNCEMENT_BYTES_MAX..].iter().all(|byte| *byte == 0xee));
    buffer[..length].to_vec()
}

fn hex(announcement: Announcement) -> String {
    build(announcement).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn frames_are_golden() {
    let (station, address) = (UNTAGGED, IPV4);
    assert_eq!(hex(Announcement::Rarp { station }), golden("rarp"));
    assert_eq!(hex(Announcement::ArpRequest { station, address }), golden("arp_request"));
    assert_eq!(hex(Announcement::ArpReply { station, address }), golden("arp_reply"));
    let advert = Announcement::NeighbourAdvert { station, address: IPV6, router: false };
    assert_eq!(hex(advert), golden("neighbour_advert"));

    let station = TAGGED;
    assert_eq!(hex(Announcement::ArpRequest { station, address }), golden("arp_request_tagged"));
    let advert = Announcement::NeighbourAdvert { station, address: LINK_LOCAL, router: true };
    assert_eq!(hex(advert), golden("neighbour_advert_router_tagged"));
    assert_eq!(build(advert).len(), ANNOUNCEMENT_BYTES_MAX);
}

/// The sum over pseudo-header and message, checksum included, is all ones (RFC 1071 section 1).
#[test]
fn checksum_of_random_adverts_is_valid() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..1000 {
        let address = Ipv6Addr::from(rng.u128(..));
        let mac: [u8; 6] = core::array::from_fn(|_| rng.u8(..));
        let station = Station { mac: MacAddr::from(mac), vlan: 0 };
        let advert = Announcement::NeighbourAdvert { station, address, router: rng.bool() };
        let frame = build(advert);
        let ethernet = EthernetPacket::new(&frame).unwrap();
        let ip = Ipv6Packet::new(ethernet.payload()).unwrap();
        let mut summed = ip.get_source().octets().to_vec();
        summed.extend(ip.get_destination().octets());
        summed.extend([0, 0, 0, ip.payload().len() as u8, 0, 0, 0, ip.get_next_header().0]);
        summed.extend(ip.payload());
        let sum: u32 =
            summed.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{advert:?}");
    }
}

#[test]
#[should_panic(expected = "an announcement needs a buffer of 90 bytes, not 89")]
fn build_into_short_buffer_panics() {
    Announcement::Rarp { station: UNTAGGED }.build(&mut [0; 89]);
}
