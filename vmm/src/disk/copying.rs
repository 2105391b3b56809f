//! The copy of the disks to a new backup, and from the primary: what the engine calls. All of it is for the vCPU thread,
//! and nothing waits for I/O.

use super::copy::{CopyAnswer, CopyFault, CopyProgress, CopyRequest, CopyState};
use super::copy_source::CopySource;
use super::copy_target::{CopyTarget, Had};
use super::extents::Extents;
use super::request::{Origin, Request, ToDisk};
use super::{Disks, changes::BlockSet};
use logchan::disk_copy::{DiskCopy, Generation};
use replication::boundary::DiskOperation;

/// What is done for another host.
#[derive(Debug, Default)]
pub(super) enum Copying {
    #[default]
    Nothing,
    /// This host is the primary, and a new backup receives its disks.
    Source(CopySource),
    /// This host is the new backup.
    Target(CopyTarget),
}

/// The requests of copies that are in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CopiesInFlight {
    all: usize,
    /// Those of a copy that has ended. They are answered before the first of the next one is submitted.
    ended: usize,
}

impl Disks {
    /// Begins to copy the disks to a new backup. Its first messages say what it has.
    pub fn begin_copy(&mut self) {
        self.end_copy();
        let disks = self.disks.iter().map(|disk| (disk.bytes, disk.access));
        self.copying = Copying::Source(CopySource::new(disks, self.bugs));
    }

    /// The contents differ from the other host's, and nobody knows where: the VM may not boot from them, and the next copy
    /// compares everything.
    pub fn distrust(&mut self) {
        self.base = None;
        self.keep_copying();
    }

    /// Begins to receive the disks of the primary.
    pub fn begin_receive(&mut self) {
        self.end_copy();
        let base = self.base.take();
        let had = self.disks.iter_mut().map(|disk| {
            let extents = Box::new(*disk.extents().bits());
            disk.changed.clear();
            (disk.bytes, disk.access, Had { generation: base, extents })
        });
        self.copying = Copying::Target(CopyTarget::new(had));
        self.keep_copying();
    }

    /// Ends the copy, complete or not. Requests of the copy that are in flight are done, and nobody learns of it.
    pub fn end_copy(&mut self) {
        self.copies.ended = self.copies.all;
        self.copying = Copying::Nothing;
        for disk in &mut self.disks {
            disk.changed_since_close = None;
        }
    }

    /// Returns the next message to the other host; `None` while there is none.
    pub fn copy_out(&mut self) -> Option<DiskCopy<'_>> {
        self.work_on_copy();
        match &mut self.copying {
            Copying::Nothing => None,
            Copying::Source(source) => source.next_message(),
            Copying::Target(target) => target.next_message(),
        }
    }

    /// Returns whether [`copy_in`](Self::copy_in) can be called. If not, the message has to wait: the disk is slower than
    /// the channel.
    pub fn copy_takes(&mut self) -> bool {
        self.work_on_copy();
        match &self.copying {
            Copying::Nothing | Copying::Source(_) => true,
            Copying::Target(target) => target.takes(),
        }
    }

    /// Takes a message of the other host.
    ///
    /// # Errors
    ///
    /// The message has no place here: the other host has a bug.
    pub fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), CopyFault> {
        match (&mut self.copying, *message) {
            // Of a copy that has ended at this host.
            (Copying::Nothing, _) => return Ok(()),
            (Copying::Source(source), DiskCopy::Have { disk, generation, extents }) => {
                let is_common = generation.is_some() && generation == self.base;
                let here = self.disks.get(usize::from(disk));
                let differing = here.filter(|_| is_common).map(|here| {
                    let bits = extents.try_into().unwrap_or(*Extents::ALL.bits());
                    let mut differing = Extents::from_bits(bits).blocks(here.bytes);
                    differing.add_all(&here.changed);
                    differing
                });
                source.known(disk, differing.as_ref())?;
            }
            (Copying::Source(source), DiskCopy::Wanted { disk, block, blocks }) => {
                source.wanted(disk, block, blocks)?;
            }
            (Copying::Source(source), DiskCopy::Flushed { disk, mark }) => {
                source.flushed(disk, mark)?;
            }
            (
                Copying::Source(_),
                DiskCopy::Digests { .. }
                | DiskCopy::Zeros { .. }
                | DiskCopy::Data { .. }
                | DiskCopy::Flush { .. },
            ) => return Err(CopyFault::Unexpected { what: "a message of a primary" }),
            (Copying::Target(target), _) => {
                let disks = &mut self.disks;
                target.take(message, |disk, bytes| disks[usize::from(disk)].pool.take(bytes))?;
            }
        }
        self.work_on_copy();
        Ok(())
    }

    /// Returns how far the copy is.
    pub fn copy_state(&mut self) -> CopyState {
        self.work_on_copy();
        match &self.copying {
            Copying::Nothing => CopyState::None,
            Copying::Source(source) => source.state(),
            Copying::Target(target) => target.state(),
        }
    }

    /// Returns how many blocks were copied, and how many are left; `None` on a host that does not copy its disks.
    pub fn copy_progress(&self) -> Option<CopyProgress> {
        match &self.copying {
            Copying::Source(source) => Some(source.progress()),
            Copying::Nothing | Copying::Target(_) => None,
        }
    }

    /// The closing checkpoint is made now: the backup makes every change that is submitted from here on itself. Call it at
    /// the primary, where the machine is stopped, no request is in flight, and the copy is [whole](CopyState::Whole).
    pub fn copy_closed(&mut self) {
        for disk in &mut self.disks {
            disk.changed_since_close = Some(BlockSet::new(disk.bytes));
        }
    }

    /// The backup has confirmed that it has everything of `generation`. Call it at the primary.
    pub fn peer_in_sync(&mut self, generation: Generation) {
        for disk in &mut self.disks {
            if let Some(changed) = disk.changed_since_close.take() {
                disk.changed = changed;
            }
        }
        self.end_copy();
        self.base = Some(generation);
        self.keep_base(generation);
    }

    /// Takes the answers of the disks' threads, and submits what has a place.
    fn work_on_copy(&mut self) {
        while let Ok(answer) = self.copied.try_recv() {
            self.copies.all -= 1;
            if self.copies.ended > 0 {
                self.copies.ended -= 1;
                self.give_back(answer);
                continue;
            }
            match &mut self.copying {
                Copying::Nothing => self.give_back(answer),
                Copying::Source(source) => source.answered(answer),
                Copying::Target(target) => target.answered(answer),
            }
        }
        while let Some((disk, buffer)) = match &mut self.copying {
            Copying::Nothing => None,
            Copying::Source(source) => source.next_free(),
            Copying::Target(target) => target.next_free(),
        } {
            self.disks[usize::from(disk)].pool.give_back(buffer);
        }
        while self.copies.ended == 0
            && let Some(request) = match &mut self.copying {
                Copying::Nothing => None,
                Copying::Source(source) => source.next_request(),
                Copying::Target(target) => target.next_request(),
            }
        {
            self.submit_copy(request);
        }
    }

    fn give_back(&mut self, answer: CopyAnswer) {
        self.disks[usize::from(answer.disk)].pool.give_back(answer.buffer);
    }

    fn submit_copy(&mut self, request: CopyRequest) {
        let CopyRequest { disk, tag, operation, range, mut buffer } = request;
        let disk = &mut self.disks[usize::from(disk)];
        if operation == DiskOperation::Read {
            buffer = disk.pool.take((range.end - range.start) as usize);
        }
        self.copies.all += 1;
        let origin = Origin::Copy { tag };
        disk.send(ToDisk::Request(Request { origin, operation, range, buffer }));
    }
}
