//! Log entries. There is one [`Entry`] for every nondeterministic input or reading, that is, for
//! everything that is not a function of the guest's own state, and one for every position at which such
//! things happen.
//!
//! A log is a sequence of entries. A *position* entry ([`Entry::Exit`], [`Entry::Window`],
//! [`Entry::CheckpointBegin`] up to its [`Entry::CheckpointEnd`], [`Entry::End`]) says how one region of
//! guest execution ended. The entries that follow it, up to the next position, happened *at* that
//! position: readings and outputs made while the exit was handled, then inputs, then at most one
//! interrupt.

use crate::disk_copy::DiskCopy;
use crate::page_delta::PageDelta;

/// Number of registers in a [`RegisterDelta`]: RAX RBX RCX RDX RSI RDI RSP RBP R8-R15 RIP RFLAGS, in the
/// order of KVM's `struct kvm_regs`.
pub const REGISTERS: usize = 18;

/// The difference between the general registers at an exit and those at the exit before: bit `i` of
/// `changed` is set if register `i` differs, and `xor[i]` is then old ^ new (else 0).
///
/// It serves only to print a register diff when a replay diverges; the digest is what is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisterDelta {
    /// Bit `i`: register `i` changed. Bits from [`REGISTERS`] up are zero.
    pub changed: u32,
    /// Old value ^ new value, or zero if the bit is clear.
    pub xor: [u64; REGISTERS],
}

/// Contents of one page of guest memory in a checkpoint.
///
/// Writer and reader keep copies of pages as the log last carried them, in a delta cache of
/// [`delta_cache_pages_max`](crate::limits::delta_cache_pages_max) pages. Both manage it by the same
/// rule, so each knows which pages the other has. The base of a page delta is the copy in this cache,
/// not the reader's guest memory: the reader's guest has run since then, up to the beginning of the
/// region that the checkpoint ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageBytes<'a> {
    /// All 4096 bytes are zero.
    Zero,
    /// All 4096 bytes of the page.
    Raw(&'a [u8]),
    /// The difference to the copy in the delta cache, or to a page of zeros if the cache has no copy, in
    /// fewer than 4096 bytes. Never used in a full checkpoint.
    Delta(PageDelta<'a>),
}

/// The state of the vCPU or of the devices in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBytes<'a> {
    /// The whole state.
    Whole(&'a [u8]),
    /// The difference to the same state in the checkpoint before, which had the same length. Never used
    /// in a full checkpoint.
    Delta(PageDelta<'a>),
}

impl<'a> StateBytes<'a> {
    /// Returns the encoded bytes, whole or delta.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Delta(delta) => delta.bytes(),
        }
    }
}

/// How a request to a disk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskStatus {
    /// The request is done.
    Done,
    /// The disk has failed: the guest sees an I/O error.
    Failed,
}

/// One log entry. Byte slices borrow from the buffer that was decoded, or from the caller that encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Position: the next natural exit (PIO, MMIO, HLT, ...). `digest` covers the registers, the system
    /// registers, the pending events and the data of the exit itself.
    Exit {
        /// Hash of the vCPU state and the exit, with a sub-digest of each part.
        digest: u64,
        /// Registers, for the report of a divergence; absent in logs that do not have them.
        registers: Option<RegisterDelta>,
    },
    /// Position: the first interrupt window after the last position that is exact on this host.
    Window {
        /// As in `Exit`.
        digest: u64,
    },
    /// Position: the primary stopped the vCPU, possibly in mid-region, and sends the state itself.
    /// Followed by `pages` [`Entry::Page`]s and one [`Entry::CheckpointEnd`].
    CheckpointBegin {
        /// Whether the checkpoint has every page that is not zero, not only those written since the
        /// checkpoint before. The first checkpoint of a log is full.
        full: bool,
        /// Number of `Page` entries that follow.
        pages: u32,
        /// vCPU state, opaque to this crate.
        vcpu: StateBytes<'a>,
        /// Device state, opaque to this crate.
        devices: StateBytes<'a>,
    },
    /// One page of the current checkpoint.
    Page {
        /// Guest page number (guest physical address / 4096).
        number: u64,
        /// Contents of the page.
        bytes: PageBytes<'a>,
    },
    /// End of the current checkpoint.
    CheckpointEnd {
        /// xxh3-64 over the pages in the order written (for a sync, those of the precopy first), followed by
        /// the vCPU state and the device state. It covers the decoded contents, however they were encoded,
        /// so a delta that was applied to a wrong base fails the comparison.
        digest: u64,
    },
    /// Reading or input: guest time advanced by this many nanoseconds.
    Clock {
        /// Nanoseconds since the last `Clock` entry.
        advance_ns: u64,
    },
    /// Reading: the wall clock, nanoseconds since 1970-01-01T00:00Z.
    WallClock {
        /// Unix time in nanoseconds.
        unix_ns: u64,
    },
    /// Reading: entropy given to the guest.
    Entropy(&'a [u8]),
    /// Input: a frame received for the VM's NIC, placed in its receive queue at this position.
    Frame(&'a [u8]),
    /// Input: bytes typed at the serial console.
    Console(&'a [u8]),
    /// Input: a request that the guest made to a disk is done, and enters the guest at this position.
    DiskDone {
        /// Index of the disk.
        disk: u8,
        /// Number of the request: 1 is the first of this disk.
        number: u64,
        /// How it ended.
        status: DiskStatus,
        /// xxh3-64 of the data of a read that is done; otherwise 0.
        digest: u64,
        /// The data of a read that is done, if the log has them; otherwise empty.
        data: &'a [u8],
    },
    /// The interrupt injected at this position.
    Interrupt {
        /// Vector injected into the vCPU.
        vector: u8,
    },
    /// Output that the VM made while the last exit was handled. A replay must make the same.
    Output {
        /// Length of the frame in bytes.
        length: u32,
        /// xxh3-64 of the frame.
        digest: u64,
    },
    /// Position: the recording ends here, in this state.
    End {
        /// Number of natural exits in the whole log.
        natural_exits: u64,
        /// Number of interrupts in the whole log.
        interrupts: u64,
        /// xxh3-64 of all guest memory.
        memory_digest: u64,
        /// xxh3-64 of vCPU and device state.
        state_digest: u64,
    },
    /// The primary hands the VM over: it made every entry before this one, and runs the VM no further. On the
    /// logging channel only, outside of checkpoints; never in a file. Behind it, only [`Frame`](Self::Frame)
    /// follows: a frame that reached the primary's tap, and that the VM has not received. The new primary
    /// takes it as an input of its own.
    HandOver,
    /// A message about the copy of a disk to a new backup. On the logging channel only; never in a file.
    DiskCopy(DiskCopy<'a>),
}
