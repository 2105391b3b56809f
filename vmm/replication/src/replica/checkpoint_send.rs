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
        let sync = match &self.role {
            Role::Primary(Primary::Copying(precopy)) if self.closes_sync() => {
                Some((precopy.pages, precopy.digest.clone()))
            }
            // Before its sync is complete, a backup takes every page for a page of the sync. So pages of the
            // next checkpoint must wait.
            Role::Primary(Primary::Protected(Protected { is_confirmed: false, .. }))
                if !self.planted(Mutant::PagesBeforeWhole) =>
            {
                return Ok(Step::Pending);
            }
            Role::Primary(Primary::Protected(_)) => None,
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
        let full = sync.is_some();
        let mut sending = match (self.sending.take(), sync) {
            (Some(sending), _) => sending,
            (None, None) => CheckpointSend { writer: CheckpointWriter::new(), devices: None },
            (None, Some((copied, digest))) => {
                // The first entry of the session's log advances the clock from 0 to the guest time.
                if self.session.room(Lane::Latency) < SMALL_ENTRY_BYTES_MAX {
                    return Ok(Step::Pending);
                }
                let world = match self.planted(Mutant::SyncBeforeWake) {
                    true => world,
                    false => self.live(world),
                };
                let now_ns = world.clock_ns()?;
                let (writer, mut log) = self.log(now);
                let Ok(()) = log.append(&writer.clock(now_ns));
                CheckpointSend {
                    writer: CheckpointWriter::after_precopy(copied, digest),
                    devices: Some(self.announcements.with_addresses(image.devices())),
                }
            }
        };
        let is_moving_target = full && self.planted(Mutant::MovingTarget);
        let parts = CheckpointParts {
            full,
            vcpu: image.vcpu(),
            devices: sending.devices.as_deref().unwrap_or(image.devices()),
            pages: if is_moving_target { &[] } else { image.pages() },
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
}
