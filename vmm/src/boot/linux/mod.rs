//! Linux kernels, as distributions ship them.
//!
//! ```text
//! bzImage --> bzimage (setup header) --> payload (unpacked ELF) --> kallsyms (its own symbols)
//!                                                    |
//!          pass: rdtsc, cpuid rewritten; hooks; shortcuts where asked for; a report of it all
//!                                                    |
//! command line, initrd, seed --> entry (zero page, memory map, tables, registers) --> GuestRam
//! ```
//!
//! Nothing here asks the host anything: what it makes necessary comes in [`PassOptions`], from
//! [`probe`](crate::kvm::probe). Nothing here knows a distribution or a kernel version; what is looked
//! for in a kernel and not found is told of.

mod bzimage;
mod entry;
mod hooks;
mod kallsyms;
mod kernel;
mod pass;
mod payload;
mod shortcuts;

pub(crate) use bzimage::is_bzimage;
pub use entry::{KernelInfo, MACHINE_PARAMETERS, SEED_BYTES};
pub(crate) use entry::{apply, registers};
pub use hooks::Hook;
pub use kernel::LinuxKernel;
pub use pass::{IDENTIFICATION_PORT, PassOptions, PassReport, Rewritten, TIME_STAMP_PORT};
pub use shortcuts::{Shortcut, ZERO_PAGE_PORT};
