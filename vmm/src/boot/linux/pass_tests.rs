//! Tests of the pass on small crafted kernels, and bounded fuzzing of all code that reads a kernel.

use super::*;
use crate::boot::cpu_features::ModelName;
use crate::boot::fixture::{ElfFixture, Random, put16, put32, put64};
use crate::boot::linux::{LinuxKernel, kallsyms, payload};

const RDTSC: [u8; 2] = [0x0F, 0x31];
const CPUID: [u8; 2] = [0x0F, 0xA2];
/// `or ecx, 0xA0; mov cr4, rcx`: how a kernel first sets CR4.
const HEAD: [u8; 9] = [0x81, 0xC9, 0xA0, 0, 0, 0, 0x0F, 0x22, 0xE1];
/// `mov edi, 0xF`: the bits of CR4 that `cpu_init` clears.
const MASK: [u8; 5] = [0xBF, 0x0F, 0, 0, 0];
const PADDING: [u8; 192] = [0xCC; 192];

/// How the kernels set CR4 first: the bytes of Debian's 6.1.0-57-cloud-amd64, 6.1.0-57-amd64 and
/// 6.12.117+deb13-cloud-amd64 (6.18.15 and 7.3.4 have the same), and the byte to be changed with its new
/// value; in the last one, three bytes follow it.
const HEADS_6_1: [&[u8]; 2] = [
    &[
        0xB9, 0, 0, 0, 0, 0x81, 0xC9, 0xA0, 0, 0, 0, 0xF7, 0x05, 0xF8, 0x83, 0x39, 0x01, 0x01, 0,
        0, 0, 0x74, 0x06, 0x81, 0xC9, 0, 0x10, 0, 0, 0x0F, 0x22, 0xE1,
    ],
    &[
        0x0F, 0x20, 0xE1, 0x83, 0xE1, 0x40, 0x81, 0xC9, 0xA0, 0, 0, 0, 0xF7, 0x05, 0xB7, 0x56,
        0x41, 0x01, 0x01, 0, 0, 0, 0x74, 0x06, 0x81, 0xC9, 0, 0x10, 0, 0, 0x0F, 0x22, 0xE1,
    ],
];
const HEAD_6_12: [u8; 26] = [
    0xBA, 0x20, 0x10, 0, 0, 0x83, 0xCA, 0x40, 0x0F, 0x20, 0xE1, 0x21, 0xD1, 0x0F, 0xBA, 0xE9, 0x04,
    0x0F, 0x22, 0xE1, 0x0F, 0xBA, 0xE9, 0x07, 0x0F, 0x22,
];
/// How the exception entries begin, up to the operand of the call: the bytes of 6.1.0-57-cloud-amd64 and
/// of 6.12.117+deb13-cloud-amd64.
const ENTRIES: [&[u8]; 2] =
    [&[0x90, 0x90, 0x90, 0xFC, 0xE8], &[0xF3, 0x0F, 0x1E, 0xFA, 0x90, 0x90, 0x90, 0xFC, 0xE8]];
/// `cpu_init` where it clears bits of CR4: the bytes of both kernels.
const CPU_INIT: [u8; 11] = [0x0F, 0x1F, 0x44, 0, 0, 0xBF, 0x0F, 0, 0, 0, 0xE8];
/// How `set_tsc_mode` begins in 6.1.0-57-cloud-amd64 and in 6.12.117+deb13-cloud-amd64. The operand of
/// the call, `__fentry__` behind the function, is of this test.
const MODES: [&[u8]; 2] = [
    &[0xE8, 8, 0, 0, 0, 0x53, 0x83, 0xFF, 0x02, 0x74, 0x56, 0x83, 0xFF],
    &[0xF3, 0x0F, 0x1E, 0xFA, 0xE8, 8, 0, 0, 0, 0x53, 0x83, 0xFF, 0x02, 0x74, 0x55, 0x83, 0xFF],
];

/// An exception entry: `clac; cld; call rel32`, with the call's target after it.
const EXCEPTION_ENTRY: [u8; 9] = [0x0F, 0x01, 0xCA, 0xFC, 0xE8, 0, 0, 0, 0];

/// `set_tsc_mode`: `endbr64; call __fentry__`, then its body. The call's target follows it.
const SET_MODE: [u8; 19] = [
    0xF3, 0x0F, 0x1E, 0xFA, 0xE8, 10, 0, 0, 0, 0x83, 0xFF, 0x02, 0x74, 1, 0x90, 0x31, 0xC0, 0xC3,
    0x90,
];
const SET_MODE_BODY: usize = 9;
/// `disable_TSC`: no ENDBR and no tracing; `inc dword [rax]; ret`.
const DISABLE: [u8; 3] = [0xFF, 0x00, 0xC3];

struct Crafted {
    file: Vec<u8>,
    text: u64,
}

/// The parts of a crafted kernel that differ between kernels.
struct Parts<'a> {
    /// Symbol at the first setting of CR4.
    head_symbol: &'static str,
    head: &'a [u8],
    exception_entry: &'a [u8],
    cpu_init: &'a [u8],
    /// With a call of what follows it.
    set_mode: &'a [u8],
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            head_symbol: "startup_64",
            head: &HEAD,
            exception_entry: &EXCEPTION_ENTRY,
            cpu_init: &MASK,
            set_mode: &SET_MODE,
        }
    }
}

/// Builds a kernel of a head, two exception entries, a system call entry, `code`, and padding.
fn craft(code: &[u8]) -> Crafted {
    craft_without("", code)
}

/// Builds such a kernel without the symbol `lacking`.
fn craft_without(lacking: &str, code: &[u8]) -> Crafted {
    craft_of(&Parts::default(), lacking, code)
}

/// Builds a kernel of `parts` without the symbol `lacking`.
fn craft_of(parts: &Parts<'_>, lacking: &str, code: &[u8]) -> Crafted {
    // The entry, in case the setting of CR4 is elsewhere: `mov r15, rsi; jmp` to itself.
    let mut text = match parts.head_symbol {
        "startup_64" => Vec::new(),
        _ => vec![0x49, 0x89, 0xF7, 0xEB, 0xFE],
    };
    let mut functions = vec![(parts.head_symbol, text.len() as u64)];
    text.extend(parts.head);
    for name in ["asm_exc_general_protection", "asm_exc_page_fault"] {
        functions.push((name, text.len() as u64));
        text.extend(parts.exception_entry);
    }
    functions.push(("cpu_init", text.len() as u64));
    text.extend(parts.cpu_init);
    functions.push(("set_tsc_mode", text.len() as u64));
    text.extend(parts.set_mode);
    functions.push(("__fentry__", text.len() as u64));
    text.push(0xC3);
    functions.push(("disable_TSC", text.len() as u64));
    text.extend(DISABLE);
    functions.push(("entry_SYSCALL_64", text.len() as u64));
    text.extend([0x0F, 0x01, 0xF8]); // swapgs
    functions.push(("code", text.len() as u64));
    let at = text.len() as u64;
    text.extend(code);
    text.resize(text.len().next_multiple_of(16), 0xCC);
    functions.push(("end", text.len() as u64));
    text.extend([PADDING; 3].concat());
    functions.retain(|(name, _)| *name != lacking);
    let fixture = ElfFixture::with_functions(&text, &functions);
    Crafted { file: fixture.build(), text: fixture.address + at }
}

fn run(crafted: &Crafted, options: &PassOptions) -> (Vec<u8>, Result<PassReport, ImageFault>) {
    let elf = Elf::parse(&crafted.file).unwrap();
    let mut bytes = crafted.file.clone();
    let report = rewrite(&mut bytes, &elf, options);
    (bytes, report)
}

fn code_of<'a>(bytes: &'a [u8], crafted: &Crafted, length: usize) -> &'a [u8] {
    let elf = Elf::parse(&crafted.file).unwrap();
    let at = elf.code.file_offset(crafted.text).unwrap();
    &bytes[at..at + length]
}

#[test]
fn rdtsc_and_cpuid_become_port_reads_of_the_same_size() {
    let crafted = craft(&[&RDTSC[..], &CPUID, &[0xC3]].concat());
    let (bytes, report) = run(&crafted, &PassOptions::default());
    let report = report.unwrap();
    assert_eq!(code_of(&bytes, &crafted, 5), [0xE5, 0xE4, 0xE5, 0xE5, 0xC3]);
    let found: Vec<_> = report.rewritten.iter().map(|r| (r.mnemonic, r.address)).collect();
    assert_eq!(found, [("rdtsc", crafted.text), ("cpuid", crafted.text + 2)]);
    assert_eq!(report.rewritten[1].symbol.as_deref(), Some("code+0x2"));
}

#[test]
fn instruction_bytes_inside_an_operand_are_not_rewritten() {
    // mov eax, 0xA20F310F; jmp +0x310F
    let code = [0xB8, 0x0F, 0x31, 0x0F, 0xA2, 0xE9, 0x0F, 0x31, 0, 0];
    let crafted = craft(&code);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    assert_eq!(code_of(&bytes, &crafted, code.len()), code);
    assert!(report.unwrap().rewritten.is_empty());
}

#[test]
fn rdtsc_with_a_prefix_is_refused_or_reported() {
    let crafted = craft(&[0x66, 0x0F, 0x31, 0xC3]);
    let (_, report) = run(&crafted, &PassOptions::default());
    let text = report.unwrap_err().to_string();
    assert!(text.contains("rdtsc with prefixes at 0x"), "{text}");
    let (bytes, report) = run(&crafted, &PassOptions { tolerate: true, ..PassOptions::default() });
    assert_eq!(code_of(&bytes, &crafted, 3), [0x66, 0x0F, 0x31]);
    assert_eq!(report.unwrap().lacking.len(), 1);
}

#[test]
fn rdrand_of_a_kernel_is_a_warning_and_not_refused() {
    let crafted = craft(&[0x48, 0x0F, 0xC7, 0xF0, 0xC3]); // rdrand rax
    let (_, report) = run(&crafted, &PassOptions::default());
    let sweep = report.unwrap().sweep;
    assert_eq!((sweep.forbidden, sweep.warned), (0, 1));
    assert_eq!(sweep.findings[0].mnemonic, "rdrand");
}

#[test]
fn first_setting_of_cr4_gets_tsd_and_cpu_init_keeps_it() {
    let crafted = craft(&[0xC3]);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    let hooks = report.unwrap().hooks;
    assert_eq!(hooks[0].symbol, "startup_64");
    let at = crafted.file.windows(HEAD.len()).position(|window| window == HEAD).unwrap();
    assert_eq!(bytes[at..at + HEAD.len()], [0x81, 0xC9, 0xA4, 0, 0, 0, 0x0F, 0x22, 0xE1]);
    assert_eq!(hooks[1].symbol, "cpu_init");
    let at = crafted.file.windows(MASK.len()).position(|window| window == MASK).unwrap();
    assert_eq!(bytes[at..at + MASK.len()], [0xBF, 0x0B, 0, 0, 0]);
}

/// Returns the offset in the file of the only place with the bytes `wanted`.
fn place_of(file: &[u8], wanted: &[u8]) -> usize {
    let mut places = file.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
    let place = places.next().unwrap().0;
    assert_eq!(places.next(), None);
    place
}

#[test]
fn first_setting_of_cr4_of_known_kernels_gets_tsd() {
    for head in HEADS_6_1 {
        let crafted = craft_of(&Parts { head, ..Parts::default() }, "", &[0xC3]);
        let (bytes, report) = run(&crafted, &PassOptions::default());
        assert_eq!(report.unwrap().hooks[0].symbol, "startup_64");
        let mut expected = head.to_vec();
        let or = head.windows(2).position(|window| window == [0x81, 0xC9]).unwrap();
        expected[or + 2] = 0xA4;
        let at = place_of(&crafted.file, head);
        assert_eq!(bytes[at..at + head.len()], expected);
    }
    let parts = Parts { head_symbol: "common_startup_64", head: &HEAD_6_12, ..Parts::default() };
    let crafted = craft_of(&parts, "", &[0xC3]);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    let hook = &report.unwrap().hooks[0];
    assert_eq!(hook.symbol, "common_startup_64");
    let mut expected = HEAD_6_12;
    // or ecx, PSE | TSD; nop
    expected[13..17].copy_from_slice(&[0x83, 0xC9, 0x14, 0x90]);
    let at = place_of(&crafted.file, &HEAD_6_12);
    assert_eq!(bytes[at..at + HEAD_6_12.len()], expected);
    let elf = Elf::parse(&crafted.file).unwrap();
    assert_eq!(elf.code.file_offset(hook.address), Some(at + 13));
}

#[test]
fn other_settings_of_cr4_are_refused_with_what_was_looked_for() {
    let bts_elsewhere = [&HEAD_6_12[13..17], &[0x90], &HEAD_6_12[17..]].concat();
    let of_another_register = [&[0x0F, 0xBA, 0xE8, 0x04], &HEAD_6_12[17..]].concat();
    let of_another_bit = [&[0x0F, 0xBA, 0xE9, 0x07], &HEAD_6_12[17..]].concat();
    let of_a_high_register =
        [&[0x41, 0x0F, 0xBA, 0xE9, 0x04], &[0x41, 0x0F, 0x22, 0xE1][..]].concat();
    for head in [bts_elsewhere, of_another_register, of_another_bit, of_a_high_register] {
        let parts = Parts { head_symbol: "common_startup_64", head: &head, ..Parts::default() };
        let crafted = craft_of(&parts, "", &[0xC3]);
        let text = run(&crafted, &PassOptions::default()).1.unwrap_err().to_string();
        let wanted = "or r32, PAE or bts r32, 4 (PSE) before mov cr4, r64 was looked for in ";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains(" bytes from common_startup_64 (0x100005) and not found"), "{text}");
    }
}

#[test]
fn exception_entries_of_known_kernels_are_hooked_at_cld() {
    for entry in ENTRIES {
        let exception_entry = [entry, &[0, 0, 0, 0]].concat();
        let parts = Parts { exception_entry: &exception_entry, ..Parts::default() };
        let crafted = craft_of(&parts, "", &[0xC3]);
        let (bytes, report) = run(&crafted, &PassOptions::default());
        let hook = &report.unwrap().hooks[4];
        let elf = Elf::parse(&crafted.file).unwrap();
        let at = elf.code.file_offset(hook.address).unwrap();
        let start = at + 2 - entry.len();
        assert_eq!(crafted.file[start..at + 2], *entry);
        assert_eq!(bytes[start..at], entry[..entry.len() - 2], "what precedes it is unchanged");
        assert_eq!((bytes[at], bytes[at + 5]), (0xE9, 0x90));
    }
    let parts =
        Parts { exception_entry: &[0x90, 0xFC, 0x50, 0xE8, 0, 0, 0, 0], ..Parts::default() };
    let crafted = craft_of(&parts, "", &[0xC3]);
    let text = run(&crafted, &PassOptions::default()).1.unwrap_err().to_string();
    assert!(text.contains("cld; call rel32 after only endbr64, clac and nop was looked"), "{text}");
    assert!(text.contains("from asm_exc_general_protection (0x"), "{text}");
}

#[test]
fn cpu_init_and_set_tsc_mode_of_known_kernels_keep_tsd() {
    let cpu_init = [&CPU_INIT[..], &[0, 0, 0, 0]].concat();
    for mode in MODES {
        let parts = Parts { cpu_init: &cpu_init, set_mode: mode, ..Parts::default() };
        let crafted = craft_of(&parts, "", &[0xC3]);
        let (bytes, report) = run(&crafted, &PassOptions::default());
        report.unwrap();
        let at = place_of(&crafted.file, &CPU_INIT);
        assert_eq!(bytes[at + 5..at + 10], [0xBF, 0x0B, 0, 0, 0]);
        let at = place_of(&crafted.file, mode);
        let body = mode.iter().position(|&byte| byte == 0x53).unwrap();
        assert_eq!(bytes[at..at + body], mode[..body]);
        assert_eq!(bytes[at + body..at + body + 6], [0xB8, 0xEA, 0xFF, 0xFF, 0xFF, 0xC3]);
    }
    let parts = Parts { cpu_init: &[0xBF, 0x0B, 0, 0, 0], ..Parts::default() };
    let text =
        run(&craft_of(&parts, "", &[0xC3]), &PassOptions::default()).1.unwrap_err().to_string();
    assert!(text.contains("mov r32, 0xf (VME, PVI, TSD and DE) was looked for in "), "{text}");
    assert!(text.contains("from cpu_init (0x"), "{text}");
}

#[test]
fn code_in_a_writable_section_is_data() {
    let mut crafted = craft(&[&RDTSC[..], &[0xC3]].concat());
    let headers = crate::boot::elf::u64_at(&crafted.file, 40) as usize;
    // sh_flags of the text: allocated, executable, and now writable.
    put64(&mut crafted.file, headers + 64 + 8, 7);
    let tolerant = PassOptions { tolerate: true, ..PassOptions::default() };
    let kernel = LinuxKernel::from_bytes("k", &bzimage(&crafted.file), &tolerant).unwrap();
    assert_eq!(kernel.report().sweep.bytes_swept, 0);
    assert!(kernel.report().rewritten.is_empty());
}

#[test]
fn hooks_jump_from_the_entry_into_padding_and_back() {
    let crafted = craft(&[0xC3]);
    let options = PassOptions { syscall_stays_at_cpl3: true, ..PassOptions::default() };
    let (bytes, report) = run(&crafted, &options);
    let hooks = report.unwrap().hooks;
    assert_eq!(hooks.len(), 6);
    let elf = Elf::parse(&crafted.file).unwrap();
    for hook in &hooks[4..] {
        let at = elf.code.file_offset(hook.address).unwrap();
        assert_eq!(crafted.file[at..at + 2], [0xFC, 0xE8], "cld and call were here");
        assert_eq!((bytes[at], bytes[at + 5]), (0xE9, 0x90), "a jump and a no-operation");
        let code = hook.code.unwrap();
        let distance = i32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap());
        assert_eq!((hook.address + 5).wrapping_add_signed(distance.into()), code);
        // It was padding before, and its last instruction jumps back to after the entry's call.
        let at = elf.code.file_offset(code).unwrap();
        let length = bytes[at..].iter().rposition(|&byte| byte != 0xCC).unwrap().min(PADDING.len());
        assert!(crafted.file[at..at + 16].iter().all(|&byte| byte == 0xCC));
        let decoder = iced_x86::Decoder::with_ip(64, &bytes[at..at + length], code, 0).into_iter();
        let jump = decoder
            .take_while(|instruction| instruction.mnemonic() != Mnemonic::Int3)
            .last()
            .unwrap();
        assert_eq!(jump.mnemonic(), Mnemonic::Jmp);
        assert_eq!(jump.near_branch_target(), hook.address + 6);
    }
}

/// Returns the instructions of the hook's code.
fn hooked(bytes: &[u8], crafted: &Crafted, hook: &Hook) -> Vec<Instruction> {
    let elf = Elf::parse(&crafted.file).unwrap();
    let code = hook.code.unwrap();
    let at = elf.code.file_offset(code).unwrap();
    let decoder = iced_x86::Decoder::with_ip(64, &bytes[at..], code, 0).into_iter();
    decoder.take_while(|instruction| instruction.mnemonic() != Mnemonic::Int3).collect()
}

#[test]
fn tsc_hook_reads_user_code_byte_by_byte_at_user_addresses_only() {
    use iced_x86::{MemorySize, Register};
    let crafted = craft(&[0xC3]);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    let code = hooked(&bytes, &crafted, &report.unwrap().hooks[4]);
    let reads: Vec<_> = code.iter().filter(|i| i.memory_base() == Register::RAX).collect();
    let places: Vec<_> = reads.iter().map(|i| i.memory_displacement64()).collect();
    assert_eq!(places, [0, 1, 1, 2]);
    assert!(reads.iter().all(|i| i.memory_size() == MemorySize::UInt8), "{reads:?}");
    // Each byte is read only after the one that shows that it was fetched.
    let first = code.iter().position(|i| i.memory_base() == Register::RAX).unwrap();
    assert_eq!(code[first].immediate8(), 0x0F);
    assert_eq!(code[first + 1].mnemonic(), Mnemonic::Jne);
    let shift = code.iter().position(|i| i.mnemonic() == Mnemonic::Shr).unwrap();
    assert!(shift < first && code[shift + 1].mnemonic() == Mnemonic::Jne);
    assert_eq!(code[shift].immediate8(), 47);
    // Every other path restores RAX, except the one for a frame that is not a user's.
    let original = code.iter().position(|i| i.mnemonic() == Mnemonic::Cld).unwrap();
    assert_eq!(code[original - 1].mnemonic(), Mnemonic::Pop);
    let not_ours = code[original - 1].ip();
    let leaving = code[shift..original - 1].iter().filter(|i| i.mnemonic() == Mnemonic::Jne);
    let targets: Vec<_> = leaving.map(|i| i.near_branch_target()).collect();
    assert_eq!(targets, [not_ours; 4]);
    let kernel = code[..shift].iter().find(|i| i.mnemonic() == Mnemonic::Jne).unwrap();
    assert_eq!(kernel.near_branch_target(), code[original].ip());
}

#[test]
fn syscall_hook_sanitizes_the_flags_in_r11() {
    use iced_x86::Register;
    let crafted = craft(&[0xC3]);
    let options = PassOptions { syscall_stays_at_cpl3: true, ..PassOptions::default() };
    let (bytes, report) = run(&crafted, &options);
    let code = hooked(&bytes, &crafted, &report.unwrap().hooks[5]);
    let of_flags: Vec<_> = code
        .iter()
        .filter(|i| i.op0_register() == Register::R11)
        .map(|i| (i.mnemonic(), i.immediate8()))
        .collect();
    assert_eq!(of_flags, [(Mnemonic::Btr, 12), (Mnemonic::Btr, 13), (Mnemonic::Bts, 9)]);
}

#[test]
fn process_requests_cannot_change_tsd() {
    let crafted = craft(&[0xC3]);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    let hooks = report.unwrap().hooks;
    let elf = Elf::parse(&crafted.file).unwrap();
    assert_eq!((hooks[2].symbol, hooks[3].symbol), ("set_tsc_mode", "disable_TSC"));
    let at = elf.code.file_offset(hooks[2].address).unwrap();
    let start = at - SET_MODE_BODY;
    assert_eq!(
        bytes[start..at],
        SET_MODE[..SET_MODE_BODY],
        "the start that tracing expects is unchanged"
    );
    assert_eq!(bytes[at..at + 6], [0xB8, 0xEA, 0xFF, 0xFF, 0xFF, 0xC3]);
    assert_eq!(bytes[at + 6..start + SET_MODE.len()], SET_MODE[SET_MODE_BODY + 6..]);
    let at = elf.code.file_offset(hooks[3].address).unwrap();
    assert_eq!(crafted.file[at..at + 3], DISABLE);
    assert_eq!(bytes[at..at + 3], [0xC3, 0x00, 0xC3]);
}

#[test]
fn tsc_trap_is_installed_completely_or_not_at_all() {
    let places = ["asm_exc_general_protection", "cpu_init", "set_tsc_mode", "disable_TSC"];
    for lacking in places {
        let crafted = craft_without(lacking, &[0xC3]);
        let (_, report) = run(&crafted, &PassOptions::default());
        assert!(report.is_err(), "{lacking}");
        let tolerant = PassOptions { tolerate: true, ..PassOptions::default() };
        let (bytes, report) = run(&crafted, &tolerant);
        let report = report.unwrap();
        assert_eq!((report.hooks.len(), report.lacking.len()), (0, 1), "{lacking}");
        assert!(bytes == crafted.file, "{lacking}");
    }
}

#[test]
fn too_many_instructions_to_rewrite_are_refused() {
    let tolerant = PassOptions { tolerate: true, ..PassOptions::default() };
    let crafted = craft(&CPUID.repeat(REWRITTEN_MAX));
    assert_eq!(run(&crafted, &tolerant).1.unwrap().rewritten.len(), REWRITTEN_MAX);
    for one in [&CPUID[..], &[0x66, 0x0F, 0x31]] {
        let crafted = craft(&one.repeat(REWRITTEN_MAX + 1));
        let text = run(&crafted, &tolerant).1.unwrap_err().to_string();
        assert!(text.contains("65537 instructions to rewrite"), "{text}");
    }
}

/// Moves the text section of a crafted kernel, with its symbols, so that it ends `room` bytes before the
/// end of the address space.
fn at_the_end(crafted: &Crafted, room: u64) -> Vec<u8> {
    use crate::boot::elf::u64_at;
    let mut file = crafted.file.clone();
    let headers = u64_at(&file, 40) as usize;
    let (text, symbols) = (headers + 64, headers + 128);
    let (old, length) = (u64_at(&file, text + 16), u64_at(&file, text + 32));
    let new = u64::MAX - room - length;
    put64(&mut file, text + 16, new);
    let (table, bytes) = (u64_at(&file, symbols + 24), u64_at(&file, symbols + 32));
    for symbol in (table..table + bytes).step_by(24).skip(1) {
        let value = u64_at(&file, symbol as usize + 8) - old + new;
        put64(&mut file, symbol as usize + 8, value);
    }
    file
}

#[test]
fn code_at_the_end_of_the_address_space_is_refused_and_code_below_is_rewritten() {
    let crafted = craft(&[0xC3]);
    for room in 0..16 {
        assert!(Elf::parse(&at_the_end(&crafted, room)).is_err(), "{room}");
    }
    for room in 16..64 {
        let mut file = at_the_end(&crafted, room);
        let elf = Elf::parse(&file).unwrap();
        let options =
            PassOptions { syscall_stays_at_cpl3: true, shortcuts: true, ..PassOptions::default() };
        assert_eq!(rewrite(&mut file, &elf, &options).unwrap().hooks.len(), 6, "{room}");
    }
}

#[test]
fn kernel_without_the_hooked_symbols_is_refused_unless_tolerated() {
    let fixture = ElfFixture::with_functions(&[0x90; 64], &[("startup_64", 0)]);
    let crafted = Crafted { file: fixture.build(), text: fixture.address };
    let (_, report) = run(&crafted, &PassOptions::default());
    let text = report.unwrap_err().to_string();
    assert!(
        text.contains("user rdtsc is not trapped: the kernel has no symbol asm_exc_gen"),
        "{text}"
    );
    let tolerant = PassOptions { tolerate: true, ..PassOptions::default() };
    assert_eq!(run(&crafted, &tolerant).1.unwrap().lacking.len(), 1);
    let with_syscall_hook = PassOptions { syscall_stays_at_cpl3: true, ..tolerant };
    assert_eq!(run(&crafted, &with_syscall_hook).1.unwrap().lacking.len(), 2);
}

/// Builds a bzImage with `kernel` compressed by gzip.
fn bzimage(kernel: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(kernel, flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    let mut file = vec![0; 1024];
    file[0x1F1] = 1;
    file[0x201] = 0x6A;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    put16(&mut file, 0x206, 0x20F);
    put16(&mut file, 0x236, 1);
    put32(&mut file, 0x238, 2047);
    put32(&mut file, 0x24C, packed.len() as u32);
    file.extend(packed);
    file
}

#[test]
fn bzimage_is_unpacked_and_rewritten() {
    let crafted = craft(&[&RDTSC[..], &[0xC3]].concat());
    // It has no kallsyms, so the hooks cannot be installed.
    let options = PassOptions { tolerate: true, ..PassOptions::default() };
    let kernel = LinuxKernel::from_bytes("k", &bzimage(&crafted.file), &options).unwrap();
    assert_eq!(kernel.report().rewritten.len(), 1);
    assert_eq!(kernel.report().symbols, 0);
}

#[test]
fn invalid_bzimage_is_refused_in_one_line() {
    let good = bzimage(&craft(&[0xC3]).file);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = good.clone();
        change(&mut file);
        let error = LinuxKernel::from_bytes("k", &file, &PassOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert!(refused(&|f| f.clear()).contains("not a Linux kernel"));
    assert!(refused(&|f| f[0x202] = b'h').contains("not a Linux kernel"));
    assert!(refused(&|f| put16(f, 0x206, 0x20B)).contains("boot protocol 2.11"));
    assert!(refused(&|f| put16(f, 0x236, 0)).contains("a 32-bit kernel"));
    assert!(refused(&|f| f[0x201] = 0).contains("setup header size"));
    assert!(refused(&|f| f.truncate(1100)).contains("truncated"));
    assert!(refused(&|f| put32(f, 0x248, u32::MAX)).contains("truncated"));
    assert!(refused(&|f| put32(f, 0x24C, 0)).contains("no payload"));
    assert!(refused(&|f| f[1024..1027].copy_from_slice(b"BZh")).contains("bzip2"));
    assert!(refused(&|f| f[1030..].fill(0xA5)).contains("cannot be unpacked"));
}

#[test]
fn kernel_that_needs_more_memory_is_refused_even_without_an_initrd() {
    use crate::boot::linux::KernelInfo;
    const INIT_BYTES: u32 = 20 << 20;
    let mut file = bzimage(&craft(&[0xC3]).file);
    put32(&mut file, 0x260, INIT_BYTES);
    let options = PassOptions { tolerate: true, ..PassOptions::default() };
    let kernel = LinuxKernel::from_bytes("k", &file, &options).unwrap();
    let info =
        KernelInfo { cpu_model: ModelName::V1, command_line: "", initrd: None, seed: [0; 32] };
    let small = crate::mem::allocate(16 << 20).unwrap();
    let text = kernel.load(&small, &info).unwrap_err().to_string();
    assert!(text.contains("bytes of guest memory to start"), "{text}");
    kernel.load(&crate::mem::allocate(32 << 20).unwrap(), &info).unwrap();
}

#[test]
fn damaged_kernels_never_panic() {
    let good = bzimage(&craft(&[&RDTSC[..], &CPUID, &[0xC3]].concat()).file);
    let unpacked = craft(&[&RDTSC[..], &[0xC3]].concat()).file;
    for seed in 1..=3000 {
        let mut random = Random(seed);
        let mut file = good.clone();
        for _ in 0..=random.below(4) {
            // Damage the header often, because it decides most.
            let at = [random.below(file.len()), 0x1F1 + random.below(0x90)][random.below(2)];
            file[at] = random.next() as u8;
        }
        if random.below(4) == 0 {
            file.truncate(random.below(file.len()));
        }
        let options = PassOptions { tolerate: true, shortcuts: true, ..PassOptions::default() };
        let _ = LinuxKernel::from_bytes("k", &file, &options);

        let mut elf = unpacked.clone();
        for _ in 0..=random.below(6) {
            let at = random.below(elf.len());
            elf[at] = random.next() as u8;
        }
        if let Ok(parsed) = Elf::parse(&elf) {
            let options = PassOptions { syscall_stays_at_cpl3: true, ..options };
            let _ = rewrite(&mut elf, &parsed, &options);
        }
    }
}

#[test]
fn noise_around_kallsyms_and_payload_marks_never_panics() {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    for seed in 1..=300 {
        let mut random = Random(seed);
        let mut bytes: Vec<u8> = (0..4096).map(|_| random.next() as u8 & 0x1F).collect();
        let at = random.below(4000);
        bytes[at..at + digits.len()].copy_from_slice(&digits);
        assert!(kallsyms::find(&bytes, &[]).is_empty());
        let _ = payload::unpack(&bytes[random.below(4096)..]);
    }
}
