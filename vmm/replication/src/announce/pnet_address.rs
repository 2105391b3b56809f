//! IP addresses to and from pnet's types, which are those of `core` only if pnet is built with `std`.

use core::net::{Ipv4Addr, Ipv6Addr};
use pnet::util::core_net;

pub(super) fn to_pnet4(address: Ipv4Addr) -> core_net::Ipv4Addr {
    address.octets().into()
}

pub(super) fn to_pnet6(address: Ipv6Addr) -> core_net::Ipv6Addr {
    address.octets().into()
}

pub(super) fn from_pnet4(address: core_net::Ipv4Addr) -> Ipv4Addr {
    address.octets().into()
}

pub(super) fn from_pnet6(address: core_net::Ipv6Addr) -> Ipv6Addr {
    address.octets().into()
}
