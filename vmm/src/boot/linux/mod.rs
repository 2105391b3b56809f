//! Linux kernels as distributions ship them.
//!
//! ```text
//! bzImage --> bzimage (setup header) --> payload (decompressed ELF) --> kallsyms (its own symbols)
//!                                                    |
//!          pass: rdtsc, cpuid rewritten; hooks; shortcuts if requested; a report of all of it
//!                                                    |
//! command line, initrd, seed --> entry (zero page, memory map, tables, registers) --> GuestRam
//! ```
//!
//! This folder does not query the host: what the host requires is passed in [`PassOptions`], which
//! [`profile`](crate::kvm::profile) finds out. It depends on no distribution and no kernel version. If
//! something that it looks for is not in a kernel, the report says so.

mod bzimage;
mod entry;
mod hooks;
mod kallsyms;
mod kernel;
mod pass;
mod payload;
mod shortcuts;

pub(crate) use bzimage::is_bzimage;
pub use entry::{KernelInfo, MACHINE_PARAMETERS, SEED_BYTES, WITHOUT_XSAVE};
pub(crate) use entry::{apply, registers};
pub use hooks::Hook;
pub use kernel::LinuxKernel;
pub use pass::{IDENTIFICATION_PORT, PassOptions, PassReport, Rewritten, TIME_STAMP_PORT};
pub use shortcuts::{Shortcut, ZERO_PAGE_PORT};
