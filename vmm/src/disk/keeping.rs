//! The superblocks of a VM's disks, as the vCPU thread asks for them. Nothing waits for I/O.

use super::boot::{self, Wanted};
use super::error::{DiskError, ImageError};
use super::keeper::{Keeper, Kept};
use super::request::ToDisk;
use super::superblock::{ImageState, Superblock};
use super::{Disk, Disks};
use crate::limits::DISK_KEEPS_MAX;
use logchan::disk_copy::Generation;
use logchan::ids::{Claimant, VmId};
use replication::witness::LastClaim;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whether the superblocks that were asked for are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepState {
    /// Not all are.
    Pending,
    /// All are.
    Done,
    /// One can't be stored: this host may not go on with its disks.
    Failed,
}

impl Disks {
    /// Decides whether the VM may boot from these disks. `last` is its newest claim that has an owner.
    ///
    /// # Errors
    ///
    /// It may not boot from one of them.
    pub fn may_boot(&self, last: Option<LastClaim>) -> Result<(), DiskError> {
        for disk in &self.disks {
            let Some(kept) = &disk.kept else { continue };
            let superblock = &kept.superblock;
            let (word, bugs) = (disk.word, self.bugs);
            let of = (kept.vm, kept.index);
            let wanted = Wanted { of, bytes: disk.bytes, word, bugs };
            let found = kept.was_there.then_some(superblock);
            boot::may_boot(Ok(found), wanted, last).map_err(|refusal| DiskError {
                path: disk.base.path.clone(),
                source: ImageError::MayNotBoot(refusal),
            })?;
        }
        Ok(())
    }

    /// Decides whether the other host's disks may be copied to these images.
    ///
    /// # Errors
    ///
    /// One of them belongs to another VM, or has another size than when it was used.
    pub fn may_receive(&self) -> Result<(), DiskError> {
        for disk in &self.disks {
            let Some(kept) = &disk.kept else { continue };
            let of = (kept.vm, kept.index);
            boot::may_receive(&kept.superblock, (of, disk.bytes)).map_err(|refusal| {
                let source = ImageError::MayNotReceive(refusal);
                DiskError { path: disk.base.path.clone(), source }
            })?;
        }
        Ok(())
    }

    /// Begins to store that the process `claimant` runs the VM on these images, which are the newest, and that `last` is
    /// its newest claim so far. It must be [durable](Self::keep_state) before the process claims a term.
    pub fn hold(&mut self, claimant: Claimant, last: Option<LastClaim>) {
        self.keep(|superblock| {
            superblock.state = ImageState::Whole;
            superblock.verified = last.map(|last| last.generation);
            superblock.holder = Some(claimant);
        });
    }

    /// Begins to store that these images have everything of `generation`, and that the process `claimant` may run the VM
    /// on them. Call it at the backup, when the closing checkpoint was applied.
    pub fn seal(&mut self, claimant: Claimant, generation: Generation) {
        self.end_copy();
        self.base = Some(generation);
        self.keep(|superblock| {
            superblock.state = ImageState::Whole;
            superblock.base = Some(generation);
            superblock.verified = None;
            superblock.holder = Some(claimant);
        });
    }

    /// Returns whether the superblocks that were asked for are durable.
    pub fn keep_state(&self) -> KeepState {
        let states = self.disks.iter().filter_map(|disk| disk.kept.as_ref()).map(KeptDisk::state);
        states.fold(KeepState::Done, |all, one| match (all, one) {
            (KeepState::Failed, _) | (_, KeepState::Failed) => KeepState::Failed,
            (KeepState::Pending, _) | (_, KeepState::Pending) => KeepState::Pending,
            (KeepState::Done, KeepState::Done) => KeepState::Done,
        })
    }

    /// Begins to store that a copy to these images has begun.
    pub(super) fn keep_copying(&mut self) {
        self.keep(|superblock| {
            superblock.state = ImageState::Copying;
            superblock.base = None;
            superblock.verified = None;
        });
    }

    /// Begins to store that the backup has the same contents.
    pub(super) fn keep_base(&mut self, generation: Generation) {
        self.keep(|superblock| superblock.base = Some(generation));
    }

    fn keep(&mut self, change: impl Fn(&mut Superblock)) {
        for disk in &mut self.disks {
            disk.keep(&change);
        }
    }
}

/// A disk's superblock, as the vCPU thread has asked for it.
#[derive(Debug)]
pub(super) struct KeptDisk {
    vm: VmId,
    /// Index of the disk.
    index: u8,
    /// It was there when the disk was opened.
    was_there: bool,
    pub(super) superblock: Superblock,
    /// How often it was to be stored.
    asked: u64,
    kept: Arc<Kept>,
}

impl KeptDisk {
    /// The superblock of disk `index` of `vm` with `bytes` bytes, when it was opened, and whether it was there.
    pub(super) fn new(
        (vm, index): (VmId, u8),
        bytes: u64,
        (keeper, found): (&Keeper, Option<Superblock>),
    ) -> KeptDisk {
        let was_there = found.is_some();
        let superblock = found.unwrap_or_else(|| Superblock::new((vm, index), bytes));
        KeptDisk { vm, index, was_there, superblock, asked: 0, kept: keeper.kept() }
    }

    /// Returns the generation in which the image last had the contents of the other host's, if it is whole.
    pub(super) fn base(&self) -> Option<Generation> {
        match self.superblock.state {
            ImageState::Whole => self.superblock.base,
            ImageState::Copying => None,
        }
    }

    fn state(&self) -> KeepState {
        let stored = self.kept.stored.load(Ordering::Acquire);
        match self.kept.failed.load(Ordering::Acquire) {
            true => KeepState::Failed,
            false if stored < self.asked => KeepState::Pending,
            false => KeepState::Done,
        }
    }
}

impl Disk {
    fn keep(&mut self, change: impl Fn(&mut Superblock)) {
        let extents = self.extents();
        let Some(kept) = &mut self.kept else { return };
        change(&mut kept.superblock);
        kept.superblock.extents = extents;
        let waiting = kept.asked - kept.kept.stored.load(Ordering::Acquire);
        if waiting >= DISK_KEEPS_MAX as u64 {
            // A disk that hangs while the peer comes and goes.
            return kept.kept.failed.store(true, Ordering::Release);
        }
        kept.asked += 1;
        let superblock = Box::new(kept.superblock.clone());
        self.send(ToDisk::Keep(superblock));
    }
}
