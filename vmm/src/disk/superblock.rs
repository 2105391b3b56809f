//! [`Superblock`]: what is known about an image, in a file beside it. [`SuperblockFile`] keeps it through power cuts.
//!
//! The file has two slots of 4 KiB. A change goes into the slot that does not have the newest contents, and counts when it
//! is durable. A slot that a power cut has left half written does not have its checksum, and the other one is used.
//!
//! | offset | field |
//! |---|---|
//! | 0 | `USTDYDSK` |
//! | 8 | version of this layout, u16 |
//! | 10 | state, u8 (1: whole, 2: copying) |
//! | 11 | flags, u8 (bit 0: base, bit 1: verified, bit 2: holder) |
//! | 12 | zero, u32 |
//! | 16 | sequence, u64: the slot with the higher one is newer |
//! | 24 | VM, u64 |
//! | 32 | size of the disk in bytes, u64 |
//! | 40 | base: term u64, owner u64 |
//! | 56 | verified: term u64, owner u64 |
//! | 72 | holder, u64 |
//! | 80 | extents, 512 bytes |
//! | 592 | xxh3-64 of the bytes before |
//!
//! Numbers are little-endian. What a flag says is absent is zero.

use super::extents::Extents;
use super::lock::{ImageLock, lock};
use logchan::disk_copy::Generation;
use logchan::ids::{Claimant, Term, VmId};
use logchan::limits::DISK_EXTENTS_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"USTDYDSK";
const VERSION: u16 = 1;

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 4096;
/// Bytes of the file: two slots.
pub(super) const FILE_BYTES: usize = 2 * SLOT_BYTES;

const EXTENTS_AT: usize = 80;
const DIGEST_AT: usize = EXTENTS_AT + DISK_EXTENTS_BYTES;

const WHOLE: u8 = 1;
const COPYING: u8 = 2;
const HAS_BASE: u8 = 1 << 0;
const HAS_VERIFIED: u8 = 1 << 1;
const HAS_HOLDER: u8 = 1 << 2;

/// Whether an image has the contents of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageState {
    /// It has.
    Whole,
    /// It has a part of it: a copy from another host began and did not end.
    Copying,
}

/// What is known about an image. `vmm/src/disk/boot.rs` has the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The VM that it belongs to.
    pub(super) vm: VmId,
    /// Index of the disk in it: two disks of the same size are not the same.
    pub(super) index: u8,
    /// Size of the disk.
    pub(super) bytes: u64,
    pub(super) state: ImageState,
    /// The run of the VM in which the images of both hosts last had the same contents.
    pub(super) base: Option<Generation>,
    /// The newest claim of the VM when this image was found to be the newest.
    pub(super) verified: Option<Generation>,
    /// The process that uses the image, or used it last.
    pub(super) holder: Option<Claimant>,
    /// What may have changed since `base`.
    pub(super) extents: Extents,
}

impl Superblock {
    /// A new image of disk `index` of `vm`, which nobody has used.
    pub(super) fn new((vm, index): (VmId, u8), bytes: u64) -> Superblock {
        Superblock {
            vm,
            index,
            bytes,
            state: ImageState::Whole,
            base: None,
            verified: None,
            holder: None,
            extents: Extents::NONE,
        }
    }

    fn encode(&self, sequence: u64) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        let flags = flag(self.base.is_some(), HAS_BASE)
            | flag(self.verified.is_some(), HAS_VERIFIED)
            | flag(self.holder.is_some(), HAS_HOLDER);
        let state = match self.state {
            ImageState::Whole => WHOLE,
            ImageState::Copying => COPYING,
        };
        let generation = |generation: Option<Generation>| {
            generation.map_or([0; 2], |Generation { term, owner }| [term.0, owner.0])
        };
        let ([base_term, base_owner], [verified_term, verified_owner]) =
            (generation(self.base), generation(self.verified));
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..10].copy_from_slice(&VERSION.to_le_bytes());
        slot[10] = state;
        slot[11] = flags;
        slot[12] = self.index;
        let words = [
            sequence,
            self.vm.0,
            self.bytes,
            base_term,
            base_owner,
            verified_term,
            verified_owner,
            self.holder.map_or(0, |holder| holder.0),
        ];
        for (place, word) in slot[16..EXTENTS_AT].as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        slot[EXTENTS_AT..DIGEST_AT].copy_from_slice(self.extents.bits());
        let digest = xxh3_64(&slot[..DIGEST_AT]);
        slot[DIGEST_AT..DIGEST_AT + 8].copy_from_slice(&digest.to_le_bytes());
        slot
    }

    /// Decodes a slot. Returns the contents with their sequence number; `None` if it was not written completely.
    fn decode(slot: &[u8]) -> Result<Option<(Superblock, u64)>, BadSuperblock> {
        let Some(digest) = slot.get(DIGEST_AT..DIGEST_AT + 8) else { return Ok(None) };
        if slot[..8] != MAGIC || digest != xxh3_64(&slot[..DIGEST_AT]).to_le_bytes() {
            return Ok(None);
        }
        let version = u16::from_le_bytes([slot[8], slot[9]]);
        if version != VERSION {
            return Err(BadSuperblock::Version { version });
        }
        let state = match slot[10] {
            WHOLE => ImageState::Whole,
            COPYING => ImageState::Copying,
            _ => return Err(BadSuperblock::Damaged),
        };
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(slot[16..EXTENTS_AT].as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [sequence, vm, bytes, base_term, base_owner, verified_term, verified_owner, holder] =
            words;
        let has = |flag| slot[11] & flag != 0;
        let generation = |term, owner| Generation { term: Term(term), owner: Claimant(owner) };
        let mut bits = [0; DISK_EXTENTS_BYTES];
        bits.copy_from_slice(&slot[EXTENTS_AT..DIGEST_AT]);
        let superblock = Superblock {
            vm: VmId(vm),
            index: slot[12],
            bytes,
            state,
            base: has(HAS_BASE).then(|| generation(base_term, base_owner)),
            verified: has(HAS_VERIFIED).then(|| generation(verified_term, verified_owner)),
            holder: has(HAS_HOLDER).then_some(Claimant(holder)),
            extents: Extents::from_bits(bits),
        };
        Ok(Some((superblock, sequence)))
    }
}

/// Why the file beside an image says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSuperblock {
    /// Neither slot is whole. A power cut does not do that.
    #[error("damaged")]
    Damaged,
    /// Another layout.
    #[error("of another version of understudy (layout {version}, this one has {VERSION})")]
    Version {
        /// The layout's version.
        version: u16,
    },
}

/// Where the slots are: a file, or a simulated one in tests.
pub(super) trait Slots {
    /// Writes at `offset`. It is volatile until [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn sync(&mut self) -> io::Result<()>;
}

impl Slots for File {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The newest superblock and its file.
#[derive(Debug)]
pub(super) struct SuperblockFile<S> {
    slots: S,
    sequence: u64,
    /// A write has failed: what the file has is not known.
    failed: Option<io::ErrorKind>,
}

impl<S: Slots> SuperblockFile<S> {
    /// Reads the newest superblock of `bytes`, the contents of the file behind `slots`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn read(
        slots: S,
        bytes: &[u8],
    ) -> Result<(SuperblockFile<S>, Superblock), BadSuperblock> {
        let mut newest: Option<(Superblock, u64)> = None;
        for slot in bytes.chunks(SLOT_BYTES).take(2) {
            if let Some(found) = Superblock::decode(slot)?
                && newest.as_ref().is_none_or(|newest| newest.1 < found.1)
            {
                newest = Some(found);
            }
        }
        let (superblock, sequence) = newest.ok_or(BadSuperblock::Damaged)?;
        Ok((SuperblockFile { slots, sequence, failed: None }, superblock))
    }

    /// Replaces the superblock, durably. After an error, every call fails.
    ///
    /// # Errors
    ///
    /// An error of the host. The file has the old contents or the new ones.
    pub(super) fn store(&mut self, superblock: &Superblock) -> io::Result<()> {
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        self.sequence += 1;
        let slot = (self.sequence % 2) as usize;
        let bytes = superblock.encode(self.sequence);
        let written = self.slots.write(slot * SLOT_BYTES, &bytes);
        let stored = written.and_then(|()| self.slots.sync());
        self.failed = stored.as_ref().err().map(io::Error::kind);
        stored
    }
}

/// Returns the path of the superblock of the image `image`: beside it, with the suffix `.understudy`.
pub(super) fn path_of(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".understudy");
    path.into()
}

/// Makes the file `path` with a first superblock. It has that, or is not there, whenever the power fails.
///
/// # Errors
///
/// An error of the host; [`io::ErrorKind::AlreadyExists`] if the file is there.
pub(super) fn create(path: &Path, first: &Superblock) -> io::Result<SuperblockFile<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // For its owner alone: mode 0600.
    let draft = tempfile::NamedTempFile::new_in(folder)?;
    let mut bytes = [0; FILE_BYTES];
    bytes[..SLOT_BYTES].copy_from_slice(&first.encode(0));
    draft.as_file().write_all_at(&bytes, 0)?;
    draft.as_file().sync_all()?;
    // Nobody else has it yet.
    lock(draft.as_file(), ImageLock::Exclusive)?;
    let file = draft.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(SuperblockFile { slots: file, sequence: 0, failed: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(number: u64) -> Superblock {
        let generation = Generation { term: Term(number), owner: Claimant(!number) };
        let mut superblock = Superblock::new((VmId(7), number as u8), 1 << 30);
        superblock.extents.add_bytes(&(number << 20..(number << 20) + 1), 1 << 30);
        superblock.state =
            if number.is_multiple_of(2) { ImageState::Whole } else { ImageState::Copying };
        superblock.base = (!number.is_multiple_of(3)).then_some(generation);
        superblock.verified = (!number.is_multiple_of(5)).then_some(generation);
        superblock.holder = (!number.is_multiple_of(7)).then_some(Claimant(number));
        superblock
    }

    /// A file whose power fails before an operation, or in it. Sectors that are not durable are old or new, each for itself.
    struct Cut {
        durable: Vec<u8>,
        cached: Vec<u8>,
        operations_left: usize,
        random: fastrand::Rng,
    }

    impl Cut {
        fn fail(&mut self) -> io::Error {
            for (old, new) in self.durable.chunks_mut(512).zip(self.cached.chunks(512)) {
                match self.random.u8(..3) {
                    0 => {}
                    1 => old.copy_from_slice(new),
                    // Torn inside a sector: some disks do that.
                    _ => {
                        let at = self.random.usize(..512);
                        old[..at].copy_from_slice(&new[..at]);
                    }
                }
            }
            io::Error::other("the power failed")
        }
    }

    impl Slots for &mut Cut {
        fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
            let fails = self.operations_left == 0;
            let length = if fails { self.random.usize(..=bytes.len()) } else { bytes.len() };
            self.cached[offset..offset + length].copy_from_slice(&bytes[..length]);
            if fails {
                return Err(self.fail());
            }
            self.operations_left -= 1;
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.operations_left == 0 {
                return Err(self.fail());
            }
            self.operations_left -= 1;
            self.durable.clone_from(&self.cached);
            Ok(())
        }
    }

    #[test]
    fn power_cut_at_every_operation_leaves_the_old_or_the_new_superblock() {
        for seed in 0..200 {
            for operations in 0..12 {
                let mut bytes = vec![0; FILE_BYTES];
                bytes[..SLOT_BYTES].copy_from_slice(&superblock(0).encode(0));
                let random = fastrand::Rng::with_seed(seed);
                let (durable, cached) = (bytes.clone(), bytes.clone());
                let mut cut = Cut { durable, cached, operations_left: operations, random };
                let (mut file, _) = SuperblockFile::read(&mut cut, &bytes).unwrap();
                let stored = (1..).take_while(|&n| file.store(&superblock(n)).is_ok()).count();
                assert!(file.store(&superblock(9)).is_err(), "a failure is for good");
                let stored = stored as u64;
                assert_eq!(stored, operations as u64 / 2);
                let after = cut.durable.clone();
                let (_, found) = SuperblockFile::read(&mut cut, &after).unwrap();
                let is_one = found == superblock(stored) || found == superblock(stored + 1);
                assert!(is_one, "seed {seed}, {operations} operations: {found:?}");
            }
        }
    }

    #[test]
    fn every_byte_of_a_slot_counts() {
        let slot = superblock(11).encode(4);
        assert_eq!(Superblock::decode(&slot), Ok(Some((superblock(11), 4))));
        for at in 0..DIGEST_AT + 8 {
            let mut damaged = slot;
            damaged[at] ^= 0x10;
            assert_eq!(Superblock::decode(&damaged), Ok(None), "byte {at}");
        }
        assert_eq!(Superblock::decode(&slot[..600]), Ok(Some((superblock(11), 4))));
        assert_eq!(Superblock::decode(&slot[..599]), Ok(None));
        let mut other = slot;
        other[8] = 2;
        let digest = xxh3_64(&other[..DIGEST_AT]).to_le_bytes();
        other[DIGEST_AT..DIGEST_AT + 8].copy_from_slice(&digest);
        assert_eq!(Superblock::decode(&other), Err(BadSuperblock::Version { version: 2 }));
    }

    #[test]
    fn superblock_golden_bytes() {
        let slot = superblock(1).encode(0x0102);
        assert_eq!(slot[..16], *b"USTDYDSK\x01\0\x02\x07\x01\0\0\0");
        assert_eq!(slot[16..24], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slot[24..32], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slot[EXTENTS_AT..EXTENTS_AT + 4], [0x10, 0, 0, 0]);
        assert!(slot[DIGEST_AT + 8..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn file_is_made_once_for_its_owner_alone_and_keeps_what_is_stored() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("disk.img"));
        assert!(path.ends_with("disk.img.understudy"));
        let mut file = create(&path, &superblock(0)).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let again = create(&path, &superblock(1)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        for number in 1..4 {
            file.store(&superblock(number)).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let (_, found) = SuperblockFile::read(File::open(&path).unwrap(), &bytes).unwrap();
            assert_eq!(found, superblock(number));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
