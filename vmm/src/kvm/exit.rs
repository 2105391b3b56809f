//! Exits as data: why the vCPU stopped, owned, comparable, printable.

/// Which way port or memory data flows, from the guest's point of view.
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
    /// The data lies in the run page: [`super::Vcpu::pio_data`].
    Pio {
        /// IN or OUT.
        direction: Direction,
        /// First port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Elements.
        count: u32,
    },
    /// An access to guest physical memory without RAM. An `In` is answered through
    /// [`super::Vcpu::answer_mmio`].
    Mmio {
        /// Read or write.
        direction: Direction,
        /// Guest physical address.
        address: u64,
        /// 1 to 8 bytes.
        length: u8,
        /// What is written; zeros for a read.
        data: [u8; 8],
    },
    /// HLT.
    Halt,
    /// The guest lowered CR8. No device takes part; KVM on VMX and SVM reports it where there is no
    /// local APIC in the kernel (api.rst 5, KVM_EXIT_SET_TPR).
    SetTpr,
    /// The window asked for is open: the guest can take an interrupt.
    IrqWindow,
    /// A signal or `immediate_exit` ended the run (EINTR): no position, never counted.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// KVM's emulator met something it does not know.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
    },
    /// The hardware refused the guest state.
    EntryFailed {
        /// Hardware-specific reason.
        reason: u64,
    },
    /// An exit this machine never asks for.
    Unknown {
        /// `KVM_EXIT_*`.
        reason: u32,
    },
}

/// What an exit means to the run loop and to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// The guest's own instruction caused it: `Exit(k)`, an exact position.
    Natural,
    /// An interrupt window: exact at CPL3 only.
    Window,
    /// Not a position.
    Interrupted,
    /// The guest can't go on.
    Fatal,
}

impl VmExit {
    /// Which of them this exit is.
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
