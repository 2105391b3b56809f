//! Every bound of the log and of the channel, in one place, and how the bounds relate.
//!
//! A bound of the log is part of its format: a reader refuses what is outside of it. Raising or
//! lowering one therefore moves [`crate::log_header::LOG_VERSION`]. The bounds of the channel are in
//! the second half.

use crate::entry::REGISTERS;
use crate::ids::Lane;
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::wire::leb128_length;

/// Bytes of a page of guest memory.
pub const PAGE_BYTES: usize = 4096;

/// Bytes that have a mask of their own in [`crate::changes`]: a page has one.
pub const PIECE_BYTES: usize = PAGE_BYTES;

/// Bytes of a page's changes: with more, the page itself is shorter.
pub const PAGE_DELTA_BYTES_MAX: usize = PAGE_BYTES - 1;

/// Pages of which writer and reader keep what the log told last: an eighth of guest memory, and 64 MiB at
/// most. A guest's hot pages are a few hundred; the bound is for those that write everywhere.
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

/// Bytes of an Ethernet frame: 1500 of payload, 14 of header, 4 of VLAN tag. No frame check
/// sequence: neither a tap nor a packet socket shows one.
pub const FRAME_BYTES_MAX: usize = 1518;

/// Bytes of one console input.
pub const CONSOLE_BYTES_MAX: usize = 4096;

/// Bytes of one reading of entropy.
pub const ENTROPY_BYTES_MAX: usize = 4096;

/// Bytes of a vCPU's state in a checkpoint. XSAVE with AVX-512 and AMX takes about 11 KiB of it.
pub const VCPU_BYTES_MAX: usize = 32 * 1024;

/// Bytes of all devices' state in a checkpoint.
pub const DEVICES_BYTES_MAX: usize = 24 * 1024;

/// Pages in one checkpoint: 1 TiB of guest memory.
pub const CHECKPOINT_PAGES_MAX: u32 = 1 << 28;

/// Highest guest page number: guest physical addresses have at most 52 bits (Intel SDM vol. 3A,
/// section 4.1.4, MAXPHYADDR), 12 of which are the offset in the page.
pub const PAGE_NUMBER_MAX: u64 = (1 << 40) - 1;

/// Nanoseconds that guest time may move on in one entry: 146 years. Two of them still add up
/// without overflow.
pub const CLOCK_ADVANCE_NS_MAX: u64 = (1 << 62) - 1;

/// Bytes of an entry's body.
pub const ENTRY_BODY_MAX: usize = 64 * 1024;

/// Bytes of a whole entry: kind, body length, body.
pub const ENTRY_BYTES_MAX: usize = 1 + leb128_length(ENTRY_BODY_MAX as u64) + ENTRY_BODY_MAX;

/// Bytes of a block's payload: at least one entry, and on average many, so that the block's own
/// header and CRC cost nothing that shows.
pub const BLOCK_PAYLOAD_MAX: usize = 128 * 1024;

/// Bytes of a block's header: marker, sequence, payload length, CRC.
pub const BLOCK_HEADER_BYTES: usize = 4 + 8 + 4 + 4;

/// Bytes of a whole block.
pub const BLOCK_BYTES_MAX: usize = BLOCK_HEADER_BYTES + BLOCK_PAYLOAD_MAX;

/// Bytes of a name in the log header; its length is one byte there.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of guest memory that a log header may state.
pub const MEMORY_BYTES_MAX: u64 = CHECKPOINT_PAGES_MAX as u64 * PAGE_BYTES as u64;

/// vCPUs that a log header may state. The format's bound; what a build can run is the VMM's.
pub const VCPUS_MAX: u16 = 255;

/// Bytes of the shortest log header: both names empty.
pub const LOG_HEADER_BYTES_MIN: usize = 8 + 2 + 2 + 8 + 8 + 2 + 2 + 6 + 8 + 8 + 1 + 1 + 4;

/// Bytes of the longest log header: reading this many bytes of a file always suffices.
pub const LOG_HEADER_BYTES_MAX: usize = LOG_HEADER_BYTES_MIN + 2 * NAME_BYTES_MAX;

const DIGEST_BYTES: usize = 8;
const FLAGS_BYTES: usize = 1;
const U64_LEB128_MAX: usize = leb128_length(u64::MAX);

// Every entry within the bounds of its fields fits a body.
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
const _: () = assert!(2 * U64_LEB128_MAX + 2 * DIGEST_BYTES <= ENTRY_BODY_MAX);

// A mask of registers fits the u32 that holds it.
const _: () = assert!(REGISTERS <= 32);
// A block holds any entry.
const _: () = assert!(ENTRY_BYTES_MAX <= BLOCK_PAYLOAD_MAX);
// A block's length fits its field.
const _: () = assert!(BLOCK_PAYLOAD_MAX <= u32::MAX as usize);
// Every page of the largest memory has a number, and a full checkpoint of it is one checkpoint.
const _: () = assert!(MEMORY_BYTES_MAX / PAGE_BYTES as u64 <= PAGE_NUMBER_MAX);
const _: () = assert!(MEMORY_BYTES_MAX / PAGE_BYTES as u64 <= CHECKPOINT_PAGES_MAX as u64);
// A name's length and a header's length fit their fields.
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LOG_HEADER_BYTES_MAX <= u16::MAX as usize);

// The channel. A bound that the format of a frame shows moves `crate::frame::FRAME_VERSION`; the
// others are this end's own affair.

/// Bytes of the head of every frame of a channel.
pub const FRAME_HEADER_BYTES: usize = 102;

/// Bytes that a channel must be given for a frame, at least: then no more than half is header.
pub const CHANNEL_FRAME_BYTES_MIN: usize = 256;

/// Bytes that a channel may be given for a frame, at most: what jumbo frames carry.
pub const CHANNEL_FRAME_BYTES_MAX: usize = 9216;

/// The same with the seal around it: what the two ends tell each other of their interfaces.
pub const SEALED_FRAME_BYTES_MIN: usize = CHANNEL_FRAME_BYTES_MIN + SEAL_OVERHEAD_BYTES;

/// The same with the seal around it.
pub const SEALED_FRAME_BYTES_MAX: usize = CHANNEL_FRAME_BYTES_MAX + SEAL_OVERHEAD_BYTES;

/// Bytes of a lane's window, at least: a reader that waits for the rest of an entry gets it.
pub const WINDOW_BYTES_MIN: usize = ENTRY_BYTES_MAX;

/// Bytes of a lane's window, at most.
pub const WINDOW_BYTES_MAX: usize = 1 << 30;

/// Frames of each lane that may be on their way without an acknowledgement, by [`Lane::index`]. Those of
/// both lanes fit the 256 that a host's packet port holds while its reader is not running: otherwise each
/// such moment is a loss. Of bulk there are fewer: a receiver that was stopped for a moment finds them
/// before the log that follows, and stays behind by as many for as long as pages come.
pub const IN_FLIGHT_FRAMES_MAX: [usize; Lane::ALL.len()] = [112, 32];

/// Stretches of a lane that may have arrived behind a gap. A frame that would begin one more is
/// dropped, and comes again.
pub const GAPS_MAX: usize = 64;

/// Frames whose time of sending is remembered. An acknowledgement of an older one proves nothing.
pub const SENT_TIMES: usize = 4096;

/// Frames before the newest that an acknowledgement speaks of one by one.
pub const ACK_BITS: u32 = 64;

/// Frames before the newest within which a repetition is recognized; older ones are dropped.
pub const REPLAY_BITS: u32 = 128;

/// Points in the log that wait for bulk bytes; more of them are merged.
pub const BULK_BARRIERS_MAX: usize = 64;

/// Frames of both lanes that may be on their way.
pub const IN_FLIGHT_FRAMES_BOTH: usize = IN_FLIGHT_FRAMES_MAX[0] + IN_FLIGHT_FRAMES_MAX[1];

// A frame of the least size carries at least as much as its header takes.
const _: () = assert!(CHANNEL_FRAME_BYTES_MIN >= 2 * FRAME_HEADER_BYTES);
// The length of a payload fits its field.
const _: () = assert!(SEALED_FRAME_BYTES_MAX <= u16::MAX as usize);
// The size of a window fits its field.
const _: () = assert!(WINDOW_BYTES_MAX <= u32::MAX as usize);
// What an acknowledgement tells is known when it is made.
const _: () =
    assert!(ACK_BITS <= u64::BITS && ACK_BITS <= REPLAY_BITS && REPLAY_BITS <= u128::BITS);
// Both lanes full of frames leave room for those without payload.
const _: () = assert!(SENT_TIMES >= 2 * IN_FLIGHT_FRAMES_BOTH && SENT_TIMES.is_power_of_two());
