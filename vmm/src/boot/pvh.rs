//! The PVH boot ABI: the contents of guest memory and of the registers at the first instruction.
//!
//! Sources: xen `docs/misc/pvh.pandoc` ("x86/HVM direct boot ABI") for the machine state, xen
//! `include/public/arch-x86/hvm/start_info.h` for the structures, and Linux
//! `arch/x86/platform/pvh/{head.S,enlighten.c}` for how a kernel uses them (the first module is its
//! initrd; it requires a memory map in start information of version 1).
//!
//! The memory map follows `mem::layout`; nothing here depends on the host.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_sregs};
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::boot::flat::FlatSegments;
use crate::boot::image::Entry;
use crate::boot::linux;
use crate::mem::{GuestRam, layout};

/// CR0.PE, the only bit the ABI sets.
const CR0_PE: u64 = 1 << 0;
/// CR0.ET, fixed to 1 on every x86-64 processor (Intel SDM vol. 3, 2.5).
const CR0_ET: u64 = 1 << 4;
/// Bit 1 of RFLAGS, always 1 (Intel SDM vol. 1, 3.4.3).
const RFLAGS_FIXED: u64 = 1 << 1;
/// The ABI does not specify the selectors. These leave room for the null descriptor.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Boot data that the user provides in addition to the image.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootInfo<'a> {
    /// Kernel command line without NUL. With its terminating zero it has at most
    /// `layout::COMMAND_LINE_MAX` bytes.
    pub command_line: &'a str,
    /// Initial RAM disk: module 0 of the start information, at the end of guest memory.
    pub initrd: Option<&'a [u8]>,
}

/// Boot data that does not fit this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields are the values in the messages.
pub enum PvhError {
    /// The command line is too long.
    #[error("the command line has {bytes} bytes, at most {bytes_max} fit; shorten it")]
    CommandLineTooLong { bytes: usize, bytes_max: usize },
    /// The command line contains a NUL: the guest would see only the part before it.
    #[error("the command line has a NUL at byte {at}; remove it")]
    CommandLineNul { at: usize },
    /// The initrd does not fit between the image and the end of memory.
    #[error(
        "the initrd of {bytes} bytes does not fit above the image ({room} bytes free); give the guest more memory"
    )]
    InitrdTooLarge { bytes: u64, room: u64 },
    /// Guest memory is not one region from address 0 with a size within the limits of `mem::layout`.
    #[error(
        "guest memory of {bytes} bytes is not one region of {} to {} bytes from address 0; choose a size between these",
        layout::MEMORY_MIN,
        layout::MEMORY_MAX
    )]
    Memory { bytes: u64 },
    /// A kernel cannot be loaded into guest memory.
    #[error("kernel {name}: {fault}")]
    Kernel { name: String, fault: crate::boot::image::ImageFault },
    /// Writing to guest memory failed.
    #[error("boot data cannot be written to guest memory: {reason}; report this")]
    Write { reason: String },
}

/// Writes start information, memory map, command line and modules into `ram` for a guest that was loaded
/// as `entry`. Call it after the image has been loaded.
///
/// # Errors
///
/// The boot data does not fit this machine; see [`PvhError`].
pub fn write_boot_info(ram: &GuestRam, entry: Entry, info: &BootInfo<'_>) -> Result<(), PvhError> {
    let memory_bytes = ram.last_addr().0.saturating_add(1);
    let whole = usize::try_from(memory_bytes)
        .is_ok_and(|bytes| ram.num_regions() == 1 && ram.check_range(GuestAddress(0), bytes));
    if !whole || !(layout::MEMORY_MIN..=layout::MEMORY_MAX).contains(&memory_bytes) {
        return Err(PvhError::Memory { bytes: memory_bytes });
    }
    write_command_line(ram, info.command_line)?;
    let module = match info.initrd {
        Some(initrd) => Some(write_initrd(ram, memory_bytes, entry.image_end, initrd)?),
        None => None,
    };

    let map = memory_map(memory_bytes);
    let start = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        flags: 0,
        nr_modules: u32::from(module.is_some()),
        modlist_paddr: if module.is_some() { layout::PVH_MODULES } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: 0,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    let mut params = BootParams::new(&start, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    if let Some(module) = module {
        params.set_modules(&[module], GuestAddress(layout::PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, ram)
        .map_err(|error| PvhError::Write { reason: error.to_string() })
}

/// Returns the memory map: RAM below the legacy hole, the hole, RAM from 1 MiB on. The PCI windows are
/// outside all three.
fn memory_map(memory_bytes: u64) -> [hvm_memmap_table_entry; 3] {
    let piece = |start: u64, end: u64, type_: u32| hvm_memmap_table_entry {
        addr: start,
        size: end - start,
        type_,
        reserved: 0,
    };
    [
        piece(0, layout::HOLE_START, XEN_HVM_MEMMAP_TYPE_RAM),
        piece(layout::HOLE_START, layout::HIGH_MEMORY, XEN_HVM_MEMMAP_TYPE_RESERVED),
        piece(layout::HIGH_MEMORY, memory_bytes, XEN_HVM_MEMMAP_TYPE_RAM),
    ]
}

fn write_command_line(ram: &GuestRam, line: &str) -> Result<(), PvhError> {
    let bytes_max = layout::COMMAND_LINE_MAX - 1;
    if line.len() > bytes_max {
        return Err(PvhError::CommandLineTooLong { bytes: line.len(), bytes_max });
    }
    if let Some(at) = line.bytes().position(|byte| byte == 0) {
        return Err(PvhError::CommandLineNul { at });
    }
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(0);
    write(ram, layout::COMMAND_LINE, &bytes)
}

fn write_initrd(
    ram: &GuestRam,
    memory_bytes: u64,
    image_end: u64,
    initrd: &[u8],
) -> Result<hvm_modlist_entry, PvhError> {
    let bytes = initrd.len() as u64;
    let too_large =
        PvhError::InitrdTooLarge { bytes, room: memory_bytes.saturating_sub(image_end) };
    let start = match memory_bytes.checked_sub(bytes).map(|start| start & !(layout::PAGE - 1)) {
        Some(start) if start >= image_end.max(layout::HIGH_MEMORY) => start,
        Some(_) | None => return Err(too_large),
    };
    write(ram, start, initrd)?;
    Ok(hvm_modlist_entry { paddr: start, size: bytes, cmdline_paddr: 0, reserved: 0 })
}

fn write(ram: &GuestRam, at: u64, bytes: &[u8]) -> Result<(), PvhError> {
    ram.write_slice(bytes, GuestAddress(at))
        .map_err(|error| PvhError::Write { reason: error.to_string() })
}

/// The vCPU state at the first instruction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InitialState {
    /// All general registers.
    pub regs: kvm_regs,
    /// The mode, which determines all other registers.
    pub mode: EntryMode,
}

/// The mode in which a guest is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryMode {
    /// PVH: 32-bit protected mode, flat segments, no paging.
    Protected,
    /// The Linux 64-bit boot protocol: long mode, identity-mapped.
    Long,
}

/// Returns the state that enters a guest at `entry` with EBX pointing to the start information.
pub fn initial_state(entry: u32) -> InitialState {
    InitialState {
        regs: kvm_regs {
            rip: u64::from(entry),
            rbx: layout::PVH_START_INFO,
            rflags: RFLAGS_FIXED,
            ..kvm_regs::default()
        },
        mode: EntryMode::Protected,
    }
}

/// Returns the state that enters a Linux kernel at its ELF entry.
pub fn linux_state(entry: u64) -> InitialState {
    InitialState { regs: linux::registers(entry), mode: EntryMode::Long }
}

impl InitialState {
    /// Changes the registers of a new vCPU to those that the ABI requires. The APIC base is not changed.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        match self.mode {
            EntryMode::Protected => apply_protected(sregs),
            EntryMode::Long => linux::apply(sregs),
        }
    }
}

fn apply_protected(sregs: &mut kvm_sregs) {
    FlatSegments {
        code: CODE_SELECTOR,
        data: DATA_SELECTOR,
        task: TASK_SELECTOR,
        task_base: 0,
        privilege_level: 0,
        is_64_bit: false,
    }
    .load(sregs);
    sregs.gdt = kvm_dtable::default();
    sregs.idt = kvm_dtable::default();
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr2 = 0;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.cr8 = 0;
    sregs.efer = 0;
    sregs.interrupt_bitmap = [0; 4];
}

#[cfg(test)]
#[path = "pvh_tests.rs"]
mod tests;
