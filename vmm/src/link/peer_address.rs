//! [`PeerAddress`]: the MAC address of the other host, which may change while both processes run.
//!
//! A new interface, or a new address of the old one, makes the other host's frames come from another source. The
//! link then follows the frames that prove to be the peer's:
//!
//! ```text
//!            authentic message of a handshake                two new sealed frames in a row,
//!            (may be a recording)                            or the end of a handshake and one
//!  current ------------------------------> current, candidate ------------------------------> candidate is current
//!     ^                                          |
//!     +------ a new frame from `current` --------+
//! ```
//!
//! While there is a candidate, it gets a copy of each frame, so that a handshake with it can complete. A forged
//! source address can't divert the link: without the key nobody makes a frame that proves anything, a recording
//! only adds copies, and a copy of a frame that is in flight is no new frame once the original has arrived.

use logchan::handshake::Proof;
use netpath::MacAddr;

/// New frames in a row from another address before the link follows them. One may be a copy that has overtaken
/// the original.
const PROOFS_MIN: u32 = 2;

/// Most addresses that are reported without being followed: anybody can send frames from any number of them.
const REPORTS_MAX: u32 = 8;

/// What to do with frames from another address than the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherAddresses {
    /// Follow a peer that proves to have the key.
    Follow,
    /// Drop and count them.
    Drop,
    /// Drop and count them, and say once from which address frames come: without a key nothing can be proven.
    Report,
}

/// A change that the operator should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressChange {
    /// The link has followed the peer.
    Followed {
        /// The address before.
        from: MacAddr,
        /// The address now.
        to: MacAddr,
    },
    /// Frames come from this address and are dropped.
    NotFollowed(MacAddr),
}

/// The peer's address. See the [module](self).
#[derive(Debug)]
pub(super) struct PeerAddress {
    current: MacAddr,
    policy: OtherAddresses,
    candidate: Option<MacAddr>,
    /// New frames from the candidate since the last one from `current`.
    proofs: u32,
    /// Frames from other stations than the peer.
    other_senders: u64,
    /// The last of these stations, unless the link has followed it.
    last_other: Option<MacAddr>,
    /// Addresses reported without being followed.
    reports: u32,
}

impl PeerAddress {
    pub(super) fn new(peer: MacAddr, policy: OtherAddresses) -> PeerAddress {
        PeerAddress {
            current: peer,
            policy,
            candidate: None,
            proofs: 0,
            other_senders: 0,
            last_other: None,
            reports: 0,
        }
    }

    /// Returns the address that frames are sent to.
    pub(super) fn current(&self) -> MacAddr {
        self.current
    }

    /// Returns another address that must get a copy of each frame.
    #[inline]
    pub(super) fn candidate(&self) -> Option<MacAddr> {
        self.candidate
    }

    pub(super) fn other_senders(&self) -> u64 {
        self.other_senders
    }

    pub(super) fn last_other(&self) -> Option<MacAddr> {
        self.last_other
    }

    /// Returns whether frames from `source` are handled; others are dropped.
    #[inline]
    pub(super) fn handles(&self, source: MacAddr) -> bool {
        source == self.current
            || match self.policy {
                OtherAddresses::Follow => !source.is_multicast() && !source.is_zero(),
                OtherAddresses::Drop | OtherAddresses::Report => false,
            }
    }

    /// A frame from `source` was dropped. Returns the change to report.
    pub(super) fn dropped(&mut self, source: MacAddr) -> Option<AddressChange> {
        let is_known = self.note_other(source);
        let is_news = self.policy == OtherAddresses::Report && !is_known;
        if !is_news || self.reports == REPORTS_MAX {
            return None;
        }
        self.reports += 1;
        Some(AddressChange::NotFollowed(source))
    }

    /// Counts a frame from another station than the peer. Returns whether the one before came from it, too.
    fn note_other(&mut self, source: MacAddr) -> bool {
        self.other_senders += 1;
        self.last_other.replace(source) == Some(source)
    }

    /// A frame from `source` was handled, with `proof` as the result. Returns the change to report.
    pub(super) fn handled(&mut self, source: MacAddr, proof: Proof) -> Option<AddressChange> {
        if source == self.current {
            if proof == Proof::Presence && self.candidate.is_some() {
                (self.candidate, self.proofs) = (None, 0);
            }
            return None;
        }
        self.note_other(source);
        if proof == Proof::Nothing {
            return None;
        }
        if self.candidate != Some(source) {
            (self.candidate, self.proofs) = (Some(source), 0);
        }
        self.proofs += u32::from(proof == Proof::Presence);
        if self.proofs < PROOFS_MIN {
            return None;
        }
        let from = std::mem::replace(&mut self.current, source);
        (self.candidate, self.proofs, self.last_other) = (None, 0, None);
        Some(AddressChange::Followed { from, to: source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);
    const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xc);
    const THIRD: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xd);

    fn follows() -> PeerAddress {
        PeerAddress::new(PEER, OtherAddresses::Follow)
    }

    #[test]
    fn handshake_from_other_address_makes_candidate_and_its_end_is_followed() {
        let mut peer = follows();
        assert!(peer.handles(OTHER));
        assert_eq!(peer.handled(OTHER, Proof::Key), None);
        assert_eq!((peer.current(), peer.candidate()), (PEER, Some(OTHER)));
        assert_eq!(peer.handled(OTHER, Proof::Presence), None);
        let followed = AddressChange::Followed { from: PEER, to: OTHER };
        assert_eq!(peer.handled(OTHER, Proof::Presence), Some(followed));
        assert_eq!((peer.current(), peer.candidate()), (OTHER, None));
        assert_eq!(peer.last_other(), None, "it is the peer now");
        // The first address is now another one, and the way back is the same.
        assert!(peer.handles(PEER));
        assert_eq!(peer.handled(PEER, Proof::Key), None);
        assert_eq!(peer.candidate(), Some(PEER));
    }

    #[test]
    fn recordings_and_forged_frames_divert_nothing() {
        let mut peer = follows();
        for _ in 0..1000 {
            assert!(peer.handles(OTHER));
            assert_eq!(peer.handled(OTHER, Proof::Nothing), None);
        }
        assert_eq!(peer.candidate(), None, "a frame without proof does not even add copies");
        for _ in 0..1000 {
            assert_eq!(peer.handled(OTHER, Proof::Key), None);
        }
        assert_eq!(peer.current(), PEER);
        assert_eq!(peer.handled(PEER, Proof::Presence), None);
        assert_eq!(peer.candidate(), None, "the copies end with the peer's next frame");
    }

    #[test]
    fn copies_that_overtake_single_frames_divert_nothing() {
        let mut peer = follows();
        for _ in 0..1000 {
            assert_eq!(peer.handled(OTHER, Proof::Presence), None);
            assert_eq!(peer.handled(PEER, Proof::Presence), None);
            assert_eq!(peer.handled(OTHER, Proof::Presence), None);
            assert_eq!(peer.handled(THIRD, Proof::Presence), None);
            assert_eq!(peer.handled(PEER, Proof::Presence), None);
        }
        assert_eq!(peer.current(), PEER);
    }

    #[test]
    fn addresses_that_no_station_has_are_dropped() {
        let peer = follows();
        for source in [MacAddr(3, 0, 0, 0, 0, 1), MacAddr::broadcast(), MacAddr::zero()] {
            assert!(!peer.handles(source), "{source}");
        }
    }

    #[test]
    fn dropped_addresses_are_reported_once_each_and_seldom() {
        let mut peer = PeerAddress::new(PEER, OtherAddresses::Report);
        let mut drop_from = |last: u8| {
            let source = MacAddr(2, 0, 0, 0, 1, last);
            assert!(!peer.handles(source));
            peer.dropped(source)
        };
        assert_eq!(drop_from(1), Some(AddressChange::NotFollowed(MacAddr(2, 0, 0, 0, 1, 1))));
        assert_eq!(drop_from(1), None);
        let reports = (2..100).filter(|&last| drop_from(last).is_some()).count();
        assert_eq!(reports, REPORTS_MAX as usize - 1);
        let mut silent = PeerAddress::new(PEER, OtherAddresses::Drop);
        assert!(!silent.handles(OTHER) && silent.dropped(OTHER).is_none());
        assert_eq!((silent.other_senders(), silent.last_other()), (1, Some(OTHER)));
    }
}
