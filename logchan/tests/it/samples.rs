//! Fixed entries, at least one of every kind, and a log made of them.

use logchan::disk_copy::{DiskCopy, Generation};
use logchan::entry::{DiskStatus, Entry, PageBytes, REGISTERS, RegisterDelta, StateBytes};
use logchan::host_profile::{Answer, HostProfile};
use logchan::ids::{Claimant, Term};
use logchan::limits::{DISK_EXTENTS_BYTES, PAGE_BYTES};
use logchan::log_block::BlockWriter;
use logchan::log_header::{LogHeader, LoggedDisk};
use logchan::page_delta::PageDelta;

/// A page in which every byte depends on its offset.
static PAGE: [u8; PAGE_BYTES] = {
    let mut page = [0; PAGE_BYTES];
    let mut at = 0;
    while at < PAGE_BYTES {
        page[at] = (at % 251) as u8;
        at += 1;
    }
    page
};

/// An ARP request: who has 192.0.2.1, tell 192.0.2.2.
static FRAME: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x08, 0x06, 0x00, 0x01,
    0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 192, 0, 2, 2, 0, 0, 0,
    0, 0, 0, 192, 0, 2, 1,
];

/// Delta: XORs byte 3 of word 0 of line 1 with 0x05, and bytes 0 and 1 of word 7 of line 63 with 0x02
/// and 0x01.
static DELTA: [u8; 15] = [2, 0, 0, 0, 0, 0, 0, 0x80, 1, 8, 5, 0x80, 3, 2, 1];

/// What a read of one sector returned.
static SECTOR: [u8; 512] = [0x5a; 512];

const DIGEST: u64 = 0x0123_4567_89ab_cdef;

fn registers() -> RegisterDelta {
    let mut xor = [0; REGISTERS];
    xor[0] = 0x7f;
    xor[6] = 0x80;
    xor[16] = u64::MAX;
    xor[17] = 0x0246;
    RegisterDelta { changed: 1 << 0 | 1 << 6 | 1 << 16 | 1 << 17, xor }
}

/// Returns every sample with the name of its fixture, in the order of a legal log.
pub(crate) fn samples() -> Vec<(&'static str, Entry<'static>)> {
    let delta = PageDelta::new(&DELTA).expect("a valid delta");
    vec![
        (
            "checkpoint_begin",
            Entry::CheckpointBegin {
                full: true,
                pages: 2,
                vcpu: StateBytes::Whole(b"vcpu"),
                devices: StateBytes::Whole(b"devices"),
            },
        ),
        ("page_zero", Entry::Page { number: 0x100, bytes: PageBytes::Zero }),
        ("page_raw", Entry::Page { number: 0xff_ffff_ffff, bytes: PageBytes::Raw(&PAGE) }),
        ("checkpoint_end", Entry::CheckpointEnd { digest: DIGEST }),
        ("exit", Entry::Exit { digest: DIGEST, registers: None }),
        ("clock", Entry::Clock { advance_ns: 1_000_000 }),
        ("wall_clock", Entry::WallClock { unix_ns: 1_700_000_000_123_456_789 }),
        ("entropy", Entry::Entropy(&[0xe0, 0xe1, 0xe2, 0xe3])),
        ("output", Entry::Output { length: 42, digest: DIGEST }),
        ("frame", Entry::Frame(&FRAME)),
        ("console", Entry::Console(b"ls\n")),
        (
            "disk_done",
            Entry::DiskDone {
                disk: 0,
                number: 1,
                status: DiskStatus::Done,
                digest: DIGEST,
                data: &[],
            },
        ),
        (
            "disk_failed",
            Entry::DiskDone {
                disk: 3,
                number: 300,
                status: DiskStatus::Failed,
                digest: 0,
                data: &[],
            },
        ),
        (
            "disk_data",
            Entry::DiskDone {
                disk: 1,
                number: 2,
                status: DiskStatus::Done,
                digest: DIGEST,
                data: &SECTOR,
            },
        ),
        ("interrupt", Entry::Interrupt { vector: 0x2b }),
        ("exit_registers", Entry::Exit { digest: DIGEST, registers: Some(registers()) }),
        ("window", Entry::Window { digest: DIGEST }),
        (
            "checkpoint_begin_changes",
            Entry::CheckpointBegin {
                full: false,
                pages: 1,
                vcpu: StateBytes::Delta(delta),
                devices: StateBytes::Whole(b"devices"),
            },
        ),
        ("page_changed", Entry::Page { number: 0x100, bytes: PageBytes::Delta(delta) }),
        ("checkpoint_end_changes", Entry::CheckpointEnd { digest: !DIGEST }),
        (
            "end",
            Entry::End {
                natural_exits: 2,
                interrupts: 1,
                memory_digest: DIGEST,
                state_digest: !DIGEST,
            },
        ),
    ]
}

/// Returns the entries of a log, and those that only the channel carries.
pub(crate) fn channel_samples() -> Vec<(&'static str, Entry<'static>)> {
    let mut samples = samples();
    samples.push(("hand_over", Entry::HandOver));
    let generation = Some(Generation { term: Term(3), owner: Claimant(DIGEST) });
    let extents = &[0x81; DISK_EXTENTS_BYTES];
    let messages = [
        ("disk_copy_have", DiskCopy::Have { disk: 0, generation, extents }),
        ("disk_copy_have_none", DiskCopy::Have { disk: 1, generation: None, extents }),
        ("disk_copy_digests", DiskCopy::Digests { disk: 0, block: 300, digests: &[0x5a; 32] }),
        ("disk_copy_wanted", DiskCopy::Wanted { disk: 0, block: 300, blocks: 0b10 }),
        ("disk_copy_zeros", DiskCopy::Zeros { disk: 3, sector: 0, sectors: u32::MAX }),
        ("disk_copy_data", DiskCopy::Data { disk: 0, sector: 38_528, data: &[0x5a; 512] }),
        ("disk_copy_flush", DiskCopy::Flush { disk: 2, mark: 300 }),
        ("disk_copy_flushed", DiskCopy::Flushed { disk: 2, mark: 300 }),
    ];
    samples.extend(messages.map(|(name, message)| (name, Entry::DiskCopy(message))));
    samples
}

pub(crate) fn header() -> LogHeader {
    LogHeader {
        recorded_at_unix_s: 1_700_000_000,
        memory_bytes: 64 << 20,
        vcpus: 1,
        machine_schema: 3,
        nic_mac: [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
        guest_digest: DIGEST,
        cpu_digest: !DIGEST,
        host_profile: HostProfile {
            emulates_kernel_code: Answer::Yes,
            syscall_stays_at_cpl3: Answer::No,
            sysenter_bits: 64,
            native: 0x123,
            cpuid_digest: 0x0403_0201,
            ..HostProfile::UNKNOWN
        },
        disks: vec![
            LoggedDisk {
                sectors: 2048,
                read_only: false,
                serial: *b"data\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                digest: Some(DIGEST),
                reads_logged: false,
            },
            LoggedDisk {
                sectors: 8,
                read_only: true,
                serial: [0; 20],
                digest: None,
                reads_logged: true,
            },
        ],
        guest_name: "reference guest".into(),
        cpu_name: "x86-64-v2, no rdrand".into(),
    }
}

/// Returns a block of some 200 bytes with all samples except the raw page.
pub(crate) fn small_block(writer: &mut BlockWriter) -> Vec<u8> {
    for (name, entry) in samples() {
        if name != "page_raw" {
            writer.push(&entry);
        }
    }
    writer.take_block().to_vec()
}

/// Returns the encoded entry.
pub(crate) fn encoded(entry: &Entry<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    logchan::entry_codec::encode(entry, &mut bytes);
    bytes
}
