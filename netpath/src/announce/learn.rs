//! What one frame of the guest says about its addresses.
//!
//! Fields are read through pnet's views at offsets that were checked before. Its views of IPv4
//! payload, of IPv6 extensions and of Neighbour Discovery options trust lengths in the packet, and
//! are not used: those lengths are the guest's choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket};
use pnet::packet::icmpv6::ndp::{NeighborAdvertFlags, NeighborAdvertPacket, NeighborSolicitPacket};
use pnet::packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::vlan::VlanPacket;

use super::table::{Evidence, Station};
use crate::mac::MacAddr;
use crate::port::FRAME_MIN;

const TAG_BYTES: usize = 4;
const IPV4_HEADER_BYTES_MIN: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
/// Hop limit of Neighbour Discovery, which no router leaves as it is (RFC 4861 section 3.1).
pub(super) const NDP_HOP_LIMIT: u8 = 255;
/// VLAN numbers end below this one, which is reserved (IEEE 802.1Q-2022, table 9-2).
pub(super) const VLAN_END: u16 = 0xfff;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lesson {
    pub(super) station: Station,
    /// Whose packet it is.
    pub(super) source: Option<(IpAddr, Evidence)>,
    /// Whether the source is a router, if it says so.
    pub(super) router: Option<bool>,
    /// Whom the guest looks for on its own link.
    pub(super) asks_for: Option<IpAddr>,
}

impl Lesson {
    fn new(station: Station) -> Lesson {
        Lesson { station, source: None, router: None, asks_for: None }
    }

    fn with_source(self, source: impl Into<IpAddr>, evidence: Evidence) -> Lesson {
        let source = source.into();
        Lesson { source: is_station_ip(source).then_some((source, evidence)), ..self }
    }
}

/// Whether frames can come from this address.
pub(super) fn is_station_mac(mac: MacAddr) -> bool {
    mac.is_unicast() && !mac.is_zero()
}

/// Whether a host on a LAN can have this address.
pub(super) fn is_station_ip(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_station_ipv4(address),
        IpAddr::V6(address) => is_station_ipv6(address),
    }
}

/// Not "this network" (0/8: DHCP clients, ARP probes), loopback, multicast or reserved (RFC 6890).
pub(super) fn is_station_ipv4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// Not unspecified (duplicate address detection), loopback or multicast (RFC 4291 section 2.5).
pub(super) fn is_station_ipv6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// Reads a frame. `None`: it teaches nothing, not even a station.
pub(super) fn read(frame: &[u8]) -> Option<Lesson> {
    let ethernet = EthernetPacket::new(frame)?;
    let mac = ethernet.get_source();
    if !is_station_mac(mac) {
        return None;
    }
    let (vlan, ethertype, payload) = match ethernet.get_ethertype() {
        EtherTypes::Vlan => {
            let tag = VlanPacket::new(&frame[FRAME_MIN..])?;
            (tag.get_vlan_identifier(), tag.get_ethertype(), &frame[FRAME_MIN + TAG_BYTES..])
        }
        ethertype => (0, ethertype, &frame[FRAME_MIN..]),
    };
    // Of two tags one would have to be remembered with the other, for networks that do not let a
    // guest send them.
    if is_tag(ethertype) || vlan >= VLAN_END {
        return None;
    }
    let lesson = Lesson::new(Station { mac, vlan });
    let taught = match ethertype {
        EtherTypes::Arp => arp(lesson, payload),
        EtherTypes::Ipv4 => ipv4(lesson, payload),
        EtherTypes::Ipv6 => ipv6(lesson, payload),
        _ => None,
    };
    Some(taught.unwrap_or(lesson))
}

fn is_tag(ethertype: EtherType) -> bool {
    matches!(ethertype, EtherTypes::Vlan | EtherTypes::PBridge | EtherTypes::QinQ)
}

/// RFC 826: whatever the operation, the sender says what its addresses are.
fn arp(lesson: Lesson, bytes: &[u8]) -> Option<Lesson> {
    let arp = ArpPacket::new(bytes)?;
    let ipv4_on_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    let request = match arp.get_operation() {
        ArpOperations::Request => true,
        ArpOperations::Reply => false,
        _ => return None,
    };
    // A sender other than the frame's is somebody else's affair.
    if !ipv4_on_ethernet || arp.get_sender_hw_addr() != lesson.station.mac {
        return None;
    }
    let (sender, target) = (arp.get_sender_proto_addr(), arp.get_target_proto_addr());
    let asks_for = (request && sender != target).then_some(IpAddr::V4(target));
    Some(Lesson { asks_for, ..lesson.with_source(sender, Evidence::Claimed) })
}

/// RFC 791 section 3.1.
fn ipv4(lesson: Lesson, bytes: &[u8]) -> Option<Lesson> {
    let ip = Ipv4Packet::new(bytes)?;
    let header = 4 * usize::from(ip.get_header_length());
    let total = usize::from(ip.get_total_length());
    // Behind the packet there may be padding.
    let sound = ip.get_version() == 4
        && header >= IPV4_HEADER_BYTES_MIN
        && (header..=bytes.len()).contains(&total);
    sound.then(|| lesson.with_source(ip.get_source(), Evidence::Seen))
}

/// RFC 8200 section 3.
fn ipv6(lesson: Lesson, bytes: &[u8]) -> Option<Lesson> {
    let ip = Ipv6Packet::new(bytes)?;
    let end = IPV6_HEADER_BYTES + usize::from(ip.get_payload_length());
    let payload = bytes.get(IPV6_HEADER_BYTES..end)?;
    if ip.get_version() != 6 {
        return None;
    }
    let seen = lesson.with_source(ip.get_source(), Evidence::Seen);
    let local = ip.get_next_header() == IpNextHeaderProtocols::Icmpv6
        && ip.get_hop_limit() == NDP_HOP_LIMIT;
    let claimed = if local { ndp(lesson, ip.get_source(), payload) } else { None };
    Some(claimed.unwrap_or(seen))
}

/// RFC 4861 section 4: hosts use an address of their own as the source of these.
fn ndp(lesson: Lesson, source: Ipv6Addr, bytes: &[u8]) -> Option<Lesson> {
    let icmp = Icmpv6Packet::new(bytes)?;
    if icmp.get_icmpv6_code() != Icmpv6Code(0) {
        return None;
    }
    let claimed = lesson.with_source(source, Evidence::Claimed);
    match icmp.get_icmpv6_type() {
        Icmpv6Types::RouterSolicit if bytes.len() >= 8 => Some(claimed),
        Icmpv6Types::RouterAdvert if bytes.len() >= 16 => {
            Some(Lesson { router: Some(true), ..claimed })
        }
        Icmpv6Types::NeighborSolicit => {
            let target = NeighborSolicitPacket::new(bytes)?.get_target_addr();
            let asks_for = (target != source).then_some(IpAddr::V6(target));
            Some(Lesson { asks_for, ..claimed })
        }
        Icmpv6Types::NeighborAdvert => {
            let flags = NeighborAdvertPacket::new(bytes)?.get_flags();
            Some(Lesson { router: Some(flags & NeighborAdvertFlags::Router != 0), ..claimed })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
