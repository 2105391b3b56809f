//! `PacketRing`: frames into memory that a packet socket and this process share
//! (Documentation/networking/packet_mmap.rst, version 2).
//!
//! A ring of slots. The kernel copies a frame into the next slot and then sets the slot's status word;
//! looking for a frame is one load, receiving it costs no system call. Version 3 would hold frames back
//! for its block timer of at least 1 ms.
//!
//! Rules for the unsafe code in this file:
//! 1. Slot `i`, for `i < SLOTS`, is `SLOT_BYTES` at `i * SLOT_BYTES` of the mapping and begins with a
//!    `struct tpacket2_hdr`, whose first word is the status. The word is only ever accessed
//!    atomically.
//! 2. While a slot's status has `TP_STATUS_USER` set, the kernel neither reads nor writes the slot
//!    (`packet_lookup_frame` takes only slots with `TP_STATUS_KERNEL`). An acquire load that shows the
//!    bit orders our reads after the kernel's writes; the release store that gives the slot back orders
//!    our accesses before its next ones. Only `release` stores, and it needs `&mut self`, as do
//!    references into a slot: none lives when a slot is given back. Frames lie behind the head, so no
//!    reference to one covers the status word.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::map::Mapping;
use crate::sys::packet_socket::{FrameInfo, PacketSocket};

/// Slots: the frames that may wait for us.
pub(crate) const SLOTS: usize = 256;
/// Bytes of a slot: head, address and the longest frame with room to spare, so that a frame that
/// is too long is seen to be.
pub(crate) const SLOT_BYTES: usize = 2048;

/// Bytes that are fetched ahead: the frame of a log entry.
const AHEAD_BYTES: usize = 256;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Offset of `tp_len` in the slot's head, and of the other fields.
const LENGTH_AT: usize = 4;
const MAC_AT: usize = 12;
/// `struct sockaddr_ll` stands behind the head, aligned; `sll_pkttype` is at offset 10 of it.
const PACKET_TYPE_AT: usize = 32 + 10;

const _: () = assert!(SLOTS.is_power_of_two());
const _: () = assert!(SLOT_BYTES.is_multiple_of(libc::TPACKET_ALIGNMENT));
const _: () = assert!(std::mem::offset_of!(libc::tpacket2_hdr, tp_len) == LENGTH_AT);
const _: () = assert!(std::mem::offset_of!(libc::tpacket2_hdr, tp_mac) == MAC_AT);
const _: () = assert!(
    size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT)
        + std::mem::offset_of!(libc::sockaddr_ll, sll_pkttype)
        == PACKET_TYPE_AT
);

/// A frame in the next slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Where its Ethernet header begins in the mapping.
    at: usize,
    pub(crate) info: FrameInfo,
}

/// The incoming half of a packet port.
pub(crate) struct PacketRing {
    map: Mapping,
    /// The slot that the next frame comes into.
    next: usize,
    /// Slots given back so far.
    taken: u64,
}

impl PacketRing {
    /// Gives the socket a ring. To be done before the socket is bound.
    pub(crate) fn make(socket: &PacketSocket) -> io::Result<()> {
        socket.make_ring(SLOTS, SLOT_BYTES)
    }

    /// Maps the ring of a socket that [has one](Self::make).
    pub(crate) fn map(socket: &PacketSocket) -> io::Result<PacketRing> {
        Ok(PacketRing { map: socket.map_ring(SLOTS * SLOT_BYTES)?, next: 0, taken: 0 })
    }

    fn status(&self) -> &AtomicU32 {
        self.status_of(self.next)
    }

    fn status_of(&self, slot: usize) -> &AtomicU32 {
        assert!(slot < SLOTS);
        let word: *mut u32 = self.map.at(slot * SLOT_BYTES).cast();
        // SAFETY: the word lies inside the mapping, is aligned to the slot's size, lives as long as
        // `self`, and is accessed atomically only (rule 1).
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// Whether the next slot holds a frame: one load.
    #[inline]
    pub(crate) fn has_frame(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Slots given back so far: the number of the frame in the next slot, if one is there.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of the first frame that has not arrived yet, or that is `at_most` behind the next one.
    pub(crate) fn arrived(&self, at_most: usize) -> u64 {
        let is_full = |ahead: &usize| {
            let slot = (self.next + ahead) % SLOTS;
            self.status_of(slot).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
        };
        self.taken + (0..at_most.min(SLOTS)).take_while(is_full).count() as u64
    }

    /// The frame in the next slot.
    pub(crate) fn head(&self) -> Option<Head> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let slot = self.next * SLOT_BYTES;
        let field = |offset| {
            let mut bytes = [0; 4];
            self.map.read(slot + offset, &mut bytes);
            u32::from_ne_bytes(bytes)
        };
        let [wire_length, length] = [field(LENGTH_AT), field(LENGTH_AT + 4)].map(|n| n as usize);
        // A 16-bit field and the one behind it; a byte and the three behind it.
        let mac = field(MAC_AT) as u16;
        let packet_type = field(PACKET_TYPE_AT) as u8;
        // The kernel keeps to its slot; what does not, is a frame cut to nothing.
        let inside = usize::from(mac) > PACKET_TYPE_AT && usize::from(mac) + length <= SLOT_BYTES;
        let (at, length) = if inside { (slot + usize::from(mac), length) } else { (slot, 0) };
        self.fetch_ahead(at, length);
        Some(Head { at, info: FrameInfo { length, wire_length, packet_type } })
    }

    /// Begins to fetch the front of a frame from the core that wrote it, while this one has other things
    /// to do before it reads it; and the next slot's status, which is asked for soon.
    fn fetch_ahead(&self, at: usize, length: usize) {
        let next_slot = (self.next + 1) % SLOTS * SLOT_BYTES;
        let front = (at..at + length.min(AHEAD_BYTES)).step_by(LINE_BYTES);
        for line in front.chain([next_slot]) {
            let line = self.map.at(line).cast_const().cast();
            // SAFETY: a hint to the processor, which accesses nothing as far as a program can tell.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
    }

    /// Copies the front of the frame out.
    pub(crate) fn copy(&self, head: &Head, into: &mut [u8]) {
        assert!(into.len() <= head.info.length);
        self.map.read(head.at, into);
    }

    /// Lends the frame's bytes in place.
    pub(crate) fn frame_mut(&mut self, head: &Head) -> &mut [u8] {
        let length = head.info.length;
        assert!(head.at / SLOT_BYTES == self.next && self.has_frame(), "the frame is not there");
        assert!(head.at + length <= (self.next + 1) * SLOT_BYTES);
        // SAFETY: the bytes lie inside the slot by the assertions, belong to us until `release`
        // (rule 2), and `&mut self` excludes other references and `release` itself.
        unsafe { std::slice::from_raw_parts_mut(self.map.at(head.at), length) }
    }

    /// Gives the next slot back to the kernel and goes on to the one after it.
    pub(crate) fn release(&mut self) {
        debug_assert!(self.has_frame());
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
        self.taken += 1;
    }
}
