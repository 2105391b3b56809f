//! Feeds arbitrary bytes to the code that learns a guest's addresses and to its decoder. The bodies,
//! `fuzz_*`, are plain functions of bytes, usable by any fuzzer.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::common::random::{Rng, mutate, run_one_in};
use crate::common::{GUEST_MAC, guest_frame};
use replication::announce::{ADDRESSES_BYTES_MAX, Learned, Station};
use replication::limits::FRAME_MAX;
use replication::limits::{ANNOUNCEMENT_BYTES_MAX, ANNOUNCEMENTS_MAX};
use replication::{Announcement, GuestAddresses, MacAddr};

fn encoded(addresses: &GuestAddresses) -> Vec<u8> {
    let mut buffer = [0; ADDRESSES_BYTES_MAX];
    let length = addresses.encode(&mut buffer);
    buffer[..length].to_vec()
}

fn built(announcement: &Announcement) -> Vec<u8> {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let length = announcement.build(&mut buffer);
    buffer[..length].to_vec()
}

/// Checks that a state survives encoding, and that its announcements carry what it knows.
fn check(addresses: &GuestAddresses) {
    assert_eq!(GuestAddresses::decode(&encoded(addresses)).as_ref(), Ok(addresses));
    let all: Vec<Announcement> = addresses.announcements().collect();
    assert!((1..=ANNOUNCEMENTS_MAX).contains(&all.len()), "{all:?}");
    for announcement in &all {
        let mut other = GuestAddresses::new(MacAddr(2, 0, 0, 0, 0, 9));
        other.learn(&built(announcement));
        let known = |station: &Station| other.stations().any(|entry| entry.station == *station);
        let (station, learned) = match announcement {
            Announcement::Rarp { station } => (station, true),
            Announcement::ArpRequest { station, address }
            | Announcement::ArpReply { station, address } => {
                (station, other.ipv4().any(|entry| entry.address == *address))
            }
            Announcement::NeighbourAdvert { station, address, router } => {
                let same = |e: &Learned<Ipv6Addr>| e.address == *address && e.router == *router;
                (station, other.ipv6().any(same))
            }
        };
        assert!(learned && known(station), "{announcement:?}: {other:?}");
    }
}

/// Feeds any frame to two copies of a state. Checks that learned addresses occurred in a frame of
/// `history` and that both copies learn the same.
fn fuzz_learn(addresses: &mut GuestAddresses, history: &mut Vec<Vec<u8>>, frame: &[u8]) {
    let before = addresses.clone();
    let mut other = GuestAddresses::decode(&encoded(addresses)).expect("it was encoded");
    addresses.learn(frame);
    other.learn(frame);
    assert_eq!(*addresses, other);
    check(addresses);
    let newest = addresses.stations().next().expect("always one");
    assert!(*addresses == before || frame[6..12] == newest.address.octets());
    history.push(frame.to_vec());
    let stood = |bytes: &[u8]| {
        history.iter().any(|frame| frame.windows(bytes.len()).any(|window| window == bytes))
    };
    for entry in addresses.ipv4() {
        let old = before.ipv4().any(|old| old.address == entry.address);
        assert!(old || stood(&entry.address.octets()), "{entry:?}");
    }
    for entry in addresses.ipv6() {
        let old = before.ipv6().any(|old| old.address == entry.address);
        assert!(old || stood(&entry.address.octets()), "{entry:?}");
    }
}

/// Checks that bytes that decode are the only encoding of a valid state.
fn fuzz_decode(bytes: &[u8], frame: &[u8]) {
    if let Ok(mut addresses) = GuestAddresses::decode(bytes) {
        assert_eq!(encoded(&addresses), bytes);
        check(&addresses);
        fuzz_learn(&mut addresses, &mut vec![bytes.to_vec()], frame);
    }
}

/// Returns a frame that a guest might send.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let mac = MacAddr(0x52, 0x54, 0, 0, 0, rng.u8(..6));
    let station = Station { mac, vlan: [0, 0, 5, 0xffe][rng.usize(..4)] };
    let ipv4 = Ipv4Addr::new(10, 9, 9, rng.u8(..12));
    let ipv6 = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, rng.u16(..12));
    match rng.u32(..6) {
        0 => built(&Announcement::Rarp { station }),
        1 => built(&Announcement::ArpReply { station, address: ipv4 }),
        2 => {
            // An ARP request for another address.
            let mut frame = built(&Announcement::ArpRequest { station, address: ipv4 });
            let at = if station.vlan == 0 { 41 } else { 45 };
            frame[at] = rng.u8(..12);
            frame
        }
        3 => built(&Announcement::NeighbourAdvert { station, address: ipv6, router: rng.bool() }),
        4 => {
            // A solicitation for another address, or a forwarded packet.
            let router = rng.bool();
            let advert = Announcement::NeighbourAdvert { station, address: ipv6, router };
            let mut frame = built(&advert);
            let start = if station.vlan == 0 { 14 } else { 18 };
            frame[start + 7] = 255 - rng.u8(..2);
            frame[start + 40] = rng.u8(132..138);
            frame[start + 63] = rng.u8(..12);
            frame
        }
        _ => {
            let mut frame = guest_frame(&vec![0; rng.usize(..100)]);
            frame[11] = mac.5;
            frame[26..30].copy_from_slice(&ipv4.octets());
            frame
        }
    }
}

fn any_frame(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(..8) {
        0 => (0..rng.usize(..120)).map(|_| rng.u8(..)).collect(),
        1..=3 => {
            let mut frame = frame(rng);
            mutate(&mut frame, rng);
            frame.truncate(FRAME_MAX);
            frame
        }
        _ => frame(rng),
    }
}

#[test]
fn fuzz_frames() {
    run_one_in(20, "pure::announce_fuzz::fuzz_frames", |rng| {
        let mut addresses = GuestAddresses::new(GUEST_MAC);
        let mut history = Vec::new();
        for _ in 0..100 {
            fuzz_learn(&mut addresses, &mut history, &any_frame(rng));
        }
    });
}

#[test]
fn fuzz_encodings() {
    run_one_in(1, "pure::announce_fuzz::fuzz_encodings", |rng| {
        let mut addresses = GuestAddresses::new(GUEST_MAC);
        for _ in 0..rng.usize(..40) {
            addresses.learn(&frame(rng));
        }
        let mut bytes = encoded(&addresses);
        if rng.u32(..16) == 0 {
            bytes = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
            bytes.insert(0, 1);
        } else {
            mutate(&mut bytes, rng);
        }
        fuzz_decode(&bytes, &any_frame(rng));
    });
}
