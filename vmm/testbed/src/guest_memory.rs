//! Access to the guest memory of a running process from outside, to simulate memory errors.

use crate::TestbedError;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Size of the guest memory of a VM with default options, in bytes.
pub const DEFAULT_BYTES: u64 = 64 << 20;

/// The guest memory of a process.
struct GuestMemory {
    /// The process's address space.
    file: File,
    /// The mapping that contains the guest memory. The kernel may have merged it with a neighbouring mapping.
    start: u64,
    end: u64,
}

impl GuestMemory {
    /// Finds the `bytes` bytes of guest memory in process `pid` (proc_pid_maps(5)).
    fn of(pid: u32, bytes: u64) -> Result<GuestMemory, TestbedError> {
        let doing = || TestbedError::client(format!("opening the memory of process {pid}"));
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(doing())?;
        let ranges = maps.lines().filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).ok();
            Some((address(from)?, address(to)?))
        });
        let found: Vec<_> = ranges.filter(|(from, to)| to - from >= bytes).collect();
        let [(start, end)] = found[..] else {
            let count = found.len();
            let text = format!("{count} mappings of process {pid} can be its guest memory");
            return Err(TestbedError::Wrong(text));
        };
        let file = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
        Ok(GuestMemory { file: file.map_err(doing())?, start, end })
    }
}

fn accessing(pid: u32) -> impl FnOnce(io::Error) -> TestbedError {
    TestbedError::client(format!("accessing the guest memory of process {pid}"))
}

/// Writes different contents to every page of the guest memory of process `pid`, except `margin` bytes at
/// either end. The guest must not use the written pages.
///
/// # Errors
///
/// If the memory can't be found or written.
pub fn fill(pid: u32, bytes: u64, margin: u64) -> Result<(), TestbedError> {
    let GuestMemory { file, start, end } = GuestMemory::of(pid, bytes)?;
    if end - start - bytes >= margin {
        return Err(TestbedError::Wrong("a neighbour is as large as the margin".into()));
    }
    let mut chunk = vec![0x5A; 1 << 20];
    for at in (start + margin..end - margin).step_by(chunk.len()) {
        for (index, page) in chunk.chunks_exact_mut(4096).enumerate() {
            page[..8].copy_from_slice(&(at + index as u64).to_le_bytes());
        }
        file.write_all_at(&chunk, at).map_err(accessing(pid))?;
    }
    Ok(())
}

/// Flips the lowest bit of the first byte of each occurrence of `text` in the guest memory of process
/// `pid`. Returns the number of occurrences.
///
/// # Errors
///
/// If the memory can't be found, read or written.
pub fn flip_bits(pid: u32, bytes: u64, text: &[u8]) -> Result<usize, TestbedError> {
    let GuestMemory { file, start, end } = GuestMemory::of(pid, bytes)?;
    let mut ram = vec![0; (end - start) as usize];
    file.read_exact_at(&mut ram, start).map_err(accessing(pid))?;
    let found = ram.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text);
    let found: Vec<u64> = found.map(|(at, _)| at as u64).collect();
    for &at in &found {
        let flipped = [text[0] ^ 1];
        file.write_all_at(&flipped, start + at).map_err(accessing(pid))?;
    }
    Ok(found.len())
}
