use super::*;
use crate::boot::fixture::{ElfFixture, TEXT_ADDRESS};
use logchan::host_profile::{Answer, NATIVE};

use Verdict::{AllowedNote, Forbidden, Warned};

fn report_of(fixture: &ElfFixture) -> SweepReport {
    sweep(&GuestImage::from_bytes("test", fixture.build()).unwrap(), ModelName::V1)
}

fn found(report: &SweepReport) -> Vec<(&str, u64, Verdict)> {
    report.findings.iter().map(|f| (&f.mnemonic[..], f.address, f.verdict)).collect()
}

/// Hand-assembled instructions; opcodes from the Intel SDM vol. 2 and the AMD APM vol. 3.
const INSTRUCTIONS: &[(&str, &[u8], Verdict)] = &[
    ("rdrand", &[0x0F, 0xC7, 0xF0], Forbidden),
    ("rdrand", &[0x48, 0x0F, 0xC7, 0xF1], Forbidden),
    ("rdseed", &[0x0F, 0xC7, 0xF8], Forbidden),
    ("rdtscp", &[0x0F, 0x01, 0xF9], Forbidden),
    ("rdpid", &[0xF3, 0x0F, 0xC7, 0xF8], Forbidden),
    ("rdpru", &[0x0F, 0x01, 0xFD], Forbidden),
    ("umonitor", &[0xF3, 0x0F, 0xAE, 0xF0], Forbidden),
    ("umwait", &[0xF2, 0x0F, 0xAE, 0xF0], Forbidden),
    ("tpause", &[0x66, 0x0F, 0xAE, 0xF0], Forbidden),
    ("xbegin", &[0xC7, 0xF8, 0, 0, 0, 0], Forbidden),
    ("rdpmc", &[0x0F, 0x33], Warned),
    ("xgetbv", &[0x0F, 0x01, 0xD0], Warned),
    ("xsave", &[0x0F, 0xAE, 0x23], Warned),
    ("xsaveopt", &[0x0F, 0xAE, 0x33], Warned),
    ("xsavec", &[0x0F, 0xC7, 0x23], Warned),
    ("xsaves", &[0x0F, 0xC7, 0x2B], Warned),
    ("vaddps", &[0xC5, 0xFC, 0x58, 0xC1], Warned),
    ("vzeroupper", &[0xC5, 0xF8, 0x77], Warned),
    ("vpxord", &[0x62, 0xF1, 0x7D, 0x48, 0xEF, 0xC0], Warned),
    ("kmovw", &[0xC5, 0xF8, 0x92, 0xC8], Warned),
    ("tilerelease", &[0xC4, 0xE2, 0x78, 0x49, 0xC0], Warned),
    ("syscall", &[0x0F, 0x05], Warned),
    ("sysenter", &[0x0F, 0x34], Warned),
    ("int", &[0xCD, 0x80], Warned),
    ("vmcall", &[0x0F, 0x01, 0xC1], Warned),
    ("vmmcall", &[0x0F, 0x01, 0xD9], Warned),
    ("mwait", &[0x0F, 0x01, 0xC9], Warned),
    ("rdtsc", &[0x0F, 0x31], AllowedNote),
    ("cpuid", &[0x0F, 0xA2], AllowedNote),
    ("rdmsr", &[0x0F, 0x32], AllowedNote),
    ("rcpps", &[0x0F, 0x53, 0xC1], AllowedNote),
    ("fsin", &[0xD9, 0xFE], AllowedNote),
];

#[test]
fn verdicts_on_vector_code_depend_on_the_cpu_model() {
    // VRSQRTPS is an approximation; VPADDD is AVX2, VFMADD213PS FMA, VCVTPH2PS F16C, VAESENC and GFNI neither.
    let others: [(&str, &[u8]); 6] = [
        ("vrsqrtps", &[0xC5, 0xFC, 0x52, 0xC1]),
        ("vpaddd", &[0xC5, 0xFD, 0xFE, 0xC1]),
        ("vfmadd213ps", &[0xC4, 0xE2, 0x7D, 0xA8, 0xC1]),
        ("vcvtph2ps", &[0xC4, 0xE2, 0x7D, 0x13, 0xC1]),
        ("vaesenc", &[0xC4, 0xE2, 0x79, 0xDC, 0xC1]),
        ("xrstor", &[0x0F, 0xAE, 0x2B]),
    ];
    let mut text = Vec::new();
    for bytes in INSTRUCTIONS.iter().map(|(_, bytes, _)| *bytes).chain(others.map(|(_, b)| b)) {
        text.extend(bytes);
    }
    let image = GuestImage::from_bytes("test", ElfFixture::new(&text).build()).unwrap();
    let verdicts = |model| -> std::collections::BTreeMap<String, Verdict> {
        let findings = sweep(&image, model).findings.into_iter();
        findings.map(|finding| (finding.mnemonic, finding.verdict)).collect()
    };
    let [v1, v2, v3] = ModelName::ALL.map(verdicts);
    assert_eq!(v1, v2);
    let changed: Vec<_> = v1
        .iter()
        .filter(|(mnemonic, verdict)| v3.get(*mnemonic) != Some(verdict))
        .map(|(mnemonic, before)| (mnemonic.as_str(), *before, v3.get(mnemonic).copied()))
        .collect();
    let expected = [
        ("vaddps", Warned, None),
        ("vcvtph2ps", Warned, None),
        ("vfmadd213ps", Warned, None),
        ("vpaddd", Warned, None),
        ("vrsqrtps", Warned, Some(AllowedNote)),
        ("vzeroupper", Warned, None),
        ("xgetbv", Warned, Some(AllowedNote)),
        ("xsave", Warned, None),
    ];
    assert_eq!(changed, expected);
    assert_eq!(v3.len() + 6, v1.len(), "no finding of v3 alone");
}

#[test]
fn every_instruction_is_found_at_its_address() {
    let mut text = vec![0x90];
    let mut expected = Vec::new();
    for (mnemonic, bytes, verdict) in INSTRUCTIONS {
        expected.push((*mnemonic, TEXT_ADDRESS + text.len() as u64, *verdict));
        text.extend(*bytes);
        text.extend([0x48, 0x89, 0xD8]); // mov rax, rbx
    }
    let fixture = ElfFixture::new(&text);
    let report = report_of(&fixture);
    assert_eq!(found(&report), expected);
    assert_eq!((report.bytes_swept, report.undecodable), (text.len() as u64, 0));
    let total = report.forbidden + report.warned + report.noted;
    assert_eq!(total, INSTRUCTIONS.len() as u64);
    let file = fixture.build();
    for (finding, (_, bytes, _)) in report.findings.iter().zip(INSTRUCTIONS) {
        let at = finding.file_offset as usize;
        assert_eq!(&file[at..at + usize::from(finding.length)], *bytes);
    }
}

#[test]
fn harmless_instructions_are_not_reported() {
    let text = [
        &[0x0F, 0xC7, 0x0F][..],         // cmpxchg8b [rdi]
        &[0xC4, 0xE2, 0x78, 0xF2, 0xC1], // andn eax, eax, ecx
        &[0xC4, 0xE2, 0x79, 0xF7, 0xC1], // shlx eax, ecx, eax
        &[0x0F, 0xAE, 0x03],             // fxsave [rbx]
        &[0x0F, 0xAE, 0xF8],             // sfence
        &[0x0F, 0x01, 0x07],             // sgdt [rdi]
        &[0xF3, 0x0F, 0x58, 0xC1],       // addss xmm0, xmm1
        &[0xE5, 0xE4, 0xCC, 0xF4, 0xC3], // in eax, 0xE4; int3; hlt; ret
    ]
    .concat();
    let report = report_of(&ElfFixture::new(&text));
    assert_eq!(found(&report), []);
    assert_eq!(report.undecodable, 0);
}

#[test]
fn forbidden_bytes_inside_an_operand_are_not_reported() {
    let text = [
        &[0xB8, 0x0F, 0xC7, 0xF0, 0x90][..], // mov eax, 0x90f0c70f
        &[0x48, 0xB8, 0x0F, 0x01, 0xF9, 0x0F, 0xC7, 0xF8, 0x0F, 0x31], // movabs rax, ...
        &[0x8B, 0x05, 0x0F, 0x31, 0x0F, 0xA2], // mov eax, [rip + 0xa20f310f]
        &[0xC3],
    ]
    .concat();
    assert_eq!(found(&report_of(&ElfFixture::new(&text))), []);
}

#[test]
fn function_symbol_restores_the_alignment_of_the_sweep() {
    // Data that looks like the start of a ten-byte instruction hides the function behind it.
    let text = [0xC3, 0x48, 0xB8, 0x0F, 0xC7, 0xF0, 0xC3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
    let without_symbols = report_of(&ElfFixture::new(&text));
    assert_eq!(found(&without_symbols), []);
    let with_symbols =
        ElfFixture::with_functions(&text, &[("before", 0), ("victim", 3), ("alias", 3)]);
    let report = report_of(&with_symbols);
    assert_eq!(found(&report), [("rdrand", TEXT_ADDRESS + 3, Forbidden)]);
    assert_eq!(report.undecodable, 2, "neither 48 b8 nor b8 is complete before the victim");
}

#[test]
fn undecodable_byte_skips_only_itself() {
    // 0x06 is no instruction in 64-bit mode.
    let text = [0x06, 0x0F, 0x01, 0xF9, 0x06, 0x06, 0x0F, 0x31];
    let report = report_of(&ElfFixture::new(&text));
    let expected =
        [("rdtscp", TEXT_ADDRESS + 1, Forbidden), ("rdtsc", TEXT_ADDRESS + 6, AllowedNote)];
    assert_eq!(found(&report), expected);
    assert_eq!(report.undecodable, 3);
}

#[test]
fn addresses_are_guest_virtual() {
    let mut fixture = ElfFixture::with_functions(&[0x90, 0x0F, 0x31], &[("clock", 0)]);
    fixture.address = 0xFFFF_FFFF_8100_0000;
    let report = report_of(&fixture);
    assert_eq!(found(&report), [("rdtsc", 0xFFFF_FFFF_8100_0001, AllowedNote)]);
    assert_eq!(report.findings[0].symbol.as_deref(), Some("clock+0x1"));
}

#[test]
fn image_without_sections_is_swept_by_segment() {
    let report = report_of(&ElfFixture::without_sections(&[0x90, 0x0F, 0xC7, 0xF0]));
    assert_eq!(found(&report), [("rdrand", TEXT_ADDRESS + 1, Forbidden)]);
    assert_eq!(report.findings[0].symbol, None);
}

#[test]
fn refusal_is_one_line_that_says_what_to_do() {
    let text = [0x90, 0x0F, 0xC7, 0xF0, 0x0F, 0xC7, 0xF8, 0xF3, 0x0F, 0xC7, 0xF8, 0x0F, 0x31];
    let functions = [("_start", 0), ("seed_hash_keys", 1)];
    let report = report_of(&ElfFixture::with_functions(&text, &functions));
    let error = check(&report, SweepPolicy::Refuse).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest has a forbidden instruction: rdrand at 0x100001 (seed_hash_keys) and 2 more; it \
         reads the processor's random numbers, which cannot be trapped; rebuild the guest without \
         it, or run it anyway with --forbidden warn, which may cause divergences"
    );
    let warnings = check(&report, SweepPolicy::Warn).unwrap();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert_eq!(
        warnings[0],
        "forbidden instruction, run anyway: rdrand at 0x100001 (seed_hash_keys) and 1 more of \
         its kind: reads the processor's random numbers, which cannot be trapped"
    );
    assert!(warnings[2].starts_with("note: rdtsc at 0x10000b (seed_hash_keys+0xa): trapped"));
}

#[test]
fn allowed_instructions_pass_with_notes() {
    let report = report_of(&ElfFixture::new(&[0x0F, 0x31, 0x0F, 0x31, 0x0F, 0x05]));
    let warnings = check(&report, SweepPolicy::Refuse).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with("doubtful instruction: syscall at 0x100004: where"));
    assert!(warnings[1].starts_with("note: rdtsc at 0x100000 and 1 more of its kind: trapped"));
    assert_eq!(check(&SweepReport::default(), SweepPolicy::Refuse), Ok(vec![]));
}

#[test]
fn list_is_bounded_per_verdict_and_still_has_the_forbidden_one() {
    let mut text = [0x0F, 0x31].repeat(LISTED_MAX + 5);
    text.extend([0x0F, 0xC7, 0xF0]);
    let report = report_of(&ElfFixture::new(&text));
    assert_eq!(report.noted, LISTED_MAX as u64 + 5);
    assert_eq!(report.findings.len(), LISTED_MAX + 1);
    assert!(check(&report, SweepPolicy::Refuse).is_err());
    let warnings = check(&report, SweepPolicy::Warn).unwrap();
    assert_eq!(warnings[2], "note: 5 further instructions of these kinds are not listed");
}

#[test]
fn symbol_names_are_escaped() {
    let fixture = ElfFixture::with_functions(&[0x0F, 0x31], &[("a\nb\x1b[2J", 0)]);
    let symbol = report_of(&fixture).findings[0].symbol.clone().unwrap();
    assert!(symbol.chars().all(|c| !c.is_control()), "{symbol:?}");
}

#[test]
fn forbidden_instruction_is_a_warning_where_a_probe_saw_it_fault() {
    // rdrand eax; rdtscp
    let report = report_of(&ElfFixture::new(&[0x0F, 0xC7, 0xF0, 0x0F, 0x01, 0xF9]));
    let verdicts = |profile: &HostProfile| {
        let report = report.clone().on_host(profile);
        (report.forbidden, report.warned, report.findings[0].verdict, report.findings[1].verdict)
    };
    let native = |name| 1 << NATIVE.iter().position(|listed| *listed == name).unwrap();
    let neither = HostProfile { emulates_kernel_code: Answer::No, ..HostProfile::UNKNOWN };
    assert_eq!(verdicts(&neither), (0, 2, Verdict::Warned, Verdict::Warned));
    assert!(check(&report.clone().on_host(&neither), SweepPolicy::Refuse).is_ok());
    let svm = HostProfile { native: native("RDRAND"), ..neither };
    assert_eq!(verdicts(&svm), (1, 1, Verdict::Forbidden, Verdict::Warned));
    for emulates_kernel_code in [Answer::Unknown, Answer::Yes] {
        let profile = HostProfile { emulates_kernel_code, ..neither };
        assert_eq!(verdicts(&profile), (2, 0, Verdict::Forbidden, Verdict::Forbidden));
    }
}
