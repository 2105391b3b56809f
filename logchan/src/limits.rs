//! Every limit of the log and of the channel, with const assertions on how the limits relate.
//!
//! The limits of the log are part of its format: a reader refuses what exceeds them. A change of one, up
//! or down, therefore moves [`crate::log_header::LOG_VERSION`]. The limits of the channel are in the
//! second half.

use crate::entry::REGISTERS;
use crate::host_profile::HOST_PROFILE_BYTES;
use crate::ids::Lane;
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::wire::leb128_length;

/// Bytes of a page of guest memory.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of one piece of a [page delta](crate::page_delta), which has a line mask of its own. A page is
/// one piece.
pub const PIECE_BYTES: usize = PAGE_BYTES;

/// Longest page delta in bytes. A longer one would not be shorter than the page itself.
pub const PAGE_DELTA_BYTES_MAX: usize = PAGE_BYTES - 1;

/// Returns the number of pages in the delta cache of writer and reader: an eighth of guest memory, at
/// least 64 pages and at most 64 MiB. A typical guest writes a few hundred pages again and again; the
/// limit is for guests that write everywhere.
pub const fn delta_cache_pages_max(memory_pages: u64) -> usize {
    const LEAST: u64 = 64;
    const MOST: u64 = 16 * 1024;
    let share = memory_pages / 8;
    (if share < LEAST {
        LEAST
    } else if share > MOST {
        MOST
    } else {
        share
    }) as usize
}

/// Longest Ethernet frame in bytes: 1500 of payload, 14 of header, 4 of VLAN tag. The frame check
/// sequence does not count: neither a tap nor a packet socket delivers one.
pub const FRAME_BYTES_MAX: usize = 1518;

/// Longest console input in bytes.
pub const CONSOLE_BYTES_MAX: usize = 4096;

/// Longest entropy reading in bytes.
pub const ENTROPY_BYTES_MAX: usize = 4096;

/// Most disks of a VM.
pub const DISKS_MAX: usize = 4;

/// Most sectors of 512 bytes of a disk: 8 EiB less one sector, as the offset of a file.
pub const DISK_SECTORS_MAX: u64 = i64::MAX as u64 / 512;

/// Most bytes that one request reads from a disk or writes to it. The data of a read fit into one entry.
pub const DISK_BYTES_MAX: usize = 56 * 1024;

/// Bytes of a block of a disk: the unit in which changes are remembered and disks are copied.
pub const DISK_BLOCK_BYTES: usize = 64 * 1024;

/// Most blocks of a disk. The last one may be shorter.
pub const DISK_BLOCKS_MAX: u64 = DISK_SECTORS_MAX.div_ceil(DISK_BLOCK_BYTES as u64 / 512);

/// Most bytes of a disk in one message of a copy: half a block, because a whole one has no room in an entry.
pub const DISK_COPY_BYTES_MAX: usize = 32 * 1024;

/// Most digests in one message of a copy.
pub const DISK_DIGESTS_MAX: usize = 64;

/// Bytes of the set of extents that have changed on a disk, a bit each: a disk has 4096 extents.
pub const DISK_EXTENTS_BYTES: usize = 512;

/// Longest entry about the copy of a disk, in bytes: kind, body length, and a body with form, disk, sector and data.
pub const DISK_COPY_ENTRY_BYTES_MAX: usize =
    1 + leb128_length(ENTRY_BODY_MAX as u64) + 1 + 1 + U64_LEB128_MAX + DISK_COPY_BYTES_MAX;

/// Longest vCPU state in a checkpoint, in bytes. XSAVE with AVX-512 and AMX takes about 11 KiB of it.
pub const VCPU_BYTES_MAX: usize = 32 * 1024;

/// Longest device state in a checkpoint, in bytes, all devices together.
pub const DEVICES_BYTES_MAX: usize = 24 * 1024;

/// Most pages in one checkpoint: 1 TiB of guest memory.
pub const CHECKPOINT_PAGES_MAX: u32 = 1 << 28;

/// Highest guest page number. Guest physical addresses have at most 52 bits (Intel SDM vol. 3A, section
/// 4.1.4, MAXPHYADDR), of which 12 are the offset in the page.
pub const PAGE_NUMBER_MAX: u64 = (1 << 40) - 1;

/// Most nanoseconds by which one entry may advance guest time: 146 years. The sum of two of them does
/// not overflow.
pub const CLOCK_ADVANCE_NS_MAX: u64 = (1 << 62) - 1;

/// Longest body of an entry in bytes.
pub const ENTRY_BODY_MAX: usize = 64 * 1024;

/// Longest entry in bytes: kind, body length and body.
pub const ENTRY_BYTES_MAX: usize = 1 + leb128_length(ENTRY_BODY_MAX as u64) + ENTRY_BODY_MAX;

/// Longest payload of a block in bytes. It holds at least one entry and on average many, so the block's
/// header and CRC add little.
pub const BLOCK_PAYLOAD_MAX: usize = 128 * 1024;

/// Length of a block's header in bytes: marker, sequence, payload length, CRC.
pub const BLOCK_HEADER_BYTES: usize = 4 + 8 + 4 + 4;

/// Longest block in bytes.
pub const BLOCK_BYTES_MAX: usize = BLOCK_HEADER_BYTES + BLOCK_PAYLOAD_MAX;

/// Longest name in the log header in bytes. The length field has one byte.
pub const NAME_BYTES_MAX: usize = 255;

/// Most guest memory in bytes that a log header may state.
pub const MEMORY_BYTES_MAX: u64 = CHECKPOINT_PAGES_MAX as u64 * PAGE_BYTES as u64;

/// Most vCPUs that a log header may state. This is the format's limit; the VMM decides what it can run.
pub const VCPUS_MAX: u16 = 255;

/// Length of a disk in the log header in bytes: flags, sectors, serial number, digest.
pub const DISK_HEADER_BYTES: usize = 1 + 8 + DISK_SERIAL_BYTES + 8;

/// Length of a disk's serial number in bytes (virtio 1.2, section 5.2.6: VIRTIO_BLK_T_GET_ID).
pub const DISK_SERIAL_BYTES: usize = 20;

/// Length of the shortest log header in bytes: no disk, and both names are empty.
pub const LOG_HEADER_BYTES_MIN: usize =
    8 + 2 + 2 + 8 + 8 + 2 + 2 + 6 + 8 + 8 + HOST_PROFILE_BYTES + 1 + 1 + 1 + 4;

/// Length of the longest log header in bytes. Reading this many bytes of a file always suffices.
pub const LOG_HEADER_BYTES_MAX: usize =
    LOG_HEADER_BYTES_MIN + DISKS_MAX * DISK_HEADER_BYTES + 2 * NAME_BYTES_MAX;

const DIGEST_BYTES: usize = 8;
const FLAGS_BYTES: usize = 1;
const U64_LEB128_MAX: usize = leb128_length(u64::MAX);

// An entry whose fields are within their limits fits a body.
const _: () = assert!(
    FLAGS_BYTES
        + leb128_length(CHECKPOINT_PAGES_MAX as u64)
        + leb128_length(VCPU_BYTES_MAX as u64)
        + VCPU_BYTES_MAX
        + leb128_length(DEVICES_BYTES_MAX as u64)
        + DEVICES_BYTES_MAX
        <= ENTRY_BODY_MAX
);
const _: () = assert!(
    FLAGS_BYTES + DIGEST_BYTES + leb128_length((1 << REGISTERS) - 1) + REGISTERS * U64_LEB128_MAX
        <= ENTRY_BODY_MAX
);
const _: () = assert!(leb128_length(PAGE_NUMBER_MAX) + FLAGS_BYTES + PAGE_BYTES <= ENTRY_BODY_MAX);
const _: () = assert!(PAGE_DELTA_BYTES_MAX < PAGE_BYTES);
const _: () = assert!(CONSOLE_BYTES_MAX <= ENTRY_BODY_MAX);
const _: () = assert!(ENTROPY_BYTES_MAX <= ENTRY_BODY_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= ENTRY_BODY_MAX);
const _: () =
    assert!(1 + FLAGS_BYTES + U64_LEB128_MAX + DIGEST_BYTES + DISK_BYTES_MAX <= ENTRY_BODY_MAX);
const _: () = assert!(2 * U64_LEB128_MAX + 2 * DIGEST_BYTES <= ENTRY_BODY_MAX);
const _: () = assert!(DISK_COPY_ENTRY_BYTES_MAX <= ENTRY_BYTES_MAX);
// The longest message of a copy is one with data.
const _: () = assert!(DISK_EXTENTS_BYTES + 3 + 2 * 8 <= DISK_COPY_BYTES_MAX);
const _: () = assert!(2 * DIGEST_BYTES * DISK_DIGESTS_MAX <= DISK_COPY_BYTES_MAX);

// The register mask fits the u32 that holds it.
const _: () = assert!(REGISTERS <= 32);
// A block can hold any entry.
const _: () = assert!(ENTRY_BYTES_MAX <= BLOCK_PAYLOAD_MAX);
// The payload length of a block fits its field.
const _: () = assert!(BLOCK_PAYLOAD_MAX <= u32::MAX as usize);
// Every page of the largest memory has a page number, and one full checkpoint can hold all of them.
const _: () = assert!(MEMORY_BYTES_MAX / PAGE_BYTES as u64 <= PAGE_NUMBER_MAX);
const _: () = assert!(MEMORY_BYTES_MAX / PAGE_BYTES as u64 <= CHECKPOINT_PAGES_MAX as u64);
// The length of a name and the length of a header fit their fields.
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LOG_HEADER_BYTES_MAX <= u16::MAX as usize);

// The channel. A limit that is visible in the format of a frame moves `crate::frame::FRAME_VERSION`; the
// others concern only this end.

/// Length of the header of a channel frame in bytes.
pub const FRAME_HEADER_BYTES: usize = 102;

/// Smallest value in bytes of the maximum frame length of a channel. At most half of such a frame is
/// header.
pub const CHANNEL_FRAME_BYTES_MIN: usize = 256;

/// Largest value in bytes of the maximum frame length of a channel: what jumbo frames carry.
pub const CHANNEL_FRAME_BYTES_MAX: usize = 9216;

/// [`CHANNEL_FRAME_BYTES_MIN`] plus the seal. The handshake carries the maximum length of a sealed
/// frame.
pub const SEALED_FRAME_BYTES_MIN: usize = CHANNEL_FRAME_BYTES_MIN + SEAL_OVERHEAD_BYTES;

/// [`CHANNEL_FRAME_BYTES_MAX`] plus the seal.
pub const SEALED_FRAME_BYTES_MAX: usize = CHANNEL_FRAME_BYTES_MAX + SEAL_OVERHEAD_BYTES;

/// Smallest window of a lane in bytes. A window always holds one whole entry, so a reader that waits for
/// the rest of an entry gets it.
pub const WINDOW_BYTES_MIN: usize = ENTRY_BYTES_MAX;

/// Largest window of a lane in bytes.
pub const WINDOW_BYTES_MAX: usize = 1 << 30;

/// Most unacknowledged frames in flight, by [`Lane::index`]. The frames of both lanes fit into the 256
/// that a host's packet port buffers while its reader does not run; with more in flight, every such
/// pause would lose frames. The limit for bulk is lower, because a receiver that was descheduled finds
/// these frames in front of the log that follows, and stays behind by as many frames for as long as
/// pages keep coming.
pub const IN_FLIGHT_FRAMES_MAX: [usize; Lane::ALL.len()] = [112, 32];

/// Most separate out-of-order ranges of a lane that are buffered. A frame that would start one more is
/// dropped; the sender retransmits it.
pub const GAPS_MAX: usize = 64;

/// Number of frames whose sending time is remembered. The acknowledgement of an older frame neither
/// extends the lease nor gives a round-trip sample.
pub const SENT_TIMES: usize = 4096;

/// Number of frames before the newest that an acknowledgement reports one by one.
pub const ACK_BITS: u32 = 64;

/// Number of frames before the newest among which a duplicate is recognized. Older frames are dropped.
pub const REPLAY_BITS: u32 = 128;

/// Most points in the log that wait for bulk bytes. Further points are merged with the last one.
pub const BULK_BARRIERS_MAX: usize = 64;

/// Most unacknowledged frames in flight, both lanes together.
pub const IN_FLIGHT_FRAMES_BOTH: usize = IN_FLIGHT_FRAMES_MAX[0] + IN_FLIGHT_FRAMES_MAX[1];

// In a frame of the smallest maximum length, the header takes at most half.
const _: () = assert!(CHANNEL_FRAME_BYTES_MIN >= 2 * FRAME_HEADER_BYTES);
// The length of a payload fits its field.
const _: () = assert!(SEALED_FRAME_BYTES_MAX <= u16::MAX as usize);
// The size of a window fits its field.
const _: () = assert!(WINDOW_BYTES_MAX <= u32::MAX as usize);
// The receiver still knows every frame that an acknowledgement reports.
const _: () =
    assert!(ACK_BITS <= u64::BITS && ACK_BITS <= REPLAY_BITS && REPLAY_BITS <= u128::BITS);
// With both lanes full of frames in flight, there is room for frames without payload.
const _: () = assert!(SENT_TIMES >= 2 * IN_FLIGHT_FRAMES_BOTH && SENT_TIMES.is_power_of_two());
