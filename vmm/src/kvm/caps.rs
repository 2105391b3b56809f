//! The KVM capabilities that this VMM requires, and the reason for each.

use kvm_bindings as kvm;

/// A required capability.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Number of the capability.
    pub cap: u32,
    /// Name of the constant in the kernel.
    pub name: &'static str,
    /// Why it is required.
    pub why: &'static str,
    /// Bits that the result of `KVM_CHECK_EXTENSION` must include; 1 for a yes-or-no capability.
    pub bits: i32,
}

/// Registers, system registers and pending events in the shared page (api.rst 5, `kvm_valid_regs`).
pub const SYNC_REGS_ALL: i32 = 7;

/// All required capabilities; `doctor` checks this list.
pub const NEEDED: &[Needed] = &[
    Needed {
        cap: kvm::KVM_CAP_USER_MEMORY,
        name: "KVM_CAP_USER_MEMORY",
        why: "this process provides the guest's memory",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_EXT_CPUID,
        name: "KVM_CAP_EXT_CPUID",
        why: "the CPU model is fixed",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_SET_TSS_ADDR,
        name: "KVM_CAP_SET_TSS_ADDR",
        why: "VMX hosts without unrestricted guests need three pages for a TSS",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_SYNC_REGS,
        name: "KVM_CAP_SYNC_REGS",
        why: "registers are compared at every exit, and ioctls would double the cost of an exit",
        bits: SYNC_REGS_ALL,
    },
    Needed {
        cap: kvm::KVM_CAP_IMMEDIATE_EXIT,
        name: "KVM_CAP_IMMEDIATE_EXIT",
        why: "a kick between user space and guest entry must not be lost",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_VCPU_EVENTS,
        name: "KVM_CAP_VCPU_EVENTS",
        why: "a checkpoint carries pending events",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_EXCEPTION_PAYLOAD,
        name: "KVM_CAP_EXCEPTION_PAYLOAD",
        why: "a pending page fault must keep its CR2 across a checkpoint",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_XSAVE,
        name: "KVM_CAP_XSAVE",
        why: "a checkpoint carries the FPU state",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_XCRS,
        name: "KVM_CAP_XCRS",
        why: "a checkpoint carries XCR0",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_DEBUGREGS,
        name: "KVM_CAP_DEBUGREGS",
        why: "a checkpoint carries the debug registers",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_X86_MSR_FILTER,
        name: "KVM_CAP_X86_MSR_FILTER",
        why: "a guest must not read the host's clocks from MSRs",
        bits: 1,
    },
];
