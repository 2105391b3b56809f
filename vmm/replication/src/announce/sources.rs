//! [`AllowedSources`]: the addresses that a guest may use on its LAN.
//!
//! A guest that answers ARP for the gateway's address receives the LAN's traffic, and the host that goes live would
//! announce that address in its name.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket};
use pnet::packet::icmpv6::Icmpv6Types;
use pnet::packet::icmpv6::ndp::NeighborAdvertPacket;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::vlan::VlanPacket;

use super::learn::is_tag;
use super::pnet_address::{from_pnet4, from_pnet6};
use crate::MacAddr;
use crate::limits::FRAME_MIN;

const TAG_BYTES: usize = 4;
const IPV6_HEADER_BYTES: usize = 40;
/// Most extension headers of an IPv6 packet that are skipped. A packet with more is refused.
const EXTENSIONS_MAX: usize = 8;

/// The source addresses that a guest may use on its LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedSources {
    /// Every address.
    Any,
    /// Those of the VM.
    Vm {
        /// MAC address of its NIC.
        card: MacAddr,
        /// Its IP addresses; every IP address if there are none.
        ips: Vec<IpAddr>,
    },
}

impl AllowedSources {
    /// Returns whether the guest may send this frame.
    ///
    /// With [`Vm`](AllowedSources::Vm), the Ethernet source must be the card, and so must be the sender of ARP and
    /// RARP. If IP addresses are given, the sender of ARP, the source of IPv4 and IPv6, and the target of a neighbour
    /// advertisement must be among them. The unspecified addresses (DHCP, duplicate address detection) and IPv6
    /// link-local addresses are always allowed. Frames with two VLAN tags are not, because nothing behind the second
    /// is checked.
    pub fn allow(&self, frame: &[u8]) -> bool {
        let AllowedSources::Vm { card, ips } = self else { return true };
        let Some(ethernet) = EthernetPacket::new(frame) else { return false };
        if ethernet.get_source() != *card {
            return false;
        }
        let (ethertype, payload) = match ethernet.get_ethertype() {
            EtherTypes::Vlan => {
                let Some(tag) = VlanPacket::new(&frame[FRAME_MIN..]) else { return false };
                (tag.get_ethertype(), &frame[FRAME_MIN + TAG_BYTES..])
            }
            ethertype => (ethertype, &frame[FRAME_MIN..]),
        };
        match ethertype {
            EtherTypes::Arp | EtherTypes::Rarp => allows_arp(*card, ips, ethertype, payload),
            EtherTypes::Ipv4 => {
                ips.is_empty() || ipv4_source(payload).is_some_and(|ip| has(ips, ip))
            }
            EtherTypes::Ipv6 => ips.is_empty() || allows_ipv6(ips, payload),
            ethertype => !is_tag(ethertype),
        }
    }
}

/// Whether the address is among `ips`, or is one that every guest may use.
fn has(ips: &[IpAddr], address: impl Into<IpAddr>) -> bool {
    let address = address.into();
    let is_link_local = |ip: Ipv6Addr| ip.segments()[0] & 0xffc0 == 0xfe80;
    address.is_unspecified()
        || matches!(address, IpAddr::V6(ip) if is_link_local(ip))
        || ips.contains(&address)
}

/// ARP (RFC 826) and RARP (RFC 903), which has the same format.
fn allows_arp(card: MacAddr, ips: &[IpAddr], ethertype: EtherType, bytes: &[u8]) -> bool {
    let Some(arp) = ArpPacket::new(bytes) else { return false };
    let is_ipv4_on_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    // A request of RARP says nothing about IP addresses, and a reply is a server's.
    let is_allowed_ip = ips.is_empty()
        || (ethertype == EtherTypes::Arp && has(ips, from_pnet4(arp.get_sender_proto_addr())));
    is_ipv4_on_ethernet && arp.get_sender_hw_addr() == card && is_allowed_ip
}

fn ipv4_source(bytes: &[u8]) -> Option<Ipv4Addr> {
    let ip = Ipv4Packet::new(bytes)?;
    (ip.get_version() == 4).then(|| from_pnet4(ip.get_source()))
}

fn allows_ipv6(ips: &[IpAddr], bytes: &[u8]) -> bool {
    let Some(ip) = Ipv6Packet::new(bytes).filter(|ip| ip.get_version() == 6) else { return false };
    let Some((next, payload)) =
        behind_extensions(ip.get_next_header(), &bytes[IPV6_HEADER_BYTES..])
    else {
        return false;
    };
    let is_advert = next == IpNextHeaderProtocols::Icmpv6
        && payload.first() == Some(&Icmpv6Types::NeighborAdvert.0);
    let target = || Some(from_pnet6(NeighborAdvertPacket::new(payload)?.get_target_addr()));
    has(ips, from_pnet6(ip.get_source()))
        && (!is_advert || target().is_some_and(|target| has(ips, target)))
}

/// Skips extension headers that a host skips on its way to a neighbour advertisement (RFC 8200 section 4). Fragments
/// are not reassembled: hosts discard advertisements in fragments (RFC 6980). `None` if they do not end.
fn behind_extensions(
    mut next: IpNextHeaderProtocol,
    mut bytes: &[u8],
) -> Option<(IpNextHeaderProtocol, &[u8])> {
    for _ in 0..=EXTENSIONS_MAX {
        let is_extension = matches!(
            next,
            IpNextHeaderProtocols::Hopopt
                | IpNextHeaderProtocols::Ipv6Route
                | IpNextHeaderProtocols::Ipv6Opts
        );
        if !is_extension {
            return Some((next, bytes));
        }
        let &[following, length, ..] = bytes else { return None };
        next = IpNextHeaderProtocol(following);
        bytes = bytes.get(8 * (usize::from(length) + 1)..)?;
    }
    None
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
