//! The guest physical address map. Assertions below check that no two areas overlap.

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// PVH start information (PVH boot ABI, xen/include/public/arch-x86/hvm/start_info.h).
pub const PVH_START_INFO: u64 = 0x6000;
/// Module list of the PVH start information.
pub const PVH_MODULES: u64 = 0x6080;
/// Memory map of the PVH start information.
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// Zero page of the Linux boot protocol (`struct boot_params`). A machine boots by one protocol, so the
/// low-memory areas of PVH and of the Linux boot protocol may overlap.
pub const LINUX_ZERO_PAGE: u64 = 0x8000;
/// Setup data of the Linux boot protocol: the random seed.
pub const LINUX_SETUP_DATA: u64 = 0x9000;
/// Global descriptor table with which a 64-bit kernel is entered.
pub const LINUX_GDT: u64 = 0xA000;
/// Page tables with which a 64-bit kernel is entered: three pages.
pub const LINUX_PAGE_TABLES: u64 = 0x1_0000;
/// Kernel command line, zero-terminated.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of the command line, including its terminating zero.
pub const COMMAND_LINE_MAX: usize = 4096;
/// Start of the legacy video and BIOS hole.
pub const HOLE_START: u64 = 0xA_0000;
/// End of the low RAM that is reported to a Linux kernel. The extended BIOS data area of a PC follows it.
pub const LOW_MEMORY_END: u64 = 0x9_FC00;
/// End of the hole; images are loaded from here.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Start of the PCI memory windows; RAM ends at or below it.
pub const PCI_WINDOW: u64 = 0xFEB0_0000;
/// Bytes of PCI memory windows.
pub const PCI_WINDOW_BYTES: u64 = 0x10_0000;
/// Three pages that KVM needs for itself on VMX hosts (KVM_SET_TSS_ADDR).
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// A guest physical address that is never backed by guest RAM. Adding and deleting a memslot here makes
/// KVM drop its shadow page tables.
pub const SCRATCH_SLOT: u64 = 0x1_0000_0000;

/// Least guest memory: the image, its stacks and its buffers.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Most guest memory: one region below the PCI windows.
pub const MEMORY_MAX: u64 = 3 << 30;

const _: () = assert!(PVH_START_INFO + 0x80 <= PVH_MODULES);
const _: () = assert!(PVH_MODULES + 0x80 <= PVH_MEMORY_MAP);
const _: () = assert!(PVH_MEMORY_MAP + PAGE <= COMMAND_LINE);
const _: () = assert!(LINUX_ZERO_PAGE + PAGE <= LINUX_SETUP_DATA);
const _: () = assert!(LINUX_SETUP_DATA + PAGE <= LINUX_GDT);
const _: () = assert!(LINUX_GDT + PAGE <= LINUX_PAGE_TABLES);
const _: () = assert!(LINUX_PAGE_TABLES + 3 * PAGE <= COMMAND_LINE);
const _: () = assert!(COMMAND_LINE + COMMAND_LINE_MAX as u64 <= HOLE_START);
const _: () = assert!(MEMORY_MAX <= PCI_WINDOW);
const _: () = assert!(PCI_WINDOW + PCI_WINDOW_BYTES <= KVM_TSS);
