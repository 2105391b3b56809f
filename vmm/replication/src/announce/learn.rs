//! Extracts from one frame of the guest what it says about the guest's addresses.
//!
//! Fields are read through pnet's packet types at offsets that were checked before. pnet's accessors
//! for IPv4 payload, IPv6 extensions and Neighbour Discovery options trust lengths in the packet. They
//! are not used, because the guest chooses those lengths.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket};
use pnet::packet::icmpv6::ndp::{NeighborAdvertFlags, NeighborAdvertPacket, NeighborSolicitPacket};
use pnet::packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::vlan::VlanPacket;

use super::pnet_address::{from_pnet4, from_pnet6};
use super::table::{Evidence, Station};
use crate::MacAddr;
use crate::limits::FRAME_MIN;

const TAG_BYTES: usize = 4;
const IPV4_HEADER_BYTES_MIN: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
/// Hop limit of Neighbour Discovery. A forwarded packet cannot have it, because every router
/// decrements it (RFC 4861 section 3.1).
pub(super) const NDP_HOP_LIMIT: u8 = 255;
/// First number above the valid VLAN identifiers; itself reserved (IEEE 802.1Q-2022, table 9-2).
pub(super) const VLAN_END: u16 = 0xfff;

/// What one frame says about the guest's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) station: Station,
    /// The IP address that the frame comes from, and how reliable that is.
    pub(super) source: Option<(IpAddr, Evidence)>,
    /// Whether the source is a router, if the frame says so.
    pub(super) router: Option<bool>,
    /// The neighbour that the guest tries to resolve.
    pub(super) asks_for: Option<IpAddr>,
}

impl Observation {
    fn new(station: Station) -> Observation {
        Observation { station, source: None, router: None, asks_for: None }
    }

    fn with_source(self, source: impl Into<IpAddr>, evidence: Evidence) -> Observation {
        let source = source.into();
        Observation { source: is_station_ip(source).then_some((source, evidence)), ..self }
    }
}

/// Whether this can be the source address of a frame.
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

/// False for "this network" (0/8: DHCP clients, ARP probes), loopback, multicast and reserved addresses
/// (RFC 6890).
pub(super) fn is_station_ipv4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// False for the unspecified address (duplicate address detection), loopback and multicast (RFC 4291
/// section 2.5).
pub(super) fn is_station_ipv6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// Parses a frame. Returns `None` if it does not even name a valid station.
pub(super) fn parse(frame: &[u8]) -> Option<Observation> {
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
    // Double tags are ignored. A station would need both tags, and networks do not usually let a guest
    // send such frames.
    if is_tag(ethertype) || vlan >= VLAN_END {
        return None;
    }
    let station_only = Observation::new(Station { mac, vlan });
    let observation = match ethertype {
        EtherTypes::Arp => arp(station_only, payload),
        EtherTypes::Ipv4 => ipv4(station_only, payload),
        EtherTypes::Ipv6 => ipv6(station_only, payload),
        _ => None,
    };
    Some(observation.unwrap_or(station_only))
}

pub(super) fn is_tag(ethertype: EtherType) -> bool {
    matches!(ethertype, EtherTypes::Vlan | EtherTypes::PBridge | EtherTypes::QinQ)
}

/// ARP (RFC 826): request and reply both state the sender's addresses.
fn arp(base: Observation, bytes: &[u8]) -> Option<Observation> {
    let arp = ArpPacket::new(bytes)?;
    let ipv4_on_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    let request = match arp.get_operation() {
        ArpOperations::Request => true,
        ArpOperations::Reply => false,
        _ => return None,
    };
    // If the ARP sender is not the frame's sender, the guest speaks for another station.
    if !ipv4_on_ethernet || arp.get_sender_hw_addr() != base.station.mac {
        return None;
    }
    let (sender, target) =
        (from_pnet4(arp.get_sender_proto_addr()), from_pnet4(arp.get_target_proto_addr()));
    let asks_for = (request && sender != target).then_some(IpAddr::V4(target));
    Some(Observation { asks_for, ..base.with_source(sender, Evidence::Claimed) })
}

/// IPv4 (RFC 791 section 3.1).
fn ipv4(base: Observation, bytes: &[u8]) -> Option<Observation> {
    let ip = Ipv4Packet::new(bytes)?;
    let header = 4 * usize::from(ip.get_header_length());
    let total = usize::from(ip.get_total_length());
    // The total length may be less than the payload of the frame, which may end in padding.
    let is_valid = ip.get_version() == 4
        && header >= IPV4_HEADER_BYTES_MIN
        && (header..=bytes.len()).contains(&total);
    is_valid.then(|| base.with_source(from_pnet4(ip.get_source()), Evidence::Seen))
}

/// IPv6 (RFC 8200 section 3).
fn ipv6(base: Observation, bytes: &[u8]) -> Option<Observation> {
    let ip = Ipv6Packet::new(bytes)?;
    let end = IPV6_HEADER_BYTES + usize::from(ip.get_payload_length());
    let payload = bytes.get(IPV6_HEADER_BYTES..end)?;
    if ip.get_version() != 6 {
        return None;
    }
    let source = from_pnet6(ip.get_source());
    let seen = base.with_source(source, Evidence::Seen);
    let may_be_ndp = ip.get_next_header() == IpNextHeaderProtocols::Icmpv6
        && ip.get_hop_limit() == NDP_HOP_LIMIT;
    let claimed = if may_be_ndp { ndp(base, source, payload) } else { None };
    Some(claimed.unwrap_or(seen))
}

/// Neighbour Discovery (RFC 4861 section 4): the source of these messages is an address of the sender's
/// own interface.
fn ndp(base: Observation, source: Ipv6Addr, bytes: &[u8]) -> Option<Observation> {
    let icmp = Icmpv6Packet::new(bytes)?;
    if icmp.get_icmpv6_code() != Icmpv6Code(0) {
        return None;
    }
    let claimed = base.with_source(source, Evidence::Claimed);
    match icmp.get_icmpv6_type() {
        Icmpv6Types::RouterSolicit if bytes.len() >= 8 => Some(claimed),
        Icmpv6Types::RouterAdvert if bytes.len() >= 16 => {
            Some(Observation { router: Some(true), ..claimed })
        }
        Icmpv6Types::NeighborSolicit => {
            let target = from_pnet6(NeighborSolicitPacket::new(bytes)?.get_target_addr());
            let asks_for = (target != source).then_some(IpAddr::V6(target));
            Some(Observation { asks_for, ..claimed })
        }
        Icmpv6Types::NeighborAdvert => {
            let flags = NeighborAdvertPacket::new(bytes)?.get_flags();
            Some(Observation { router: Some(flags & NeighborAdvertFlags::Router != 0), ..claimed })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
