//! Everything that is prepared before the first instruction of the guest.
//!
//! ```text
//! file bytes --> image (elf) --> GuestRam          what runs
//!                  |   `--> sweep (rules)          may it run here and be replayed?
//!                  `--> pvh --> start info, memory map, registers
//! supported CPUID --> cpu_model                    what the guest learns about its processor
//! /sys, /proc, /dev --> host_checks                can this host run it at all?
//! ```
//!
//! This folder makes no ioctl and keeps no state. Each part is a function of its arguments, so primary
//! and backup prepare the same machine from the same arguments.
//!
//! | file | contents |
//! |---|---|
//! | [`image`] | the guest image: one validated ELF file, its digest, loading into guest memory |
//! | `elf`, `elf_code`, `notes` | the bounded ELF64 reader that it uses |
//! | [`linux`] | Linux kernels: bzImage, the determinism pass, the 64-bit boot protocol |
//! | [`pvh`] | the PVH boot ABI: start information and the initial registers |
//! | `flat` | flat segments, for every entry mode |
//! | [`sweep`] | the search of executable code for instructions that cannot be replayed |
//! | [`rules`] | which instructions those are, and why |
//! | [`cpu_features`] | the names of the CPU models, and the features of each |
//! | [`cpu_model`] | the fixed processor that the guest sees, compared between hosts |
//! | [`host_checks`] | checks of the host that need no KVM call |

pub mod cpu_features;
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
