//! A machine in a file: saved once, started from there any number of times.
//!
//! ```text
//! offset 0   magic "USTDSNAP", version u16, 6 bytes zero, length of the head u64, its xxh3-64 u64
//! 32         the head: `Head` in postcard's format
//! memory_at  guest memory, flat, holes where it is zero; the file ends with it
//! ```
//!
//! All numbers are little-endian. The memory is not read but mapped, privately: a machine starts in
//! milliseconds, and what it writes never reaches the file. Its checksum covers the pages that are not
//! zero; that the others are is checked, too. A file must not change while machines run
//! from it: [`save`] writes a new one and renames it, which no running machine notices.
//!
//! `VERSION` moves when the layout or `Head` does; states inside are of
//! [`MACHINE_SCHEMA`], as in a log.

use super::image::ImageView;
use super::restore::RestoreError;
use super::schema::{CheckpointError, MACHINE_SCHEMA, decode};
use crate::devices::{Devices, DevicesState};
use crate::kvm::VcpuState;
use crate::mem::guest::read_page;
use crate::mem::layout::{MEMORY_MAX, MEMORY_MIN, PAGE};
use crate::mem::{GuestRam, MemoryError, dirty, guest};
use crate::vcpu::Machine;
use logchan::limits::NAME_BYTES_MAX;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: &[u8; 8] = b"USTDSNAP";
/// Version of the file's layout; 0 is invalid.
const VERSION: u16 = 1;
const PREFIX_BYTES: usize = 32;
/// Pages of memory that are checked at a time.
const PIECE_PAGES: u64 = 64;
/// Most bytes of a head: the states, and a run of pages for every second page of the largest guest.
const HEAD_BYTES_MAX: u64 = 16 << 20;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOf {
    /// xxh3-64 of what the guest was booted from.
    pub guest_digest: u64,
    /// Its name, at most [`NAME_BYTES_MAX`] bytes.
    pub guest_name: String,
    /// Digest and name of the CPU model; for a Linux kernel, with how the host runs kernel code.
    pub cpu_digest: u64,
    /// See `cpu_digest`.
    pub cpu_name: String,
    /// MAC address of the NIC.
    pub nic_mac: [u8; 6],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    schema: u16,
    of: SnapshotOf,
    /// Guest time, nanoseconds.
    now_ns: u64,
    memory_bytes: u64,
    /// Where memory begins in the file, a multiple of the page size.
    memory_at: u64,
    /// Runs of pages that are not zero: first and count, ascending.
    runs: Vec<(u64, u64)>,
    /// xxh3-64 of these pages.
    memory_digest: u64,
    vcpu: Vec<u8>,
    devices: Vec<u8>,
}

/// A snapshot that can't be written or read. The path is named by whoever opened it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("not a snapshot")]
    NotSnapshot,
    /// Another version of the layout.
    #[error("snapshot version {found}, this program reads {VERSION}: save it anew")]
    Version {
        /// The version in the file.
        found: u16,
    },
    /// Machine state of another version.
    #[error(
        "its machine state is of schema {found}, this program reads {MACHINE_SCHEMA}: save it anew"
    )]
    Schema {
        /// The version in the file.
        found: u16,
    },
    /// Bytes are missing, or there are too many.
    #[error("cut short or damaged: {found} bytes where {expected} are due")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes that its head announces.
        expected: u64,
    },
    /// A checksum does not match.
    #[error("damaged: the checksum of its {what} does not match")]
    Checksum {
        /// "head" or "memory".
        what: &'static str,
    },
    /// A sound checksum over something that makes no sense: it was written wrong.
    #[error("its head contradicts itself: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// Guest memory can't be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The machine's state can't be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// A snapshot about to be written, in a file beside its place: made before there is a machine to save,
/// so that a place where nothing can be written is told of at once. Gone if it is not finished.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    part: PathBuf,
    file: File,
    is_finished: bool,
}

impl Draft {
    /// Makes the file.
    pub fn create(path: &Path) -> io::Result<Draft> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = File::create(&part)?;
        Ok(Draft { path: path.to_owned(), part, file, is_finished: false })
    }

    fn finish(&mut self) -> io::Result<()> {
        std::fs::rename(&self.part, &self.path)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Writes a snapshot of the machine that `image` shows and puts it in its place. How many pages of it are
/// not zero.
pub fn save(
    draft: &mut Draft,
    of: &SnapshotOf,
    image: &ImageView<'_>,
) -> Result<u64, SnapshotError> {
    let devices: DevicesState = decode("device", image.devices).expect("it was encoded just now");
    let pages = dirty::nonzero(image.ram);
    let mut digest = Xxh3::new();
    let mut bytes = [0; PAGE as usize];
    for &number in &pages {
        read_page(image.ram, number, &mut bytes);
        add_page(&mut digest, number, &bytes);
    }
    let mut head = Head {
        schema: MACHINE_SCHEMA,
        of: of.clone(),
        now_ns: devices.now_ns,
        memory_bytes: guest::bytes(image.ram),
        memory_at: 0,
        runs: runs(&pages),
        memory_digest: digest.digest(),
        vcpu: image.vcpu.to_vec(),
        devices: image.devices.to_vec(),
    };
    // A number grows by at most nine bytes when it gets its value.
    let length = encode(&head).len() as u64 + 9;
    head.memory_at = (PREFIX_BYTES as u64 + length).next_multiple_of(PAGE);
    let encoded = encode(&head);

    write_file(&mut draft.file, &head, &encoded, &pages, image.ram)?;
    draft.finish()?;
    Ok(pages.len() as u64)
}

fn write_file(
    file: &mut File,
    head: &Head,
    encoded: &[u8],
    pages: &[u64],
    ram: &GuestRam,
) -> io::Result<()> {
    file.set_len(head.memory_at + head.memory_bytes)?;
    let mut prefix = Vec::with_capacity(PREFIX_BYTES);
    prefix.extend(MAGIC);
    prefix.extend(VERSION.to_le_bytes());
    prefix.extend([0; 6]);
    prefix.extend((encoded.len() as u64).to_le_bytes());
    prefix.extend(xxh3_64(encoded).to_le_bytes());
    file.write_all(&prefix)?;
    file.write_all(encoded)?;
    let mut bytes = [0; PAGE as usize];
    for &number in pages {
        read_page(ram, number, &mut bytes);
        file.write_all_at(&bytes, head.memory_at + number * PAGE)?;
    }
    file.sync_all()
}

fn encode(head: &Head) -> Vec<u8> {
    postcard::to_stdvec(head).expect("a head has no map and no unsized field")
}

fn runs(pages: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in pages {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            Some(_) | None => runs.push((number, 1)),
        }
    }
    runs
}

fn add_page(digest: &mut Xxh3, number: u64, bytes: &[u8]) {
    digest.update(&number.to_le_bytes());
    digest.update(bytes);
}

/// A snapshot whose head was read and checked; its memory is checked when it is mapped.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    head: Head,
    digest: u64,
}

impl Snapshot {
    /// Opens and checks a file. Any bytes are refused without panic.
    pub fn open(path: &Path) -> Result<Snapshot, SnapshotError> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        let mut prefix = [0; PREFIX_BYTES];
        file.read_exact(&mut prefix).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::NotSnapshot,
            _ => error.into(),
        })?;
        if !prefix.starts_with(MAGIC) {
            return Err(SnapshotError::NotSnapshot);
        }
        let word = |at: usize| u64::from_le_bytes(prefix[at..at + 8].try_into().expect("8 bytes"));
        match u16::from_le_bytes([prefix[8], prefix[9]]) {
            VERSION => {}
            version => return Err(SnapshotError::Version { found: version }),
        }
        let (length, digest) = (word(16), word(24));
        let expected = length.saturating_add(PREFIX_BYTES as u64);
        if expected > found || length > HEAD_BYTES_MAX {
            return Err(SnapshotError::Length { found, expected });
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        if xxh3_64(&bytes) != digest {
            return Err(SnapshotError::Checksum { what: "head" });
        }
        let head = read_head(&bytes)?;
        let expected = head.memory_at + head.memory_bytes;
        match expected == found {
            true => Ok(Snapshot { file, head, digest }),
            false => Err(SnapshotError::Length { found, expected }),
        }
    }

    /// What it is of.
    pub fn of(&self) -> &SnapshotOf {
        &self.head.of
    }

    /// Guest time when it was saved, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.head.now_ns
    }

    /// Bytes of guest memory.
    pub fn memory_bytes(&self) -> u64 {
        self.head.memory_bytes
    }

    /// One number for all of it: equal for equal snapshots.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Guest memory as it was saved, mapped privately, its checksum compared.
    pub fn map_memory(&self) -> Result<GuestRam, SnapshotError> {
        self.check_memory()?;
        let file = self.file.try_clone()?;
        Ok(guest::map_private(file, self.head.memory_at, self.head.memory_bytes)?)
    }

    /// Compares memory with its checksum. Read, not mapped: a page that the guest never asks for is then
    /// never in the machine's own memory.
    fn check_memory(&self) -> Result<(), SnapshotError> {
        let mut digest = Xxh3::new();
        let mut piece = vec![0; PIECE_PAGES as usize * PAGE as usize];
        for &(first, count) in &self.head.runs {
            for start in (first..first + count).step_by(PIECE_PAGES as usize) {
                let pages = PIECE_PAGES.min(first + count - start);
                let piece = &mut piece[..(pages * PAGE) as usize];
                self.file.read_exact_at(piece, self.head.memory_at + start * PAGE)?;
                for (number, bytes) in (start..).zip(piece.chunks_exact(PAGE as usize)) {
                    add_page(&mut digest, number, bytes);
                }
            }
        }
        match digest.digest() == self.head.memory_digest && self.gaps_are_zero(&mut piece)? {
            true => Ok(()),
            false => Err(SnapshotError::Checksum { what: "memory" }),
        }
    }

    /// Whether memory is zero where no run has it: what is there is mapped as well. Holes of the file are
    /// not read, so this takes time only for a file that was copied without them.
    fn gaps_are_zero(&self, piece: &mut [u8]) -> io::Result<bool> {
        let Head { memory_at, memory_bytes, runs, .. } = &self.head;
        let starts = std::iter::once(0).chain(runs.iter().map(|(first, count)| first + count));
        let ends = runs.iter().map(|&(first, _)| first).chain([memory_bytes / PAGE]);
        for (start, end) in starts.zip(ends) {
            let (mut at, end) = (memory_at + start * PAGE, memory_at + end * PAGE);
            while let Some(data) = self.data_in(at, end)? {
                let length = (piece.len() as u64).min(end - data);
                let piece = &mut piece[..length as usize];
                self.file.read_exact_at(piece, data)?;
                if piece.iter().any(|&byte| byte != 0) {
                    return Ok(false);
                }
                at = data + length;
            }
        }
        Ok(true)
    }

    /// Where in `at..end` of the file bytes begin that are in no hole.
    fn data_in(&self, at: u64, end: u64) -> io::Result<Option<u64>> {
        if at >= end {
            return Ok(None);
        }
        match lseek(&self.file, at as i64, Whence::SeekData) {
            Ok(data) => Ok(Some(data as u64).filter(|&data| data < end)),
            Err(Errno::ENXIO) => Ok(None),
            // A file system that knows of no holes.
            Err(Errno::EINVAL) => Ok(Some(at)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts a new machine, whose memory [`Snapshot::map_memory`] gave, into the saved state.
    pub fn restore(&self, machine: &mut Machine) -> Result<(), RestoreError> {
        let vcpu: VcpuState = decode("vCPU", &self.head.vcpu)?;
        let devices: DevicesState = decode("device", &self.head.devices)?;
        let devices = Devices::restore(devices)
            .map_err(|error| CheckpointError::Devices { what: error.to_string() })?;
        machine.is_blank = false;
        machine.vcpu.restore(&vcpu)?;
        machine.devices = devices;
        Ok(())
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, SnapshotError> {
    // The schema comes first, so that it can be read of a head of any other.
    let schema = postcard::take_from_bytes::<u16>(bytes).map(|(schema, _)| schema);
    match schema {
        Ok(MACHINE_SCHEMA) => {}
        Ok(found) => return Err(SnapshotError::Schema { found }),
        Err(_) => return Err(SnapshotError::Malformed { what: "it has no schema" }),
    }
    let malformed = |what| Err(SnapshotError::Malformed { what });
    let Ok((head, [])) = postcard::take_from_bytes::<Head>(bytes) else {
        return malformed("it does not decode");
    };
    if head.memory_at % PAGE != 0 || head.memory_at < PREFIX_BYTES as u64 + bytes.len() as u64 {
        return malformed("memory's place");
    }
    // Before anything of that size is read.
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&head.memory_bytes)
        || head.memory_bytes % PAGE != 0
        || head.memory_at.checked_add(head.memory_bytes).is_none()
    {
        return malformed("memory's size");
    }
    if head.of.guest_name.len().max(head.of.cpu_name.len()) > NAME_BYTES_MAX {
        return malformed("a name's length");
    }
    let pages = head.memory_bytes / PAGE;
    let mut next = 0;
    for &(first, count) in &head.runs {
        let end = first.checked_add(count).filter(|&end| end <= pages && count > 0);
        match end {
            Some(end) if first >= next => next = end,
            Some(_) | None => return malformed("runs of pages"),
        }
    }
    Ok(head)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
