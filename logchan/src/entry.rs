//! What happened to the machine: one [`Entry`] for every thing that is not a function of the
//! guest's own state, and one for every position at which such things happen.
//!
//! A log is a sequence of entries. A *position* entry ([`Entry::Exit`], [`Entry::UserWindow`],
//! [`Entry::CheckpointBegin`] up to its [`Entry::CheckpointEnd`], [`Entry::End`]) says how one
//! region of guest execution ended; what follows it, up to the next position, happened *at* it:
//! readings made while the exit was handled, then inputs, then at most one interrupt.

use crate::page_delta::PageDelta;

/// Number of registers in a [`RegisterDelta`]: RAX RBX RCX RDX RSI RDI RSP RBP R8-R15 RIP RFLAGS,
/// the order of KVM's `struct kvm_regs`.
pub const REGISTERS: usize = 18;

/// The general registers at an exit, as the difference to those at the exit before: bit `i` of
/// `changed` is set when register `i` differs, and `xor[i]` is then old ^ new (else 0).
///
/// Only there to print a register diff when a replay diverges; the digest is what is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisterDelta {
    /// Bit `i` set: register `i` changed. Bits from [`REGISTERS`] up are zero.
    pub changed: u32,
    /// Old value ^ new value; zero where the bit is clear.
    pub xor: [u64; REGISTERS],
}

/// One page of guest memory in a checkpoint.
///
/// Writer and reader keep copies of pages as the log told of them
/// ([`delta_cache_pages_max`](crate::limits::delta_cache_pages_max)), by the same rule, so each knows which ones the
/// other has. These are the base of changes, and not what a reader's memory holds: the guest may have run
/// since, and must have, to the beginning of the region that the checkpoint ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageBytes<'a> {
    /// All 4096 bytes are zero.
    Zero,
    /// The page's 4096 bytes.
    Raw(&'a [u8]),
    /// What changed since the log told of the page last, or from zeros if no copy is kept of it:
    /// [`crate::changes`], for fewer than 4096 bytes. Never in a full checkpoint.
    Delta(PageDelta<'a>),
}

/// A state in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBytes<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// What changed since the checkpoint before, where it was as many bytes: [`crate::changes`]. Never in
    /// a full checkpoint.
    Delta(PageDelta<'a>),
}

impl<'a> StateBytes<'a> {
    /// What is there of it.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Delta(delta) => delta.bytes(),
        }
    }
}

/// One log entry. Byte slices borrow from the buffer that was decoded, or from whoever encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Position: the next natural exit (PIO, MMIO, HLT, ...). `digest` covers registers, system
    /// registers, pending events and the exit's own data.
    Exit {
        /// xxh3-64 of the vCPU state and the exit.
        digest: u64,
        /// Registers for the diff; absent where bytes are dear.
        registers: Option<RegisterDelta>,
    },
    /// Position: the first interrupt window at CPL3 after the last position.
    UserWindow {
        /// As in `Exit`.
        digest: u64,
    },
    /// Position: the primary stopped the vCPU anywhere and sends the state itself. Followed by
    /// `pages` [`Entry::Page`]s and one [`Entry::CheckpointEnd`].
    CheckpointBegin {
        /// Every page that is not zero is there (a first sync), not only the changed ones.
        full: bool,
        /// Number of `Page` entries that follow.
        pages: u32,
        /// vCPU state, opaque here.
        vcpu: StateBytes<'a>,
        /// Device state, opaque here.
        devices: StateBytes<'a>,
    },
    /// One page of the checkpoint under way.
    Page {
        /// Guest page number (guest physical address / 4096).
        number: u64,
        /// Its contents.
        bytes: PageBytes<'a>,
    },
    /// The checkpoint is whole.
    CheckpointEnd {
        /// xxh3-64 over vCPU state, device state and pages, in the order sent: over what they are, however
        /// they were told. PageDelta of something else than the writer's copy do not come to it.
        digest: u64,
    },
    /// Reading or input: guest time moved on by this many nanoseconds.
    Clock {
        /// Nanoseconds since the last `Clock` entry.
        advance_ns: u64,
    },
    /// Reading: the wall clock, nanoseconds since 1970-01-01T00:00Z.
    WallClock {
        /// Unix time in nanoseconds.
        unix_ns: u64,
    },
    /// Reading: bytes of entropy handed to the guest.
    Entropy(&'a [u8]),
    /// Input: a frame received for the VM's NIC, put into its receive queue here.
    Frame(&'a [u8]),
    /// Input: bytes typed at the serial console.
    Console(&'a [u8]),
    /// The interrupt injected at this position.
    Interrupt {
        /// Vector given to the vCPU.
        vector: u8,
    },
    /// Output the VM made while the last exit was handled; replay must make the same.
    Output {
        /// Bytes of the frame.
        length: u32,
        /// xxh3-64 of the frame.
        digest: u64,
    },
    /// Position: the recording ends here, at this state.
    End {
        /// Natural exits in the whole log.
        natural_exits: u64,
        /// Interrupts in the whole log.
        interrupts: u64,
        /// xxh3-64 of all guest memory.
        memory_digest: u64,
        /// xxh3-64 of vCPU and device state.
        state_digest: u64,
    },
}
