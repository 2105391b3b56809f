//! Access to the guest RAM of a running process from outside, to simulate memory errors.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Returns the mapping that contains the `bytes` bytes of guest RAM in the address space of process
/// `pid` (proc_pid_maps(5)). The kernel may have merged it with a neighbouring mapping.
fn guest_ram(pid: u32, bytes: u64) -> (u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
    let ranges = maps.lines().filter_map(|line| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        Some((address(from)?, address(to)?))
    });
    let mut found = ranges.filter(|(from, to)| to - from >= bytes);
    let range = found.next().unwrap_or_else(|| panic!("no mapping is large enough: {maps}"));
    assert_eq!(found.next(), None, "more than one mapping is large enough: {maps}");
    range
}

/// Opens the address space of process `pid`.
fn memory(pid: u32) -> File {
    let file = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
    file.expect("root may access other processes' memory")
}

/// Writes different contents to every page of the guest RAM of process `pid`, except `margin` bytes at
/// either end. The guest must not use the written pages.
///
/// # Panics
///
/// If the memory cannot be written.
pub fn fill(pid: u32, ram_bytes: u64, margin: u64) {
    let (start, end) = guest_ram(pid, ram_bytes);
    assert!(end - start - ram_bytes < margin, "a neighbour is as large as the margin");
    let file = memory(pid);
    let mut chunk = vec![0x5A; 1 << 20];
    for at in (start + margin..end - margin).step_by(chunk.len()) {
        for (index, page) in chunk.chunks_exact_mut(4096).enumerate() {
            page[..8].copy_from_slice(&(at + index as u64).to_le_bytes());
        }
        file.write_all_at(&chunk, at).expect("guest RAM can be written");
    }
}

/// Flips the lowest bit of the first byte of each occurrence of `text` in the guest RAM of process
/// `pid`. Returns the number of occurrences.
///
/// # Panics
///
/// If the memory cannot be read or written.
pub fn flip_bits(pid: u32, ram_bytes: u64, text: &[u8]) -> usize {
    let (start, end) = guest_ram(pid, ram_bytes);
    let file = memory(pid);
    let mut ram = vec![0; usize::try_from(end - start).expect("it fits")];
    file.read_exact_at(&mut ram, start).expect("guest RAM can be read");
    let found = ram.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text);
    found
        .map(|(at, _)| {
            let flipped = [text[0] ^ 1];
            file.write_all_at(&flipped, start + at as u64).expect("guest RAM can be written");
        })
        .count()
}
