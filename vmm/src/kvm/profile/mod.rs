//! Fills the [`HostProfile`] of this host: runs a probe for each field, with a guest of a few instructions.
//!
//! A probe observes the property itself; none asks for the name of a module. A probe with an unexpected result
//! leaves its field unknown, and whoever uses the field then takes the safe side.
//!
//! | field | probe |
//! |---|---|
//! | `emulates_kernel_code`, `emulator_gaps` | instructions at CPL0 that an emulator is known to lack end in an internal error |
//! | `syscall_stays_at_cpl3` | SYSCALL at CPL3 causes a page fault at its handler, which only CPL0 may execute |
//! | `injects_exceptions` | after #GP at CPL3, which VMX and SVM deliver without an exit, KVM remembers the vector |
//! | `shadows_page_tables` | this program changes a page table and flushes the TLB; the guest still reads by the old entry |
//! | `tracks_segment_loads` | KVM reports the selector that CPL3 code has loaded into ES |
//! | `exact_kernel_windows` | an interrupt window at CPL0 opens at each of several first possible instructions, and not in an interrupt shadow with which the vCPU is entered |
//! | `sysenter_bits` | bits that stay set in SYSENTER_ESP |
//! | `stale_fields` | fields that are undefined and were zero have values |
//! | `native` | an instruction at CPL3 does not cause #UD |
//! | `cpuid_leaves`, `cpuid_digest` | what CPUID returns at CPL3 and at CPL0 |

mod guest;

use super::KvmError;
use super::system::System;
use crate::boot::cpu_model::{Controls, CpuModel};
use guest::{
    BREAKPOINT, DATA, DONE, DONE_CODE, Ended, GENERAL_PROTECTION, Guest, INTERRUPT, INVALID_OPCODE,
    KERNEL_CODE, PAGE_FAULT, Request, SYSCALL_AT_CPL0, Start, USER_DONE_CODE, WINDOW,
};
use logchan::host_profile::{
    Answer, CPUID_LEAVES, EMULATOR_GAPS, HostProfile, NATIVE, STALE_FIELDS,
};
use xxhash_rust::xxh3::xxh3_64;

/// Runs all probes with a guest that has the CPU model `model`.
///
/// # Errors
///
/// If a KVM call fails.
pub fn probe(system: &System, model: &CpuModel) -> Result<HostProfile, KvmError> {
    let mut guest = Guest::new(system, model.entries())?;
    let mut profile = HostProfile::UNKNOWN;
    emulator(&mut guest, &mut profile)?;
    profile.syscall_stays_at_cpl3 = match guest.user(&[0x0F, 0x05])? {
        Ended::Event(PAGE_FAULT) => Answer::Yes,
        Ended::Event(SYSCALL_AT_CPL0) => Answer::No,
        Ended::Event(_) | Ended::NotEmulated | Ended::Window(_) | Ended::Otherwise => {
            Answer::Unknown
        }
    };
    events(&mut guest, &mut profile)?;
    profile.shadows_page_tables = page_tables(&mut guest)?;
    segments(&mut guest, &mut profile)?;
    profile.exact_kernel_windows = windows(&mut guest)?;
    profile.sysenter_bits = guest.vcpu.sysenter_mask.count_ones() as u8;
    profile.native = native(&mut guest)?;
    (profile.cpuid_leaves, profile.cpuid_digest) = identification(&mut guest, model)?;
    Ok(profile)
}

impl Guest {
    /// Runs `code` and then [`USER_DONE_CODE`] at CPL3.
    fn user(&mut self, code: &[u8]) -> Result<Ended, KvmError> {
        self.run(Start::Cpl3, &[code, &USER_DONE_CODE].concat(), Request::Nothing)
    }

    /// Runs `code` and then [`DONE_CODE`] at CPL0.
    fn kernel(&mut self, code: &[u8]) -> Result<Ended, KvmError> {
        self.run(Start::Cpl0, &[code, &DONE_CODE].concat(), Request::Nothing)
    }
}

/// The instructions of [`EMULATOR_GAPS`], and the event that each of them ends with.
const GAPS: [(&[u8], u8); EMULATOR_GAPS.len()] = [
    (&[0xCC], BREAKPOINT),
    (&[0xCD, INTERRUPT], INTERRUPT),
    (&[0x9B], DONE),
    (&[0x0F, 0xAE, 0xF0], DONE),
];

fn emulator(guest: &mut Guest, profile: &mut HostProfile) -> Result<(), KvmError> {
    let mut expected = 0;
    for (bit, (code, event)) in GAPS.into_iter().enumerate() {
        match guest.kernel(code)? {
            Ended::NotEmulated => profile.emulator_gaps |= 1 << bit,
            Ended::Event(found) if found == event => expected += 1,
            Ended::Event(_) | Ended::Window(_) | Ended::Otherwise => {}
        }
    }
    profile.emulates_kernel_code = match profile.emulator_gaps {
        0 if expected == GAPS.len() => Answer::No,
        0 => Answer::Unknown,
        _some => Answer::Yes,
    };
    Ok(())
}

/// Bits of [`STALE_FIELDS`].
const STALE_EXCEPTION: u8 = 1 << 0;
const STALE_INTERRUPT: u8 = 1 << 1;
const STALE_SEGMENT: u8 = 1 << 2;
const _: () = assert!(STALE_FIELDS.len() == 3);

fn events(guest: &mut Guest, profile: &mut HostProfile) -> Result<(), KvmError> {
    // HLT at CPL3.
    if guest.user(&[])? == Ended::Event(GENERAL_PROTECTION) {
        let exception = guest.vcpu.raw_events()?.exception;
        profile.injects_exceptions = match exception.nr {
            GENERAL_PROTECTION => Answer::Yes,
            0 => Answer::No,
            _other => Answer::Unknown,
        };
        if exception.nr != 0 && exception.injected | exception.pending == 0 {
            profile.stale_fields |= STALE_EXCEPTION;
        }
    }
    if guest.run_interrupted(&DONE_CODE)? == Ended::Event(INTERRUPT) {
        let interrupt = guest.vcpu.raw_events()?.interrupt;
        if interrupt.nr != 0 && interrupt.injected == 0 {
            profile.stale_fields |= STALE_INTERRUPT;
        }
    }
    Ok(())
}

/// Number of times that the page table is changed. KVM may find out about some changes by itself.
const REMAPPED: usize = 4;

/// Changes a page table that the guest has used, without KVM's knowledge, and then restores the vCPU, which flushes
/// the TLB. If the guest uses the old entry once, KVM keeps a copy of the table. If it uses the new one each time, the
/// processor reads the table itself. Anything else is inconclusive.
fn page_tables(guest: &mut Guest) -> Result<Answer, KvmError> {
    for (page, value) in DATA.into_iter().zip(1..) {
        guest.put(page, &[value]);
    }
    let [a, b, c, d] = WINDOW.to_le_bytes();
    let read = [0x8A, 0x1C, 0x25, a, b, c, d]; // mov bl, [WINDOW]
    let mut stale = false;
    let mut last = 0;
    for turn in 0..=REMAPPED {
        let index = turn % DATA.len();
        guest.map_window(DATA[index]);
        if guest.user(&read)? != Ended::Event(GENERAL_PROTECTION) {
            return Ok(Answer::Unknown);
        }
        let found = guest.rbx();
        match found {
            value if value == index as u64 + 1 => {}
            value if turn > 0 && value == last => stale = true,
            _other => return Ok(Answer::Unknown),
        }
        last = found;
    }
    Ok(stale.into())
}

fn segments(guest: &mut Guest, profile: &mut HostProfile) -> Result<(), KvmError> {
    // xor eax, eax; mov es, eax
    if guest.user(&[0x31, 0xC0, 0x8E, 0xC0])? == Ended::Event(GENERAL_PROTECTION) {
        profile.tracks_segment_loads = (guest.vcpu.raw_sregs()?.es.selector == 0).into();
    }
    let mut sregs = guest.vcpu.raw_sregs()?;
    sregs.es = kvm_bindings::kvm_segment { unusable: 1, ..Default::default() };
    guest.vcpu.set_raw_sregs(&sregs)?;
    if guest.vcpu.raw_sregs()?.es.type_ != 0 {
        profile.stale_fields |= STALE_SEGMENT;
    }
    Ok(())
}

/// Programs at CPL0 with the offset at which the first window opens: where IF is set at the start, behind the shadow of
/// STI, behind POPFQ, which has none.
const WINDOWS: [(Start, &[u8], u64); 4] = [
    (Start::Cpl0InterruptsEnabled, &[0xFF, 0xC3, 0xFF, 0xC3], 0),
    // inc ebx; sti; nop; inc ebx; inc ebx
    (Start::Cpl0, &[0xFF, 0xC3, 0xFB, 0x90, 0xFF, 0xC3, 0xFF, 0xC3], 4),
    // push 0x202; popfq; inc ebx; inc ebx
    (Start::Cpl0, &[0x68, 0x02, 0x02, 0, 0, 0x9D, 0xFF, 0xC3, 0xFF, 0xC3], 6),
    // inc ebx; inc ebx, entered as if the host had interrupted the guest behind an STI
    (Start::Cpl0BehindSti, &[0xFF, 0xC3, 0xFF, 0xC3], 2),
];
/// Number of times that each program runs.
const WINDOW_RUNS: usize = 3;

fn windows(guest: &mut Guest) -> Result<Answer, KvmError> {
    for (start, code, offset) in WINDOWS {
        let code = [code, &DONE_CODE].concat();
        for _run in 0..WINDOW_RUNS {
            match guest.run(start, &code, Request::Window)? {
                Ended::Window(rip) if rip == KERNEL_CODE + offset => {}
                Ended::Window(_) | Ended::Event(DONE) => return Ok(Answer::No),
                Ended::Event(_) | Ended::NotEmulated | Ended::Otherwise => {
                    return Ok(Answer::Unknown);
                }
            }
        }
    }
    Ok(Answer::Yes)
}

/// The instructions of [`NATIVE`]. RDI is the address of a page.
const NATIVE_CODE: [&[u8]; NATIVE.len()] = [
    &[0x0F, 0xC7, 0xF0],
    &[0x0F, 0xC7, 0xF8],
    &[0x0F, 0x01, 0xF9],
    &[0xF3, 0x0F, 0xC7, 0xF8],
    &[0x0F, 0x01, 0xFD],
    // Until the time-stamp counter is at least 0.
    &[0x66, 0x0F, 0xAE, 0xF1],
    // An aborted transaction continues behind the instruction, as a begun one does.
    &[0xC7, 0xF8, 0, 0, 0, 0],
    &[0x0F, 0x01, 0xD0],
    &[0x0F, 0xAE, 0x27],
    // vxorps xmm0, xmm0, xmm0
    &[0xC5, 0xF8, 0x57, 0xC0],
];

/// Returns which instructions of [`NATIVE`] run. One that ends in another event than #UD counts: it may run in another
/// state of the guest.
fn native(guest: &mut Guest) -> Result<u16, KvmError> {
    let mut set = 0;
    for (bit, code) in NATIVE_CODE.into_iter().enumerate() {
        if guest.user(code)? != Ended::Event(INVALID_OPCODE) {
            set |= 1 << bit;
        }
    }
    Ok(set)
}

/// Leaf and index of each of [`CPUID_LEAVES`].
const LEAVES: [(u32, u32); CPUID_LEAVES.len()] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (4, 0),
    (7, 0),
    (0xB, 0),
    (0xD, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0006, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
];
/// Bytes of a leaf's answer: EAX, EBX, ECX, EDX.
const ANSWER_BYTES: usize = 16;
/// Where the program has its leaves, and puts the answers.
const ANSWERS: u32 = DATA[1] as u32;
const ANSWERS_END: u32 = ANSWERS + (LEAVES.len() * ANSWER_BYTES) as u32;

/// Returns the leaves in which CPUID answers otherwise than `model` at CPL3 or at CPL0, and a digest of these answers.
fn identification(guest: &mut Guest, model: &CpuModel) -> Result<(u16, u32), KvmError> {
    let [a, b, c, d] = ANSWERS_END.to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x89, 0xFE,                   // mov esi, edi
        0x8B, 0x06,                   // 1: mov eax, [rsi]
        0x8B, 0x4E, 0x04,             // mov ecx, [rsi + 4]
        0x0F, 0xA2,                   // cpuid
        0x89, 0x06,                   // mov [rsi], eax
        0x89, 0x5E, 0x04,             // mov [rsi + 4], ebx
        0x89, 0x4E, 0x08,             // mov [rsi + 8], ecx
        0x89, 0x56, 0x0C,             // mov [rsi + 12], edx
        0x83, 0xC6, ANSWER_BYTES as u8, // add esi, 16
        0x81, 0xFE, a, b, c, d,       // cmp esi, ANSWERS_END
        0x72, 0xE3,                   // jb 1b
    ];
    let highest = model.answer(0, 0, Controls::RESET)[0];
    let (mut set, mut differing) = (0, Vec::new());
    for start in [Start::Cpl3, Start::Cpl0] {
        for (&(leaf, index), at) in LEAVES.iter().zip((ANSWERS..).step_by(ANSWER_BYTES)) {
            guest.put(at.into(), &[leaf.to_le_bytes(), index.to_le_bytes()].concat());
        }
        let (ended, end) = match start {
            Start::Cpl3 => (guest.user(&code)?, GENERAL_PROTECTION),
            Start::Cpl0 | Start::Cpl0InterruptsEnabled | Start::Cpl0BehindSti => {
                (guest.kernel(&code)?, DONE)
            }
        };
        if ended != Ended::Event(end) {
            continue;
        }
        for (bit, &(leaf, index)) in LEAVES.iter().enumerate() {
            let mut bytes = [0; ANSWER_BYTES];
            guest.get(u64::from(ANSWERS) + (bit * ANSWER_BYTES) as u64, &mut bytes);
            let mut found = [0; 4];
            for (word, bytes) in found.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
            }
            clear_processor_number(leaf, &mut found);
            // A leaf beyond the highest one has the highest one's answer (Intel) or zeros (AMD).
            let beyond = [[0; 4], model.answer(highest, index, Controls::RESET)];
            let mut known = model.answer(leaf, index, Controls::RESET);
            clear_processor_number(leaf, &mut known);
            if found != known && !(known == [0; 4] && beyond.contains(&found)) {
                set |= 1 << bit;
                differing.extend(found.map(u32::to_le_bytes).concat());
            }
        }
    }
    let digest = if set == 0 { 0 } else { xxh3_64(&differing) as u32 };
    Ok((set, digest))
}

/// Clears what depends on the core that the probe runs on, where CPUID runs natively: the APIC ids (EBX 31:24 of leaf 1,
/// EDX of leaf 0xB).
fn clear_processor_number(leaf: u32, [_eax, ebx, _ecx, edx]: &mut [u32; 4]) {
    match leaf {
        1 => *ebx &= 0x00FF_FFFF,
        0xB => *edx = 0,
        _other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::system::DEV_KVM;

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
    fn probes_of_this_host_are_conclusive_and_agree() {
        let system = System::open(DEV_KVM).unwrap();
        let model = CpuModel::from_supported(&system.supported_cpuid().unwrap());
        let profile = probe(&system, &model).unwrap();
        for field in profile.fields() {
            assert_ne!(field.value.to_string(), "unknown", "{}", field.key);
        }
        // A KVM leaves SYSCALL at CPL3 only because it can't run CPL0 code natively, and runs guests without
        // hardware support only on shadow page tables.
        let emulates = profile.emulates_kernel_code == Answer::Yes;
        assert!(emulates || profile.syscall_stays_at_cpl3 == Answer::No, "{profile:?}");
        assert!(!emulates || profile.shadows_page_tables == Answer::Yes, "{profile:?}");
        assert_eq!(probe(&system, &model).unwrap(), profile, "a probe repeats its result");
        assert_eq!(HostProfile::decode(&profile.encode()), Ok(profile));
    }
}
