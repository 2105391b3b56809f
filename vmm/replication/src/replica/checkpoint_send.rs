//! Sends a primary's checkpoint into the channel, as far as there is room.

use super::engine::Replica;
use super::guard::Ignored;
use super::role::{Primary, Protected, Role};
use super::step::{LiveInputs, Step};
use crate::checkpoint::CheckpointImage;
use crate::limits::SMALL_ENTRY_BYTES_MAX;
use crate::log_writer::{CheckpointParts, CheckpointWriter, LogSink, Progress};
use crate::mutant::Mutant;
use alloc::vec::Vec;
use logchan::ids::Lane;
use logchan::time::Time;

/// A checkpoint that is being sent.
#[derive(Debug)]
pub(super) struct CheckpointSend {
    writer: CheckpointWriter,
    /// The device state of a sync's closing checkpoint, with the guest's addresses; `None` in any other
    /// checkpoint.
    devices: Option<Vec<u8>>,
    /// The pages of a sync's closing checkpoint, ascending; `None` in any other checkpoint.
    pages: Option<Vec<u64>>,
}

impl Replica {
    /// Sends a checkpoint of the stopped machine to the backup. The checkpoint makes this point of the
    /// execution a position. While the answer is `Pending`, call again with the same image: the rest is
    /// sent when the channel has room.
    ///
    /// # Errors
    ///
    /// Errors of the world, which is asked for the time.
    pub fn checkpoint<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
        image: &dyn CheckpointImage,
    ) -> Result<Step<()>, W::Error> {
        let full = match &self.role {
            Role::Primary(Primary::Copying(_)) if self.closes_sync() => true,
            // Before its sync is complete, a backup takes every page for a page of the sync. So pages of the
            // next checkpoint must wait.
            Role::Primary(Primary::Protected(Protected { is_confirmed: false, .. }))
                if !self.planted(Mutant::PagesBeforeWhole) =>
            {
                return Ok(Step::Pending);
            }
            Role::Primary(Primary::Protected(_)) => false,
            Role::Halted(_) => return Ok(Step::Invalidated),
            Role::Standalone
            | Role::Primary(
                Primary::Starting(_)
                | Primary::Alone
                | Primary::Copying(_)
                | Primary::HandingOver(_)
                | Primary::Losing(_),
            )
            | Role::Backup(_) => {
                self.sending = None;
                self.ignore(Ignored::CheckpointWithoutSync);
                return Ok(Step::Ready(()));
            }
        };
        let mut sending = match self.sending.take() {
            Some(sending) => sending,
            None if full => match self.begin_closing(now, world, image)? {
                Some(sending) => sending,
                None => return Ok(Step::Pending),
            },
            None => CheckpointSend { writer: CheckpointWriter::new(), devices: None, pages: None },
        };
        let is_moving_target = self.planted(Mutant::MovingTarget);
        let parts = CheckpointParts {
            full,
            vcpu: image.vcpu(),
            devices: sending.devices.as_deref().unwrap_or(image.devices()),
            pages: match &sending.pages {
                Some(_) if is_moving_target => &[],
                Some(pages) => pages,
                None => image.pages(),
            },
            image,
        };
        let (writer, mut log) = self.log(now);
        let Ok(progress) = sending.writer.write(writer, &parts, &mut log);
        match progress {
            Progress::Blocked => {
                self.sending = Some(sending);
                Ok(Step::Pending)
            }
            Progress::Done => {
                self.stats.checkpoints_sent += 1;
                self.stats.checkpoint_pages += parts.pages.len() as u64;
                if full {
                    self.sync_sent();
                }
                self.try_hand_over(now);
                Ok(Step::Ready(()))
            }
        }
    }

    /// Begins the closing checkpoint of a sync; `None` while there is no room.
    fn begin_closing<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
        image: &dyn CheckpointImage,
    ) -> Result<Option<CheckpointSend>, W::Error> {
        // The first entry of the session's log advances the clock from 0 to the guest time.
        if self.session.room(Lane::Latency) < SMALL_ENTRY_BYTES_MAX {
            return Ok(None);
        }
        let world = match self.planted(Mutant::SyncBeforeWake) {
            true => world,
            false => self.live(world),
        };
        let now_ns = world.clock_ns()?;
        let (writer, mut log) = self.log(now);
        let Ok(()) = log.append(&writer.clock(now_ns));
        let Role::Primary(Primary::Copying(precopy)) = &self.role else {
            unreachable!("a sync is closed");
        };
        Ok(Some(CheckpointSend {
            writer: CheckpointWriter::after_precopy(precopy.pages, precopy.digest.clone()),
            devices: Some(self.announcements.with_addresses(image.devices())),
            pages: Some(precopy.closing_pages(image.pages())),
        }))
    }
}
