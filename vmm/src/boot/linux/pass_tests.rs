//! Tests of the pass on small crafted kernels, and bounded fuzzing of everything that reads one.

use super::*;
use crate::boot::fixture::{ElfFixture, Random, put16, put32};
use crate::boot::linux::{LinuxKernel, kallsyms, payload};

const RDTSC: [u8; 2] = [0x0F, 0x31];
const CPUID: [u8; 2] = [0x0F, 0xA2];
/// `or ecx, 0xA0; mov cr4, rcx`: how a kernel first sets CR4.
const HEAD: [u8; 9] = [0x81, 0xC9, 0xA0, 0, 0, 0, 0x0F, 0x22, 0xE1];
/// `mov edi, 0xF`: the bits of CR4 that `cpu_init` clears.
const MASK: [u8; 5] = [0xBF, 0x0F, 0, 0, 0];
const PADDING: [u8; 192] = [0xCC; 192];

/// An exception entry: `clac; cld; call rel32`, and the call's target behind it.
const EXCEPTION_ENTRY: [u8; 9] = [0x0F, 0x01, 0xCA, 0xFC, 0xE8, 0, 0, 0, 0];

struct Crafted {
    file: Vec<u8>,
    text: u64,
}

/// A kernel of a head, two exception entries, a system call entry, `code`, and padding.
fn craft(code: &[u8]) -> Crafted {
    let mut text = HEAD.to_vec();
    let mut functions = vec![("startup_64", 0)];
    for name in ["asm_exc_general_protection", "asm_exc_page_fault"] {
        functions.push((name, text.len() as u64));
        text.extend(EXCEPTION_ENTRY);
    }
    functions.push(("cpu_init", text.len() as u64));
    text.extend(MASK);
    functions.push(("entry_SYSCALL_64", text.len() as u64));
    text.extend([0x0F, 0x01, 0xF8]); // swapgs
    functions.push(("code", text.len() as u64));
    let at = text.len() as u64;
    text.extend(code);
    text.resize(text.len().next_multiple_of(16), 0xCC);
    functions.push(("end", text.len() as u64));
    text.extend([PADDING; 3].concat());
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
fn bytes_of_an_operand_are_no_instruction() {
    // mov eax, 0xA20F310F; jmp +0x310F
    let code = [0xB8, 0x0F, 0x31, 0x0F, 0xA2, 0xE9, 0x0F, 0x31, 0, 0];
    let crafted = craft(&code);
    let (bytes, report) = run(&crafted, &PassOptions::default());
    assert_eq!(code_of(&bytes, &crafted, code.len()), code);
    assert!(report.unwrap().rewritten.is_empty());
}

#[test]
fn rdtsc_with_a_prefix_is_refused_or_told_of() {
    let crafted = craft(&[0x66, 0x0F, 0x31, 0xC3]);
    let (_, report) = run(&crafted, &PassOptions::default());
    let text = report.unwrap_err().to_string();
    assert!(text.contains("rdtsc with prefixes at 0x"), "{text}");
    let (bytes, report) = run(&crafted, &PassOptions { tolerate: true, ..PassOptions::default() });
    assert_eq!(code_of(&bytes, &crafted, 3), [0x66, 0x0F, 0x31]);
    assert_eq!(report.unwrap().lacking.len(), 1);
}

#[test]
fn random_numbers_of_a_kernel_are_doubtful_and_not_refused() {
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

#[test]
fn hooks_lead_from_the_entry_into_padding_and_back() {
    let crafted = craft(&[0xC3]);
    let options = PassOptions { syscall_stays_at_cpl3: true, ..PassOptions::default() };
    let (bytes, report) = run(&crafted, &options);
    let hooks = report.unwrap().hooks;
    assert_eq!(hooks.len(), 4);
    let elf = Elf::parse(&crafted.file).unwrap();
    for hook in &hooks[2..] {
        let at = elf.code.file_offset(hook.address).unwrap();
        assert_eq!(crafted.file[at..at + 2], [0xFC, 0xE8], "where cld and call were");
        assert_eq!((bytes[at], bytes[at + 5]), (0xE9, 0x90), "a jump and a no-operation");
        let code = hook.code.unwrap();
        let distance = i32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap());
        assert_eq!((hook.address + 5).wrapping_add_signed(distance.into()), code);
        // It was padding before, and its last instruction jumps back behind the entry's call.
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

#[test]
fn kernel_without_the_places_is_refused_where_they_are_needed() {
    let fixture = ElfFixture::with_functions(&[0x90; 64], &[("startup_64", 0)]);
    let crafted = Crafted { file: fixture.build(), text: fixture.address };
    let (_, report) = run(&crafted, &PassOptions::default());
    assert!(report.unwrap_err().to_string().contains("user rdtsc is not trapped"));
    let tolerant = PassOptions { tolerate: true, ..PassOptions::default() };
    assert_eq!(run(&crafted, &tolerant).1.unwrap().lacking.len(), 1);
    let needy = PassOptions { syscall_stays_at_cpl3: true, ..tolerant };
    assert_eq!(run(&crafted, &needy).1.unwrap().lacking.len(), 2);
}

/// A bzImage around `kernel`, gzipped.
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
    // It has no kallsyms, so the hooks have no places.
    let options = PassOptions { tolerate: true, ..PassOptions::default() };
    let kernel = LinuxKernel::from_bytes("k", &bzimage(&crafted.file), &options).unwrap();
    assert_eq!(kernel.report().rewritten.len(), 1);
    assert_eq!(kernel.report().symbols, 0);
}

#[test]
fn what_is_no_bzimage_is_refused_in_one_line() {
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
    assert!(refused(&|f| put16(f, 0x236, 0)).contains("32-bit"));
    assert!(refused(&|f| f[0x201] = 0).contains("setup header size"));
    assert!(refused(&|f| f.truncate(1100)).contains("truncated"));
    assert!(refused(&|f| put32(f, 0x248, u32::MAX)).contains("truncated"));
    assert!(refused(&|f| put32(f, 0x24C, 0)).contains("no payload"));
    assert!(refused(&|f| f[1024..1027].copy_from_slice(b"BZh")).contains("bzip2"));
    assert!(refused(&|f| f[1030..].fill(0xA5)).contains("cannot be unpacked"));
}

#[test]
fn damaged_kernels_never_panic() {
    let good = bzimage(&craft(&[&RDTSC[..], &CPUID, &[0xC3]].concat()).file);
    let unpacked = craft(&[&RDTSC[..], &[0xC3]].concat()).file;
    for seed in 1..=3000 {
        let mut random = Random(seed);
        let mut file = good.clone();
        for _ in 0..=random.below(4) {
            // The header is where the decisions are.
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
fn noise_around_the_marks_of_kallsyms_and_payloads_never_panics() {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    for seed in 1..=300 {
        let mut random = Random(seed);
        let mut bytes: Vec<u8> = (0..4096).map(|_| random.next() as u8 & 0x1F).collect();
        let at = random.below(4000);
        bytes[at..at + digits.len()].copy_from_slice(&digits);
        assert!(kallsyms::find(&bytes).is_empty());
        let _ = payload::unpack(&bytes[random.below(4096)..]);
    }
}
