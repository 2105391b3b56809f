//! [`Table`]: the most recently used addresses of one kind.

use crate::MacAddr;

/// A MAC address in a VLAN that a guest sends from. Switches learn a port for each station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// A unicast address.
    pub mac: MacAddr,
    /// VLAN of the tag in the frames; 0 for untagged frames (IEEE 802.1Q-2022, table 9-2: a tag with
    /// VLAN 0 means the same as no tag).
    pub vlan: u16,
}

/// How reliable it is that an address is the guest's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It was the source address of packets. A guest that routes also forwards packets of others.
    Seen,
    /// The guest claimed it by ARP or Neighbour Discovery.
    Claimed,
}

/// An address that a guest uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned<A> {
    /// The station that uses it.
    pub station: Station,
    /// The address: MAC, IPv4 or IPv6.
    pub address: A,
    /// How reliable that is.
    pub evidence: Evidence,
    /// Whether it is the address of an IPv6 router.
    pub router: bool,
    /// Number of the guest's last frame that used it.
    pub(super) used: u64,
}

/// At most `N` addresses, most recently used first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table<A, const N: usize> {
    entries: [Option<Learned<A>>; N],
}

impl<A: Copy + Eq, const N: usize> Table<A, N> {
    pub(super) fn new() -> Self {
        Table { entries: [None; N] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Learned<A>> {
        self.entries.iter().flatten()
    }

    fn position(&self, vlan: u16, address: A) -> Option<usize> {
        let same = |entry: &Learned<A>| entry.station.vlan == vlan && entry.address == address;
        self.iter().position(same)
    }

    /// Records that the guest used an address. A seen address neither changes nor displaces a claimed
    /// one: forwarded packets and forged sources must not push out the guest's own addresses.
    pub(super) fn note(&mut self, mut new: Learned<A>, router: Option<bool>) {
        let index = match self.position(new.station.vlan, new.address) {
            Some(index) => {
                let old = self.entries[index].expect("the position of an entry");
                if new.evidence < old.evidence && new.station != old.station {
                    return;
                }
                new.evidence = new.evidence.max(old.evidence);
                new.router = router.unwrap_or(old.router);
                index
            }
            None => {
                let Some(index) = self.free_index(new.evidence) else { return };
                new.router = router.unwrap_or(false);
                index
            }
        };
        self.entries[..=index].rotate_right(1);
        self.entries[0] = Some(new);
    }

    /// The index for an address that is not in the table: the first free one, or that of the entry to
    /// evict.
    fn free_index(&self, evidence: Evidence) -> Option<usize> {
        if let Some(free) = self.entries.iter().position(Option::is_none) {
            return Some(free);
        }
        let seen = |entry: &Option<Learned<A>>| {
            entry.is_some_and(|entry| entry.evidence == Evidence::Seen)
        };
        let oldest_seen = self.entries.iter().rposition(seen);
        match evidence {
            Evidence::Seen => oldest_seen,
            Evidence::Claimed => Some(oldest_seen.unwrap_or(N - 1)),
        }
    }

    /// Removes an address that turned out not to belong to `station`.
    pub(super) fn forget(&mut self, station: Station, address: A) {
        let Some(index) = self.position(station.vlan, address) else { return };
        if self.entries[index].is_some_and(|entry| entry.station == station) {
            self.entries[index] = None;
            self.entries[index..].rotate_left(1);
        }
    }

    /// Appends an entry unchanged while decoding. Returns false if the table is full, already has the
    /// address, or would not be ordered by last use.
    pub(super) fn append(&mut self, entry: Learned<A>) -> bool {
        let Some(free) = self.entries.iter().position(Option::is_none) else { return false };
        let newer = free.checked_sub(1).and_then(|index| self.entries[index]);
        let known = self.position(entry.station.vlan, entry.address).is_some();
        if known || newer.is_some_and(|newer| newer.used <= entry.used) {
            return false;
        }
        self.entries[free] = Some(entry);
        true
    }
}
