//! Every limit of the replication, and the const asserts that relate them.

use logchan::entry::REGISTERS;
use logchan::limits::{
    CONSOLE_BYTES_MAX, DISK_BYTES_MAX, FRAME_BYTES_MAX, PAGE_BYTES, WINDOW_BYTES_MIN,
};
use logchan::time::Duration;

/// Largest frame of the VM's network: 14 bytes of Ethernet header, 1500 of payload, 4 of VLAN tag.
pub const FRAME_MAX: usize = FRAME_BYTES_MAX;

/// Smallest frame of the VM's network: an Ethernet header without payload. A tap does not pad frames.
pub const FRAME_MIN: usize = 14;

/// Smallest frame limit of a hold queue.
pub const HOLD_FRAMES_MIN: usize = 1;

/// Largest frame limit of a hold queue.
pub const HOLD_FRAMES_MAX: usize = 1 << 16;

/// Smallest byte limit of a hold queue: any frame fits an empty queue.
pub const HOLD_BYTES_MIN: usize = FRAME_MAX;

/// Largest byte limit of a hold queue.
pub const HOLD_BYTES_MAX: usize = 1 << 28;

/// Default frame limit of a hold queue.
pub const HOLD_FRAMES_DEFAULT: usize = 4096;

/// Default byte limit of a hold queue: what a 1 Gbit/s link sends in 33 ms, hundreds of times as long
/// as an acknowledgement takes.
pub const HOLD_BYTES_DEFAULT: usize = 4 << 20;

/// Most frames that are kept during a handover: on the old primary, those for the VM that it passes on; on the new
/// one, those that the VM has not taken.
pub const PASSED_FRAMES_MAX: usize = 1024;

/// Most bytes of those frames: what a link of 1 Gbit/s sends in 8 ms, longer than a handover takes.
pub const PASSED_BYTES_MAX: usize = 1 << 20;

/// Longest time for which a new primary takes frames of the old one after it has gone live, in nanoseconds.
pub const PASSING_NS_MAX: u64 = 50_000_000;

/// Stations (a MAC address in a VLAN) of a guest that are remembered. An ordinary guest has one.
pub const GUEST_STATIONS_MAX: usize = 4;

/// IPv4 addresses of a guest that are remembered.
pub const GUEST_IPV4_MAX: usize = 8;

/// IPv6 addresses of a guest that are remembered: a link-local one, a global one, and successive
/// temporary ones (RFC 8981).
pub const GUEST_IPV6_MAX: usize = 8;

/// Number of the guest's frames after which an address that it has not used is no longer announced. At
/// 100,000 frames per second this is 10 s, in which a guest uses every address that it still has. A
/// guest whose address changed sends this many frames long before another host gets the old address.
pub const GUEST_ADDRESS_AGE_FRAMES_MAX: u64 = 1 << 20;

/// When the rounds of announcements are due, in nanoseconds from the start.
pub const ANNOUNCE_ROUNDS_NS: [u64; 11] = [
    0,
    50_000_000,
    200_000_000,
    450_000_000,
    800_000_000,
    10_000_000_000,
    20_000_000_000,
    30_000_000_000,
    40_000_000_000,
    50_000_000_000,
    60_000_000_000,
];

/// The first rounds after going live announce IP addresses, too.
pub const ANNOUNCE_IP_ROUNDS: usize = 5;

/// Least time from a round to an additional one, nanoseconds.
pub const ANNOUNCE_EXTRA_GAP_NS_MIN: u64 = 1_000_000_000;

/// Most additional rounds per start: on a LAN that sends the VM's frames back, every round causes the next.
pub const ANNOUNCE_EXTRA_ROUNDS_MAX: u32 = 60;

/// Minimum time between the beginnings of two rounds, however late the first one was, in nanoseconds.
pub const ANNOUNCE_GAP_NS_MIN: u64 = 50_000_000;

/// Maximum number of frames in one round: one for each station, two for each IPv4 address, one for each
/// IPv6 address.
pub const ANNOUNCEMENTS_MAX: usize = GUEST_STATIONS_MAX + 2 * GUEST_IPV4_MAX + GUEST_IPV6_MAX;

/// Size of the longest announcement, a Neighbour Advertisement with a VLAN tag, in bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = FRAME_MIN + 4 + 40 + 32;

/// Bytes of log that may wait for the next output or for the guest to become idle: about one frame. More
/// than this is sent at the next position.
pub const UNSENT_LOG_BYTES_MAX: u64 = 1200;

/// Frames received before this host sends again: a flood must not keep it from answering.
pub const FRAMES_PER_RECEIVE: usize = 64;

/// Bulk frames given to the kernel per transmit. More of them would save system calls (each costs about as
/// much as half a frame), but every one of them is queued in front of log that is appended meanwhile.
pub const BULK_FRAMES_PER_TRANSMIT: u64 = 4;

/// Unsent bytes in the kernel, by its own accounting, from which on no bulk frames are added: five full
/// frames. The bulk frames of one transmit may come on top. A log entry waits for these bytes, some 100 us
/// on a link of 1 Gbit/s. With fewer, a NIC that reports completions only now and then could run idle.
pub const BULK_BACKLOG_BYTES_MAX: u32 = 12 << 10;

/// Receive calls per drive of the wire, each of which takes a bounded number of frames. Together they take all frames
/// that wait in the ring of a port, so timeouts that are due are handled in each drive.
pub const RECEIVES_PER_DRIVE: usize = 4;

/// Longest time between two receive calls that belong together. If it was longer, this thread was stopped or did
/// something else, and frames of the peer have arrived meanwhile, which come before timeouts.
pub const RECEIVE_PAUSE_MAX: Duration = Duration::from_millis(5);

/// Console bytes of a primary that wait until it may speak; further ones are dropped.
pub const CONSOLE_WAITING_BYTES_MAX: usize = 4096;

/// Largest number of queued events. When the queue is full, a new event displaces the oldest.
pub const EVENTS_MAX: usize = 64;

/// Upper bound for an entry other than an exit, a frame, console bytes, entropy, a page and the beginning of
/// a checkpoint, bytes.
pub const SMALL_ENTRY_BYTES_MAX: usize = 32;

/// Largest entry of an exit, bytes: kind, length, digest, mask of registers, registers.
pub const EXIT_ENTRY_BYTES_MAX: usize = 1 + 3 + 8 + 5 + 10 * REGISTERS;

/// Largest page entry, bytes: kind, length, number, form, contents.
pub const PAGE_ENTRY_BYTES_MAX: usize = 1 + 3 + 10 + 1 + PAGE_BYTES;

/// Bytes of disks that may be left to copy when the copy of the memory begins: at its end, the guest's new requests wait
/// for the rest, and what is written meanwhile is copied meanwhile.
pub const COPY_REST_BYTES_MAX: u64 = 4 << 20;

/// Most passes of a precopy. A pass that is half as long as the one before, in a VM of 3 GiB down to one page, takes 20,
/// and the guest is slowed six times.
pub const COPY_PASSES_MAX: u32 = 32;

/// How often the share of time of a guest that is slowed is halved: to 1/64 at least.
pub const GUEST_SHARE_HALVINGS_MAX: u32 = 6;

/// Size of the largest input of a pair, bytes, but for a read from a shared disk: the data of other disks are not in its
/// log.
pub const INPUT_BYTES_MAX: usize =
    if FRAME_BYTES_MAX > CONSOLE_BYTES_MAX { FRAME_BYTES_MAX } else { CONSOLE_BYTES_MAX };

/// Size of the largest input in any log, bytes.
pub const LOGGED_INPUT_BYTES_MAX: usize =
    if INPUT_BYTES_MAX > DISK_BYTES_MAX { INPUT_BYTES_MAX } else { DISK_BYTES_MAX };

/// Largest entry of an input, bytes: kind, length, input.
pub const INPUT_ENTRY_BYTES_MAX: usize = 1 + 3 + INPUT_BYTES_MAX;

/// Largest entry of a read from a shared disk, bytes: status and digest, length, data.
pub const SHARED_READ_ENTRY_BYTES_MAX: usize = SMALL_ENTRY_BYTES_MAX + 3 + DISK_BYTES_MAX;

// A read fits into the smallest window.
const _: () = assert!(INPUT_ENTRY_BYTES_MAX <= SHARED_READ_ENTRY_BYTES_MAX);
const _: () = assert!(SHARED_READ_ENTRY_BYTES_MAX <= WINDOW_BYTES_MIN);
const _: () = assert!(HOLD_FRAMES_MIN <= HOLD_FRAMES_DEFAULT);
const _: () = assert!(HOLD_FRAMES_DEFAULT <= HOLD_FRAMES_MAX);
const _: () = assert!(HOLD_BYTES_MIN <= HOLD_BYTES_DEFAULT);
const _: () = assert!(HOLD_BYTES_DEFAULT <= HOLD_BYTES_MAX);
const _: () = assert!(HOLD_FRAMES_MIN <= PASSED_FRAMES_MAX && PASSED_FRAMES_MAX <= HOLD_FRAMES_MAX);
const _: () = assert!(HOLD_BYTES_MIN <= PASSED_BYTES_MAX && PASSED_BYTES_MAX <= HOLD_BYTES_MAX);
// Offsets in the queue's ring fit a u32, and lengths of frames a u16.
const _: () = assert!(HOLD_BYTES_MAX + FRAME_MAX <= u32::MAX as usize);
const _: () = assert!(FRAME_MAX <= u16::MAX as usize);
// Counts of addresses fit the one byte that they have in the encoding.
const _: () = assert!(GUEST_STATIONS_MAX <= u8::MAX as usize);
const _: () = assert!(GUEST_IPV4_MAX <= u8::MAX as usize);
const _: () = assert!(GUEST_IPV6_MAX <= u8::MAX as usize);
// The first round is due immediately, and rounds are at least the gap apart.
const _: () = assert!(ANNOUNCE_ROUNDS_NS[0] == 0);
const _: () = assert!(ANNOUNCE_IP_ROUNDS <= ANNOUNCE_ROUNDS_NS.len());
const _: () = assert!(ANNOUNCE_EXTRA_GAP_NS_MIN >= ANNOUNCE_GAP_NS_MIN);
const _: () = {
    let mut round = 1;
    while round < ANNOUNCE_ROUNDS_NS.len() {
        assert!(ANNOUNCE_ROUNDS_NS[round] >= ANNOUNCE_ROUNDS_NS[round - 1] + ANNOUNCE_GAP_NS_MIN);
        round += 1;
    }
};
const _: () = assert!(ANNOUNCEMENT_BYTES_MAX <= FRAME_MAX);
