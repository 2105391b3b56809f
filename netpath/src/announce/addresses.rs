//! [`GuestAddresses`]: the addresses a guest uses, learned from the frames it sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frames::Announcement;
use super::learn::{Lesson, read};
use super::table::{Evidence, Learned, Station, Table};
use crate::limits::{
    GUEST_ADDRESS_AGE_FRAMES_MAX, GUEST_IPV4_MAX, GUEST_IPV6_MAX, GUEST_STATIONS_MAX,
};
use crate::mac::MacAddr;

/// The addresses that a guest uses: those used last of each kind, as many as [`crate::limits`]
/// says. A function of the guest's frames and of nothing else: shown the same frames, two of them
/// are equal. Allocates nothing.
///
/// Announcing an address that is another host's takes that host off the LAN; not announcing one of
/// the guest's own costs little, as long as any other frame of its MAC address is sent. Hence:
///
/// - What the guest claims by ARP or Neighbour Discovery counts more than what it is seen to send
///   from; the latter is announced only for stations that have claimed nothing of that kind.
/// - An address that the guest asks its neighbours for is not its own: it is forgotten.
/// - An address that it has not used for a million frames is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddresses {
    /// Frames that something was learned from.
    pub(super) frames: u64,
    /// The first of them is that of the last frame.
    pub(super) stations: Table<MacAddr, GUEST_STATIONS_MAX>,
    pub(super) ipv4: Table<Ipv4Addr, GUEST_IPV4_MAX>,
    pub(super) ipv6: Table<Ipv6Addr, GUEST_IPV6_MAX>,
}

impl GuestAddresses {
    /// Knows the address of the guest's network card, so that a guest that never said a word can be
    /// announced.
    pub fn new(card: MacAddr) -> GuestAddresses {
        assert!(card.is_unicast() && !card.is_zero(), "{card} is no network card's address");
        let mut addresses = GuestAddresses {
            frames: 0,
            stations: Table::new(),
            ipv4: Table::new(),
            ipv6: Table::new(),
        };
        addresses.note_station(Station { mac: card, vlan: 0 });
        addresses
    }

    /// Learns from a frame that the guest sent. Frames that are malformed or cut short teach what
    /// is sound in them, or nothing.
    pub fn learn(&mut self, frame: &[u8]) {
        let Some(lesson) = read(frame) else { return };
        self.frames += 1;
        let Lesson { station, source, router, asks_for } = lesson;
        self.note_station(station);
        match source {
            Some((IpAddr::V4(address), evidence)) => {
                self.ipv4.note(self.entry(station, address, evidence), router);
            }
            Some((IpAddr::V6(address), evidence)) => {
                self.ipv6.note(self.entry(station, address, evidence), router);
            }
            None => {}
        }
        match asks_for {
            Some(IpAddr::V4(address)) => self.ipv4.forget(station, address),
            Some(IpAddr::V6(address)) => self.ipv6.forget(station, address),
            None => {}
        }
    }

    fn note_station(&mut self, station: Station) {
        self.stations.note(self.entry(station, station.mac, Evidence::Claimed), None);
    }

    fn entry<A>(&self, station: Station, address: A, evidence: Evidence) -> Learned<A> {
        Learned { station, address, evidence, router: false, used: self.frames }
    }

    fn is_fresh<A>(&self, entry: &Learned<A>) -> bool {
        self.frames - entry.used <= GUEST_ADDRESS_AGE_FRAMES_MAX
    }

    /// Those of a table that are announced.
    fn announced<'a, A: Copy + Eq, const N: usize>(
        &'a self,
        table: &'a Table<A, N>,
    ) -> impl Iterator<Item = &'a Learned<A>> {
        let fresh = move || table.iter().filter(|entry| self.is_fresh(entry));
        fresh().filter(move |entry| {
            let rival = |other: &&Learned<A>| {
                other.station == entry.station && other.evidence > entry.evidence
            };
            !fresh().any(|other| rival(&other))
        })
    }

    /// Stations that are announced, the one that sent last first. There is always one.
    pub fn stations(&self) -> impl Iterator<Item = &Learned<MacAddr>> {
        self.announced(&self.stations)
    }

    /// IPv4 addresses that are announced, the one used last first.
    pub fn ipv4(&self) -> impl Iterator<Item = &Learned<Ipv4Addr>> {
        self.announced(&self.ipv4)
    }

    /// IPv6 addresses that are announced, the one used last first.
    pub fn ipv6(&self) -> impl Iterator<Item = &Learned<Ipv6Addr>> {
        self.announced(&self.ipv6)
    }

    /// What one round says: first what every switch understands.
    pub fn announcements(&self) -> impl Iterator<Item = Announcement> {
        let rarp = |entry: &Learned<MacAddr>| Announcement::Rarp { station: entry.station };
        let arp = |entry: &Learned<Ipv4Addr>| {
            let (station, address) = (entry.station, entry.address);
            [
                Announcement::ArpRequest { station, address },
                Announcement::ArpReply { station, address },
            ]
        };
        let advert = |entry: &Learned<Ipv6Addr>| Announcement::NeighbourAdvert {
            station: entry.station,
            address: entry.address,
            router: entry.router,
        };
        let ip = self.ipv4().flat_map(arp).chain(self.ipv6().map(advert));
        self.stations().map(rarp).chain(ip)
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
