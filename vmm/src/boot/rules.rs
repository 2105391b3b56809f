//! Which instructions cannot be replayed, and why: the sweep's knowledge, one table.
//!
//! Replay needs every instruction either to be a function of the guest's state or to pass through
//! the one door as an exit. The verdicts hold for the weakest host known, a KVM that runs guest
//! user code natively, unconfined by VMX or SVM controls: there CPUID masking hides an instruction
//! but does not disable it. What VMX or SVM could intercept but stock KVM leaves native
//! (RDRAND, RDPID) is no better there.
//!
//! Considered and left out, because their results are guest state: SGDT, SIDT, SLDT, STR, SMSW,
//! RDFSBASE and its kin, PUSHF, LSL, XCR0 writes (an exit), RDPKRU, PAUSE (its exits complete no
//! instruction), CLFLUSH and prefetches, and BMI1/BMI2, which are VEX-encoded but touch no vector
//! state. HLE prefixes (XACQUIRE) are left out too: an elision that aborts is run again.

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic};
use serde::Serialize;

/// What a found instruction means for a guest that is to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Diverges if it is executed: its result is a fresh fact of the host, and nothing traps it.
    Forbidden,
    /// Diverges on some hosts, or between hosts of different kinds; exact on others.
    Warned,
    /// Handled by the machine; listed because the guest must keep its side of the contract.
    AllowedNote,
}

/// A rule that an instruction falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How bad it is.
    pub verdict: Verdict,
    /// One clause, for people: what the instruction does to a replay.
    pub why: &'static str,
}

const RANDOM: Rule = forbidden("reads the processor's random numbers, which cannot be trapped");
const TSC_AUX: Rule = forbidden(
    "reads the host's time-stamp counter and processor number; only rdtsc has a trap that answers from the log",
);
const PROCESSOR_ID: Rule = forbidden("reads the host's processor number, which cannot be trapped");
const PROCESSOR_CLOCK: Rule = forbidden("reads the host's clock counters, which cannot be trapped");
const TIMED_WAIT: Rule =
    forbidden("waits for a time of the host's and tells the guest by its flags how that ended");
const TRANSACTION: Rule = forbidden("begins a transaction, which aborts whenever the host likes");

const COUNTER: Rule =
    warned("counts host events if the host gives the guest a counter; faults if not");
const EXTENDED_CONTROL: Rule = warned(
    "shows the host's XCR0, and with ecx=1 which state parts the processor happens to have in use",
);
const EXTENDED_SAVE: Rule =
    warned("writes which state parts the processor happens to have in use; the CPU model hides it");
const VECTOR: Rule = warned(
    "the CPU model hides AVX and its kin: faults where that is enforced, runs where it is not",
);
const SYSTEM_CALL: Rule = warned(
    "where KVM runs guest user code natively it arrives at its handler still at CPL3, on VMX and SVM at CPL0",
);
const SOFTWARE_INTERRUPT: Rule =
    warned("faults where KVM runs guest user code natively, works on VMX and SVM");
const HYPERCALL: Rule =
    warned("is answered by KVM itself, past the one door; some calls read the host's clock");
const MONITOR: Rule =
    warned("the CPU model hides MONITOR: some hosts make it a fault, others a no-operation");

const TIME_STAMP: Rule =
    note("trapped at CPL3 by CR4.TSD and answered from the log; at CPL0 nothing traps it");
const IDENTIFICATION: Rule =
    note("answers from the fixed CPU model, which both hosts compare before they pair");
const MODEL_REGISTER: Rule =
    note("exact unless ecx names a clock or an event counter (IA32_TSC, IA32_MPERF, IA32_APERF)");
const APPROXIMATION: Rule =
    note("its last bits differ between processor vendors; paired hosts have the same CPU model");

const fn forbidden(why: &'static str) -> Rule {
    Rule { verdict: Verdict::Forbidden, why }
}

const fn warned(why: &'static str) -> Rule {
    Rule { verdict: Verdict::Warned, why }
}

const fn note(why: &'static str) -> Rule {
    Rule { verdict: Verdict::AllowedNote, why }
}

/// The rule for a valid instruction, or `None` if it is a function of the guest's state.
pub fn rule_for(instruction: &Instruction) -> Option<Rule> {
    use Mnemonic as M;
    let rule = match instruction.mnemonic() {
        M::Rdrand | M::Rdseed => RANDOM,
        M::Rdtscp => TSC_AUX,
        M::Rdpid => PROCESSOR_ID,
        M::Rdpru => PROCESSOR_CLOCK,
        M::Umonitor | M::Umwait | M::Tpause => TIMED_WAIT,
        M::Xbegin => TRANSACTION,

        M::Rdpmc => COUNTER,
        M::Xgetbv => EXTENDED_CONTROL,
        M::Xsave
        | M::Xsave64
        | M::Xsavec
        | M::Xsavec64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xsaves
        | M::Xsaves64 => EXTENDED_SAVE,
        M::Syscall | M::Sysenter => SYSTEM_CALL,
        M::Int => SOFTWARE_INTERRUPT,
        M::Vmcall | M::Vmmcall => HYPERCALL,
        M::Monitor | M::Mwait | M::Monitorx | M::Mwaitx => MONITOR,

        M::Rdtsc => TIME_STAMP,
        M::Cpuid => IDENTIFICATION,
        M::Rdmsr => MODEL_REGISTER,
        M::Rcpps
        | M::Rcpss
        | M::Rsqrtps
        | M::Rsqrtss
        | M::Fsin
        | M::Fcos
        | M::Fsincos
        | M::Fptan
        | M::Fpatan
        | M::F2xm1
        | M::Fyl2x
        | M::Fyl2xp1 => APPROXIMATION,

        _ if touches_vector_state(instruction) => VECTOR,
        _ => return None,
    };
    Some(rule)
}

/// True for AVX, AVX-512, AMX and XOP: state beyond SSE, saved by XSAVE only.
fn touches_vector_state(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    let legacy = matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::D3NOW);
    let general = [F::BMI1, F::BMI2, F::TBM, F::LWP, F::CMPCCXADD];
    !legacy && !instruction.cpuid_features().iter().any(|feature| general.contains(feature))
}
