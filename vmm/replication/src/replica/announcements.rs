//! Announcements of the VM on the LAN after a takeover.

use super::engine::Replica;
use super::role::{Primary, Role};
use crate::MacAddr;
use crate::announce::{
    ADDRESSES_BYTES_MAX, AddressesError, AllowedSources, Announcer, GuestAddresses,
};
use crate::boundary::Input;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;
use alloc::vec::Vec;
use logchan::time::Time;

/// Position of the source address in a frame.
const SOURCE: core::ops::Range<usize> = 6..12;

/// The guest's addresses, and the announcement that may leave next.
#[derive(Debug)]
pub(super) struct Announcements {
    sources: AllowedSources,
    addresses: GuestAddresses,
    announcer: Announcer,
    frame: [u8; ANNOUNCEMENT_BYTES_MAX],
    /// Length of the announcement in `frame`; 0 without one.
    length: usize,
    /// This host was not allowed to announce at the last [`poll`](Self::poll).
    is_forbidden: bool,
}

impl Announcements {
    pub(super) fn new(addresses: GuestAddresses, sources: AllowedSources) -> Announcements {
        Announcements {
            sources,
            addresses,
            announcer: Announcer::new(),
            frame: [0; ANNOUNCEMENT_BYTES_MAX],
            length: 0,
            is_forbidden: true,
        }
    }

    /// Learns the addresses in a frame that the guest has sent, if it may use them.
    pub(super) fn learn(&mut self, frame: &[u8]) {
        if self.sources.allow(frame) {
            self.addresses.learn(frame);
        }
    }

    /// Returns whether the guest sends from `mac`.
    pub(super) fn is_station(&self, mac: MacAddr) -> bool {
        self.addresses.stations().any(|known| known.address == mac)
    }

    /// Begins to announce the addresses: this host goes live.
    pub(super) fn start(&mut self, now: Time) {
        self.announcer.start(now.as_nanos());
    }

    /// Begins to announce the MAC addresses: the LAN can be reached again.
    fn start_again(&mut self, now: Time) {
        self.announcer.start_again(now.as_nanos());
    }

    /// Adds a round of announcements: the VM's address was seen elsewhere on the LAN.
    fn request_round(&mut self, now: Time) {
        self.announcer.request_round(now.as_nanos());
    }

    /// Ends all announcements.
    pub(super) fn stop(&mut self) {
        self.announcer.stop();
        self.length = 0;
    }

    /// Makes the next announcement if one is due and `is_allowed`. Returns whether there is one.
    pub(super) fn poll(&mut self, now: Time, is_allowed: bool) -> bool {
        self.is_forbidden = !is_allowed;
        if self.is_forbidden {
            // An announcement is not kept for later: the next round repeats it.
            self.length = 0;
        } else if self.length == 0 {
            let Self { addresses, announcer, frame, .. } = self;
            self.length = announcer.poll_transmit(now.as_nanos(), addresses, frame).unwrap_or(0);
        }
        self.length > 0
    }

    /// Returns the announcement that [`poll`](Self::poll) made.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame[..self.length]
    }

    /// Removes the announcement, if there is one; returns whether there was.
    pub(super) fn pop(&mut self) -> bool {
        core::mem::take(&mut self.length) > 0
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.announcer.poll_timeout().filter(|_| !self.is_forbidden).map(Time::from_nanos)
    }

    /// Returns `devices` with the guest's addresses in front. A backup learns addresses only from the
    /// frames that its own machine sends, but must announce all of them when it takes over.
    pub(super) fn with_addresses(&self, devices: &[u8]) -> Vec<u8> {
        let mut addresses = [0; ADDRESSES_BYTES_MAX];
        let length = self.addresses.encode(&mut addresses);
        let prefix = u16::try_from(length).expect("a few addresses").to_le_bytes();
        [&prefix, &addresses[..length], devices].concat()
    }

    /// Removes the guest's addresses from the front of the device state of a sync, and takes them over.
    ///
    /// # Errors
    ///
    /// There are no valid addresses; `None` if they are cut off.
    pub(super) fn split_addresses(
        &mut self,
        devices: &mut Vec<u8>,
    ) -> Result<(), Option<AddressesError>> {
        let (&length, rest) = devices.split_first_chunk().ok_or(None)?;
        let length = usize::from(u16::from_le_bytes(length));
        let addresses = rest.get(..length).ok_or(None)?;
        self.addresses = GuestAddresses::decode(addresses).map_err(Some)?;
        devices.drain(..2 + length);
        Ok(())
    }
}

impl Replica {
    /// The LAN can be reached again, after it could not: what was announced meanwhile is lost.
    pub(super) fn lan_came_up(&mut self, now: Time) {
        match self.role {
            Role::Primary(
                Primary::Alone | Primary::Copying(_) | Primary::Protected(_) | Primary::Losing(_),
            ) => self.announcements.start_again(now),
            // These have nothing to announce: a host announces when it goes live.
            Role::Primary(Primary::Starting(_) | Primary::HandingOver(_))
            | Role::Standalone
            | Role::Backup(_)
            | Role::Halted(_) => {}
        }
    }

    /// Asks for a round of announcements if `input` is a frame that has the VM's own source address: another host
    /// has sent it, or a switch that believes the VM to be elsewhere has passed it on.
    pub(super) fn note_source(&mut self, now: Time, input: &Input<'_>) {
        if let Input::Frame(frame) = input
            && frame.get(SOURCE) == Some(&self.config.mac.octets()[..])
        {
            self.announcements.request_round(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MacAddr;
    use crate::announce::{Announcement, Station};
    use alloc::vec;
    use core::net::Ipv4Addr;

    const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 1);

    #[test]
    fn address_that_the_guest_may_not_use_is_not_announced() {
        let [own, gateway] = [2, 1].map(|host| Ipv4Addr::new(10, 9, 9, host));
        let sources = AllowedSources::Vm { card: CARD, ips: vec![own.into()] };
        let mut announcements = Announcements::new(GuestAddresses::new(CARD), sources);
        for address in [gateway, own] {
            let mut frame = [0; ANNOUNCEMENT_BYTES_MAX];
            let station = Station { mac: CARD, vlan: 0 };
            let length = Announcement::ArpReply { station, address }.build(&mut frame);
            announcements.learn(&frame[..length]);
        }
        let announced: Vec<_> = announcements.addresses.ipv4().map(|entry| entry.address).collect();
        assert_eq!(announced, [own]);
    }
}
