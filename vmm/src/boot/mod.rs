//! Everything that happens before the first instruction of the guest, and nothing after it.
//!
//! ```text
//! file bytes --> image (elf) --> GuestRam          what runs
//!                  |   `--> sweep (rules)          may it run here and be replayed?
//!                  `--> pvh --> start info, memory map, registers
//! supported CPUID --> cpu_model                    what the guest is told about its processor
//! /sys, /proc, /dev --> host_checks                can this host run it at all?
//! ```
//!
//! Nothing in this folder calls an ioctl or keeps state: each part is a function of its arguments,
//! so primary and backup, given the same arguments, prepare the same machine.
//!
//! | file | owns |
//! |---|---|
//! | [`image`] | the guest image: one validated ELF file, its digest, its way into guest memory |
//! | `elf`, `elf_code`, `notes` | the bounded ELF64 reader beneath it |
//! | [`linux`] | Linux kernels: bzImage, the determinism pass, the 64-bit boot protocol |
//! | [`pvh`] | the PVH boot ABI: start information and the initial registers |
//! | `flat` | segments that are all of memory, for every mode |
//! | [`sweep`] | the search of executable code for instructions that cannot be replayed |
//! | [`rules`] | which instructions those are, and why |
//! | [`cpu_model`] | the fixed processor that the guest sees, compared between hosts |
//! | [`host_checks`] | checks of the host that need no KVM call |

pub mod cpu_model;
mod elf;
mod elf_code;
#[cfg(test)]
mod fixture;
pub(crate) mod flat;
pub mod host_checks;
pub mod image;
pub mod linux;
mod notes;
pub mod pvh;
pub mod rules;
pub mod sweep;

pub(crate) use elf::FILE_BYTES_MAX;
