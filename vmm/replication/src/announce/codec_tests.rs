use super::*;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);

/// Lets `addresses` learn IPv4 and IPv6 address number `number` from announcements.
fn teach(addresses: &mut GuestAddresses, number: u8) {
    let station = Station { mac: CARD, vlan: u16::from(number % 2) * 0x123 };
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let address = Ipv4Addr::new(10, 9, 9, number);
    let length = super::super::Announcement::ArpReply { station, address }.build(&mut buffer);
    addresses.learn(&buffer[..length]);
    let address = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number.into());
    let advert =
        super::super::Announcement::NeighbourAdvert { station, address, router: number == 2 };
    let length = advert.build(&mut buffer);
    addresses.learn(&buffer[..length]);
}

/// Two stations; claimed addresses of each kind, one of them a router's; a seen IPv4 address.
fn sample() -> GuestAddresses {
    let mut addresses = GuestAddresses::new(CARD);
    let mut seen = vec![0xff; 6];
    seen.extend(CARD.octets());
    seen.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 9, 1, 10, 9, 9, 8]);
    addresses.learn(&seen);
    teach(&mut addresses, 2);
    teach(&mut addresses, 3);
    addresses
}

fn encoded(addresses: &GuestAddresses) -> Vec<u8> {
    let mut buffer = [0xee; ADDRESSES_BYTES_MAX];
    let length = addresses.encode(&mut buffer);
    assert!(buffer[length..].iter().all(|byte| *byte == 0xee));
    buffer[..length].to_vec()
}

/// A difference from the fixture means that the format changed. A deliberate change updates
/// [`ADDRESSES_VERSION`] and the fixture in the same commit.
#[test]
fn encoding_is_golden() {
    let digits: String = include_str!("../../fixtures/guest_addresses.hex")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let hex: String = encoded(&sample()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, digits);
}

#[test]
fn decoded_addresses_are_equal_and_learn_alike() {
    for count in 0..=20 {
        let mut addresses = GuestAddresses::new(CARD);
        (0..count).for_each(|number| teach(&mut addresses, number));
        let mut other = GuestAddresses::decode(&encoded(&addresses)).unwrap();
        assert_eq!(other, addresses);
        teach(&mut addresses, 77);
        teach(&mut other, 77);
        assert_eq!(other, addresses);
    }
}

#[test]
fn longest_encoding_has_the_documented_size() {
    let mut addresses = GuestAddresses::new(CARD);
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    for number in 0..20 {
        teach(&mut addresses, number);
        let station = Station { mac: MacAddr(2, 0, 0, 0, 0, number), vlan: 0 };
        let length = super::super::Announcement::Rarp { station }.build(&mut buffer);
        addresses.learn(&buffer[..length]);
    }
    assert_eq!(encoded(&addresses).len(), ADDRESSES_BYTES_MAX);
}

#[test]
fn decode_truncated_or_too_long_is_refused() {
    let bytes = encoded(&sample());
    for length in 0..bytes.len() {
        let error = GuestAddresses::decode(&bytes[..length]).unwrap_err();
        assert_eq!(error, AddressesError::Length, "{length} bytes");
    }
    let long = [&bytes[..], &[0]].concat();
    assert_eq!(GuestAddresses::decode(&long), Err(AddressesError::Length));
}

/// Offsets of fields in the encoding of [`sample`].
const FRAMES: usize = 1;
const STATIONS: usize = 9;
const STATION: usize = STATIONS + 1;
const IPV4: usize = STATIONS + 1 + 2 * 17;
const IPV6: usize = IPV4 + 1 + 3 * 21;

#[test]
fn decode_impossible_state_is_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>), expected| {
        let mut bytes = encoded(&sample());
        change(&mut bytes);
        assert_eq!(GuestAddresses::decode(&bytes), Err(expected), "{bytes:02x?}");
    };
    let field = AddressesError::Field;
    refused(&|bytes| bytes[0] = 0, AddressesError::Version(0));
    refused(&|bytes| bytes[0] = 2, AddressesError::Version(2));
    refused(&|bytes| bytes[FRAMES + 7] = 0x40, field("count of frames"));
    refused(&|bytes| bytes[FRAMES] += 1, field("station"));
    refused(&|bytes| bytes[FRAMES] -= 1, field("frame number"));
    // A station that is only seen, a router flag on other than IPv6, an undefined flag.
    refused(&|bytes| bytes[STATION] = 0, field("station"));
    refused(&|bytes| bytes[STATION] |= 2, field("flag"));
    refused(&|bytes| bytes[IPV4 + 1] |= 2, field("flag"));
    refused(&|bytes| bytes[IPV6 + 1] |= 4, field("flag"));
    // VLAN 0xfff, a multicast MAC address, an all-zero MAC address.
    refused(&|bytes| bytes[STATION + 1..][..2].fill(0xff), field("station"));
    refused(&|bytes| bytes[STATION + 3] |= 1, field("station"));
    refused(&|bytes| bytes[STATION + 3..][..6].fill(0), field("station"));
    // Addresses that no host can have.
    refused(&|bytes| bytes[IPV4 + 1 + 17] = 224, field("address"));
    refused(&|bytes| bytes[IPV6 + 1 + 17] = 0xff, field("address"));
    refused(&|bytes| bytes[IPV6 + 1 + 17..][..16].fill(0), field("address"));
    // The same address twice, two entries of the same frame number, more entries than fit.
    let order = field("order of addresses");
    refused(
        &|bytes| {
            let (newer, older) = (IPV4 + 1, IPV4 + 1 + 21);
            bytes.copy_within(newer + 1..newer + 9, older + 1);
            bytes.copy_within(newer + 17..newer + 21, older + 17);
        },
        order,
    );
    refused(&|bytes| bytes.copy_within(IPV4 + 10..IPV4 + 18, IPV4 + 31), order);
    refused(
        &|bytes| {
            bytes[STATIONS] = 5;
            let older = bytes[STATION + 17..STATION + 34].to_vec();
            for number in 0..3 {
                let mut more = older.clone();
                (more[4], more[9]) = (number, 0);
                bytes.splice(STATION + 34..STATION + 34, more);
            }
        },
        order,
    );
}

#[test]
fn decode_without_a_station_is_refused() {
    let bytes = [&[ADDRESSES_VERSION][..], &[0; 8], &[0, 0, 0]].concat();
    assert_eq!(GuestAddresses::decode(&bytes), Err(AddressesError::Field("station")));
}

#[test]
fn errors_are_one_line() {
    let version = AddressesError::Version(9).to_string();
    assert_eq!(version, "guest addresses of version 9, not 1: run the same build on both hosts");
    assert_eq!(
        AddressesError::Field("flag").to_string(),
        "guest addresses with an impossible flag"
    );
}
