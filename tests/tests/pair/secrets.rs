//! What another process, or a core dump, finds in the memory of a host.

use nix::sys::signal::Signal;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use testbed::guest_memory;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::program::understudy;
use tests::wait_for;

/// A mapping of a process, from smaps(5).
struct Mapping {
    start: u64,
    end: u64,
    flags: Vec<String>,
}

impl Mapping {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }
}

/// Returns the mappings of process `pid` that have memory of their own.
fn mappings(pid: u32) -> Vec<Mapping> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let address = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(a, b)| (address(a), address(b))) {
            mappings.push(Mapping { start, end, flags: Vec::new() });
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags = flags.split_whitespace().map(String::from).collect();
            mappings.last_mut().expect("flags follow a mapping").flags = flags;
        }
    }
    mappings
}

/// Calls `look` with the contents of each mapping of process `pid` that can be read, in parts that overlap by 64 bytes.
fn each_mapping(pid: u32, mut look: impl FnMut(&Mapping, &[u8])) {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut part = vec![0; 4 << 20];
    for mapping in mappings(pid) {
        let mut at = mapping.start;
        while at < mapping.end {
            let length = part.len().min((mapping.end - at) as usize);
            // Mappings of devices can't be read, and hold no secret: the kernel's side of a ring.
            let Ok(read) = memory.read_at(&mut part[..length], at) else { break };
            if read == 0 {
                break;
            }
            look(&mapping, &part[..read]);
            let is_last = at + read as u64 == mapping.end;
            at += if is_last { read as u64 } else { read.max(65) as u64 - 64 };
        }
    }
}

/// Returns where `bytes` begin in `part`.
fn find<'p>(part: &'p [u8], bytes: &'p [u8]) -> impl Iterator<Item = usize> {
    let firsts = part.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
    firsts.map(|(at, _)| at).filter(|at| part[*at..].starts_with(bytes))
}

/// Returns how many copies of each secret process `pid` has in pages that are locked and in no dump, and how many
/// elsewhere.
fn copies<const N: usize>(pid: u32, secrets: [&[u8]; N]) -> [(usize, usize); N] {
    let mut copies = [(0, 0); N];
    each_mapping(pid, |mapping, part| {
        let is_protected =
            mapping.has("lo") && mapping.has("dd") && mapping.end - mapping.start == 4096;
        for (secret, (protected, others)) in secrets.iter().zip(&mut copies) {
            *if is_protected { protected } else { others } += find(part, secret).count();
        }
    });
    copies
}

/// Returns what is derived from the key, as it lies behind the key in its page: the keys of tags and of claims.
fn derived(pid: u32, key: &[u8]) -> [Vec<u8>; 2] {
    let mut derived = None;
    each_mapping(pid, |mapping, part| {
        if derived.is_none()
            && mapping.end - mapping.start == 4096
            && let Some(at) = find(part, key).next()
            && let Some(behind) = part.get(at + 32..at + 96)
        {
            derived = Some([behind[..32].to_vec(), behind[32..].to_vec()]);
        }
    });
    derived.expect("the key is in memory")
}

/// Returns the key of the pair, and its text in the file.
fn key_of(rig: &Rig) -> (Vec<u8>, String) {
    let text = fs::read_to_string(rig.path("key")).unwrap();
    let text = text.trim();
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    ((0..64).step_by(2).map(digit).collect(), text.to_owned())
}

/// The key of a pair that has met, has been handed over and has met again is in one page of each host, and so is what is
/// derived from it. Its text as it was read from the file is nowhere. The process that asks the witness has
/// such a page of its own, and no other process that a host starts has any of it.
#[test]
fn key_is_in_one_protected_page_and_nowhere_else() {
    let rig = Rig::patient();
    let (key, text) = key_of(&rig);
    let mut primary = rig.start(Part::Primary, Host::A, &["--dumpable"]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &["--dumpable"]);
    wait_for!(primary, PairEvent::Protected);
    primary.order("handover");
    wait_for!(backup, PairEvent::WentLive);
    wait_for!(backup, PairEvent::Protected);
    for process in [&mut primary, &mut backup] {
        let pid = process.pid();
        let [tags, claims] = derived(pid, &key);
        let found = copies(pid, [&key, &tags, &claims, text.as_bytes()]);
        assert_eq!(found, [(1, 0), (1, 0), (1, 0), (0, 0)], "{}", process.transcript());
        let mut witnesses = 0;
        for child in children(pid) {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
            let asks = usize::from(name.trim() == "witness");
            let found = copies(child, [&key, &tags, &claims, text.as_bytes()]);
            let expected = [(asks, 0), (asks, 0), (asks, 0), (0, 0)];
            assert_eq!(found, expected, "process {child} of {pid}, {name}");
            witnesses += asks;
        }
        assert_eq!(witnesses, 1, "{}", process.transcript());
    }
}

fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Bytes of a page that are looked for as one part.
const PART_BYTES: usize = 1024;

/// A part of a page with the pattern of [`guest_memory::fill`].
const PATTERN: [u8; PART_BYTES] = [0x5a; PART_BYTES];

fn parts_of_pages(memory: &[u8]) -> usize {
    memory.chunks(PART_BYTES).filter(|chunk| *chunk == PATTERN).count()
}

/// Returns how many parts of guest pages process `pid` has in mappings that no debugger and no kernel dumps (the flag
/// `dd`; core(5), `MADV_DONTDUMP`), and how many elsewhere.
fn guest_pages(pid: u32) -> (usize, usize) {
    let (mut left_out, mut elsewhere) = (0, 0);
    each_mapping(pid, |mapping, part| {
        *if mapping.has("dd") { &mut left_out } else { &mut elsewhere } += parts_of_pages(part);
    });
    (left_out, elsewhere)
}

/// Guest memory itself is in no core, whatever the filter of cores says.
#[test]
fn guest_memory_of_a_vm_is_left_out_of_cores() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &["--dumpable"]);
    wait_for!(primary, PairEvent::TermWon);
    let ((), _clients) = Clients::during(&rig, |_| {
        guest_memory::fill(primary.pid(), guest_memory::DEFAULT_BYTES, 24 << 20).unwrap();
    });
    let (left_out, elsewhere) = guest_pages(primary.pid());
    assert!(left_out > 1000, "the pattern is not there: {left_out}");
    assert_eq!(elsewhere, 0, "of {left_out}");
}

/// Makes a program in `folder` that runs `understudy` there, and may write cores.
fn program_that_dumps_cores(folder: &Path) -> PathBuf {
    let program = folder.join("program");
    let lines = ["#!/bin/sh", "ulimit -c \"$(ulimit -Hc)\"", "cd \"$(dirname \"$0\")\""];
    let text = format!("{}\nexec '{}' \"$@\"\n", lines.join("\n"), understudy().display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

/// Aborts a process that was started in `folder`, and returns the core that the kernel has dumped there.
fn core_of(process: &mut Process, folder: &Path) -> Vec<u8> {
    process.signal(Signal::SIGABRT);
    process.end();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let core = files
        .into_iter()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("core"))
        .expect("this host dumps no core into the folder of a process: see core_pattern");
    fs::read(core.path()).unwrap()
}

/// A pair has copies of guest pages that it has sent and received, and the keys of its session. No core has them.
#[test]
fn core_of_a_protected_pair_has_no_guest_page_and_no_key() {
    let rig = Rig::patient();
    let (key, text) = key_of(&rig);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |part, host: Host| {
        let program = program_that_dumps_cores(folders[host.index()].path());
        rig.start_program(&program, part, host, &["--dumpable", "--no-sandbox"])
    };
    let mut primary = start(Part::Primary, Host::A);
    wait_for!(primary, PairEvent::TermWon);
    let ((), _clients) = Clients::during(&rig, |_| {
        guest_memory::fill(primary.pid(), guest_memory::DEFAULT_BYTES, 24 << 20).unwrap();
    });
    let backup = start(Part::Backup, Host::B);
    wait_for!(primary, PairEvent::Protected);
    for mut process in [primary, backup] {
        let pid = process.pid();
        let folder = folders[process.host().index()].path();
        let secrets = derived(pid, &key).into_iter().chain([key.clone(), text.clone().into()]);
        let (_, elsewhere) = guest_pages(pid);
        assert!(elsewhere > 0, "a core with all memory would have no page either");
        let core = core_of(&mut process, folder);
        assert!(core.starts_with(b"\x7fELF"), "{} bytes", core.len());
        assert_eq!(parts_of_pages(&core), 0, "of {elsewhere}, in {} bytes", core.len());
        for secret in secrets {
            assert_eq!(find(&core, &secret).count(), 0, "in {} bytes", core.len());
        }
    }
}
