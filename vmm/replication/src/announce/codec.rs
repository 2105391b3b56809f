//! The encoding of [`GuestAddresses`], which carries them to the other host.
//!
//! ```text
//! version u8 | frames u64 | stations | IPv4 addresses | IPv6 addresses
//! each of the three tables: count u8, then the entries, most recently used first:
//!     flags u8 (1: claimed, 2: router) | VLAN u16 | MAC 6 bytes | used u64 | address 0, 4 or 16 bytes
//! ```
//!
//! Numbers are little-endian; addresses have the byte order of frames. Each state has exactly one
//! encoding. [`ADDRESSES_VERSION`] changes whenever this format changes, and whenever other addresses
//! are learned from the same frames.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::addresses::GuestAddresses;
use super::learn::{VLAN_END, is_station_ipv4, is_station_ipv6, is_station_mac};
use super::table::{Evidence, Learned, Station, Table};
use crate::MacAddr;
use crate::limits::{GUEST_IPV4_MAX, GUEST_IPV6_MAX, GUEST_STATIONS_MAX};

/// First byte of encoded addresses. 0 is invalid.
pub const ADDRESSES_VERSION: u8 = 1;

const FRAMES_BYTES: usize = 8;
const COUNT_BYTES: usize = 1;
const ENTRY_BYTES: usize = 1 + 2 + 6 + 8;

/// Size of the longest encoding, in bytes.
pub const ADDRESSES_BYTES_MAX: usize = 1
    + FRAMES_BYTES
    + 3 * COUNT_BYTES
    + GUEST_STATIONS_MAX * (ENTRY_BYTES + MacAddr::BYTES)
    + GUEST_IPV4_MAX * (ENTRY_BYTES + Ipv4Addr::BYTES)
    + GUEST_IPV6_MAX * (ENTRY_BYTES + Ipv6Addr::BYTES);

/// Largest frame count that is accepted: a larger one could overflow later.
const FRAMES_MAX: u64 = 1 << 62;

const CLAIMED: u8 = 1;
const ROUTER: u8 = 2;

/// Why bytes do not decode to guest addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// Encoded by another build.
    #[error(
        "guest addresses of version {0}, not {ADDRESSES_VERSION}: run the same build on both hosts"
    )]
    Version(u8),
    /// Fewer or more bytes than the counts require.
    #[error("guest addresses that are truncated or too long")]
    Length,
    /// A field with a value that no sequence of frames leads to.
    #[error("guest addresses with an impossible {0}")]
    Field(&'static str),
}

/// An address that can be encoded in an entry.
trait Address: Copy + Eq {
    /// Size of the address after an entry's fixed part, in bytes.
    const BYTES: usize;
    /// Flags that entries may have.
    const FLAGS: u8;
    /// Writes the address to `bytes`, which is [`Self::BYTES`] long.
    fn put(self, bytes: &mut [u8]);
    /// Reads the address of a station with MAC address `mac` from `bytes`; `None` if no host on a LAN
    /// can have that address.
    fn get(mac: MacAddr, bytes: &[u8]) -> Option<Self>;
}

/// A station's address is its MAC address, which is in the fixed part of the entry.
impl Address for MacAddr {
    const BYTES: usize = 0;
    const FLAGS: u8 = CLAIMED;

    fn put(self, _bytes: &mut [u8]) {}

    fn get(mac: MacAddr, _bytes: &[u8]) -> Option<Self> {
        Some(mac)
    }
}

impl Address for Ipv4Addr {
    const BYTES: usize = 4;
    const FLAGS: u8 = CLAIMED;

    fn put(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.octets());
    }

    fn get(_mac: MacAddr, bytes: &[u8]) -> Option<Self> {
        let octets: [u8; 4] = bytes.try_into().ok()?;
        Some(Ipv4Addr::from(octets)).filter(|address| is_station_ipv4(*address))
    }
}

impl Address for Ipv6Addr {
    const BYTES: usize = 16;
    const FLAGS: u8 = CLAIMED | ROUTER;

    fn put(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.octets());
    }

    fn get(_mac: MacAddr, bytes: &[u8]) -> Option<Self> {
        let octets: [u8; 16] = bytes.try_into().ok()?;
        Some(Ipv6Addr::from(octets)).filter(|address| is_station_ipv6(*address))
    }
}

/// Writes fields to a buffer that is long enough for the longest encoding.
struct Writer<'a> {
    out: &'a mut [u8; ADDRESSES_BYTES_MAX],
    length: usize,
}

impl Writer<'_> {
    fn space(&mut self, length: usize) -> &mut [u8] {
        let start = self.length;
        self.length += length;
        &mut self.out[start..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    fn table<A: Address, const N: usize>(&mut self, table: &Table<A, N>) {
        self.put(&[table.iter().count() as u8]);
        for entry in table.iter() {
            let claimed = match entry.evidence {
                Evidence::Seen => 0,
                Evidence::Claimed => CLAIMED,
            };
            self.put(&[claimed | if entry.router { ROUTER } else { 0 }]);
            self.put(&entry.station.vlan.to_le_bytes());
            self.put(&entry.station.mac.octets());
            self.put(&entry.used.to_le_bytes());
            entry.address.put(self.space(A::BYTES));
        }
    }
}

/// Reads fields from the front of a slice.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], AddressesError> {
        let (front, rest) = self.rest.split_at_checked(length).ok_or(AddressesError::Length)?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AddressesError> {
        self.take(N)?.try_into().map_err(|_| AddressesError::Length)
    }

    fn table<A: Address, const N: usize>(
        &mut self,
        frames: u64,
    ) -> Result<Table<A, N>, AddressesError> {
        let [count] = self.array()?;
        let mut table = Table::new();
        for _ in 0..count {
            let entry = self.entry(frames)?;
            if !table.append(entry) {
                return Err(AddressesError::Field("order of addresses"));
            }
        }
        Ok(table)
    }

    fn entry<A: Address>(&mut self, frames: u64) -> Result<Learned<A>, AddressesError> {
        let [flags] = self.array()?;
        let vlan = u16::from_le_bytes(self.array()?);
        let mac = MacAddr::from(self.array::<6>()?);
        let used = u64::from_le_bytes(self.array()?);
        let address = A::get(mac, self.take(A::BYTES)?);
        let field = AddressesError::Field;
        if flags & !A::FLAGS != 0 {
            return Err(field("flag"));
        }
        if vlan >= VLAN_END || !is_station_mac(mac) {
            return Err(field("station"));
        }
        if used > frames {
            return Err(field("frame number"));
        }
        let evidence = if flags & CLAIMED == 0 { Evidence::Seen } else { Evidence::Claimed };
        Ok(Learned {
            station: Station { mac, vlan },
            address: address.ok_or(field("address"))?,
            evidence,
            router: flags & ROUTER != 0,
            used,
        })
    }
}

impl GuestAddresses {
    /// Writes the addresses to the front of `out` and returns the number of bytes written.
    pub fn encode(&self, out: &mut [u8; ADDRESSES_BYTES_MAX]) -> usize {
        let mut writer = Writer { out, length: 0 };
        writer.put(&[ADDRESSES_VERSION]);
        writer.put(&self.frames.to_le_bytes());
        writer.table(&self.stations);
        writer.table(&self.ipv4);
        writer.table(&self.ipv6);
        writer.length
    }

    /// Decodes all of `bytes`, which [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`AddressesError`] if `bytes` has another version or length, or holds a state that no sequence
    /// of frames leads to.
    pub fn decode(bytes: &[u8]) -> Result<GuestAddresses, AddressesError> {
        let mut reader = Reader { rest: bytes };
        let [version] = reader.array()?;
        if version != ADDRESSES_VERSION {
            return Err(AddressesError::Version(version));
        }
        let frames = u64::from_le_bytes(reader.array()?);
        if frames > FRAMES_MAX {
            return Err(AddressesError::Field("count of frames"));
        }
        let stations: Table<MacAddr, GUEST_STATIONS_MAX> = reader.table(frames)?;
        let (ipv4, ipv6) = (reader.table(frames)?, reader.table(frames)?);
        if !reader.rest.is_empty() {
            return Err(AddressesError::Length);
        }
        // Every frame that is counted names its station, and a station is always claimed.
        let is_claimed = |station: &Learned<MacAddr>| station.evidence == Evidence::Claimed;
        if stations.iter().next().is_none_or(|newest| newest.used != frames)
            || !stations.iter().all(is_claimed)
        {
            return Err(AddressesError::Field("station"));
        }
        Ok(GuestAddresses { frames, stations, ipv4, ipv6 })
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
