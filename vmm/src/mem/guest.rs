//! Allocation of guest RAM.

use super::layout::{MEMORY_MAX, MEMORY_MIN, PAGE};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Guest RAM: one region from address 0, with a bitmap of the pages that the VMM itself wrote, which
/// KVM's dirty log does not contain.
pub type GuestRam = vm_memory::GuestMemoryMmap<AtomicBitmap>;

/// Guest memory of the requested size cannot be provided.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than a guest needs to start.
    #[error("{mib} MiB of guest memory is too small: give at least {} MiB", MEMORY_MIN >> 20)]
    TooSmall {
        /// Requested size, rounded down to MiB.
        mib: u64,
    },
    /// More than fits into the one region below the PCI windows.
    #[error("{mib} MiB of guest memory is too large: the machine has room for {} MiB", MEMORY_MAX >> 20)]
    TooLarge {
        /// Requested size, rounded down to MiB.
        mib: u64,
    },
    /// Not a multiple of 2 MiB.
    #[error("{bytes} bytes of guest memory is not a multiple of 2 MiB")]
    Unaligned {
        /// Requested size, bytes.
        bytes: u64,
    },
    /// The host has less memory available.
    #[error("{mib} MiB of guest memory, but the host has only {available_mib} MiB available")]
    HostTooSmall {
        /// Requested size, MiB.
        mib: u64,
        /// `MemAvailable`, MiB.
        available_mib: u64,
    },
    /// mmap(2) failed.
    #[error("can't map {mib} MiB of guest memory: {source}")]
    Map {
        /// Requested size, MiB.
        mib: u64,
        /// vm-memory's error.
        source: vm_memory::mmap::FromRangesError,
    },
}

/// Maps `bytes` of private, zeroed memory as guest RAM, without reserving it.
///
/// # Errors
///
/// The size is not supported, the host has less memory available, or mmap(2) failed.
pub fn allocate(bytes: u64) -> Result<GuestRam, MemoryError> {
    check_size(bytes)?;
    GuestRam::from_ranges(&[(GuestAddress(0), bytes as usize)])
        .map_err(|source| MemoryError::Map { mib: bytes >> 20, source })
}

/// Returns the bytes of guest RAM.
pub fn bytes(ram: &GuestRam) -> u64 {
    ram.iter().map(|region| region.len()).sum()
}

fn check_size(bytes: u64) -> Result<(), MemoryError> {
    let mib = bytes >> 20;
    if bytes < MEMORY_MIN {
        return Err(MemoryError::TooSmall { mib });
    }
    if bytes > MEMORY_MAX {
        return Err(MemoryError::TooLarge { mib });
    }
    if !bytes.is_multiple_of(2 << 20) {
        return Err(MemoryError::Unaligned { bytes });
    }
    // The mapping itself reserves nothing. So a size that the host cannot back would end in the kernel's
    // out-of-memory killer long after the start.
    if let Some(available) = host_available_bytes()
        && available < bytes
    {
        return Err(MemoryError::HostTooSmall { mib, available_mib: available >> 20 });
    }
    Ok(())
}

/// Copies the contents of page `number` into `bytes`.
///
/// # Panics
///
/// If the page is outside guest RAM.
pub fn read_page(ram: &GuestRam, number: u64, bytes: &mut [u8; PAGE as usize]) {
    ram.read_slice(bytes, GuestAddress(number * PAGE)).expect("the page lies in guest RAM");
}

/// Returns `MemAvailable` of proc_meminfo(5), bytes, or `None` if it cannot be read.
fn host_available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocate_out_of_range_sizes_names_the_limit() {
        let text = |bytes| allocate(bytes).unwrap_err().to_string();
        assert_eq!(text(1 << 20), "1 MiB of guest memory is too small: give at least 16 MiB");
        assert_eq!(
            text(4 << 30),
            "4096 MiB of guest memory is too large: the machine has room for 3072 MiB"
        );
        assert_eq!(
            text((32 << 20) + 1),
            "33554433 bytes of guest memory is not a multiple of 2 MiB"
        );
        assert!(allocate(32 << 20).is_ok());
    }
}
