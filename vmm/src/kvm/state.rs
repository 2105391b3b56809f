//! The whole state of a vCPU, as the data that a checkpoint contains.

use kvm_bindings::{
    kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

/// MSRs that are guest state and not a clock. MSRs that a host does not list are skipped. MTRRs and
/// machine-check banks are not in the list, because guests of this machine leave them at their reset values.
///
/// Numbers and names are from SDM volume 4, table 2-2.
pub(super) const GUEST_MSRS: &[u32] = &[
    0x0000_0174, // IA32_SYSENTER_CS
    0x0000_0175, // IA32_SYSENTER_ESP
    0x0000_0176, // IA32_SYSENTER_EIP
    0x0000_01a0, // IA32_MISC_ENABLE
    0x0000_0277, // IA32_PAT
    0x0000_02ff, // IA32_MTRR_DEF_TYPE
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0102, // IA32_KERNEL_GS_BASE
    0xc000_0103, // IA32_TSC_AUX
];

/// The complete state with which `KVM_RUN` starts, in canonical form.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, control registers, EFER. `interrupt_bitmap` is always zero.
    pub sregs: kvm_sregs,
    /// Pending and injected exceptions and interrupts, and the interrupt shadow.
    pub events: kvm_vcpu_events,
    /// XCR0.
    pub xcrs: kvm_xcrs,
    /// x87 and SSE state, and AVX state if the CPU model has it, or on a host that exposes it despite the model.
    pub xsave: kvm_xsave,
    /// DR0-3, DR6, DR7.
    pub debugregs: kvm_debugregs,
    /// Those of `GUEST_MSRS` that this host has.
    pub msrs: Vec<kvm_msr_entry>,
    /// RFLAGS.IF as the run page reported it.
    pub if_flag: bool,
    /// Whether KVM is ready for the injection of an interrupt.
    pub ready_for_injection: bool,
}

/// Returns XCR0.
pub(super) fn xcr0(xcrs: &kvm_xcrs) -> u64 {
    let used = &xcrs.xcrs[..xcrs.xcrs.len().min(xcrs.nr_xcrs as usize)];
    used.iter().find(|register| register.xcr == 0).map_or(0, |register| register.value)
}
