//! The answers on a primary: each comes from the world. While there is a backup, it is appended to the log
//! before the guest or the LAN sees it.

use super::engine::Replica;
use super::role::{Primary, Role};
use super::step::{LiveInputs, Step};
use crate::boundary::{DeviceCapacity, Input, Position, VcpuDigest};
use crate::limits::{EXIT_ENTRY_BYTES_MAX, SMALL_ENTRY_BYTES_MAX};
use crate::limits::{INPUT_ENTRY_BYTES_MAX, SHARED_READ_ENTRY_BYTES_MAX};
use crate::log_writer::{self, LogSink, LogWriter};
use crate::mutant::Mutant;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::Time;

impl Replica {
    /// Returns whether entries are logged: there is a backup.
    pub(super) fn is_logging(&self) -> bool {
        match &self.role {
            Role::Primary(Primary::Protected(_)) => true,
            Role::Standalone
            | Role::Primary(
                Primary::Starting(_)
                | Primary::Alone
                | Primary::Copying(_)
                | Primary::HandingOver(_)
                | Primary::Losing(_),
            )
            | Role::Backup(_)
            | Role::Halted(_) => false,
        }
    }

    /// Returns whether an entry of `bytes` bytes can be logged now; true if nothing is logged.
    fn can_log(&self, bytes: usize) -> bool {
        !self.is_logging() || self.session.room(Lane::Latency) >= bytes
    }

    /// Logs the entry that `make` returns if there is a backup.
    pub(super) fn record<'e>(&mut self, now: Time, make: impl FnOnce(&mut LogWriter) -> Entry<'e>) {
        if self.is_logging() {
            let (writer, mut log) = self.log(now);
            let Ok(()) = log.append(&make(writer));
        }
    }

    pub(super) fn record_position(
        &mut self,
        now: Time,
        position: Position,
        vcpu: &VcpuDigest,
    ) -> Step<()> {
        if !self.can_log(EXIT_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        self.record(now, |writer| writer.position(position, vcpu));
        Step::Ready(())
    }

    pub(super) fn record_clock<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Ok(Step::Pending);
        }
        let now_ns = world.clock_ns()?;
        self.record(now, |writer| writer.clock(now_ns));
        Ok(Step::Ready(now_ns))
    }

    pub(super) fn record_wall_clock<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Ok(Step::Pending);
        }
        let unix_ns = world.wall_clock_ns()?;
        self.record(now, |_writer| Entry::WallClock { unix_ns });
        Ok(Step::Ready(unix_ns))
    }

    pub(super) fn record_entropy<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
        bytes: &mut [u8],
    ) -> Result<Step<usize>, W::Error> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX + bytes.len()) {
            return Ok(Step::Pending);
        }
        let filled = world.entropy(bytes)?;
        self.record(now, |_writer| Entry::Entropy(&bytes[..filled]));
        Ok(Step::Ready(filled))
    }

    pub(super) fn record_output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        if !self.commit.queue().room_for(frame.len()) {
            if self.is_blocked() && !self.planted(Mutant::WaitWhileBlocked) {
                // The held outputs leave when a backup holds the VM, and its sync is completed at a position.
                // An exit that waited here for room would never reach that position, so the frame is dropped.
                // To the LAN, it is a lost frame.
                self.stats.outputs_dropped += 1;
                self.announcements.learn(frame);
                return Step::Ready(());
            }
            self.stats.hold_waits += 1;
            return Step::Pending;
        }
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        self.record(now, |_writer| log_writer::output(frame));
        let release_at = if self.is_logging() {
            self.commit.output_logged(self.session.absolute(self.session.appended().0));
            self.commit.release_at(now)
        } else {
            self.commit.watermark()
        };
        self.hold_output(now, release_at, frame);
        Step::Ready(())
    }

    /// Puts `frame` into the hold queue, which must have room for it.
    pub(super) fn hold_output(&mut self, now: Time, release_at: u64, frame: &[u8]) {
        self.announcements.learn(frame);
        self.commit.hold(now, release_at, frame);
    }

    /// Returns the size of the largest entry of the next input, bytes.
    fn input_entry_bytes_max(&self) -> usize {
        match self.disks.shared.is_reading() {
            true => SHARED_READ_ENTRY_BYTES_MAX,
            false => INPUT_ENTRY_BYTES_MAX,
        }
    }

    pub(super) fn can_record_input(&self) -> Step<()> {
        if self.can_log(self.input_entry_bytes_max()) { Step::Ready(()) } else { Step::Pending }
    }

    pub(super) fn record_input<'w, W: LiveInputs>(
        &mut self,
        now: Time,
        world: &'w mut W,
        capacity: &DeviceCapacity,
    ) -> Result<Step<Option<Input<'w>>>, W::Error> {
        if !self.can_log(self.input_entry_bytes_max()) {
            return Ok(Step::Pending);
        }
        let input = world.next_input(capacity)?;
        if let Some(input) = &input {
            self.note_source(now, input);
            self.record(now, |writer| writer.input(input));
            if let Input::Disk(done) = input {
                self.disk_done_recorded((done.disk, done.number, done.status));
            }
        }
        Ok(Step::Ready(input))
    }

    pub(super) fn record_interrupt(&mut self, now: Time, vector: u8) -> Step<()> {
        if !self.can_log(SMALL_ENTRY_BYTES_MAX) {
            return Step::Pending;
        }
        self.record(now, |_writer| Entry::Interrupt { vector });
        Step::Ready(())
    }
}
