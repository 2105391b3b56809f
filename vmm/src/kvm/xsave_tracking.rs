//! Whether saving and restoring changes which XSAVE state components this processor counts as in use.
//!
//! XSAVE writes into XSTATE_BV which components are in use (XINUSE), and a component with initial values may or
//! may not be (SDM vol. 1, 13.6). The host saves and restores the registers of a guest at times that no log
//! contains: at every task switch and every kick. A processor that looks at the values when it restores, and not
//! when they are computed, changes XINUSE then, and a guest's XSAVE shows that. AMD's family 25 does.
//!
//! The probe runs in this process. Guests execute XSAVE natively, too: neither VMX nor SVM intercepts it.

use std::arch::{asm, is_x86_feature_detected};

/// An XSAVE area in standard format with x87, SSE and AVX.
#[repr(C, align(64))]
struct Area([u8; 832]);

/// Offset of XSTATE_BV.
const XSTATE_BV: usize = 512;

impl Area {
    fn in_use(&self) -> u64 {
        let bytes = self.0[XSTATE_BV..][..8].try_into().expect("the range has 8 bytes");
        u64::from_le_bytes(bytes)
    }
}

/// Executes the instructions, which give a component initial values by computing them, then XSAVE, XRSTOR and
/// XSAVE. Evaluates to whether XSTATE_BV was the same both times.
macro_rules! is_kept {
    ($($instruction:literal),*) => {{
        let (mut before, mut after) = (Area([0; 832]), Area([0; 832]));
        // SAFETY: `probe` has checked for AVX2 and, with it, for XSAVE enabled by the operating system. The areas
        // are aligned, zeroed (XRSTOR wants a header without other bits) and as long as the three components.
        // Every register that the instructions write is clobbered, and the x87 stack is empty at the end, as the
        // ABI wants. XRSTOR puts back MXCSR as XSAVE found it.
        unsafe {
            asm!(
                $($instruction,)*
                "xsave [{before}]",
                "xrstor [{before}]",
                "xsave [{after}]",
                "fninit",
                "vzeroupper",
                before = in(reg) &raw mut before,
                after = in(reg) &raw mut after,
                in("eax") 7,
                in("edx") 0,
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        before.in_use() == after.in_use()
    }};
}

/// Returns whether saving and restoring leaves XINUSE of x87, SSE and AVX as it is. False also if the processor or
/// the operating system lacks AVX2.
pub(super) fn probe() -> bool {
    if !is_x86_feature_detected!("avx2") {
        return false;
    }
    // -1 + 1 is a zero that no processor knows before it has computed it, unlike PXOR of a register with itself.
    let x87 = is_kept!("fninit", "fldz", "fstp st(0)");
    let sse = is_kept!(
        "fninit",
        "vzeroall",
        "pcmpeqd xmm0, xmm0",
        "pcmpeqd xmm1, xmm1",
        "psubd xmm0, xmm1",
        "pxor xmm1, xmm1"
    );
    let avx = is_kept!(
        "fninit",
        "vzeroall",
        "vpcmpeqd ymm0, ymm0, ymm0",
        "vpabsd ymm1, ymm0",
        "vpaddd ymm0, ymm0, ymm1",
        "vpsrld ymm1, ymm1, 31",
        "vpsrld ymm1, ymm1, 1"
    );
    x87 && sse && avx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_gives_the_same_result_each_time() {
        let first = probe();
        assert!((0..1000).all(|_| probe() == first));
    }

    #[test]
    fn values_that_are_not_initial_are_in_use_before_and_after() {
        if is_x86_feature_detected!("avx2") {
            assert!(is_kept!("fninit", "fld1", "vpcmpeqd ymm0, ymm0, ymm0"));
        }
    }
}
