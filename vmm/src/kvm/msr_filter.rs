//! MSRs that the guest cannot use: clocks of the host, and state that no checkpoint contains.
//!
//! KVM offers most of these to every guest, whatever its CPU model says. A guest that reads one learns what is
//! not in the log, and diverges from its replay and its backup. With this filter, an access raises #GP, as an
//! access to an MSR does that a processor lacks (api.rst 4.136, `KVM_X86_SET_MSR_FILTER`). `KVM_GET_MSRS` and
//! `KVM_SET_MSRS` are not filtered.

use super::error::KvmError;
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

/// Successive MSRs.
struct Denied {
    first: u32,
    count: u32,
    accesses: MsrFilterRangeFlags,
}

const fn all(first: u32, last: u32) -> Denied {
    Denied { first, count: last - first + 1, accesses: MsrFilterRangeFlags::all() }
}

const fn writes(first: u32, last: u32) -> Denied {
    Denied { accesses: MsrFilterRangeFlags::WRITE, ..all(first, last) }
}

/// Numbers and names are from SDM volume 4, table 2-2, from the kernel's `kvm_para.h`, and from the Hyper-V
/// TLFS, chapter 2. At most 16 entries (`KVM_MSR_FILTER_MAX_RANGES`).
const DENIED: &[Denied] = &[
    // Clocks of the host. Those of KVM and Hyper-V are pages that KVM fills in guest memory.
    all(0x10, 0x12), // IA32_TIME_STAMP_COUNTER, KVM's old wall clock and system time
    all(0x3B, 0x3B), // IA32_TSC_ADJUST
    all(0xE7, 0xE8), // IA32_MPERF, IA32_APERF
    all(0x6E0, 0x6E0), // IA32_TSC_DEADLINE
    all(0x4B56_4D00, 0x4B56_4DFF), // KVM: wall clock, system time, stolen time, and others
    all(0x4000_0000, 0x4000_01FF), // Hyper-V: reference time, synthetic timers, and others
    // State that is not in a checkpoint. The CPU model has neither MTRRs nor machine checks.
    writes(0x17A, 0x17B), // IA32_MCG_STATUS, IA32_MCG_CTL
    writes(0x1D9, 0x1D9), // IA32_DEBUGCTL
    writes(0x200, 0x21F), // IA32_MTRR_PHYSBASE0 and the other variable ranges
    writes(0x250, 0x26F), // IA32_MTRR_FIX64K_00000 and the other fixed ranges
    writes(0x280, 0x29F), // IA32_MC0_CTL2 and those of the other banks
    writes(0x400, 0x47F), // IA32_MC0_CTL and the other banks
];

/// Installs the filter.
///
/// # Errors
///
/// If KVM refuses it.
pub(super) fn install(vm: &VmFd) -> Result<(), KvmError> {
    let most = DENIED.iter().map(|denied| denied.count.div_ceil(8)).max().unwrap_or(0);
    // A 0 in the bitmap denies.
    let bitmap = vec![0; most as usize];
    let ranges: Vec<_> = DENIED
        .iter()
        .map(|denied| MsrFilterRange {
            flags: denied.accesses,
            base: denied.first,
            msr_count: denied.count,
            bitmap: &bitmap[..denied.count.div_ceil(8) as usize],
        })
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .map_err(KvmError::call("KVM_X86_SET_MSR_FILTER"))
}
