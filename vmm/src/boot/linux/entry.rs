//! The 64-bit boot protocol: the contents of guest memory and of the registers at a kernel's first
//! instruction.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol", and `zero-page.rst`. The
//! kernel's ELF file is loaded at its link address, so its decompressor never runs. `startup_64` is
//! entered with RSI at the zero page and an identity mapping of the first GiB.

use super::bzimage::HEADER_START;
use super::kernel::LinuxKernel;
use crate::boot::cpu_features::ModelName;
use crate::boot::flat::FlatSegments;
use crate::boot::image::{ImageFault, load_segments};
use crate::boot::pvh::PvhError;
use crate::mem::{GuestRam, layout};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_sregs};
use linux_loader::loader::bootparam::boot_e820_entry;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Bytes of the random seed for the kernel.
pub const SEED_BYTES: usize = 32;
/// `SETUP_RNG_SEED` (arch/x86/include/uapi/asm/bootparam.h, since Linux 6.0; older kernels ignore it).
const SETUP_RNG_SEED: u32 = 9;
/// `type_of_loader` of a loader without an assigned number.
const LOADER_OTHER: u8 = 0xFF;
/// e820 types.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Offsets in the zero page.
const E820_ENTRIES: usize = 0x1E8;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const CMD_LINE_PTR: usize = 0x228;
const SETUP_DATA: usize = 0x250;
const E820_TABLE: usize = 0x2D0;

/// Page-table entry: present and writable; and the same with the size bit of a 2 MiB page (SDM vol. 3,
/// 4.5.4).
const TABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x83;
/// `__BOOT_CS` and `__BOOT_DS`, which the protocol prescribes (boot.rst).
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// Selector of the task register. The protocol does not specify it, and the GDT has no descriptor for it.
const TASK_SELECTOR: u16 = 0x20;
/// Descriptors of flat 64-bit code and flat data.
const CODE_DESCRIPTOR: u64 = 0x00AF_9B00_0000_FFFF;
const DATA_DESCRIPTOR: u64 = 0x00CF_9300_0000_FFFF;
const CR0_PE_MP_ET_NE_WP_AM_PG: u64 = 0x8005_0033;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
const RFLAGS_FIXED: u64 = 1 << 1;
/// Top of a small stack below the zero page, which `startup_64` replaces at once.
const STACK_TOP: u64 = 0x6000;

/// Parameters that every kernel needs on this machine. The user's parameters follow them.
///
/// They mean: no interrupt controller but the 8259 pair; no ACPI; PCI by mechanism #1; the ACPI PM timer
/// as the only clock, at a port that is given here because ACPI cannot report it; no calibration of
/// delays against a clock; no page-table isolation, because the hooks run before a kernel leaves the
/// user's page tables; the seed counts as entropy, because it comes from the host; a reset stops the
/// machine.
///
/// [`WITHOUT_XSAVE`] follows if the CPU model has no XSAVE.
pub const MACHINE_PARAMETERS: &str = "nolapic noapic acpi=off pci=conf1 nosmp nopti \
    no_timer_check lpj=10000 pmtmr=0x608 clocksource=acpi_pm reboot=t panic=-1 nokaslr \
    random.trust_cpu=off random.trust_bootloader=on i8042.noaux i8042.nokbd";

/// Parameters for a kernel on a CPU model without XSAVE.
///
/// Without XSAVE a kernel saves the SSE registers of its processes but not the
/// upper halves of the AVX registers. A KVM that runs CPL3 natively nevertheless lets processes see and
/// use AVX. If two of them do, one finds the other's upper halves in its registers. The last parameter,
/// which a kernel puts into the environment of its first process, prevents glibc from selecting AVX.
/// Nearly every program uses glibc's `memcpy`.
pub const WITHOUT_XSAVE: &str = "noxsave \
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-FMA,-FMA4,\
    -AVX_Fast_Unaligned_Load";

/// Boot data that the user provides for a kernel.
#[derive(Debug, Clone, Copy)]
pub struct KernelInfo<'a> {
    /// The CPU model of the machine.
    pub cpu_model: ModelName,
    /// Parameters that are appended to those that the machine needs.
    pub command_line: &'a str,
    /// Initial RAM file system, loaded at the end of guest memory.
    pub initrd: Option<&'a [u8]>,
    /// Fresh entropy. It is an input like any other, and is in the checkpoint with which every log
    /// begins.
    pub seed: [u8; SEED_BYTES],
}

impl LinuxKernel {
    /// Loads the kernel and its boot data into `ram`.
    ///
    /// # Errors
    ///
    /// Guest memory is too small, or the boot data does not fit.
    pub fn load(&self, ram: &GuestRam, info: &KernelInfo<'_>) -> Result<(), PvhError> {
        let memory_bytes = ram.last_addr().0.saturating_add(1);
        let load =
            |error: ImageFault| PvhError::Kernel { name: self.name().to_owned(), fault: error };
        let needed = self.memory_bytes_min();
        if needed > memory_bytes {
            return Err(load(ImageFault::MemoryTooSmall { needed, memory_end: memory_bytes }));
        }
        load_segments(self.elf(), self.bytes(), ram).map_err(load)?;

        let mut zero_page = [0; layout::PAGE as usize];
        let header = &self.setup().header;
        zero_page[HEADER_START..HEADER_START + header.len()].copy_from_slice(header);
        zero_page[TYPE_OF_LOADER] = LOADER_OTHER;

        let line = self.command_line(info)?;
        write(ram, layout::COMMAND_LINE, &line)?;
        put32(&mut zero_page, CMD_LINE_PTR, layout::COMMAND_LINE as u32);
        if let Some(initrd) = info.initrd {
            let start = self.initrd_start(initrd.len() as u64, memory_bytes)?;
            write(ram, start, initrd)?;
            put32(&mut zero_page, RAMDISK_IMAGE, start as u32);
            put32(&mut zero_page, RAMDISK_SIZE, initrd.len() as u32);
        }

        let map = memory_map(memory_bytes);
        zero_page[E820_ENTRIES] = map.len() as u8;
        for (entry, at) in map.iter().zip((E820_TABLE..).step_by(size_of::<boot_e820_entry>())) {
            zero_page[at..at + 8].copy_from_slice(&entry.addr.to_le_bytes());
            zero_page[at + 8..at + 16].copy_from_slice(&entry.size.to_le_bytes());
            put32(&mut zero_page, at + 16, entry.r#type);
        }
        zero_page[SETUP_DATA..SETUP_DATA + 8]
            .copy_from_slice(&layout::LINUX_SETUP_DATA.to_le_bytes());
        write(ram, layout::LINUX_ZERO_PAGE, &zero_page)?;

        // struct setup_data: next, type, length, data.
        let mut seed = [0; 16 + SEED_BYTES];
        put32(&mut seed, 8, SETUP_RNG_SEED);
        put32(&mut seed, 12, SEED_BYTES as u32);
        seed[16..].copy_from_slice(&info.seed);
        write(ram, layout::LINUX_SETUP_DATA, &seed)?;
        write_tables(ram)
    }

    fn command_line(&self, info: &KernelInfo<'_>) -> Result<Vec<u8>, PvhError> {
        let given = info.command_line;
        let machine = match info.cpu_model.has_xsave() {
            true => MACHINE_PARAMETERS.to_owned(),
            false => format!("{MACHINE_PARAMETERS} {WITHOUT_XSAVE}"),
        };
        let mut line = format!("{machine} {given}").into_bytes();
        let bytes_max = self.setup().command_line_max.min(layout::COMMAND_LINE_MAX - 1);
        if line.len() > bytes_max {
            return Err(PvhError::CommandLineTooLong { bytes: line.len(), bytes_max });
        }
        if let Some(at) = given.bytes().position(|byte| byte == 0) {
            return Err(PvhError::CommandLineNul { at });
        }
        line.push(0);
        Ok(line)
    }

    /// Returns the highest address at which the initrd may start. The kernel unpacks it into the memory
    /// below.
    fn initrd_start(&self, bytes: u64, memory_bytes: u64) -> Result<u64, PvhError> {
        let end = memory_bytes.min(self.setup().initrd_address_max.saturating_add(1));
        let first = self.memory_bytes_min();
        let start = end.checked_sub(bytes).map(|start| start & !(layout::PAGE - 1));
        start
            .filter(|&start| start >= first)
            .ok_or(PvhError::InitrdTooLarge { bytes, room: end.saturating_sub(first) })
    }
}

fn memory_map(memory_bytes: u64) -> [boot_e820_entry; 3] {
    let piece = |start: u64, end: u64, kind: u32| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type: kind,
    };
    [
        piece(0, layout::LOW_MEMORY_END, E820_RAM),
        piece(layout::LOW_MEMORY_END, layout::HIGH_MEMORY, E820_RESERVED),
        piece(layout::HIGH_MEMORY, memory_bytes, E820_RAM),
    ]
}

/// Writes the GDT and page tables that identity-map the first GiB in 2 MiB pages.
fn write_tables(ram: &GuestRam) -> Result<(), PvhError> {
    let mut gdt = [0; 32];
    gdt[usize::from(BOOT_CS)..][..8].copy_from_slice(&CODE_DESCRIPTOR.to_le_bytes());
    gdt[usize::from(BOOT_DS)..][..8].copy_from_slice(&DATA_DESCRIPTOR.to_le_bytes());
    write(ram, layout::LINUX_GDT, &gdt)?;
    let [level4, level3, level2] = [0, 1, 2].map(|n| layout::LINUX_PAGE_TABLES + n * layout::PAGE);
    write(ram, level4, &(level3 | TABLE).to_le_bytes())?;
    write(ram, level3, &(level2 | TABLE).to_le_bytes())?;
    let pages: Vec<u8> =
        (0..512u64).flat_map(|page| (page << 21 | LARGE_PAGE).to_le_bytes()).collect();
    write(ram, level2, &pages)
}

fn write(ram: &GuestRam, at: u64, bytes: &[u8]) -> Result<(), PvhError> {
    ram.write_slice(bytes, GuestAddress(at))
        .map_err(|error| PvhError::Write { reason: error.to_string() })
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Returns the general registers at the first instruction of a kernel whose ELF entry is `entry`.
pub(crate) fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: layout::LINUX_ZERO_PAGE,
        rsp: STACK_TOP,
        rflags: RFLAGS_FIXED,
        ..kvm_regs::default()
    }
}

/// Sets long mode on the tables that [`LinuxKernel::load`] wrote. The APIC base is not changed.
pub(crate) fn apply(sregs: &mut kvm_sregs) {
    FlatSegments {
        code: BOOT_CS,
        data: BOOT_DS,
        task: TASK_SELECTOR,
        task_base: 0,
        privilege_level: 0,
        is_64_bit: true,
    }
    .load(sregs);
    sregs.gdt = kvm_dtable { base: layout::LINUX_GDT, limit: 31, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable::default();
    sregs.cr0 = CR0_PE_MP_ET_NE_WP_AM_PG;
    sregs.cr2 = 0;
    sregs.cr3 = layout::LINUX_PAGE_TABLES;
    sregs.cr4 = CR4_PAE;
    sregs.cr8 = 0;
    sregs.efer = EFER_LME_LMA;
    sregs.interrupt_bitmap = [0; 4];
}
