//! The canonical form of vCPU state: what KVM reports, without what it leaves undefined.
//!
//! KVM reports some fields whether they mean something or not. What is in them depends on the host: on
//! faults of nested paging, on who set the state last, on what the processor left there. They are no part
//! of the guest's state, and two runs that are equal differ in them. Each function here gives them one
//! value. [`Vcpu::run`](super::Vcpu::run) calls those for what the run page carries, and
//! [`Vcpu::save`](super::Vcpu::save) all of them, so digest, checkpoint and end state see nothing else.
//!
//! Rule: what is zeroed here can't reach the guest, neither from here on nor by a restore of it.

use kvm_bindings::{kvm_msr_entry, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xsave};

/// Segments and control registers.
///
/// CS and TR stay as they are: in a guest that runs they are always usable, and a VM entry checks most of
/// CS even if it is marked unusable (SDM vol. 3, "Checks on Guest Segment Registers"). The bitmap holds an
/// injected interrupt, which is among the events, too; KVM sets bits of it in the run page and never clears
/// one.
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

/// Leaves an unusable segment its selector, and what it is given. The rest is undefined after a VM exit
/// (SDM vol. 3, "Saving Segment Registers"), `KVM_SET_SREGS` sets the accessed bit on VMX hosts, and
/// "present" is what KVM makes of "unusable", or the other way round.
#[inline]
fn unusable(segment: &mut kvm_segment, base: u64, dpl: u8) {
    if segment.unusable != 0 {
        let selector = segment.selector;
        *segment = kvm_segment { base, selector, dpl, unusable: 1, ..kvm_segment::default() };
    }
}

/// Pending and injected events.
///
/// KVM keeps vector, error code and payload of an exception, and the vector of an interrupt, that was
/// delivered. It queues anew what a fault of nested paging interrupted, so whose they are depends on such
/// faults. The other fields always mean something: the shadow is the processor's state; `flags` says which
/// capabilities are on; NMI, SMI, INIT, SIPI and the triple fault have no source in this machine.
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

/// Places in the XSAVE area, in words of 32 bits, and initial values (SDM vol. 1, 13.4 and 13.6).
const X87_CONTROL: std::ops::Range<usize> = 0..6;
const MXCSR: usize = 6;
const MXCSR_MASK: usize = 7;
const X87_REGISTERS: std::ops::Range<usize> = 8..40;
const XMM_REGISTERS: std::ops::Range<usize> = 40..104;
const SOFTWARE: std::ops::Range<usize> = 104..128;
const XSTATE_BV: usize = 128;
const XSTATE_X87: u32 = 1 << 0;
const XSTATE_SSE: u32 = 1 << 1;
const X87_CONTROL_INIT: [u32; 6] = [0x037F, 0, 0, 0, 0, 0];
const MXCSR_INIT: u32 = 0x1F80;

/// x87 and SSE state.
///
/// Whether a part with initial values counts as "in use" is the processor's choice (SDM vol. 1, 13.6), and
/// the bytes of one that does not are undefined. Here one with initial values never is, and has them.
/// MXCSR's mask and the bytes for software are no state: the kernel writes constants of the host there.
pub(super) fn xsave(xsave: &mut kvm_xsave) {
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
    words[MXCSR_MASK] = 0;
    words[SOFTWARE].fill(0);
}

/// IA32_SYSENTER_ESP and IA32_SYSENTER_EIP.
pub(super) const SYSENTER_ADDRESSES: [u32; 2] = [0x175, 0x176];

/// MSRs; `sysenter_mask` has the bits that KVM sets of [`SYSENTER_ADDRESSES`].
///
/// An AMD processor keeps 32 bits of the two (APM vol. 2, 6.1.2), and KVM sets as many there, but it reports
/// of one what the processor keeps. It is KVM that is asked and not the model: where it keeps these MSRs
/// itself, an AMD model has 64 bits of them, and a guest can read those.
pub(super) fn msrs(msrs: &mut [kvm_msr_entry], sysenter_mask: u64) {
    for msr in msrs.iter_mut().filter(|msr| SYSENTER_ADDRESSES.contains(&msr.index)) {
        msr.data &= sysenter_mask;
    }
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
