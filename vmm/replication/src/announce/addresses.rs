//! [`GuestAddresses`]: the addresses a guest uses, learned from the frames it sends.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frames::Announcement;
use super::learn::{Observation, parse};
use super::table::{Evidence, Learned, Station, Table};
use crate::MacAddr;
use crate::limits::{
    GUEST_ADDRESS_AGE_FRAMES_MAX, GUEST_IPV4_MAX, GUEST_IPV6_MAX, GUEST_STATIONS_MAX,
};

/// The addresses that a guest uses: the most recently used ones of each kind, up to the limits in
/// [`crate::limits`]. The state is a function of the guest's frames only: two instances that learned
/// from the same frames are equal. Allocates nothing.
///
/// Announcing another host's address cuts that host off the LAN. Failing to announce one of the
/// guest's own addresses costs little, as long as some frame with its MAC address is sent. Hence:
///
/// - An address that the guest claims by ARP or Neighbour Discovery outranks one that merely appears
///   as the source of its packets. The latter is announced only for a station that has claimed no
///   address of that kind.
/// - An address that the guest asks its neighbours for is not its own, and is removed.
/// - An address that the guest has not used for about a million frames
///   ([`GUEST_ADDRESS_AGE_FRAMES_MAX`]) is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddresses {
    /// Number of frames that something was learned from.
    pub(super) frames: u64,
    /// The first entry is the station of the last frame.
    pub(super) stations: Table<MacAddr, GUEST_STATIONS_MAX>,
    pub(super) ipv4: Table<Ipv4Addr, GUEST_IPV4_MAX>,
    pub(super) ipv6: Table<Ipv6Addr, GUEST_IPV6_MAX>,
}

impl GuestAddresses {
    /// Starts with the MAC address of the guest's network card, so that a guest that has never sent a
    /// frame can be announced.
    ///
    /// # Panics
    ///
    /// If `card` is a group address or all zeros.
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

    /// Learns from a frame that the guest sent. From a malformed or truncated frame it learns what the
    /// valid part says, or nothing.
    pub fn learn(&mut self, frame: &[u8]) {
        let Some(observation) = parse(frame) else { return };
        self.frames += 1;
        let Observation { station, source, router, asks_for } = observation;
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

    /// The entries of a table that are announced.
    fn announced<'a, A: Copy + Eq, const N: usize>(
        &'a self,
        table: &'a Table<A, N>,
    ) -> impl Iterator<Item = &'a Learned<A>> {
        let fresh = move || table.iter().filter(|entry| self.is_fresh(entry));
        fresh().filter(move |entry| {
            let outranks = |other: &&Learned<A>| {
                other.station == entry.station && other.evidence > entry.evidence
            };
            !fresh().any(|other| outranks(&other))
        })
    }

    /// Stations that are announced, most recent sender first. There is always at least one.
    pub fn stations(&self) -> impl Iterator<Item = &Learned<MacAddr>> {
        self.announced(&self.stations)
    }

    /// IPv4 addresses that are announced, most recently used first.
    pub fn ipv4(&self) -> impl Iterator<Item = &Learned<Ipv4Addr>> {
        self.announced(&self.ipv4)
    }

    /// IPv6 addresses that are announced, most recently used first.
    pub fn ipv6(&self) -> impl Iterator<Item = &Learned<Ipv6Addr>> {
        self.announced(&self.ipv6)
    }

    /// The announcements of one round: RARP first, because every switch learns from it.
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
