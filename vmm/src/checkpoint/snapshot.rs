//! A snapshot: a machine saved in a file, from which any number of machines can be started.
//!
//! ```text
//! offset 0   magic "USTDSNAP", version u16, 6 bytes zero, length of the head u64, its xxh3-64 u64
//! 32         the head: `Head` in postcard's format
//! memory_at  guest memory, flat, with holes where it is zero
//!            for each disk, what the guest has written to it (`vmm/src/disk/frozen.rs`); the file ends with it
//! ```
//!
//! All numbers are little-endian. The memory checksum covers the pages that are not zero. Only these are read; the
//! others are zero in the machine, whatever the file has there.
//!
//! A machine reads its memory from the file before it runs, so the file may change afterwards. It was mapped once: a
//! guest then found other contents, or zeros, when somebody copied another file over it. What was written to disks is
//! read when the guest reads it, and checked each time. The images below are not part of the file: a [`SavedDisk`] has
//! their digests.
//!
//! `VERSION` changes with the layout or `Head`. The states inside are of schema [`MACHINE_SCHEMA`], as in
//! a log.

use super::restore::RestoreError;
use super::schema::{CheckpointError, MACHINE_SCHEMA, decode};
use crate::devices::{Devices, DevicesState, DiskConfig};
use crate::disk::{Changes, DiskInfo, Frozen, FrozenError, Section};
use crate::files::lock::{FileLock, try_lock};
use crate::files::{Access, FileError, input};
use crate::kvm::VcpuState;
use crate::limits::SNAPSHOT_HEAD_BYTES_MAX;
use crate::mem::layout::{MEMORY_MAX, MEMORY_MIN, PAGE};
use crate::mem::{GuestRam, MemoryError, dirty, guest};
use crate::vcpu::Machine;
use logchan::host_profile::HostProfile;
use logchan::limits::{DISK_SECTORS_MAX, DISKS_MAX, NAME_BYTES_MAX};
use replication::checkpoint::CheckpointImage;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use vm_memory::{Bytes, GuestAddress};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: &[u8; 8] = b"USTDSNAP";
/// Version of the file's layout; 0 is invalid.
const VERSION: u16 = 3;
const PREFIX_BYTES: usize = 32;
/// Bytes of the unit in which disks are measured.
const SECTOR_BYTES: u64 = 512;
/// Pages of memory that are checked at a time.
const PIECE_PAGES: u64 = 64;

/// Identifies the machine that a snapshot contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotIdentity {
    /// xxh3-64 of the image or kernel that the guest was booted from.
    pub guest_digest: u64,
    /// Name of that image or kernel, at most [`NAME_BYTES_MAX`] bytes.
    pub guest_name: String,
    /// Digest of the CPU model.
    pub cpu_digest: u64,
    /// How the host ran the guest.
    #[serde(with = "profile_bytes")]
    pub host_profile: HostProfile,
    /// Name of the CPU model.
    pub cpu_name: String,
    /// MAC address of the NIC.
    pub nic_mac: [u8; 6],
}

/// A disk of the machine in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDisk {
    /// What the machine knows about it.
    pub info: DiskInfo,
    /// Path of the image when the machine was saved, at most [`NAME_BYTES_MAX`] bytes.
    pub image: String,
    /// Digest of the image, which the guest has not changed; `None` if it was not computed.
    pub digest: Option<u64>,
    /// What the guest has written.
    changes: Section,
}

/// A disk of a machine that is being saved.
#[derive(Debug)]
pub struct DiskToSave {
    /// As in [`SavedDisk`].
    pub info: DiskInfo,
    /// As in [`SavedDisk`].
    pub image: String,
    /// As in [`SavedDisk`].
    pub digest: Option<u64>,
    /// What the guest has written.
    pub changes: Changes,
}

/// What was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Pages of memory that are not zero.
    pub pages: u64,
    /// Blocks of 4 KiB that the guest has written to disks, and that are not zero.
    pub disk_blocks: u64,
    /// Requests to disks that were in flight.
    pub disk_requests: u64,
}

/// A host profile as the bytes of its own encoding.
mod profile_bytes {
    use logchan::host_profile::{HOST_PROFILE_BYTES, HostProfile};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        profile: &HostProfile,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        profile.encode().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<HostProfile, D::Error> {
        let bytes = <[u8; HOST_PROFILE_BYTES]>::deserialize(deserializer)?;
        HostProfile::decode(&bytes).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    schema: u16,
    identity: SnapshotIdentity,
    /// Guest time, nanoseconds.
    now_ns: u64,
    memory_bytes: u64,
    /// Offset in the file at which memory begins, a multiple of the page size.
    memory_at: u64,
    /// Runs of pages that are not zero: first page and number of pages, ascending.
    runs: Vec<(u64, u64)>,
    /// xxh3-64 over the numbers and contents of these pages.
    memory_digest: u64,
    vcpu: Vec<u8>,
    devices: Vec<u8>,
    disks: Vec<SavedDisk>,
}

impl Head {
    /// Returns where what was written to each disk begins in the file, and where the last one ends.
    fn disks_at(&self) -> Option<(Vec<u64>, u64)> {
        let mut at = self.memory_at.checked_add(self.memory_bytes)?;
        let mut places = Vec::new();
        for disk in &self.disks {
            places.push(at);
            at = at.checked_add(disk.changes.bytes()?)?;
        }
        Some((places, at))
    }
}

/// A snapshot cannot be written or read. The caller that opened it adds the path.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a snapshot.
    #[error("not a snapshot")]
    NotSnapshot,
    /// The layout is of another version.
    #[error("snapshot version {found}, this program reads {VERSION}: save it anew")]
    Version {
        /// The version in the file.
        found: u16,
    },
    /// The machine state is of another schema version.
    #[error(
        "its machine state is of schema {found}, this program reads {MACHINE_SCHEMA}: save it anew"
    )]
    Schema {
        /// The version in the file.
        found: u16,
    },
    /// The file is too short or too long.
    #[error("cut short or damaged: {found} bytes found, {expected} expected")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Length according to its head, bytes.
        expected: u64,
    },
    /// A checksum does not match.
    #[error("damaged: the checksum of its {what} does not match")]
    Checksum {
        /// "head" or "memory".
        what: &'static str,
    },
    /// The checksum matches, but the contents are invalid: the writer wrote it wrong.
    #[error("its head is invalid: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// Guest memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The machine's state cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// What was written to a disk can't be used.
    #[error(transparent)]
    Disk(#[from] FrozenError),
}

/// Writes a snapshot of the machine in `image`, whose disks are `disks`, to `file`, which is empty.
///
/// # Errors
///
/// The file cannot be written, or what was written to a disk can't be read.
pub fn save(
    file: &mut File,
    identity: &SnapshotIdentity,
    image: &dyn CheckpointImage,
    disks: Vec<DiskToSave>,
) -> Result<Saved, SnapshotError> {
    let devices: DevicesState = decode("device", image.devices()).expect("this program encoded it");
    let mut pages = Vec::new();
    let mut digest = Xxh3::new();
    let mut bytes = [0; PAGE as usize];
    for number in 0..image.memory_pages() {
        image.read_page(number, &mut bytes);
        if bytes != [0; PAGE as usize] {
            add_page(&mut digest, number, &bytes);
            pages.push(number);
        }
    }
    let (mut saved_disks, mut changes) = (Vec::new(), Vec::new());
    for disk in disks {
        let DiskToSave { info, image, digest, changes: mut written } = disk;
        saved_disks.push(SavedDisk { info, image, digest, changes: written.section()? });
        changes.push(written);
    }
    let mut head = Head {
        schema: MACHINE_SCHEMA,
        identity: identity.clone(),
        now_ns: devices.now_ns,
        memory_bytes: image.memory_pages() * PAGE,
        memory_at: 0,
        runs: runs(&pages),
        memory_digest: digest.digest(),
        vcpu: image.vcpu().to_vec(),
        devices: image.devices().to_vec(),
        disks: saved_disks,
    };
    // `memory_at` is still 0 here. Its encoding grows by at most nine bytes when it gets its value.
    let length = encode(&head).len() as u64 + 9;
    head.memory_at = (PREFIX_BYTES as u64 + length).next_multiple_of(PAGE);
    write_file(file, &head, &pages, image)?;
    let (places, _end) = head.disks_at().expect("each section has a possible length");
    for ((written, disk), at) in changes.iter_mut().zip(&head.disks).zip(places) {
        written.write(&disk.changes, file, at)?;
    }
    file.sync_all()?;
    Ok(Saved {
        pages: pages.len() as u64,
        disk_blocks: head.disks.iter().map(|disk| disk.changes.blocks()).sum(),
        disk_requests: devices.disk_requests() as u64,
    })
}

/// Writes everything but the disks, and makes the file as long as it will be.
fn write_file(
    file: &mut File,
    head: &Head,
    pages: &[u64],
    image: &dyn CheckpointImage,
) -> io::Result<()> {
    let encoded = encode(head);
    let (_, end) = head.disks_at().expect("each section has a possible length");
    file.set_len(end)?;
    let mut prefix = Vec::with_capacity(PREFIX_BYTES);
    prefix.extend(MAGIC);
    prefix.extend(VERSION.to_le_bytes());
    prefix.extend([0; 6]);
    prefix.extend((encoded.len() as u64).to_le_bytes());
    prefix.extend(xxh3_64(&encoded).to_le_bytes());
    file.write_all(&prefix)?;
    file.write_all(&encoded)?;
    let mut bytes = [0; PAGE as usize];
    for &number in pages {
        image.read_page(number, &mut bytes);
        file.write_all_at(&bytes, head.memory_at + number * PAGE)?;
    }
    Ok(())
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

/// A snapshot file whose head has been read and checked. Its memory is checked when it is mapped.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    head: Head,
    digest: u64,
}

impl Snapshot {
    /// Opens a file and checks its head. Arbitrary bytes never cause a panic. The file has a shared lock until this
    /// value is dropped.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is being written, is not a snapshot, is damaged, or is of another version.
    pub fn open(path: &Path, access: Access) -> Result<Snapshot, SnapshotError> {
        let mut file = input::open_trusted(path, access)?;
        if !try_lock(&file, FileLock::Shared)? {
            return Err(FileError::InUse.into());
        }
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
        if expected > found || length > SNAPSHOT_HEAD_BYTES_MAX {
            return Err(SnapshotError::Length { found, expected });
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        if xxh3_64(&bytes) != digest {
            return Err(SnapshotError::Checksum { what: "head" });
        }
        let head = read_head(&bytes)?;
        let expected = head.disks_at().map_or(u64::MAX, |(_, end)| end);
        match expected == found {
            true => Ok(Snapshot { file, head, digest }),
            false => Err(SnapshotError::Length { found, expected }),
        }
    }

    /// Returns which machine the snapshot contains.
    pub fn identity(&self) -> &SnapshotIdentity {
        &self.head.identity
    }

    /// Returns the guest time when it was saved, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.head.now_ns
    }

    /// Returns the bytes of guest memory.
    pub fn memory_bytes(&self) -> u64 {
        self.head.memory_bytes
    }

    /// Returns the disks of the machine.
    pub fn disks(&self) -> &[SavedDisk] {
        &self.head.disks
    }

    /// Opens what the guest has written to each disk. The file remains open, and locked, for as long as a VM uses it.
    ///
    /// # Errors
    ///
    /// It can't be read, or is damaged.
    pub fn changes(&self) -> Result<Vec<Frozen>, SnapshotError> {
        let malformed = SnapshotError::Malformed { what: "what was written to disks" };
        let (places, _end) = self.head.disks_at().ok_or(malformed)?;
        let mut changes = Vec::new();
        for (disk, at) in self.head.disks.iter().zip(places) {
            let bytes = disk.info.sectors * SECTOR_BYTES;
            changes.push(Frozen::open(&self.file, at, &disk.changes, bytes)?);
        }
        Ok(changes)
    }

    /// Returns a digest of the whole snapshot: equal for equal snapshots.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Reads the saved guest memory into new memory and checks it against its checksum. What becomes of the file
    /// afterwards does not matter.
    ///
    /// # Errors
    ///
    /// The memory is damaged, can't be read, or can't be allocated.
    pub fn load_memory(&self) -> Result<GuestRam, SnapshotError> {
        let ram = guest::allocate(self.head.memory_bytes)?;
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
                ram.write_slice(piece, GuestAddress(start * PAGE))
                    .expect("the head's runs are within memory");
            }
        }
        dirty::clear_vmm_written(&ram);
        match digest.digest() == self.head.memory_digest {
            true => Ok(ram),
            false => Err(SnapshotError::Checksum { what: "memory" }),
        }
    }

    /// Restores the saved state into a new machine, whose memory must come from [`Snapshot::load_memory`].
    ///
    /// # Errors
    ///
    /// The saved state is invalid, or KVM refused it.
    pub fn restore(&self, machine: &mut Machine) -> Result<(), RestoreError> {
        let vcpu: VcpuState = decode("vCPU", &self.head.vcpu)?;
        let devices: DevicesState = decode("device", &self.head.devices)?;
        if !self.has_disks(&devices.disks()) {
            let what = String::from("its disks are not those of the snapshot");
            return Err(CheckpointError::Devices { what }.into());
        }
        let devices = Devices::restore(devices)
            .map_err(|error| CheckpointError::Devices { what: error.to_string() })?;
        machine.is_blank = false;
        machine.vcpu.restore(&vcpu)?;
        machine.devices = devices;
        Ok(())
    }

    /// Returns whether `disks` are the disks that the head lists.
    fn has_disks(&self, disks: &[Option<DiskConfig>; DISKS_MAX]) -> bool {
        let mut listed = [None; DISKS_MAX];
        for (config, disk) in listed.iter_mut().zip(&self.head.disks) {
            let DiskInfo { sectors, read_only, serial } = disk.info;
            *config = Some(DiskConfig { sectors, read_only, serial });
        }
        listed == *disks
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, SnapshotError> {
    // The schema is the first field, so that it can be read from a head of any version.
    let schema = postcard::take_from_bytes::<u16>(bytes).map(|(schema, _)| schema);
    match schema {
        Ok(MACHINE_SCHEMA) => {}
        Ok(found) => return Err(SnapshotError::Schema { found }),
        Err(_) => return Err(SnapshotError::Malformed { what: "it has no schema" }),
    }
    let malformed = |what| Err(SnapshotError::Malformed { what });
    let Ok((head, [])) = postcard::take_from_bytes::<Head>(bytes) else {
        return malformed("it cannot be decoded");
    };
    if head.memory_at % PAGE != 0 || head.memory_at < PREFIX_BYTES as u64 + bytes.len() as u64 {
        return malformed("memory's offset");
    }
    // Check before anything of that size is read.
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&head.memory_bytes)
        || head.memory_bytes % PAGE != 0
        || head.memory_at.checked_add(head.memory_bytes).is_none()
    {
        return malformed("memory's size");
    }
    if head.identity.guest_name.len().max(head.identity.cpu_name.len()) > NAME_BYTES_MAX {
        return malformed("a name's length");
    }
    let is_possible = |disk: &SavedDisk| {
        (1..=DISK_SECTORS_MAX).contains(&disk.info.sectors)
            && disk.image.len() <= NAME_BYTES_MAX
            && disk.changes.bytes().is_some()
    };
    if head.disks.len() > DISKS_MAX || !head.disks.iter().all(is_possible) {
        return malformed("its disks");
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
