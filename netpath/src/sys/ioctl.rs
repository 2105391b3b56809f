//! The ioctls of the tun driver (Documentation/networking/tuntap.rst) and of interfaces
//! (netdevice(7)), each as a safe function.
//!
//! Rules for the unsafe code in this file:
//! 1. Each request is issued with a pointer to a live local of the type that the request is
//!    documented to take; the kernel reads and writes no more than that type and keeps no pointer.
//! 2. `ifreq` is plain C data for which all-zero bytes are valid; a union member is read only after
//!    a request that fills in that member succeeded.
//! 3. Descriptors come in as `BorrowedFd`, so they are open for the length of the call.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::PortError;
use crate::mac::MacAddr;

/// A checked interface name, in the kernel's form: at most 15 bytes and a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName([u8; libc::IFNAMSIZ]);

impl InterfaceName {
    /// Applies the kernel's rules (`dev_valid_name` in net/core/dev.c), and refuses `%`, which
    /// `TUNSETIFF` would take as a template for a new name.
    pub(crate) fn new(name: &str) -> Result<InterfaceName, PortError> {
        let why = if name.is_empty() {
            "it is empty"
        } else if name.len() >= libc::IFNAMSIZ {
            "it is longer than 15 bytes"
        } else if name == "." || name == ".." {
            "the kernel reserves it"
        } else if name.bytes().any(|b| b == 0 || b == b'/' || b == b':' || b == b'%')
            || name.bytes().any(|b| b.is_ascii_whitespace())
        {
            "it contains '/', ':', '%', NUL or white space"
        } else {
            let mut bytes = [0; libc::IFNAMSIZ];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            return Ok(InterfaceName(bytes));
        };
        Err(PortError::BadName { name: name.escape_debug().to_string(), why })
    }

    /// The name with a NUL at its end.
    pub(crate) fn with_nul(&self) -> &[u8] {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len() - 1);
        &self.0[..=length]
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all-zero is a valid `ifreq` (rule 2).
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.0) {
            *to = from.cast_signed();
        }
        request
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a socket for interface requests in the network namespace of the calling thread.
pub(crate) fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor was made just now and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `TUNSETIFF`: attaches `tun` to the interface, which is created if it does not exist.
pub(crate) fn tun_attach(
    tun: BorrowedFd<'_>,
    name: &InterfaceName,
    flags: libc::c_int,
) -> io::Result<()> {
    let mut request = name.request();
    // The field is 16 bits of flags; the kernel's own constants all fit.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// `TUNSETOFFLOAD 0`: the kernel computes checksums and segments packets before it hands frames over.
/// Needed because a persistent tap keeps the settings of an earlier owner.
pub(crate) fn tun_disable_offload(tun: BorrowedFd<'_>) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, none) })
}

/// `TUNGETFEATURES`: the flags that the driver supports in `TUNSETIFF`.
pub(crate) fn tun_features(tun: BorrowedFd<'_>) -> io::Result<u32> {
    let mut features: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES takes a pointer to an unsigned int (rule 1).
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &raw mut features) })?;
    Ok(features)
}

/// `SIOCGIFINDEX`: whether the calling namespace has an interface of this name.
pub(crate) fn interface_exists(socket: &OwnedFd, name: &InterfaceName) -> io::Result<bool> {
    let mut request = name.request();
    // SAFETY: SIOCGIFINDEX takes a pointer to `ifreq` (rules 1 and 3).
    let result = unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request)
    };
    match check(result) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(e) => Err(e),
    }
}

/// `SIOCGIFFLAGS`: the `IFF_*` flags.
pub(crate) fn interface_flags(socket: &OwnedFd, name: &InterfaceName) -> io::Result<libc::c_int> {
    let mut request = name.request();
    // SAFETY: SIOCGIFFLAGS takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    // SAFETY: the request filled in this member (rule 2).
    Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
}

/// `SIOCGIFMTU`: the MTU in bytes, without the Ethernet header.
pub(crate) fn interface_mtu(socket: &OwnedFd, name: &InterfaceName) -> io::Result<u32> {
    let mut request = name.request();
    // SAFETY: SIOCGIFMTU takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) })?;
    // SAFETY: the request filled in this member (rule 2).
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::Error::other("negative MTU"))
}

/// `SIOCGIFHWADDR`: the interface's own Ethernet address.
pub(crate) fn interface_mac(socket: &OwnedFd, name: &InterfaceName) -> io::Result<MacAddr> {
    let mut request = name.request();
    // SAFETY: SIOCGIFHWADDR takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) })?;
    // SAFETY: the request filled in this member (rule 2).
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let octets: [u8; 6] = std::array::from_fn(|i| data[i].cast_unsigned());
    Ok(octets.into())
}

/// `SIOCGIFHWADDR`: the hardware type, `ARPHRD_*`.
pub(crate) fn interface_hardware(socket: &OwnedFd, name: &InterfaceName) -> io::Result<u16> {
    let mut request = name.request();
    // SAFETY: SIOCGIFHWADDR takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request) })?;
    // SAFETY: the request filled in this member (rule 2).
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// `SIOCGIFNAME`: the current name of an interface, which may be renamed while in use.
pub(crate) fn interface_name(socket: &OwnedFd, index: u32) -> io::Result<InterfaceName> {
    const SIOCGIFNAME: libc::c_ulong = 0x8910;
    let mut request = InterfaceName([0; libc::IFNAMSIZ]).request();
    request.ifr_ifru.ifru_ifindex = index.cast_signed();
    // SAFETY: SIOCGIFNAME takes a pointer to `ifreq` (rules 1 and 3).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFNAME as _, &raw mut request) })?;
    Ok(InterfaceName(request.ifr_name.map(|c| c.cast_unsigned())))
}

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    _version: [u8; 32],
    _firmware: [u8; 32],
    bus: [u8; 32],
    _rest: [u8; 32 + 12 + 5 * 4],
}

const _: () = assert!(mem::size_of::<DriverInfo>() == 196);

/// `ETHTOOL_GDRVINFO`: the driver's name and bus. The tun driver says `("tun", "tap")` for a tap
/// and `("tun", "tun")` for a tun device (`tun_get_drvinfo` in drivers/net/tun.c).
pub(crate) fn interface_driver(
    socket: &OwnedFd,
    name: &InterfaceName,
) -> io::Result<(String, String)> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        _version: [0; 32],
        _firmware: [0; 32],
        bus: [0; 32],
        _rest: [0; 64],
    };
    let mut request = name.request();
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: SIOCETHTOOL takes a pointer to `ifreq` whose data points to the structure that the
    // command in its first word names; both are live locals (rule 1).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    Ok((text(&info.driver), text(&info.bus)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernels_rules() {
        assert!(InterfaceName::new("tap0").is_ok());
        assert!(InterfaceName::new("fifteen-bytes-x").is_ok());
        for name in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a:1", "tap%d", "a\n", "a\0"]
        {
            let error = InterfaceName::new(name).unwrap_err();
            assert!(matches!(error, PortError::BadName { .. }), "{name:?}");
            assert!(!error.to_string().contains('\n'));
        }
        assert_eq!(
            InterfaceName::new("sixteen-bytes-xx").unwrap_err().to_string(),
            "'sixteen-bytes-xx' is not an interface name: it is longer than 15 bytes"
        );
    }
}
