//! The whole state of a vCPU, as data that travels in a checkpoint.

use kvm_bindings::{
    kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

/// MSRs that are guest state and not a clock. Those a host does not list are left out; MTRRs and
/// machine-check banks keep their reset values under our guest contract.
///
/// SDM volume 4, table 2-2; names as there.
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

/// Everything that `KVM_RUN` starts from, in canonical form.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, control registers, EFER. `interrupt_bitmap` is always zero here.
    pub sregs: kvm_sregs,
    /// Pending and injected exceptions, interrupts, the interrupt shadow.
    pub events: kvm_vcpu_events,
    /// XCR0.
    pub xcrs: kvm_xcrs,
    /// FPU, SSE (and AVX where a host leaks it).
    pub xsave: kvm_xsave,
    /// DR0-3, DR6, DR7.
    pub debugregs: kvm_debugregs,
    /// The MSRs of the list above that this host has.
    pub msrs: Vec<kvm_msr_entry>,
    /// RFLAGS.IF as the run page reported it.
    pub if_flag: bool,
    /// Whether an interrupt could be injected here.
    pub ready_for_injection: bool,
}
