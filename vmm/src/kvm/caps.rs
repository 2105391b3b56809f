//! What the kernel must offer, and what for.

use kvm_bindings as kvm;

/// A capability and the reason this VMM asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Its number.
    pub cap: u32,
    /// The kernel's name for it.
    pub name: &'static str,
    /// What breaks without it.
    pub why: &'static str,
    /// Bits that `KVM_CHECK_EXTENSION` must return, at least; 1 where the answer is yes or no.
    pub bits: i32,
}

/// Registers, system registers and pending events in the shared page (api.rst 5, `kvm_valid_regs`).
pub const SYNC_REGS_ALL: i32 = 7;

/// All of them; `doctor` prints this list.
pub const NEEDED: &[Needed] = &[
    Needed {
        cap: kvm::KVM_CAP_USER_MEMORY,
        name: "KVM_CAP_USER_MEMORY",
        why: "guest memory is ours",
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
        why: "VMX hosts need the three pages",
        bits: 1,
    },
    Needed {
        cap: kvm::KVM_CAP_SYNC_REGS,
        name: "KVM_CAP_SYNC_REGS",
        why: "registers are compared at every exit and an ioctl each would double its cost",
        bits: SYNC_REGS_ALL,
    },
    Needed {
        cap: kvm::KVM_CAP_IMMEDIATE_EXIT,
        name: "KVM_CAP_IMMEDIATE_EXIT",
        why: "a kick must not get lost between user space and guest entry",
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
];
