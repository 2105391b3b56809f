//! [`PairVm`]: one of several VMs on two hosts, and what it has of its own.

use crate::{GUEST_ADDRESS, TAP};
use pnet::util::MacAddr;
use std::net::Ipv4Addr;

/// MAC address of a VM without options. That of another one differs from it in the last byte.
pub const DEFAULT_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0x77, 0, 2);

/// A VM of a testbed, by its number. The first one has the program's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairVm(u8);

impl PairVm {
    /// The most VMs of a testbed.
    pub const MAX: u8 = 32;

    /// Returns the first `count` VMs.
    ///
    /// # Panics
    ///
    /// If `count` is more than [`MAX`](Self::MAX).
    pub fn first(count: u8) -> impl Iterator<Item = PairVm> {
        assert!(count <= Self::MAX, "{count} VMs");
        (0..count).map(PairVm)
    }

    /// Returns the number, which is also its `--vm-id`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the name of its tap, on both hosts.
    pub fn tap(self) -> String {
        match self.0 {
            0 => TAP.into(),
            number => format!("tap{number}"),
        }
    }

    /// Returns the MAC address of its NIC.
    pub fn mac(self) -> MacAddr {
        MacAddr(0x52, 0x54, 0, 0x77, 0, 2 + self.0)
    }

    /// Returns its IP address.
    pub fn address(self) -> Ipv4Addr {
        let [a, b, c, last] = GUEST_ADDRESS.octets();
        Ipv4Addr::new(a, b, c, last + self.0)
    }

    /// Returns the options of its processes by which it differs from the first one.
    pub(super) fn options(self) -> Vec<String> {
        let PairVm(number) = self;
        if number == 0 {
            return Vec::new();
        }
        vec![
            format!("--vm-id={number}"),
            format!("--mac={}", self.mac()),
            format!("--command-line=ip={}/24", self.address()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_differ_and_the_first_one_has_the_defaults() {
        let [first, second] = [PairVm(0), PairVm(1)];
        assert_eq!((first.tap().as_str(), first.mac()), (TAP, DEFAULT_MAC));
        assert_eq!(first.address(), GUEST_ADDRESS);
        assert!(first.options().is_empty());
        assert_eq!((second.tap().as_str(), second.number()), ("tap1", 1));
        assert_ne!((second.mac(), second.address()), (first.mac(), first.address()));
        let expected = ["--vm-id=1", "--mac=52:54:00:77:00:03", "--command-line=ip=10.77.0.3/24"];
        assert_eq!(second.options(), expected);
        assert_eq!(PairVm::first(PairVm::MAX).last(), Some(PairVm(PairVm::MAX - 1)));
    }
}
