//! Damage to a log is detected: a flipped bit by the block's CRC, a wrong entry in a valid block by the
//! replay that diverges from it.

use logchan::disk_copy::DiskCopy;
use logchan::entry::{Entry, PageBytes, StateBytes};
use logchan::entry_kind::EntryKind;
use logchan::page_delta::PageDelta;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;
use testbed::{GUEST_ADDRESS, TestbedError, clients};
use tests::program::run;
use tests::recording::start_vm;
use tests::surgery::{flipped, last_index, rewrite};

/// Exit codes of a damaged log and of a diverged replay, as listed by `--help`.
const LOG_DAMAGED: i32 = 6;
const DIVERGED: i32 = 8;
const TRUNCATED: i32 = 10;

/// Makes a short recording with every kind of entry except `Console`. A mid-region stop at CPL3 takes
/// two interrupts close together, which a short recording may lack; then it is made again.
static RECORDING: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("all-kinds.ulog");
    for _attempt in 0..20 {
        let rig = start_vm(&["record", "--force", "--log", log.to_str().unwrap()]).unwrap();
        let clients = rig.namespace.enter(|| {
            std::thread::scope(|scope| {
                let ping = scope.spawn(|| rig.namespace.enter(ping));
                clients::fetch(GUEST_ADDRESS, "/burn?ms=100")?;
                clients::fetch(GUEST_ADDRESS, "/status")?;
                ping.join().expect("ping does not panic")
            })
        });
        clients.unwrap();
        rig.stop().unwrap();
        if last_index(&log, kind_is(EntryKind::Window)).is_some() {
            return (folder, log);
        }
    }
    panic!("none of 20 recordings has a mid-region stop at CPL3");
});

fn ping() -> Result<u32, TestbedError> {
    clients::ping(GUEST_ADDRESS, 300, "0.001")
}

fn kind_is(kind: EntryKind) -> impl Fn(&Entry<'_>) -> bool {
    move |entry| EntryKind::of(entry) == kind
}

fn replay(log: &Path) -> (Option<i32>, String) {
    let report = format!("{}.divergence", log.display());
    let output = run(&["replay", log.to_str().unwrap(), "--report", &report]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Replays the recording after changing its last entry of `kind` with `change`. Returns the exit code
/// and standard error.
fn replay_with(
    kind: EntryKind,
    change: impl for<'a> Fn(Entry<'a>, &'a mut Vec<u8>) -> Entry<'a>,
) -> (Option<i32>, String) {
    let (folder, log) = &*RECORDING;
    let target = last_index(log, kind_is(kind))
        .unwrap_or_else(|| panic!("the recording has no {kind} entry"));
    let changed = folder.path().join(format!("changed-{}.ulog", kind.name()));
    rewrite(
        log,
        &changed,
        |index, entry, buffer| {
            if index == target { change(entry, buffer) } else { entry }
        },
    );
    replay(&changed)
}

#[test]
fn wrong_entry_of_each_kind_is_detected() {
    let (_folder, log) = &*RECORDING;
    assert_eq!(replay(log).0, Some(0), "the recording itself replays");
    for kind in EntryKind::ALL {
        let (expected, (code, errors)) = match kind {
            EntryKind::Console | EntryKind::DiskDone => continue,
            EntryKind::Exit => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::Exit { digest, registers } => {
                        Entry::Exit { digest: digest ^ 1, registers }
                    }
                    other => other,
                }),
            ),
            EntryKind::Window => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::Window { digest } => Entry::Window { digest: digest ^ 1 },
                    other => other,
                }),
            ),
            EntryKind::CheckpointBegin => (
                LOG_DAMAGED,
                replay_with(kind, |entry, buffer| match entry {
                    Entry::CheckpointBegin { full, pages, vcpu, devices } => {
                        let vcpu = StateBytes::Whole(flipped(vcpu.bytes(), 8, buffer));
                        Entry::CheckpointBegin { full, pages, vcpu, devices }
                    }
                    other => other,
                }),
            ),
            EntryKind::Page => (
                LOG_DAMAGED,
                replay_with(kind, |entry, buffer| match entry {
                    Entry::Page { number, bytes: PageBytes::Raw(raw) } => {
                        Entry::Page { number, bytes: PageBytes::Raw(flipped(raw, 4095, buffer)) }
                    }
                    Entry::Page { number, bytes: PageBytes::Zero | PageBytes::Delta(_) } => {
                        buffer.resize(4096, 1);
                        Entry::Page { number, bytes: PageBytes::Raw(buffer) }
                    }
                    other => other,
                }),
            ),
            EntryKind::CheckpointEnd => (
                LOG_DAMAGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::CheckpointEnd { digest } => Entry::CheckpointEnd { digest: digest ^ 1 },
                    other => other,
                }),
            ),
            EntryKind::Clock => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::Clock { advance_ns } => Entry::Clock { advance_ns: advance_ns + 1 },
                    other => other,
                }),
            ),
            EntryKind::WallClock => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::WallClock { unix_ns } => {
                        Entry::WallClock { unix_ns: unix_ns + 1_000_000_000 }
                    }
                    other => other,
                }),
            ),
            EntryKind::Entropy => (
                DIVERGED,
                replay_with(kind, |entry, buffer| match entry {
                    Entry::Entropy(bytes) => Entry::Entropy(flipped(bytes, 0, buffer)),
                    other => other,
                }),
            ),
            EntryKind::Frame => (
                DIVERGED,
                replay_with(kind, |entry, buffer| match entry {
                    Entry::Frame(frame) => Entry::Frame(flipped(frame, frame.len() - 1, buffer)),
                    other => other,
                }),
            ),
            EntryKind::Interrupt => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::Interrupt { vector } => Entry::Interrupt { vector: vector ^ 1 },
                    other => other,
                }),
            ),
            EntryKind::Output => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::Output { length, digest } => {
                        Entry::Output { length, digest: digest ^ 1 }
                    }
                    other => other,
                }),
            ),
            EntryKind::End => (
                DIVERGED,
                replay_with(kind, |entry, _| match entry {
                    Entry::End { natural_exits, interrupts, memory_digest, state_digest } => {
                        let memory_digest = memory_digest ^ 1;
                        Entry::End { natural_exits, interrupts, memory_digest, state_digest }
                    }
                    other => other,
                }),
            ),
            EntryKind::HandOver => (
                LOG_DAMAGED,
                replay_with(EntryKind::Clock, |entry, _| match entry {
                    Entry::Clock { .. } => Entry::HandOver,
                    other => other,
                }),
            ),
            EntryKind::DiskCopy => (
                LOG_DAMAGED,
                replay_with(EntryKind::Clock, |entry, _| match entry {
                    Entry::Clock { .. } => {
                        Entry::DiskCopy(DiskCopy::Zeros { disk: 0, sector: 0, sectors: 1 })
                    }
                    other => other,
                }),
            ),
        };
        assert_eq!(code, Some(expected), "{kind}: {errors}");
    }
}

#[test]
fn page_delta_with_a_wrong_value_is_detected() {
    let (folder, log) = &*RECORDING;
    let is_changed = |entry: &Entry<'_>| matches!(entry, Entry::Page { bytes: PageBytes::Delta(delta), .. } if !delta.is_unchanged());
    let index = last_index(log, is_changed).expect("a page was sent more than once");
    let changed = folder.path().join("changed-page.ulog");
    rewrite(log, &changed, |at, entry, buffer| match entry {
        Entry::Page { number, bytes: PageBytes::Delta(changes) } if at == index => {
            // Change the last byte of the last word: another value at the same place.
            buffer.extend_from_slice(changes.bytes());
            let last = buffer.last_mut().expect("something changed");
            *last = if *last == 1 { 2 } else { 1 };
            let changes = PageDelta::new(buffer).expect("as many bytes as before");
            Entry::Page { number, bytes: PageBytes::Delta(changes) }
        }
        other => other,
    });
    let (code, errors) = replay(&changed);
    assert_eq!(code, Some(LOG_DAMAGED), "{errors}");
    assert!(errors.contains("does not match its digest"), "{errors}");
}

#[test]
fn forged_console_input_is_detected() {
    // The reference guest gets no console input, so an entry is inserted after the last halt.
    let (folder, log) = &*RECORDING;
    let last = last_index(log, kind_is(EntryKind::Clock)).unwrap();
    let changed = folder.path().join("changed-console.ulog");
    rewrite(
        log,
        &changed,
        |index, entry, _buffer| {
            if index == last { Entry::Console(b"x") } else { entry }
        },
    );
    assert_eq!(replay(&changed).0, Some(DIVERGED));
}

#[test]
fn divergence_report_has_registers_and_last_entries() {
    let (code, errors) = replay_with(EntryKind::Exit, |entry, _| match entry {
        Entry::Exit { digest, mut registers } => {
            let delta = registers.as_mut().expect("recordings carry registers");
            delta.changed |= 1;
            delta.xor[0] ^= 0x10;
            if delta.xor[0] == 0 {
                delta.changed &= !1;
            }
            Entry::Exit { digest: digest ^ 1, registers }
        }
        other => other,
    });
    assert_eq!(code, Some(DIVERGED), "{errors}");
    let marked: Vec<_> = errors.lines().filter(|line| line.starts_with("! ")).collect();
    assert_eq!(marked.len(), 1, "{errors}");
    assert!(marked[0].starts_with("! rax"), "{errors}");
    assert!(errors.contains("last entries"), "{errors}");
    let (folder, _log) = &*RECORDING;
    let report = folder.path().join("changed-exit.ulog.divergence/report.txt");
    assert!(fs::read_to_string(report).unwrap().contains("registers"));
}

#[test]
fn flipped_bit_anywhere_in_the_file_is_detected() {
    let (folder, log) = &*RECORDING;
    let bytes = fs::read(log).unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let damaged = folder.path().join("flipped.ulog");
    for _flip in 0..40 {
        let (at, bit) = (random.usize(..bytes.len()), random.u8(..8));
        let mut copy = bytes.clone();
        copy[at] ^= 1 << bit;
        fs::write(&damaged, &copy).unwrap();
        let (code, errors) = replay(&damaged);
        assert!(
            matches!(code, Some(LOG_DAMAGED | TRUNCATED)),
            "seed {seed}: bit {bit} of byte {at}: exit code {code:?}: {errors}"
        );
        assert!(!errors.contains("panicked"), "seed {seed}: {errors}");
    }
}
