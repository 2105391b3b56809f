//! Boot parameters: the command line that PVH hands over.
//!
//! The parameters are `ip=A.B.C.D/P` and `gw=A.B.C.D`, separated by spaces; words of other meaning are
//! ignored, as on a kernel command line. A value that does not parse is named on the console and the
//! default stays: a guest with a wrong address is easier to find than one that did not boot.

use core::ops::Range;
use core::str::FromStr;

use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

use crate::console::say;
use crate::gate::start_info;

/// `hvm_start_info.magic` (Xen public headers, arch-x86/hvm/start_info.h).
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Offset of `cmdline_paddr` (64 bits).
const CMDLINE_OFFSET: u64 = 24;
const START_INFO_BYTES: u64 = 56;
const CMDLINE_BYTES_MAX: usize = 4095;
/// The page tables map RAM for reading from the second page up to 1 GiB.
const READABLE: Range<u64> = 0x1000..0x4000_0000;
/// The image's share of it (link.ld): part of it is not readable, and none of it is a parameter.
const IMAGE: Range<u64> = 0x10_0000..0x40_0000;

/// The guest's addresses.
pub(crate) struct BootParams {
    pub(crate) ip: Ipv4Cidr,
    pub(crate) gateway: Option<Ipv4Address>,
}

impl BootParams {
    const DEFAULT: Self =
        Self { ip: Ipv4Cidr::new(Ipv4Address::new(10, 77, 0, 2), 24), gateway: None };

    /// Parameters of this boot.
    pub(crate) fn read() -> Self {
        let mut text = [0; CMDLINE_BYTES_MAX];
        let mut params = Self::DEFAULT;
        for word in command_line(&mut text).split(|b| b.is_ascii_whitespace()) {
            if let Some(value) = word.strip_prefix(b"ip=") {
                match parse(value).filter(|ip: &Ipv4Cidr| is_host(&ip.address())) {
                    Some(ip) => params.ip = ip,
                    None => say!("bad ip=, using {}", params.ip),
                }
            } else if let Some(value) = word.strip_prefix(b"gw=") {
                match parse(value).filter(is_host) {
                    Some(gateway) => params.gateway = Some(gateway),
                    None => say!("bad gw=, using none"),
                }
            }
        }
        params
    }
}

/// Whether a single machine can have this address.
fn is_host(address: &Ipv4Address) -> bool {
    !(address.is_broadcast() || address.is_multicast() || address.is_unspecified())
}

fn parse<T: FromStr>(value: &[u8]) -> Option<T> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

/// The command line without its terminator; empty if the boot protocol gave none we can read.
fn command_line(text: &mut [u8; CMDLINE_BYTES_MAX]) -> &[u8] {
    let info = start_info();
    let Some(header) = readable(info, START_INFO_BYTES) else { return &[] };
    // SAFETY: `readable` says the bytes are mapped RAM that no reference of this program covers, and
    // unaligned reads have no further demands.
    let (magic, address) = unsafe {
        (
            header.cast::<u32>().read_unaligned(),
            header.add(CMDLINE_OFFSET as usize).cast::<u64>().read_unaligned(),
        )
    };
    if magic != START_INFO_MAGIC {
        say!("no boot parameters at {:#x}", info);
        return &[];
    }
    for (i, byte) in text.iter_mut().enumerate() {
        let Some(source) = address.checked_add(i as u64).and_then(|a| readable(a, 1)) else {
            return &text[..i];
        };
        // SAFETY: as above, one byte.
        *byte = unsafe { source.read() };
        if *byte == 0 {
            return &text[..i];
        }
    }
    text
}

/// A pointer to physical memory that the boot loader may have filled.
fn readable(address: u64, len: u64) -> Option<*const u8> {
    let end = address.checked_add(len)?;
    let inside = READABLE.contains(&address) && end <= READABLE.end;
    let clear = end <= IMAGE.start || address >= IMAGE.end;
    (inside && clear).then_some(address as *const u8)
}
