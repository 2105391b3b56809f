use super::*;
use crate::kvm::system::{DEV_KVM, System};
use crate::kvm::{Direction, Vcpu, VcpuState, Vm, VmExit};
use crate::mem::GuestRam;
use kvm_bindings::kvm_cpuid_entry2;
use vm_memory::{Bytes, GuestAddress};

/// A segment with a nonzero value in every field.
fn full(unusable: u8) -> kvm_segment {
    kvm_segment {
        base: 0x1000,
        limit: 0xF_FFFF,
        selector: 3,
        type_: 0xB,
        present: 1 - unusable,
        dpl: 3,
        db: 1,
        s: 1,
        l: 1,
        g: 1,
        avl: 1,
        unusable,
        padding: 0,
    }
}

fn all(segment: kvm_segment) -> kvm_sregs {
    kvm_sregs {
        cs: segment,
        ds: segment,
        es: segment,
        fs: segment,
        gs: segment,
        ss: segment,
        tr: segment,
        ldt: segment,
        ..kvm_sregs::default()
    }
}

#[test]
fn unusable_segment_keeps_only_defined_fields() {
    let mut state = all(full(1));
    sregs(&mut state);
    let kept =
        |base, dpl| kvm_segment { base, dpl, selector: 3, unusable: 1, ..kvm_segment::default() };
    assert_eq!([state.ds, state.es, state.ldt], [kept(0, 0); 3]);
    assert_eq!([state.fs, state.gs], [kept(0x1000, 0); 2]);
    assert_eq!(state.ss, kept(0, 3));
    assert_eq!([state.cs, state.tr], [full(1); 2], "a VM entry checks these");
}

#[test]
fn usable_segments_are_unchanged() {
    let mut state = all(full(0));
    sregs(&mut state);
    assert_eq!(state, all(full(0)));
}

#[test]
fn interrupt_bitmap_is_zero() {
    let mut state = kvm_sregs { interrupt_bitmap: [1; 4], ..kvm_sregs::default() };
    sregs(&mut state);
    assert_eq!(state, kvm_sregs::default());
}

/// Events with a value in every field that KVM may leave unchanged after delivery.
fn stale() -> kvm_vcpu_events {
    let mut stale = kvm_vcpu_events { flags: 0xD, ..kvm_vcpu_events::default() };
    (stale.exception.nr, stale.exception.has_error_code, stale.exception.error_code) = (14, 1, 6);
    (stale.exception_has_payload, stale.exception_payload) = (1, 0x1000);
    (stale.interrupt.nr, stale.interrupt.soft, stale.interrupt.shadow) = (0x24, 1, 1);
    stale
}

#[test]
fn delivered_events_are_cleared() {
    let mut state = stale();
    events(&mut state);
    let mut expected = kvm_vcpu_events { flags: 0xD, ..kvm_vcpu_events::default() };
    expected.interrupt.shadow = 1;
    assert_eq!(state, expected);
}

#[test]
fn pending_events_are_unchanged() {
    let mut pending = stale();
    (pending.exception.pending, pending.interrupt.injected) = (1, 1);
    let mut state = pending;
    events(&mut state);
    assert_eq!(state, pending);
}

#[test]
fn injected_exception_has_no_payload() {
    let mut state = stale();
    state.exception.injected = 1;
    events(&mut state);
    assert_eq!((state.exception.nr, state.exception.error_code), (14, 6));
    assert_eq!((state.exception_has_payload, state.exception_payload), (0, 0));
}

#[test]
fn missing_error_code_and_payload_are_zero() {
    let mut state = stale();
    (state.exception.pending, state.exception.nr) = (1, 6);
    (state.exception.has_error_code, state.exception_has_payload) = (0, 0);
    events(&mut state);
    assert_eq!((state.exception.nr, state.exception.error_code), (6, 0));
    assert_eq!(state.exception_payload, 0);
}

/// x87 and SSE state with initial values, and 7 in every other word.
fn initial(xstate_bv: u32) -> kvm_xsave {
    let mut area = kvm_xsave::default();
    area.region.fill(7);
    area.region[X87_CONTROL].copy_from_slice(&[0x37F, 0, 0, 0, 0, 0]);
    area.region[X87_REGISTERS].fill(0);
    area.region[XMM_REGISTERS].fill(0);
    (area.region[MXCSR], area.region[XSTATE_BV]) = (0x1F80, xstate_bv);
    area
}

#[test]
fn component_with_initial_values_is_not_in_use() {
    // Bit 2 is the AVX component.
    for others in [0, 4] {
        for in_use in 0..4 {
            let mut state = initial(others | in_use);
            xsave(&mut state, 1);
            assert_eq!(state.region[XSTATE_BV], others);
        }
        for (word, bit) in [(0, 1), (5, 1), (8, 1), (39, 1), (6, 2), (40, 2), (103, 2)] {
            let mut state = initial(others | bit);
            state.region[word] = 0x1F;
            xsave(&mut state, 1);
            assert_eq!((state.region[XSTATE_BV], state.region[word]), (others | bit, 0x1F));
        }
    }
}

#[test]
fn component_not_in_use_has_initial_values() {
    let mut state = initial(4);
    state.region[X87_CONTROL].fill(7);
    state.region[X87_REGISTERS].fill(7);
    state.region[XMM_REGISTERS].fill(7);
    xsave(&mut state, 1);
    let mut expected = initial(4);
    expected.region[MXCSR_MASK] = 0;
    expected.region[SOFTWARE].fill(0);
    assert_eq!(state.region, expected.region);
}

#[test]
fn avx_is_canonical_if_the_guest_has_enabled_it() {
    for (in_use, value, expected) in [(0, 0, 0), (4, 0, 0), (4, 7, 4), (0, 7, 0)] {
        for xcr0 in [1, 3, 7] {
            let mut state = initial(in_use);
            state.region[AVX_REGISTERS].fill(0);
            let last = AVX_REGISTERS.end - 1;
            state.region[last] = value;
            xsave(&mut state, xcr0);
            let expected = if xcr0 == 7 { (expected, expected / 4 * 7) } else { (in_use, value) };
            assert_eq!((state.region[XSTATE_BV], state.region[last]), expected);
            assert_eq!(state.region[AVX_REGISTERS.end], 7, "what lies behind AVX is kept");
        }
    }
}

#[test]
fn sysenter_msrs_are_masked() {
    let msr = |index| kvm_msr_entry { index, data: u64::MAX, ..Default::default() };
    for mask in [u64::MAX, 0xFFFF_FFFF] {
        let mut state = [0x174, 0x175, 0x176, 0x277].map(msr);
        msrs(&mut state, mask);
        assert_eq!(state.map(|msr| msr.data), [u64::MAX, mask, mask, u64::MAX]);
    }
}

#[test]
fn interrupt_at_an_exit_waits_for_other_events_and_not_for_the_shadow() {
    let none = kvm_vcpu_events::default();
    let changed = |change: fn(&mut kvm_vcpu_events)| {
        let mut events = none;
        change(&mut events);
        accepts_interrupt_at_exit(&events)
    };
    assert!(accepts_interrupt_at_exit(&none));
    assert!(changed(|events| events.interrupt.shadow = 1));
    assert!(!changed(|events| events.exception.injected = 1));
    assert!(!changed(|events| events.exception.pending = 1));
    assert!(!changed(|events| events.interrupt.injected = 1));
    assert!(!changed(|events| events.nmi.injected = 1));
}

#[test]
fn events_at_position_lack_the_interrupt_shadow_only() {
    let mut pending = kvm_vcpu_events::default();
    pending.exception.pending = 1;
    pending.exception.nr = 13;
    pending.interrupt.injected = 1;
    pending.interrupt.nr = 0x20;
    let mut shadowed = pending;
    shadowed.interrupt.shadow = 1;
    assert_eq!(events_at_position(&shadowed), pending);
    assert_eq!(events_at_position(&pending), pending);
}

fn is_svm() -> bool {
    std::path::Path::new("/sys/module/kvm_amd").exists()
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
fn run_page_and_saved_state_are_canonical_after_any_restore() {
    let system = System::open(DEV_KVM).unwrap();
    let ram = crate::mem::guest::allocate(16 << 20).unwrap();
    let vm = system.create_vm(&ram).unwrap();
    let [ebx, edx, ecx] = [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
    let vendor = kvm_cpuid_entry2 { eax: 1, ebx, ecx, edx, ..Default::default() };
    let mut vcpu = vm.create_vcpu(&[vendor]).unwrap();
    let mut state = vcpu.save().unwrap();
    state.events.exception.nr = 14;
    state.events.exception.error_code = 6;
    state.events.interrupt.nr = 0x24;
    (state.sregs.gs.unusable, state.sregs.gs.present) = (1, 0);
    state.xsave.region[XSTATE_BV] |= 3;
    for msr in state.msrs.iter_mut().filter(|msr| SYSENTER_ADDRESSES.contains(&msr.index)) {
        assert_eq!(msr.data, 0, "the test for settable bits put back the reset value");
        msr.data = 0xFFFF_8000_0000_1000;
    }
    vcpu.restore(&state).unwrap();
    assert_eq!(vcpu.drain().unwrap(), VmExit::Interrupted);

    let saved = vcpu.save().unwrap();
    let flags = saved.events.flags;
    assert_eq!(saved.events, kvm_vcpu_events { flags, ..kvm_vcpu_events::default() });
    assert_eq!((saved.sregs.gs.limit, saved.sregs.gs.unusable), (0, 1));
    assert_eq!(saved.xsave.region[XSTATE_BV] & 3, 0);
    assert_eq!(saved.xsave.region[MXCSR_MASK], 0);
    let sysenter = |state: &VcpuState| {
        SYSENTER_ADDRESSES
            .map(|index| state.msrs.iter().find(|msr| msr.index == index).map(|msr| msr.data))
    };
    let kept = if is_svm() { 0x1000 } else { 0xFFFF_8000_0000_1000 };
    assert_eq!(sysenter(&saved), [Some(kept); 2], "a guest can read the bits that KVM keeps");
    let sync = vcpu.sync_regs();
    assert_eq!((sync.sregs, sync.events), (&saved.sregs, &saved.events));
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
fn components_become_unused_in_the_vcpu_if_its_guest_can_read_that() {
    const OSXSAVE: u64 = 1 << 18;
    let system = System::open(DEV_KVM).unwrap();
    let ram = crate::mem::guest::allocate(16 << 20).unwrap();
    let vm = system.create_vm(&ram).unwrap();
    let [xsave, avx] = [1 << 26, 1 << 28];
    let table = [
        kvm_cpuid_entry2 { eax: 0xD, ..Default::default() },
        kvm_cpuid_entry2 { function: 1, ecx: xsave | avx, ..Default::default() },
        kvm_cpuid_entry2 { function: 0xD, flags: 1, eax: 7, ..Default::default() },
    ];
    let mut vcpu = vm.create_vcpu(&table).unwrap();
    for (cr4, in_use) in [(0, 3), (OSXSAVE, 0)] {
        let mut state = vcpu.save().unwrap();
        state.sregs.cr4 = cr4;
        state.xsave.region[XSTATE_BV] |= 3;
        vcpu.restore(&state).unwrap();
        assert_eq!(vcpu.raw_xsave().region[XSTATE_BV] & 3, 3, "KVM took it");
        assert_eq!(vcpu.save().unwrap().xsave.region[XSTATE_BV] & 3, 0);
        assert_eq!(vcpu.raw_xsave().region[XSTATE_BV] & 3, in_use);
    }
}

/// Returns a vCPU of an AMD processor in a VM with `ram`, in real mode at physical address [`CODE`].
fn amd_vcpu_at_code(system: &System, ram: &GuestRam) -> (Vm, Vcpu) {
    let vm = system.create_vm(ram).unwrap();
    let [ebx, edx, ecx] = [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes);
    let vendor = kvm_cpuid_entry2 { eax: 1, ebx, ecx, edx, ..Default::default() };
    let mut vcpu = vm.create_vcpu(&[vendor]).unwrap();
    let mut state = vcpu.save().unwrap();
    (state.sregs.cs.base, state.sregs.cs.selector) = (0, 0);
    state.regs.rip = CODE;
    vcpu.restore(&state).unwrap();
    (vm, vcpu)
}

/// Where the code of a test is.
const CODE: u64 = 0x1000;

/// Runs `vcpu` to its next OUT of 32 bits and returns its data.
fn run_to_out(vcpu: &mut Vcpu) -> u32 {
    let exit = vcpu.run(false).unwrap();
    assert!(matches!(exit, VmExit::Pio { direction: Direction::Out, size: 4, .. }), "{exit:?}");
    u32::from_le_bytes(vcpu.pio_data().try_into().unwrap())
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
fn guest_reads_the_same_sysenter_addresses_after_a_save_and_after_a_restore() {
    // mov eax, 0x1000; mov edx, 0x7fff; wrmsr; out 0x80, eax. And: rdmsr; mov eax, edx; out 0x80, eax.
    const WRITE: &[u8] = b"\x66\xb8\x00\x10\0\0\x66\xba\xff\x7f\0\0\x0f\x30\x66\xe7\x80";
    const READ: &[u8] = b"\x0f\x32\x66\x89\xd0\x66\xe7\x80";
    let system = System::open(DEV_KVM).unwrap();
    let ram = crate::mem::guest::allocate(16 << 20).unwrap();
    for index in SYSENTER_ADDRESSES {
        // mov ecx, index
        let code = [b"\x66\xb9", &index.to_le_bytes()[..], WRITE, READ].concat();
        ram.write_slice(&code, GuestAddress(CODE)).unwrap();
        let (_vm, mut vcpu) = amd_vcpu_at_code(&system, &ram);
        // As on an emulated AMD processor: the guest writes more bits than KVM sets.
        vcpu.sysenter_mask &= 0xFFFF_FFFF;
        assert_eq!(run_to_out(&mut vcpu), 0x1000);
        assert_eq!(vcpu.drain().unwrap(), VmExit::Interrupted);

        let saved = vcpu.save().unwrap();
        let upper_half = run_to_out(&mut vcpu);
        let (_vm, mut other) = amd_vcpu_at_code(&system, &ram);
        other.restore(&saved).unwrap();
        assert_eq!(upper_half, run_to_out(&mut other), "MSR {index:#x}");
    }
}
