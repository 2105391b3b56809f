//! [`may_boot`]: whether a host may boot its VM from the image that it has.
//!
//! Which image is the newest follows from the claims at the witness, because no host runs the VM without the other one
//! unless it has claimed a term for it. A *generation* is a claim: its term and its owner. The newest claim with an owner
//! says who ran the VM last. An image is the newest if
//!
//! - its `holder` is that owner: the process that ran the VM last ran it on this image, or
//! - `verified` is that claim: the image was found to be the newest before, and no claim was made since, or
//! - `base` is that claim, and the VM was not ended in order: the image belonged to the backup, and was complete when the
//!   primary died. If the VM was ended, the backup may not have executed the end of its log.
//!
//! In every other case another image may be newer. A host that goes on without its peer has claimed a new term before, so
//! the peer's image, whose base is an older claim, is not the newest any more. Nothing has to be written for that.

use super::bugs::{DiskBug, DiskBugs};
use super::superblock::{BadSuperblock, ImageState, Superblock};
use logchan::disk_copy::Generation;
use logchan::ids::VmId;
use replication::witness::{Ending, LastClaim};

/// Why a VM may not boot from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no superblock, and the VM has run.
    #[error(
        "nothing is known about it, and the VM has run before: start this host as the backup, which receives \
         the disk, or add accept to --disk if this image is the newest one of the VM"
    )]
    Unknown,
    /// The superblock is damaged.
    #[error(
        "the file {suffix} beside it is damaged: start this host as the backup, which receives the disk, or \
         remove that file and add accept to --disk if this image is the newest one of the VM",
        suffix = SUFFIX
    )]
    Damaged,
    /// The superblock has another layout.
    #[error("the file {suffix} beside it is of another version of understudy: use that one", suffix = SUFFIX)]
    Version,
    /// It belongs to another VM.
    #[error(
        "belongs to another VM ({other}): name its image, or remove the file {suffix} beside it",
        suffix = SUFFIX
    )]
    OtherVm {
        /// That VM.
        other: VmId,
    },
    /// It is another disk of the VM.
    #[error(
        "is disk {other} of the VM, and given as disk {index}: give the disks in the order in which they were given before"
    )]
    OtherDisk {
        /// Index of the disk that it is.
        other: u8,
        /// Index of the disk that it was given as.
        index: u8,
    },
    /// Its size has changed.
    #[error("has another size than when it was used last ({bytes} bytes): restore the image")]
    Size {
        /// The size that it had.
        bytes: u64,
    },
    /// It is not known to have the contents of the other host's.
    #[error(
        "has only a part of the disk, or differs from it: no copy from the other host has ended since. Start this \
         host as the backup"
    )]
    HalfCopied,
    /// Another image is newer.
    #[error(
        "is outdated: the VM has run without it (its newest claim is term {newest}). Start this host as the \
         backup, which receives the disk"
    )]
    Outdated {
        /// The newest claim.
        newest: Generation,
    },
    /// The witness has no claim, and the image was in use.
    #[error(
        "was in use, and the witness knows of no run of the VM: check the witness's folder or etcd, or add \
         accept to --disk if this image is the newest one of the VM"
    )]
    NoClaims,
}

/// The suffix of a superblock's file.
const SUFFIX: &str = ".understudy";

/// What an operator says about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    None,
    /// It is the newest one of the VM (`accept`).
    Accept,
}

/// What is beside an image.
pub(super) type Found<'a> = Result<Option<&'a Superblock>, BadSuperblock>;

/// A VM with the index of a disk, and the size of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) of: (VmId, u8),
    pub(super) bytes: u64,
    pub(super) word: Word,
    pub(super) bugs: DiskBugs,
}

/// Decides whether disk `index` of `vm` with `bytes` bytes may be copied to the image beside which `superblock` is.
///
/// # Errors
///
/// It belongs to another VM, is another disk of it, or has another size than when it was used.
pub(super) fn may_receive(
    superblock: &Superblock,
    ((vm, index), bytes): ((VmId, u8), u64),
) -> Result<(), Refusal> {
    if superblock.vm != vm {
        return Err(Refusal::OtherVm { other: superblock.vm });
    }
    if superblock.index != index {
        return Err(Refusal::OtherDisk { other: superblock.index, index });
    }
    if superblock.bytes != bytes {
        return Err(Refusal::Size { bytes: superblock.bytes });
    }
    Ok(())
}

/// Decides whether the VM may boot from the image beside which `found` is, when `last` is its newest claim with an owner.
///
/// # Errors
///
/// It may not.
pub(super) fn may_boot(
    found: Found<'_>,
    wanted: Wanted,
    last: Option<LastClaim>,
) -> Result<(), Refusal> {
    let is_accepted = wanted.word == Word::Accept;
    let superblock = match found {
        Ok(Some(superblock)) => superblock,
        Ok(None) if last.is_none() || is_accepted => return Ok(()),
        Ok(None) => return Err(Refusal::Unknown),
        Err(BadSuperblock::Damaged) => return Err(Refusal::Damaged),
        Err(BadSuperblock::Version { .. }) => return Err(Refusal::Version),
    };
    may_receive(superblock, (wanted.of, wanted.bytes))?;
    if is_accepted {
        return Ok(());
    }
    if superblock.state == ImageState::Copying {
        return Err(Refusal::HalfCopied);
    }
    let Some(LastClaim { generation, ending }) = last else {
        return match superblock.base.or(superblock.verified) {
            // Its first claim was not made.
            None => Ok(()),
            Some(_) => Err(Refusal::NoClaims),
        };
    };
    let is_newest = superblock.holder == Some(generation.owner)
        || superblock.verified == Some(generation)
        || superblock.base == Some(generation) && ending == Ending::None;
    match is_newest || wanted.bugs.has(DiskBug::StaleDiskBoots) {
        true => Ok(()),
        false => Err(Refusal::Outdated { newest: generation }),
    }
}
