//! [`Announcement`]: the frames that announce where an address is.

use core::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet::packet::icmpv6::ndp::{
    MutableNdpOptionPacket, MutableNeighborAdvertPacket, NdpOptionTypes, NeighborAdvertFlags,
};
use pnet::packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::vlan::MutableVlanPacket;

use super::learn::NDP_HOP_LIMIT;
use super::pnet_address::{to_pnet4, to_pnet6};
use super::table::Station;
use crate::MacAddr;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;
use crate::limits::FRAME_MIN;

/// Shortest frame on a wire, without its check sequence (IEEE 802.3 clause 3.2.8). Taps accept
/// shorter frames, but a network behind a tap may not.
const WIRE_BYTES_MIN: usize = 60;
const TAG_BYTES: usize = 4;
const ARP_BYTES: usize = 28;
const IPV6_HEADER_BYTES: usize = 40;
/// Neighbour Advertisement with one option of 8 bytes.
const ADVERT_BYTES: usize = 24 + 8;

/// "request reverse" (RFC 903).
const RARP_REQUEST: ArpOperation = ArpOperation(3);

/// The all-nodes multicast address, and the MAC address of that group (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);

/// One broadcast or all-nodes multicast frame in the guest's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A RARP request of a station for its own address. Nobody answers it; it carries the station's
    /// source MAC address through every switch, and needs no IP address.
    Rarp {
        /// The sender.
        station: Station,
    },
    /// An ARP request for the sender's own address (RFC 5944 section 4.6, RFC 5227 section 2.3).
    ArpRequest {
        /// Where the address is.
        station: Station,
        /// The address.
        address: Ipv4Addr,
    },
    /// An unsolicited ARP reply, from and to the same address (RFC 5944 section 4.6). Both this and the
    /// request are sent, because some hosts update their cache from only one of them.
    ArpReply {
        /// Where the address is.
        station: Station,
        /// The address.
        address: Ipv4Addr,
    },
    /// An unsolicited Neighbour Advertisement (RFC 4861 section 7.2.6) with the Override flag, so that
    /// neighbours replace their cached entry.
    NeighbourAdvert {
        /// Where the address is.
        station: Station,
        /// The address.
        address: Ipv6Addr,
        /// Whether the address is a router's. A host removes a router from its router list if an
        /// advertisement lacks the Router flag (section 7.2.5).
        router: bool,
    },
}

impl Announcement {
    /// Returns whether this announces a MAC address only.
    pub fn is_rarp(&self) -> bool {
        match self {
            Announcement::Rarp { .. } => true,
            Announcement::ArpRequest { .. }
            | Announcement::ArpReply { .. }
            | Announcement::NeighbourAdvert { .. } => false,
        }
    }

    /// Writes the frame to the front of `buffer` and returns its length in bytes.
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than [`ANNOUNCEMENT_BYTES_MAX`].
    pub fn build(&self, buffer: &mut [u8]) -> usize {
        assert!(
            buffer.len() >= ANNOUNCEMENT_BYTES_MAX,
            "an announcement needs a buffer of {ANNOUNCEMENT_BYTES_MAX} bytes, not {}",
            buffer.len()
        );
        buffer[..ANNOUNCEMENT_BYTES_MAX].fill(0);
        match *self {
            Announcement::Rarp { station } => {
                let arp = Arp {
                    operation: RARP_REQUEST,
                    address: Ipv4Addr::UNSPECIFIED,
                    target: station.mac,
                };
                arp_frame(buffer, station, EtherTypes::Rarp, &arp)
            }
            Announcement::ArpRequest { station, address } => {
                let arp =
                    Arp { operation: ArpOperations::Request, address, target: MacAddr::zero() };
                arp_frame(buffer, station, EtherTypes::Arp, &arp)
            }
            Announcement::ArpReply { station, address } => {
                let arp = Arp { operation: ArpOperations::Reply, address, target: station.mac };
                arp_frame(buffer, station, EtherTypes::Arp, &arp)
            }
            Announcement::NeighbourAdvert { station, address, router } => {
                advert_frame(buffer, station, address, router)
            }
        }
    }
}

/// The fields in which frames of the ARP format differ.
struct Arp {
    operation: ArpOperation,
    /// Protocol address of both sender and target.
    address: Ipv4Addr,
    target: MacAddr,
}

fn arp_frame(buffer: &mut [u8], station: Station, ethertype: EtherType, arp: &Arp) -> usize {
    let start = header(buffer, station, MacAddr::broadcast(), ethertype);
    let mut packet = MutableArpPacket::new(&mut buffer[start..]).expect("room for ARP");
    packet.set_hardware_type(ArpHardwareTypes::Ethernet);
    packet.set_protocol_type(EtherTypes::Ipv4);
    packet.set_hw_addr_len(6);
    packet.set_proto_addr_len(4);
    packet.set_operation(arp.operation);
    packet.set_sender_hw_addr(station.mac);
    packet.set_sender_proto_addr(to_pnet4(arp.address));
    packet.set_target_hw_addr(arp.target);
    packet.set_target_proto_addr(to_pnet4(arp.address));
    // A switch may remove the tag. The frame must then still have the minimum length.
    (start + ARP_BYTES).max(start - FRAME_MIN + WIRE_BYTES_MIN)
}

fn advert_frame(buffer: &mut [u8], station: Station, address: Ipv6Addr, router: bool) -> usize {
    let start = header(buffer, station, ALL_NODES_MAC, EtherTypes::Ipv6);
    let mut ip = MutableIpv6Packet::new(&mut buffer[start..]).expect("room for IPv6");
    ip.set_version(6);
    ip.set_payload_length(ADVERT_BYTES as u16);
    ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ip.set_hop_limit(NDP_HOP_LIMIT);
    ip.set_source(to_pnet6(address));
    ip.set_destination(to_pnet6(ALL_NODES));

    let start = start + IPV6_HEADER_BYTES;
    let end = start + ADVERT_BYTES;
    let router = if router { NeighborAdvertFlags::Router } else { 0 };
    let mut advert =
        MutableNeighborAdvertPacket::new(&mut buffer[start..end]).expect("room for the advert");
    advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
    advert.set_flags(router | NeighborAdvertFlags::Override);
    advert.set_target_addr(to_pnet6(address));
    let mut option =
        MutableNdpOptionPacket::new(&mut buffer[end - 8..end]).expect("room for the option");
    option.set_option_type(NdpOptionTypes::TargetLLAddr);
    option.set_length(1);
    option.set_data(&station.mac.octets());

    let icmp = Icmpv6Packet::new(&buffer[start..end]).expect("room for ICMPv6");
    let checksum = icmpv6::checksum(&icmp, &to_pnet6(address), &to_pnet6(ALL_NODES));
    MutableNeighborAdvertPacket::new(&mut buffer[start..end])
        .expect("room for the advert")
        .set_checksum(checksum);
    end
}

/// Writes the Ethernet header, with a VLAN tag if the station has one, and returns its length in bytes.
fn header(
    buffer: &mut [u8],
    station: Station,
    destination: MacAddr,
    ethertype: EtherType,
) -> usize {
    let mut ethernet = MutableEthernetPacket::new(buffer).expect("room for Ethernet");
    ethernet.set_destination(destination);
    ethernet.set_source(station.mac);
    if station.vlan == 0 {
        ethernet.set_ethertype(ethertype);
        return FRAME_MIN;
    }
    ethernet.set_ethertype(EtherTypes::Vlan);
    let mut tag = MutableVlanPacket::new(&mut buffer[FRAME_MIN..]).expect("room for the tag");
    tag.set_vlan_identifier(station.vlan);
    tag.set_ethertype(ethertype);
    FRAME_MIN + TAG_BYTES
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
