//! The canonical form of vCPU state: the state that KVM reports, with undefined fields set to fixed values.
//!
//! KVM also reports fields that have no meaning in the current state. Their values depend on the host: on
//! faults of nested paging, on who set the state last, on what the processor left there. They are not part of
//! the guest's state, and they differ between equal runs. The functions here set them to fixed values.
//! [`Vcpu::run`](super::Vcpu::run) calls the functions for the state in the run page, and
//! [`Vcpu::save`](super::Vcpu::save) calls all of them, so that digests, checkpoints and the end state
//! contain only canonical state.
//!
//! Rule: a field may be changed here only if the guest can't observe its value, neither in the running vCPU
//! nor after a restore. There are two exceptions, which are also set in the vCPU: the SYSENTER addresses
//! ([`msrs`]), and which components of the XSAVE area are in use ([`xsave`]).

use kvm_bindings::{kvm_msr_entry, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xsave};

/// Makes segments and control registers canonical.
///
/// CS and TR are not changed: in a running guest they are always usable, and a VM entry checks most of CS
/// even if it is marked unusable (SDM vol. 3, "Checks on Guest Segment Registers"). The interrupt bitmap is
/// cleared: it duplicates the injected interrupt of the events, and KVM sets its bits in the run page but
/// never clears them.
pub(super) fn sregs(sregs: &mut kvm_sregs) {
    // FS and GS have a base in 64-bit code, usable or not; SS.DPL is the privilege level.
    let (fs_base, gs_base, level) = (sregs.fs.base, sregs.gs.base, sregs.ss.dpl);
    unusable(&mut sregs.ds, 0, 0);
    unusable(&mut sregs.es, 0, 0);
    unusable(&mut sregs.fs, fs_base, 0);
    unusable(&mut sregs.gs, gs_base, 0);
    unusable(&mut sregs.ss, 0, level);
    unusable(&mut sregs.ldt, 0, 0);
    sregs.interrupt_bitmap = [0; 4];
}

/// Clears an unusable segment except for its selector and the given `base` and `dpl`. The other fields are
/// undefined after a VM exit (SDM vol. 3, "Saving Segment Registers"), `KVM_SET_SREGS` sets the accessed bit
/// on VMX hosts, and KVM derives "present" from "unusable" or the other way round.
#[inline]
fn unusable(segment: &mut kvm_segment, base: u64, dpl: u8) {
    if segment.unusable != 0 {
        let selector = segment.selector;
        *segment = kvm_segment { base, selector, dpl, unusable: 1, ..kvm_segment::default() };
    }
}

/// Makes pending and injected events canonical.
///
/// KVM keeps the vector, error code and payload of a delivered exception, and the vector of a delivered
/// interrupt. Because it queues an event again if a fault of nested paging interrupted the delivery, the
/// values that are left depend on such faults. The other fields are always defined: the interrupt shadow is
/// processor state; `flags` shows which capabilities are enabled; NMI, SMI, INIT, SIPI and the triple fault
/// have no source in this machine.
pub(super) fn events(events: &mut kvm_vcpu_events) {
    let exception = &mut events.exception;
    if (exception.injected | exception.pending) == 0 {
        (exception.nr, exception.has_error_code) = (0, 0);
    }
    if exception.has_error_code == 0 {
        exception.error_code = 0;
    }
    // Injecting an exception puts its payload into CR2 or DR6; KVM_SET_VCPU_EVENTS ignores one that is
    // not pending.
    if exception.pending == 0 {
        events.exception_has_payload = 0;
    }
    if events.exception_has_payload == 0 {
        events.exception_payload = 0;
    }
    let interrupt = &mut events.interrupt;
    if interrupt.injected == 0 {
        (interrupt.nr, interrupt.soft) = (0, 0);
    }
}

/// Returns `events`, which are canonical, as they are compared at a position: without the interrupt shadow of
/// STI and MOV SS.
///
/// The shadow lasts for one instruction. At a natural exit that is the instruction of the exit, so no guest
/// can observe it any more; an interrupt window has none. In a checkpoint, which can stand anywhere, the
/// shadow is kept.
#[inline]
pub(crate) fn events_at_position(events: &kvm_vcpu_events) -> kvm_vcpu_events {
    let mut events = *events;
    events.interrupt.shadow = 0;
    events
}

/// Returns whether an interrupt can be injected at a natural exit with `events`, which are canonical, if RFLAGS.IF
/// is set: whether no other event waits for its injection.
///
/// The interrupt shadow does not matter, although KVM's own answer in the run page depends on it: the instruction
/// of the exit completes, and ends the shadow, before the interrupt is delivered. It must not matter, because it
/// is not compared: QEMU's emulation of VMRUN loses it if the host interrupts the guest behind STI, and a replay is
/// interrupted elsewhere than its recording.
#[inline]
pub(super) fn accepts_interrupt_at_exit(events: &kvm_vcpu_events) -> bool {
    let exception = &events.exception;
    exception.injected | exception.pending | events.interrupt.injected | events.nmi.injected == 0
}

// Offsets in the XSAVE area, in words of 32 bits, and initial values (SDM vol. 1, 13.4 and 13.6).
const X87_CONTROL: std::ops::Range<usize> = 0..6;
const MXCSR: usize = 6;
const MXCSR_MASK: usize = 7;
const X87_REGISTERS: std::ops::Range<usize> = 8..40;
const XMM_REGISTERS: std::ops::Range<usize> = 40..104;
const SOFTWARE: std::ops::Range<usize> = 104..128;
pub(super) const XSTATE_BV: usize = 128;
const AVX_REGISTERS: std::ops::Range<usize> = 144..208;
const XSTATE_X87: u32 = 1 << 0;
const XSTATE_SSE: u32 = 1 << 1;
const XSTATE_AVX: u32 = 1 << 2;
const X87_CONTROL_INIT: [u32; 6] = [0x037F, 0, 0, 0, 0, 0];
const MXCSR_INIT: u32 = 0x1F80;

/// Makes x87 and SSE state canonical, and AVX state if the guest's XCR0 enables it. Without that, what a host shows
/// of AVX is not changed.
///
/// A processor may report a state component with initial values as "in use" or not (SDM vol. 1, 13.6), and
/// the bytes of a component that is not in use are undefined. In canonical form, a component with initial
/// values is not in use, and its bytes are the initial values. The MXCSR mask and the bytes for software are
/// not state: the kernel writes constants of the host there.
///
/// A guest that has enabled XSAVE can read which components are in use. So the result must then also be set in the
/// vCPU from which it came, if XSTATE_BV has changed.
pub(super) fn xsave(xsave: &mut kvm_xsave, xcr0: u64) {
    let words = &mut xsave.region;
    if words[XSTATE_BV] & XSTATE_X87 == 0 {
        words[X87_CONTROL].copy_from_slice(&X87_CONTROL_INIT);
        words[X87_REGISTERS].fill(0);
    }
    if words[XSTATE_BV] & XSTATE_SSE == 0 {
        words[XMM_REGISTERS].fill(0);
    }
    let is_zero = |words: &[u32]| words.iter().all(|&word| word == 0);
    words[XSTATE_BV] &= !(XSTATE_X87 | XSTATE_SSE);
    if words[X87_CONTROL] != X87_CONTROL_INIT || !is_zero(&words[X87_REGISTERS]) {
        words[XSTATE_BV] |= XSTATE_X87;
    }
    if words[MXCSR] != MXCSR_INIT || !is_zero(&words[XMM_REGISTERS]) {
        words[XSTATE_BV] |= XSTATE_SSE;
    }
    if xcr0 & u64::from(XSTATE_AVX) != 0 {
        if words[XSTATE_BV] & XSTATE_AVX == 0 {
            words[AVX_REGISTERS].fill(0);
        }
        words[XSTATE_BV] &= !XSTATE_AVX;
        if !is_zero(&words[AVX_REGISTERS]) {
            words[XSTATE_BV] |= XSTATE_AVX;
        }
    }
    words[MXCSR_MASK] = 0;
    words[SOFTWARE].fill(0);
}

/// The MSRs IA32_SYSENTER_ESP and IA32_SYSENTER_EIP.
pub(super) const SYSENTER_ADDRESSES: [u32; 2] = [0x175, 0x176];

/// Makes MSRs canonical. `sysenter_mask` has the bits of [`SYSENTER_ADDRESSES`] that KVM sets.
///
/// An AMD processor keeps 32 bits of these MSRs (APM vol. 2, 6.1.2), and KVM sets only 32 bits there. The mask
/// comes from a test of KVM, not from the CPU model: where KVM keeps these MSRs itself, they have 64 bits also
/// on an AMD processor, and a guest can read all of them.
///
/// An emulated AMD processor keeps 64 bits of what its guest writes, and the guest can read them. KVM reports
/// them of SYSENTER_ESP and not of SYSENTER_EIP. So the result must also be set in the vCPU from which it came,
/// which otherwise differs from a restored one.
pub(super) fn msrs(msrs: &mut [kvm_msr_entry], sysenter_mask: u64) {
    for msr in msrs.iter_mut().filter(|msr| SYSENTER_ADDRESSES.contains(&msr.index)) {
        msr.data &= sysenter_mask;
    }
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
