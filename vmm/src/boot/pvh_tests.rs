use super::*;

const MEMORY_BYTES: u64 = 32 << 20;
const ENTRY: Entry = Entry { pvh_entry: 0x10_0000, image_end: 0x20_0123 };

fn ram(bytes: u64) -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), bytes as usize)]).unwrap()
}

fn line(command_line: &str) -> BootInfo<'_> {
    BootInfo { command_line, initrd: None }
}

/// Reads a field of start_info.h at its offset.
fn word(ram: &GuestRam, at: u64) -> u64 {
    ram.read_obj(GuestAddress(at)).unwrap()
}

fn half(ram: &GuestRam, at: u64) -> u32 {
    ram.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn start_info_has_the_layout_of_the_header_file() {
    let ram = ram(MEMORY_BYTES);
    write_boot_info(&ram, ENTRY, &line("console=ttyS0")).unwrap();
    let start = layout::PVH_START_INFO;
    assert_eq!(half(&ram, start), 0x336E_C578);
    assert_eq!(half(&ram, start + 4), 1, "version");
    assert_eq!(half(&ram, start + 12), 0, "modules");
    assert_eq!(word(&ram, start + 24), layout::COMMAND_LINE);
    assert_eq!(word(&ram, start + 32), 0, "no RSDP");
    assert_eq!(word(&ram, start + 40), layout::PVH_MEMORY_MAP);
    assert_eq!(half(&ram, start + 48), 3);
    let map: Vec<_> = (0..3)
        .map(|i| layout::PVH_MEMORY_MAP + 24 * i)
        .map(|at| (word(&ram, at), word(&ram, at + 8), half(&ram, at + 16)))
        .collect();
    let high = (0x10_0000, MEMORY_BYTES - 0x10_0000, 1);
    assert_eq!(map, [(0, 0xA_0000, 1), (0xA_0000, 0x6_0000, 2), high]);
    let mut text = [0xFF; 14];
    ram.read_slice(&mut text, GuestAddress(layout::COMMAND_LINE)).unwrap();
    assert_eq!(&text, b"console=ttyS0\0");
}

#[test]
fn initrd_is_module_zero_at_the_end_of_memory() {
    let ram = ram(MEMORY_BYTES);
    let initrd = [7; 5000];
    let info = BootInfo { command_line: "", initrd: Some(&initrd) };
    write_boot_info(&ram, ENTRY, &info).unwrap();
    assert_eq!(half(&ram, layout::PVH_START_INFO + 12), 1);
    assert_eq!(word(&ram, layout::PVH_START_INFO + 16), layout::PVH_MODULES);
    assert_eq!(word(&ram, layout::PVH_MODULES), MEMORY_BYTES - 2 * layout::PAGE);
    assert_eq!(word(&ram, layout::PVH_MODULES + 8), 5000);
    let mut copied = [0; 5000];
    ram.read_slice(&mut copied, GuestAddress(MEMORY_BYTES - 2 * layout::PAGE)).unwrap();
    assert_eq!(copied, initrd);
}

#[test]
fn initrd_over_the_image_is_refused() {
    let ram = ram(MEMORY_BYTES);
    for bytes in [MEMORY_BYTES - ENTRY.image_end + 1, MEMORY_BYTES + 1] {
        let initrd = vec![0; bytes as usize];
        let info = BootInfo { command_line: "", initrd: Some(&initrd) };
        let error = write_boot_info(&ram, ENTRY, &info).unwrap_err();
        let room = MEMORY_BYTES - ENTRY.image_end;
        assert_eq!(error, PvhError::InitrdTooLarge { bytes, room });
    }
}

#[test]
fn command_line_too_long_or_with_a_nul_is_refused() {
    let ram = ram(MEMORY_BYTES);
    let longest = "x".repeat(layout::COMMAND_LINE_MAX - 1);
    write_boot_info(&ram, ENTRY, &line(&longest)).unwrap();
    let end = layout::COMMAND_LINE + layout::COMMAND_LINE_MAX as u64 - 1;
    assert_eq!(ram.read_obj::<u8>(GuestAddress(end)).unwrap(), 0);
    let error = write_boot_info(&ram, ENTRY, &line(&(longest + "x"))).unwrap_err();
    assert_eq!(error.to_string(), "the command line has 4096 bytes, at most 4095 fit; shorten it");
    let error = write_boot_info(&ram, ENTRY, &line("a\0b")).unwrap_err();
    assert_eq!(error, PvhError::CommandLineNul { at: 1 });
}

#[test]
fn memory_that_is_not_one_region_from_zero_is_refused() {
    let small = ram(1 << 20);
    let split = [(GuestAddress(0), 16 << 20), (GuestAddress(32 << 20), 16 << 20)];
    let shifted = [(GuestAddress(4096), 32 << 20)];
    let holed = GuestRam::from_ranges(&split).unwrap();
    let shifted = GuestRam::from_ranges(&shifted).unwrap();
    for ram in [small, holed, shifted] {
        let error = write_boot_info(&ram, ENTRY, &line("")).unwrap_err();
        assert!(matches!(error, PvhError::Memory { .. }), "{error}");
    }
}

#[test]
fn initial_state_is_flat_protected_mode_without_paging() {
    let state = initial_state(0x0010_0040);
    assert_eq!((state.regs.rip, state.regs.rbx), (0x0010_0040, layout::PVH_START_INFO));
    assert_eq!(state.regs.rflags, 2, "VM, IF and TF are clear");
    // No previous value may remain.
    let mut dirty =
        kvm_sregs { cr0: u64::MAX, cr3: 1, cr4: u64::MAX, efer: u64::MAX, ..kvm_sregs::default() };
    dirty.cs.l = 1;
    dirty.interrupt_bitmap = [1; 4];
    dirty.apic_base = 0xFEE0_0900;
    state.apply(&mut dirty);
    let mut fresh = kvm_sregs { apic_base: 0xFEE0_0900, ..kvm_sregs::default() };
    state.apply(&mut fresh);
    assert_eq!(dirty, fresh);
    assert_eq!((fresh.cr0, fresh.cr3, fresh.cr4, fresh.efer), (0x11, 0, 0, 0));
    assert_eq!(fresh.apic_base, 0xFEE0_0900);
    for segment in [fresh.cs, fresh.ds, fresh.es, fresh.ss] {
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
        assert_eq!((segment.present, segment.s, segment.db, segment.g, segment.l), (1, 1, 1, 1, 0));
    }
    assert_eq!((fresh.cs.type_, fresh.ds.type_), (0xB, 0x3));
    let tr = fresh.tr;
    assert_eq!((tr.base, tr.limit, tr.type_, tr.s, tr.g), (0, 0x67, 0xB, 0, 0));
}
