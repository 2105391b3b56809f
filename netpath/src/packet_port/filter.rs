//! Selects the frames for this port from those that its packet socket delivers.
//!
//! The kernel selects by EtherType only. It also delivers frames for other stations (from a bridge that
//! floods, or a NIC in promiscuous mode), multicast frames, and frames of every VLAN with the tag
//! removed. VLAN frames can be recognised only because the kernel marks them as another host's although
//! they have our address (`__netif_receive_skb_core`, at `check_vlan_id`).

use pnet::packet::ethernet::EthernetPacket;

use super::PacketStats;
use crate::mac::MacAddr;
use crate::port::{FRAME_MAX, FRAME_MIN};
use crate::sys::packet_socket::FrameInfo;

/// Whether a frame is for this port, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ours,
    /// Longer than a port carries, truncated to the slot, or shorter than an Ethernet header.
    BadLength,
    /// This interface has sent it: a switch or a bridge sends it back.
    Own,
    /// Its destination is another station or a group.
    ForeignMac,
    ForeignEtherType,
    ForeignVlan,
}

/// Which frames are for a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The interface's address.
    pub(super) mac: MacAddr,
    pub(super) ethertype: u16,
    /// Frames to all stations are for this port, too.
    pub(super) accepts_broadcast: bool,
}

/// Classifies a frame by its first bytes (at least the Ethernet header, if the frame has one).
pub(super) fn classify(front: &[u8], info: &FrameInfo, wanted: &Wanted) -> Verdict {
    let Wanted { mac, ethertype, accepts_broadcast } = *wanted;
    if info.wire_length > info.length || !(FRAME_MIN..=FRAME_MAX).contains(&info.length) {
        return Verdict::BadLength;
    }
    let Some(frame) = EthernetPacket::new(front) else { return Verdict::BadLength };
    let is_sent_now = info.packet_type == libc::PACKET_OUTGOING;
    let to = frame.get_destination();
    let is_for_us = to == mac || accepts_broadcast && to.is_broadcast();
    if frame.get_source() == mac && !is_sent_now {
        Verdict::Own
    } else if is_sent_now || !is_for_us {
        Verdict::ForeignMac
    } else if info.packet_type == libc::PACKET_OTHERHOST {
        Verdict::ForeignVlan
    } else if frame.get_ethertype().0 != ethertype {
        Verdict::ForeignEtherType
    } else {
        Verdict::Ours
    }
}

impl Verdict {
    /// Counts the frame if it is not delivered.
    pub(super) fn count(self, stats: &mut PacketStats) {
        match self {
            Verdict::Ours => {}
            Verdict::BadLength => stats.rx_bad_length += 1,
            Verdict::Own => stats.rx_own += 1,
            Verdict::ForeignMac => stats.rx_foreign_mac += 1,
            Verdict::ForeignEtherType => stats.rx_foreign_ethertype += 1,
            Verdict::ForeignVlan => stats.rx_foreign_vlan += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn frame(destination: [u8; 6], ethertype: u16) -> Vec<u8> {
        let mut frame = destination.to_vec();
        frame.extend([2, 0, 0, 0, 0, 2]);
        frame.extend(ethertype.to_be_bytes());
        frame.resize(60, 0);
        frame
    }

    fn verdict(frame: &[u8], info: FrameInfo) -> Verdict {
        let length = frame.len();
        let info = FrameInfo { length, wire_length: length.max(info.wire_length), ..info };
        let wanted = Wanted { mac: OURS, ethertype: 0x88b5, accepts_broadcast: false };
        classify(frame, &info, &wanted)
    }

    #[test]
    fn frames_to_all_stations_are_ours_if_wanted() {
        let wanted = Wanted { mac: OURS, ethertype: 0x88b5, accepts_broadcast: true };
        let to_all = frame([0xff; 6], 0x88b5);
        let info = FrameInfo { length: 60, wire_length: 60, ..FrameInfo::default() };
        assert_eq!(classify(&to_all, &info, &wanted), Verdict::Ours);
        for other in [[2, 0, 0, 0, 0, 9], [3, 0, 0, 0, 0, 1]] {
            assert_eq!(classify(&frame(other, 0x88b5), &info, &wanted), Verdict::ForeignMac);
        }
        let sent = FrameInfo { packet_type: libc::PACKET_OUTGOING, ..info };
        assert_eq!(classify(&to_all, &sent, &wanted), Verdict::ForeignMac);
    }

    #[test]
    fn only_untagged_frames_to_us_of_the_ethertype_are_ours() {
        let plain = FrameInfo::default();
        let ours = frame([2, 0, 0, 0, 0, 1], 0x88b5);
        assert_eq!(verdict(&ours, plain), Verdict::Ours);
        assert_eq!(verdict(&ours[..14], plain), Verdict::Ours);
        assert_eq!(verdict(&ours[..13], plain), Verdict::BadLength);
        assert_eq!(verdict(&[0; FRAME_MAX + 1], plain), Verdict::BadLength);
        let cut = FrameInfo { wire_length: 9000, ..plain };
        assert_eq!(verdict(&ours, cut), Verdict::BadLength);
        for other in [[2, 0, 0, 0, 0, 9], [0xff; 6], [3, 0, 0, 0, 0, 1]] {
            assert_eq!(verdict(&frame(other, 0x88b5), plain), Verdict::ForeignMac);
        }
        let outgoing = FrameInfo { packet_type: libc::PACKET_OUTGOING, ..plain };
        assert_eq!(verdict(&ours, outgoing), Verdict::ForeignMac);
        let mut own = frame([2, 0, 0, 0, 0, 9], 0x88b5);
        own[6..12].copy_from_slice(&OURS.octets());
        assert_eq!(verdict(&own, plain), Verdict::Own);
        assert_eq!(verdict(&own, outgoing), Verdict::ForeignMac);
        assert_eq!(verdict(&frame(OURS.octets(), 0x0800), plain), Verdict::ForeignEtherType);
        let tagged = FrameInfo { packet_type: libc::PACKET_OTHERHOST, ..plain };
        assert_eq!(verdict(&ours, tagged), Verdict::ForeignVlan);
    }
}
