//! Bounds of the hold queue and of the announcements, in one place, and how they relate.

use crate::port::{FRAME_MAX, FRAME_MIN};

/// Frames that a hold queue may be made for, at least.
pub const HOLD_FRAMES_MIN: usize = 1;

/// Frames that a hold queue may be made for, at most.
pub const HOLD_FRAMES_MAX: usize = 1 << 16;

/// Bytes of frames that a hold queue may be made for, at least: any frame fits an empty queue.
pub const HOLD_BYTES_MIN: usize = FRAME_MAX;

/// Bytes of frames that a hold queue may be made for, at most.
pub const HOLD_BYTES_MAX: usize = 1 << 28;

/// Frames of a hold queue unless told otherwise.
pub const HOLD_FRAMES_DEFAULT: usize = 4096;

/// Bytes of a hold queue unless told otherwise: what a 1 Gbit/s link sends in 33 ms, hundreds of
/// times as long as an acknowledgement takes.
pub const HOLD_BYTES_DEFAULT: usize = 4 << 20;

/// Stations (a MAC address in a VLAN) of a guest that are remembered. An ordinary guest is one.
pub const GUEST_STATIONS_MAX: usize = 4;

/// IPv4 addresses of a guest that are remembered.
pub const GUEST_IPV4_MAX: usize = 8;

/// IPv6 addresses of a guest that are remembered: a link-local one, a global one, and temporary ones
/// that follow each other (RFC 8981).
pub const GUEST_IPV6_MAX: usize = 8;

/// Frames of the guest after which an address it has not used is no longer announced. A guest at
/// 100,000 frames a second uses what it uses within these 10 s; one that was given another address
/// has long sent as many when somebody else gets the old one.
pub const GUEST_ADDRESS_AGE_FRAMES_MAX: u64 = 1 << 20;

/// When the rounds of announcements are due, from the start.
pub const ANNOUNCE_ROUNDS_NS: [u64; 5] = [0, 50_000_000, 200_000_000, 450_000_000, 800_000_000];

/// Time between the beginnings of two rounds, at least, however late the first one was.
pub const ANNOUNCE_GAP_NS_MIN: u64 = 50_000_000;

/// Frames of one round: one for each station, two for each IPv4 address, one for each IPv6 address.
pub const ANNOUNCEMENTS_MAX: usize = GUEST_STATIONS_MAX + 2 * GUEST_IPV4_MAX + GUEST_IPV6_MAX;

/// Bytes of the longest announcement: a Neighbour Advertisement behind a VLAN tag.
pub const ANNOUNCEMENT_BYTES_MAX: usize = FRAME_MIN + 4 + 40 + 32;

const _: () = assert!(HOLD_FRAMES_MIN <= HOLD_FRAMES_DEFAULT);
const _: () = assert!(HOLD_FRAMES_DEFAULT <= HOLD_FRAMES_MAX);
const _: () = assert!(HOLD_BYTES_MIN <= HOLD_BYTES_DEFAULT);
const _: () = assert!(HOLD_BYTES_DEFAULT <= HOLD_BYTES_MAX);
// A place in the queue's ring fits the u32, a frame's length the u16 that hold them.
const _: () = assert!(HOLD_BYTES_MAX + FRAME_MAX <= u32::MAX as usize);
const _: () = assert!(FRAME_MAX <= u16::MAX as usize);
// Counts of addresses fit the byte that stands for them when they are encoded.
const _: () = assert!(GUEST_STATIONS_MAX <= u8::MAX as usize);
const _: () = assert!(GUEST_IPV4_MAX <= u8::MAX as usize);
const _: () = assert!(GUEST_IPV6_MAX <= u8::MAX as usize);
// The first round is due at once, and no two are closer than the gap.
const _: () = assert!(ANNOUNCE_ROUNDS_NS[0] == 0);
const _: () = {
    let mut round = 1;
    while round < ANNOUNCE_ROUNDS_NS.len() {
        assert!(ANNOUNCE_ROUNDS_NS[round] >= ANNOUNCE_ROUNDS_NS[round - 1] + ANNOUNCE_GAP_NS_MIN);
        round += 1;
    }
};
const _: () = assert!(ANNOUNCEMENT_BYTES_MAX <= FRAME_MAX);
