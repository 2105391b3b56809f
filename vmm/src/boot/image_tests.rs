use super::*;
use crate::boot::fixture::{BSS_BYTES, ElfFixture, Random, TEXT_ADDRESS, put16, put32, put64};
use crate::boot::{pvh, sweep};

const MEMORY_BYTES: usize = 16 << 20;
const HLT_LOOP: [u8; 3] = [0xF4, 0xEB, 0xFD];

fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn fixture() -> Vec<u8> {
    ElfFixture::with_functions(&HLT_LOOP, &[("start", 0)]).build()
}

fn fault(bytes: Vec<u8>) -> ImageFault {
    let error = GuestImage::from_bytes("guest.elf", bytes).unwrap_err();
    let line = error.to_string();
    assert!(line.starts_with("guest image guest.elf: "), "{line}");
    assert!(!line.contains('\n'), "{line}");
    error.fault
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> ImageFault {
    let mut bytes = fixture();
    change(&mut bytes);
    fault(bytes)
}

// Offsets in the fixture: ELF header 0, program headers 64 (load) and 120 (note), note 176.
const LOAD: usize = 64;
const NOTE: usize = 176;

#[test]
fn valid_image_loads_at_its_addresses() {
    let bytes = fixture();
    let image = GuestImage::from_bytes("guest", bytes.clone()).unwrap();
    let ram = ram();
    let text_end = TEXT_ADDRESS + HLT_LOOP.len() as u64;
    let after = GuestAddress(text_end + BSS_BYTES);
    ram.write_slice(&[0xAA; BSS_BYTES as usize], GuestAddress(text_end)).unwrap();
    ram.write_obj(0x55u8, after).unwrap();

    let entry = image.load(&ram).unwrap();
    assert_eq!(entry, Entry { pvh_entry: TEXT_ADDRESS as u32, image_end: after.0 });
    assert_eq!(image.memory_bytes_min(), after.0);
    let mut memory = vec![0; HLT_LOOP.len() + BSS_BYTES as usize];
    ram.read_slice(&mut memory, GuestAddress(TEXT_ADDRESS)).unwrap();
    assert_eq!(memory[..3], HLT_LOOP);
    assert!(
        memory[3..].iter().all(|&byte| byte == 0),
        "memory of the segment beyond the file is zeroed"
    );
    assert_eq!(ram.read_obj::<u8>(after).unwrap(), 0x55, "memory after the segment is unchanged");
    assert_eq!(image.digest(), xxh3_64(&bytes));
}

#[test]
fn static_bytes_are_not_copied() {
    let bytes: &'static [u8] = Box::leak(fixture().into_boxed_slice());
    let image = GuestImage::from_bytes("built in", bytes).unwrap();
    assert!(std::ptr::eq(image.bytes(), bytes));
}

#[test]
fn each_invalid_file_is_refused_with_its_own_fault() {
    use ImageFault as F;
    assert_eq!(fault(Vec::new()), F::NotElf);
    assert_eq!(fault(b"#!/bin/sh\n".to_vec()), F::NotElf);
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    assert_eq!(fault(kernel), F::CompressedKernel);
    assert_eq!(changed(|b| b[4] = 1), F::ThirtyTwoBit);
    assert_eq!(changed(|b| b[5] = 2), F::Malformed { what: "not little-endian" });
    assert_eq!(changed(|b| put16(b, 18, 183)), F::OtherMachine { machine: 183 });
    assert_eq!(changed(|b| put16(b, 16, 3)), F::PositionIndependent);
    assert_eq!(changed(|b| put16(b, 16, 1)), F::NotExecutable { kind: 1 });
    assert_eq!(changed(|b| b[NOTE + 8] = 17), F::NoPvhEntry);
    assert_eq!(changed(|b| b[NOTE + 12] = b'Y'), F::NoPvhEntry);
    assert_eq!(changed(|b| put32(b, NOTE + 16, 0x20_0000)), F::EntryOutside { entry: 0x20_0000 });
    assert_eq!(changed(|b| b.truncate(40)), F::Truncated { what: "ELF header" });
    assert_eq!(changed(|b| b.truncate(100)), F::Truncated { what: "program headers" });
    assert_eq!(changed(|b| b.truncate(198)), F::Truncated { what: "a segment" });
    assert_eq!(changed(|b| b.truncate(b.len() - 1)), F::Truncated { what: "section headers" });
    let too_many = changed(|b| put16(b, 56, 65));
    assert_eq!(too_many, F::TooMany { what: "program headers", count: 65, max: 64 });
    let too_many = changed(|b| put16(b, 60, 4097));
    assert_eq!(too_many, F::TooMany { what: "sections", count: 4097, max: 4096 });
    assert_eq!(changed(|b| put64(b, LOAD + 24, 0x9000)), F::SegmentBelow { address: 0x9000 });
    let overlap = changed(|b| {
        let load = b[LOAD..LOAD + 56].to_vec();
        b[LOAD + 56..LOAD + 112].copy_from_slice(&load);
    });
    assert_eq!(overlap, F::SegmentsOverlap { address: TEXT_ADDRESS });
    // A segment that is smaller in memory than in the file would be copied beyond its end.
    assert!(matches!(changed(|b| put64(b, LOAD + 40, 0)), F::Malformed { .. }));
    assert!(matches!(changed(|b| put64(b, LOAD + 24, u64::MAX - 1)), F::Malformed { .. }));
}

#[test]
fn oversized_file_is_refused_by_its_size() {
    let bytes_max = 256 << 20;
    let mut bytes = fixture();
    bytes.resize(bytes_max + 1, 0);
    assert_eq!(fault(bytes), ImageFault::TooLarge { bytes: bytes_max + 1, bytes_max });
}

#[test]
fn segment_outside_of_memory_is_named() {
    let mut bytes = fixture();
    put64(&mut bytes, LOAD + 40, MEMORY_BYTES as u64);
    let image = GuestImage::from_bytes("guest", bytes).unwrap();
    let error = image.load(&ram()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "guest image guest: a segment at 0x100000..0x1100000 is outside of guest memory, which ends \
         at 0x1000000; give the guest more memory"
    );
}

#[test]
fn name_with_control_characters_stays_one_line() {
    let error = GuestImage::from_bytes("a\nb\x1b[2J", Vec::new()).unwrap_err();
    assert!(error.to_string().chars().all(|c| !c.is_control()), "{error}");
}

/// Does what a user can do with any file. Returns whether it was a valid image.
fn exercise(ram: &GuestRam, bytes: Vec<u8>) -> bool {
    let Ok(image) = GuestImage::from_bytes("fuzz", bytes) else { return false };
    let report = sweep::sweep(&image, crate::boot::cpu_features::ModelName::V1);
    for policy in [sweep::SweepPolicy::Refuse, sweep::SweepPolicy::Warn] {
        let _ = sweep::check(&report, policy);
    }
    match image.load(ram) {
        Ok(entry) => {
            let _ = pvh::write_boot_info(ram, entry, &pvh::BootInfo::default());
        }
        Err(error) => {
            assert!(matches!(error.fault, ImageFault::SegmentOutside { .. }), "{error}");
        }
    }
    true
}

#[test]
fn random_bytes_never_panic() {
    let ram = ram();
    for seed in 1..=3_000u64 {
        let mut random = Random(seed);
        let mut bytes: Vec<u8> = (0..random.below(600)).map(|_| random.next() as u8).collect();
        // Half of them have a valid identity, so that the rest is parsed as well.
        if seed % 2 == 0 && bytes.len() > 64 {
            bytes[..20].copy_from_slice(&fixture()[..20]);
        }
        exercise(&ram, bytes);
    }
}

#[test]
fn mutated_images_never_panic_and_load_only_inside_memory() {
    let ram = ram();
    let bases =
        [fixture(), ElfFixture::without_sections(&[0x0F, 0x31, 0x0F, 0xC7, 0xF0, 0xF4]).build()];
    let mut accepted = 0;
    for seed in 1..=20_000u64 {
        let mut random = Random(seed);
        let mut bytes = bases[random.below(bases.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes[at] = [0x00, 0xFF, 0x7F, 0x80][random.below(4)],
                3 => {
                    let at = at & !7;
                    let value = [u64::MAX, 1 << 63, 1 << 32, 1 << 20][random.below(4)];
                    if at + 8 <= bytes.len() {
                        put64(&mut bytes, at, value);
                    }
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        accepted += u32::from(exercise(&ram, bytes));
    }
    assert!(accepted > 500, "mutations that are still valid images: {accepted}");
}
