//! What a driver asks for (virtio 1.2, section 5.2.6): from a descriptor chain to a request that the device can do, or
//! to the status with which it refuses.
//!
//! ```text
//! device-readable: type u32, reserved u32, sector u64, then the data of a write or the segments of a discard
//! device-writable: the data of a read, then the status u8
//! ```

use super::state::Operation;
use crate::devices::DiskConfig;
use crate::devices::virtio::queue::{QueueError, VirtQueue};
use crate::mem::GuestRam;
use logchan::limits::DISK_BYTES_MAX;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Bytes of a sector, whatever the block size (section 5.2.4).
pub(super) const SECTOR_BYTES: u64 = 512;
/// Bytes of the type, the reserved word and the sector.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const SEGMENT_BYTES: usize = 16;
/// Most sectors of a discard or of a write of zeros: the length in bytes fits a u32.
pub(super) const RANGE_SECTORS_MAX: u32 = (1 << 31) / SECTOR_BYTES as u32;

/// The header and the data of the longest write.
pub(super) type Gathered = [u8; HEADER_BYTES + DISK_BYTES_MAX];

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Do it.
    Do(Range),
    /// Answer with the serial number.
    Serial,
    /// Answer with this status.
    Refuse(u8),
}

/// What a request does, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) operation: Operation,
    pub(super) sector: u64,
    pub(super) bytes: u32,
}

const IOERR: Parsed = Parsed::Refuse(VIRTIO_BLK_S_IOERR as u8);
const UNSUPPORTED: Parsed = Parsed::Refuse(VIRTIO_BLK_S_UNSUPP as u8);

/// Gathers the device-readable parts of the chain at `head` into `gathered`, and returns what they ask for.
///
/// # Errors
///
/// The chain is broken, or it has no room for a status.
pub(super) fn parse(
    disk: &DiskConfig,
    (queue, head): (&VirtQueue, u16),
    ram: &GuestRam,
    gathered: &mut Gathered,
) -> Result<Parsed, QueueError> {
    let lengths = queue.gather_at(ram, head, gathered)?;
    // Section 5.2.6.1: the driver must leave room for the status.
    let room = lengths.writable.checked_sub(1).ok_or(QueueError::BrokenChain)?;
    let Some(payload) = lengths.readable.checked_sub(HEADER_BYTES as u64) else {
        return Ok(IOERR);
    };
    let (header, data) = gathered.split_at(HEADER_BYTES);
    let kind = u32_at(header, 0);
    let sector = u64_at(header, 8);
    Ok(match kind {
        VIRTIO_BLK_T_IN => data_range(disk, Operation::Read, sector, room),
        VIRTIO_BLK_T_OUT if disk.read_only => IOERR,
        VIRTIO_BLK_T_OUT => data_range(disk, Operation::Write, sector, payload),
        VIRTIO_BLK_T_FLUSH => {
            Parsed::Do(Range { operation: Operation::Flush, sector: 0, bytes: 0 })
        }
        VIRTIO_BLK_T_GET_ID => Parsed::Serial,
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.read_only => IOERR,
        // One segment, as the configuration says.
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if payload != SEGMENT_BYTES as u64 => {
            IOERR
        }
        VIRTIO_BLK_T_DISCARD => segment(disk, Operation::Discard, data),
        VIRTIO_BLK_T_WRITE_ZEROES => segment(disk, Operation::WriteZeroes, data),
        _ => UNSUPPORTED,
    })
}

fn data_range(disk: &DiskConfig, operation: Operation, sector: u64, bytes: u64) -> Parsed {
    if bytes == 0 || bytes > DISK_BYTES_MAX as u64 || !bytes.is_multiple_of(SECTOR_BYTES) {
        return IOERR;
    }
    if !is_on(disk, sector, bytes / SECTOR_BYTES) {
        return IOERR;
    }
    Parsed::Do(Range { operation, sector, bytes: bytes as u32 })
}

/// Section 5.2.6.2: unknown flags, and the flag `unmap` of a discard, are not supported. With a write of zeros `unmap`
/// is a permission, of which the device makes no use.
fn segment(disk: &DiskConfig, operation: Operation, segment: &[u8]) -> Parsed {
    let (sector, sectors, flags) = (u64_at(segment, 0), u32_at(segment, 8), u32_at(segment, 12));
    let known = match operation {
        Operation::WriteZeroes => VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        Operation::Read | Operation::Write | Operation::Flush | Operation::Discard => 0,
    };
    if flags & !known != 0 {
        return UNSUPPORTED;
    }
    if sectors == 0 || sectors > RANGE_SECTORS_MAX || !is_on(disk, sector, u64::from(sectors)) {
        return IOERR;
    }
    Parsed::Do(Range { operation, sector, bytes: sectors * SECTOR_BYTES as u32 })
}

fn is_on(disk: &DiskConfig, sector: u64, sectors: u64) -> bool {
    sector.checked_add(sectors).is_some_and(|end| end <= disk.sectors)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
