//! The memory of a ring's transfers, and who owns which part of it at any time.
//!
//! Receive: [`RX_BUFFERS`] buffers lie in a provided-buffer ring (io_uring_register_buf_ring(3)).
//! The kernel owns a buffer from [`RxBuffers::give_back`] until the completion that names it;
//! then an [`RxFrame`] stands for it, and only giving that back frees it again. Send: a
//! [`TxSlots`] slot belongs to the kernel from its write's submission to its completion.
//!
//! Everything is allocated at start-up: 512 KiB to receive and 256 KiB to send, touched as it is
//! used. Frames reach a buffer only inside our own `io_uring_enter` (`DEFER_TASKRUN`), so the
//! buffers bound how many frames one system call brings in; frames that arrive while nobody calls
//! wait in the tap's own queue.
//!
//! Rules for the unsafe code in this file:
//! 1. Entry `i` of the provided-buffer ring, for `i < RX_BUFFERS`, is 16 bytes at `16 * i` of a
//!    page-aligned mapping that has room for all of them. The ring's tail is the 16-bit field at
//!    offset 14 of entry 0, and nothing but this file writes it or any entry.
//! 2. The kernel reads an entry only after it saw a tail beyond it; an entry at or beyond the tail
//!    is ours to write. Entries are written by raw pointer, the tail by an atomic release store.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::port::FRAME_MAX;
use crate::sys::map::Mapping;

/// Receive buffers: the frames that one system call brings in at most.
pub(super) const RX_BUFFERS: u16 = 256;
/// Frames in one flush before `send` flushes by itself.
pub(super) const TX_SLOTS: u16 = 128;
/// Bytes of each buffer and slot. More than [`FRAME_MAX`], so that a frame that is too long shows
/// by its length instead of being cut to one that looks right.
pub(super) const BUFFER_BYTES: usize = 2048;

const _: () = assert!(BUFFER_BYTES > FRAME_MAX);
// The kernel takes powers of two up to 32768.
const _: () = assert!(RX_BUFFERS.is_power_of_two() && RX_BUFFERS <= 32768);

/// `struct io_uring_buf` of linux/io_uring.h; `reserved` of entry 0 is the ring's tail.
#[repr(C)]
struct BufferEntry {
    address: u64,
    length: u32,
    id: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<BufferEntry>() == 16);
const _: () = assert!(std::mem::offset_of!(BufferEntry, reserved) == 14);

/// A receive buffer that holds a frame and belongs to us. Neither `Copy` nor `Clone`: giving it
/// back consumes it, so no buffer can be given to the kernel twice.
#[must_use = "a frame that is not given back is a buffer lost"]
pub(super) struct RxFrame {
    id: u16,
    /// Bytes the kernel wrote; [`BUFFER_BYTES`] at most.
    pub(super) length: usize,
}

impl RxFrame {
    /// The frame that a completion announces: `id` and `length` as the kernel gave them.
    ///
    /// To be called once for each completion that carries a buffer.
    pub(super) fn announced(id: u16, length: usize) -> RxFrame {
        assert!(id < RX_BUFFERS && length <= BUFFER_BYTES, "no such buffer: {id}, {length} bytes");
        RxFrame { id, length }
    }
}

/// The receive buffers and the ring they are provided in.
pub(super) struct RxBuffers {
    entries: Mapping,
    data: Mapping,
    tail: u16,
}

impl RxBuffers {
    /// Allocates the buffers and gives all of them to the (not yet registered) ring.
    pub(super) fn new() -> io::Result<RxBuffers> {
        let entries = Mapping::new(usize::from(RX_BUFFERS) * size_of::<BufferEntry>())?;
        let data = Mapping::new(usize::from(RX_BUFFERS) * BUFFER_BYTES)?;
        let mut buffers = RxBuffers { entries, data, tail: 0 };
        for id in 0..RX_BUFFERS {
            buffers.provide(id);
        }
        Ok(buffers)
    }

    /// Address of the ring, for its registration; valid as long as `self`.
    pub(super) fn ring_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Copies the front of a frame out.
    pub(super) fn copy_out(&self, frame: &RxFrame, into: &mut [u8]) {
        assert!(into.len() <= frame.length);
        self.data.read(usize::from(frame.id) * BUFFER_BYTES, into);
    }

    /// Returns the frame's buffer to the kernel.
    // Taking the frame by value is the point: see its type.
    #[allow(clippy::needless_pass_by_value)]
    pub(super) fn give_back(&mut self, frame: RxFrame) {
        let RxFrame { id, length: _ } = frame;
        self.provide(id);
    }

    fn provide(&mut self, id: u16) {
        let index = usize::from(self.tail & (RX_BUFFERS - 1));
        let address = self.data.at(usize::from(id) * BUFFER_BYTES) as u64;
        let entries: *mut BufferEntry = self.entries.as_ptr().cast();
        // SAFETY: the entry lies inside the mapping and the kernel does not read it before the
        // tail moves (rules 1 and 2). `reserved` is left alone: in entry 0 it is the tail.
        unsafe {
            let entry = entries.add(index);
            (&raw mut (*entry).address).write(address);
            (&raw mut (*entry).length).write(BUFFER_BYTES as u32);
            (&raw mut (*entry).id).write(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a 2-aligned u16 inside the mapping that is only ever accessed
        // atomically (rules 1 and 2), and the reference ends with this statement.
        unsafe { AtomicU16::from_ptr(&raw mut (*entries).reserved) }
            .store(self.tail, Ordering::Release);
    }
}

/// Slots for frames on their way out.
pub(super) struct TxSlots {
    data: Mapping,
    free: Vec<u16>,
}

impl TxSlots {
    pub(super) fn new() -> io::Result<TxSlots> {
        let data = Mapping::new(usize::from(TX_SLOTS) * BUFFER_BYTES)?;
        Ok(TxSlots { data, free: (0..TX_SLOTS).rev().collect() })
    }

    /// Takes a free slot and copies `frame` into it; `None` when all are in flight.
    pub(super) fn fill(&mut self, frame: &[u8]) -> Option<(u16, *const u8)> {
        assert!(frame.len() <= BUFFER_BYTES);
        let slot = self.free.pop()?;
        let offset = usize::from(slot) * BUFFER_BYTES;
        self.data.write(offset, frame);
        Some((slot, self.data.at(offset).cast_const()))
    }

    /// The kernel is done with `slot`.
    pub(super) fn release(&mut self, slot: u16) {
        assert!(slot < TX_SLOTS && self.free.len() < usize::from(TX_SLOTS));
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provided_ring_starts_full_and_wraps() {
        let mut rx = RxBuffers::new().unwrap();
        assert_eq!(rx.tail, RX_BUFFERS);
        rx.give_back(RxFrame::announced(7, 60));
        let mut entry = [0; 16];
        rx.entries.read(0, &mut entry);
        assert_eq!(entry[8..12], 2048u32.to_ne_bytes());
        assert_eq!(entry[12..14], 7u16.to_ne_bytes());
        assert_eq!(entry[14..16], (RX_BUFFERS + 1).to_ne_bytes());
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let mut tx = TxSlots::new().unwrap();
        let first = tx.fill(&[1; 60]).unwrap().0;
        for _ in 1..TX_SLOTS {
            assert!(tx.fill(&[2; 60]).is_some());
        }
        assert!(tx.fill(&[3; 60]).is_none());
        tx.release(first);
        assert_eq!(tx.fill(&[3; 60]).unwrap().0, first);
    }

    #[test]
    #[should_panic(expected = "no such buffer")]
    fn buffer_of_an_impossible_number_panics() {
        let _ = RxFrame::announced(RX_BUFFERS, 60);
    }
}
