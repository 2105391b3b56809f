//! VM exits as plain data: owned, comparable, printable.

/// Direction of a port or memory access, from the guest's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest reads.
    In,
    /// The guest writes.
    Out,
}

/// Why `KVM_RUN` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmExit {
    /// Port I/O: `count` elements of `size` bytes (a REP string instruction has more than one).
    /// The data is in the run page; see [`super::Vcpu::pio_data`].
    Pio {
        /// IN or OUT.
        direction: Direction,
        /// First port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Number of elements.
        count: u32,
    },
    /// An access to a guest physical address without RAM. An `In` is answered with
    /// [`super::Vcpu::answer_mmio`].
    Mmio {
        /// Read or write.
        direction: Direction,
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        length: u8,
        /// The written bytes; zeros for a read.
        data: [u8; 8],
    },
    /// HLT.
    Halt,
    /// The guest lowered CR8. No device is involved; KVM on VMX and SVM reports it if the local APIC is not
    /// in the kernel (api.rst 5, KVM_EXIT_SET_TPR).
    SetTpr,
    /// The requested interrupt window is open: the guest can take an interrupt.
    IrqWindow,
    /// A signal or `immediate_exit` ended the run (EINTR). Not a position in the log, and never counted.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// KVM failed, for example because its emulator does not support an instruction.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
    },
    /// The VM entry failed because the hardware refused the guest state.
    EntryFailed {
        /// Hardware-specific reason.
        reason: u64,
    },
    /// An exit that this machine does not expect.
    Unknown {
        /// `KVM_EXIT_*`.
        reason: u32,
    },
}

/// The class of an exit, for the run loop and for replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// A natural exit, caused by an instruction of the guest: an exact position, `Exit(k)`.
    Natural,
    /// An interrupt window: an exact position at CPL3 only.
    Window,
    /// Not a position.
    Interrupted,
    /// The guest can't continue.
    Fatal,
}

impl VmExit {
    /// Returns the class of this exit.
    pub fn class(&self) -> ExitClass {
        match self {
            VmExit::Pio { .. } | VmExit::Mmio { .. } | VmExit::Halt | VmExit::SetTpr => {
                ExitClass::Natural
            }
            VmExit::IrqWindow => ExitClass::Window,
            VmExit::Interrupted => ExitClass::Interrupted,
            VmExit::Shutdown
            | VmExit::InternalError { .. }
            | VmExit::EntryFailed { .. }
            | VmExit::Unknown { .. } => ExitClass::Fatal,
        }
    }
}

impl std::fmt::Display for VmExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VmExit::Pio { direction, port, size, count } => {
                write!(f, "{} port {port:#x}, {count} x {size} bytes", name(*direction))
            }
            VmExit::Mmio { direction, address, length, data } => {
                write!(f, "MMIO {} {address:#x}, {length} bytes", name(*direction))?;
                match direction {
                    Direction::In => Ok(()),
                    Direction::Out => write!(f, " = {:#x}", u64::from_le_bytes(*data)),
                }
            }
            VmExit::Halt => write!(f, "HLT"),
            VmExit::SetTpr => write!(f, "CR8 lowered"),
            VmExit::IrqWindow => write!(f, "interrupt window"),
            VmExit::Interrupted => write!(f, "EINTR"),
            VmExit::Shutdown => write!(f, "shutdown (triple fault)"),
            VmExit::InternalError { suberror } => {
                write!(f, "KVM internal error {suberror} (1: instruction not emulated)")
            }
            VmExit::EntryFailed { reason } => write!(f, "guest entry failed, reason {reason:#x}"),
            VmExit::Unknown { reason } => write!(f, "unexpected exit reason {reason}"),
        }
    }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "IN",
        Direction::Out => "OUT",
    }
}
