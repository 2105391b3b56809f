//! The table of instructions that cannot be replayed, and the reason for each.
//!
//! Replay requires that every instruction is either a function of the guest's state or an exit that
//! passes the nondeterminism boundary. The verdicts hold for the weakest known host: a KVM that runs
//! guest user code natively, without VMX or SVM controls. There, CPUID masking hides an instruction but
//! does not disable it. On a host whose profile shows that a forbidden instruction causes #UD, it is only
//! warned of ([`faults`]): it can do no harm there, and the guest runs on hosts with the same profile only.
//! That is probed, because it differs between instructions and processors: KVM on VMX disables RDRAND if
//! the CPU model hides it, and SVM has no control for it.
//!
//! The following were considered and left out because their results are guest state: SGDT, SIDT, SLDT,
//! STR, SMSW, RDFSBASE and similar instructions, PUSHF, LSL, XCR0 writes (an exit), RDPKRU, PAUSE (its
//! exits complete no instruction), CLFLUSH and prefetches, and BMI1/BMI2, which are VEX-encoded but use
//! no vector state. HLE prefixes (XACQUIRE) are left out as well: a lock elision that aborts is executed
//! again.
//!
//! With the CPU model v3, XSAVE, XGETBV of XCR0, AVX, AVX2, FMA and F16C are functions of the guest's state, too:
//! a host that does not run them exactly does not offer the model.

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic};
use logchan::host_profile::{Answer, HostProfile, NATIVE};
use serde::Serialize;

use crate::boot::cpu_features::ModelName;

/// What an instruction means for a guest that is to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Diverges if it is executed: its result is a property of the host, and nothing traps it.
    Forbidden,
    /// Diverges on some hosts, or between hosts of different kinds. It is exact on others.
    Warned,
    /// Handled by the machine. It is listed because the guest must fulfil its part of the guest contract.
    AllowedNote,
}

/// The rule that applies to an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The verdict.
    pub verdict: Verdict,
    /// One clause for a message: what the instruction does to a replay.
    pub why: &'static str,
}

const RANDOM: Rule = forbidden("reads the processor's random numbers, which cannot be trapped");
const TSC_AUX: Rule = forbidden(
    "reads the host's time-stamp counter and processor number; only rdtsc has a trap that answers from the log",
);
const PROCESSOR_ID: Rule = forbidden("reads the host's processor number, which cannot be trapped");
const PROCESSOR_CLOCK: Rule = forbidden("reads the host's clock counters, which cannot be trapped");
const TIMED_WAIT: Rule =
    forbidden("waits for a host time and reports in the flags how the wait ended");
const TRANSACTION: Rule = forbidden("begins a transaction, which the host may abort at any time");

const COUNTER: Rule = warned("reads host event counters if the host provides them; faults if not");
const EXTENDED_CONTROL: Rule = warned(
    "returns the host's XCR0, and with ecx=1 which state components the processor has in use",
);
const EXTENDED_SAVE: Rule =
    warned("writes which state components the processor has in use; the CPU model hides it");
const VECTOR: Rule = warned(
    "the CPU model hides AVX and later vector extensions: faults where that is enforced, runs where it is not",
);
const OTHER_SAVE: Rule = warned(
    "writes which state components the processor has in use or changed; the CPU model hides it and offers XSAVE",
);
const SYSTEM_CALL: Rule = warned(
    "where KVM runs guest user code natively it reaches its handler at CPL3, on VMX and SVM at CPL0",
);
const SOFTWARE_INTERRUPT: Rule =
    warned("faults where KVM runs guest user code natively, works on VMX and SVM");
const HYPERCALL: Rule =
    warned("is answered by KVM itself and not logged; some calls read the host's clock");
const MONITOR: Rule =
    warned("the CPU model hides MONITOR: it faults on some hosts and does nothing on others");

const TIME_STAMP: Rule =
    note("trapped at CPL3 by CR4.TSD and answered from the log; at CPL0 nothing traps it");
const CONTROL: Rule =
    note("exact with ecx=0; the CPU model hides ecx=1, which shows the components that are in use");
const IDENTIFICATION: Rule =
    note("answered from the fixed CPU model, which both hosts compare at the handshake");
const MODEL_REGISTER: Rule =
    note("exact unless ecx names a clock or an event counter (IA32_TSC, IA32_MPERF, IA32_APERF)");
const APPROXIMATION: Rule = note(
    "its last bits differ between processor vendors; the hosts of a pair have the same CPU model",
);

const fn forbidden(why: &'static str) -> Rule {
    Rule { verdict: Verdict::Forbidden, why }
}

const fn warned(why: &'static str) -> Rule {
    Rule { verdict: Verdict::Warned, why }
}

const fn note(why: &'static str) -> Rule {
    Rule { verdict: Verdict::AllowedNote, why }
}

/// The rule for a forbidden instruction on a host where it [faults].
pub const FAULTING: Rule = warned("causes #UD on this host and on all hosts with its profile");

/// Returns whether the forbidden instruction with this lower-case mnemonic causes #UD on a host with `profile`, at every
/// privilege level. The probe ran at CPL3; a KVM that does not emulate CPL0 treats it the same there.
pub fn faults(mnemonic: &str, profile: &HostProfile) -> bool {
    let probed = match mnemonic {
        "umonitor" | "umwait" => "TPAUSE",
        other => other,
    };
    let bit = NATIVE.iter().position(|name| name.eq_ignore_ascii_case(probed));
    let runs = bit.is_none_or(|bit| profile.native >> bit & 1 != 0);
    profile.emulates_kernel_code == Answer::No && !runs
}

/// Returns the rule for a valid instruction in a guest with the CPU model `model`, or `None` if the instruction is
/// a function of the guest's state.
pub fn rule_with(model: ModelName, instruction: &Instruction) -> Option<Rule> {
    use Mnemonic as M;
    if !model.has_xsave() {
        return rule_for(instruction);
    }
    match instruction.mnemonic() {
        M::Xgetbv => Some(CONTROL),
        M::Xsave | M::Xsave64 => None,
        M::Xsavec | M::Xsavec64 | M::Xsaveopt | M::Xsaveopt64 | M::Xsaves | M::Xsaves64 => {
            Some(OTHER_SAVE)
        }
        _ if !is_of_avx2(instruction) => rule_for(instruction),
        M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss => Some(APPROXIMATION),
        _ => None,
    }
}

/// Returns the rule for a valid instruction in a guest with the CPU model v1 or v2.
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

/// Whether an instruction is part of the vector extensions of the CPU model v3.
fn is_of_avx2(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    let offered = [F::AVX, F::AVX2, F::FMA, F::F16C];
    instruction.encoding() == EncodingKind::VEX
        && instruction.cpuid_features().iter().all(|feature| offered.contains(feature))
}

/// Whether an instruction belongs to AVX, AVX-512, AMX or XOP, whose state goes beyond SSE and is saved
/// only by XSAVE.
fn touches_vector_state(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    let legacy = matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::D3NOW);
    let general = [F::BMI1, F::BMI2, F::TBM, F::LWP, F::CMPCCXADD];
    !legacy && !instruction.cpuid_features().iter().any(|feature| general.contains(feature))
}
