//! The answers on a backup: each comes from the log, and everything that the machine does is compared with
//! the log.

use super::checkpoint_receive::{ReceiveError, decode_complete};
use super::engine::Replica;
use super::mutant::Mutant;
use super::role::{Backup, Role};
use super::step::{Halted, NextRegion, Step};
use crate::replay::boundary::{Input, Position};
use logchan::channel::Channel;
use logchan::endpoint::Endpoint;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::Time;
use xxhash_rust::xxh3::xxh3_64;

/// The front of the log that was received and not executed.
pub(super) enum Front<'a> {
    /// A complete entry, and its length in bytes.
    Entry(Entry<'a>, usize),
    /// No complete entry has arrived.
    Incomplete,
    /// Bytes that are not a valid entry.
    Malformed,
}

fn front_of(endpoint: Option<&Endpoint>) -> Front<'_> {
    let Some(channel) = endpoint.and_then(Endpoint::channel) else { return Front::Incomplete };
    match decode_complete(channel.received(Lane::Latency)) {
        Ok(Some((entry, length))) => Front::Entry(entry, length),
        Ok(None) => Front::Incomplete,
        Err(ReceiveError) => Front::Malformed,
    }
}

impl Replica {
    pub(super) fn front(&self) -> Front<'_> {
        front_of(self.endpoint.as_ref())
    }

    /// Counts the entry at the front, which is about to be consumed.
    fn count_front(&mut self) {
        if let Front::Entry(entry, _) = front_of(self.endpoint.as_ref()) {
            self.log_stats.record(&entry);
        }
    }

    /// Removes `length` bytes from the log and reports them to the primary as executed.
    pub(super) fn consume(&mut self, length: usize) {
        if let Some(channel) = self.channel_mut() {
            channel.consume(Lane::Latency, length);
            let executed = channel.consumed(Lane::Latency).0;
            channel.set_executed(executed);
        }
    }

    /// Answers a question for which the log has no entry yet. If the primary is dead, there will be none:
    /// the log is executed to its end.
    fn log_exhausted<T>(&mut self, now: Time) -> Step<T> {
        if let Role::Backup(Backup::Finishing) = self.role {
            self.log_finished(now);
        }
        Step::Pending
    }

    /// Leaves the session as diverged, and tells the machine at once that its state is invalid.
    fn diverge<T>(&mut self, now: Time) -> Step<T> {
        self.leave(now);
        // The machine learns it from this answer, so the next one must not repeat it.
        self.invalidated = false;
        Step::Invalidated
    }

    /// Consumes the next entry if `take` returns a value for it. Otherwise the machine has diverged: it did
    /// something else than the log says.
    fn follow<T>(&mut self, now: Time, take: impl FnOnce(&Entry<'_>) -> Option<T>) -> Step<T> {
        let (taken, length) = match self.front() {
            Front::Entry(entry, length) => (take(&entry), length),
            Front::Incomplete => return self.log_exhausted(now),
            Front::Malformed => return self.diverge(now),
        };
        match taken {
            Some(value) => {
                self.count_front();
                self.consume(length);
                Step::Ready(value)
            }
            None => self.diverge(now),
        }
    }

    pub(super) fn next_logged_region(&mut self, now: Time) -> Step<NextRegion> {
        if self.receive.is_ready() {
            return Step::Ready(NextRegion::Apply);
        }
        match self.front() {
            Front::Entry(Entry::Exit { .. }, _) => Step::Ready(NextRegion::RunToExit),
            Front::Entry(Entry::UserWindow { .. }, _) => Step::Ready(NextRegion::Run),
            Front::Entry(Entry::CheckpointBegin { .. }, _) => match self.take_incremental() {
                Ok(true) => Step::Ready(NextRegion::Apply),
                Ok(false) if self.apply_half_checkpoint() => Step::Ready(NextRegion::Apply),
                // An incomplete checkpoint is never applied: the log ends before it.
                Ok(false) => self.log_exhausted(now),
                Err(ReceiveError) => self.diverge(now),
            },
            Front::Entry(
                Entry::Page { .. }
                | Entry::CheckpointEnd { .. }
                | Entry::Clock { .. }
                | Entry::WallClock { .. }
                | Entry::Entropy(_)
                | Entry::Frame(_)
                | Entry::Console(_)
                | Entry::Interrupt { .. }
                | Entry::Output { .. }
                | Entry::End { .. },
                _,
            )
            | Front::Malformed => self.diverge(now),
            Front::Incomplete
                if matches!(self.role, Role::Backup(Backup::Following))
                    && self.planted(Mutant::RunPastHorizon) =>
            {
                Step::Ready(NextRegion::Run)
            }
            Front::Incomplete => self.log_exhausted(now),
        }
    }

    /// Implements the planted bug [`Mutant::ApplyHalfCheckpoint`]; returns whether it applies.
    fn apply_half_checkpoint(&mut self) -> bool {
        if !self.planted(Mutant::ApplyHalfCheckpoint)
            || !matches!(self.role, Role::Backup(Backup::Finishing))
        {
            return false;
        }
        let Front::Entry(Entry::CheckpointBegin { vcpu, devices, .. }, length) =
            front_of(self.endpoint.as_ref())
        else {
            return false;
        };
        let made = self.receive.make_ready(false, &vcpu, &devices, &mut self.cache, None);
        self.consume(length);
        made.is_ok()
    }

    pub(super) fn follow_position(
        &mut self,
        now: Time,
        position: Position,
        digest: u64,
    ) -> Step<()> {
        let ignores_divergence = self.planted(Mutant::IgnoreDivergence);
        self.follow(now, |entry| {
            let logged = match *entry {
                Entry::Exit { digest, .. } => (Position::Exit, digest),
                Entry::UserWindow { digest } => (Position::UserWindow, digest),
                _other => return None,
            };
            (logged == (position, digest) || ignores_divergence).then_some(())
        })
    }

    pub(super) fn follow_clock(&mut self, now: Time) -> Step<u64> {
        let clock_ns = self.clock_ns;
        let step = self.follow(now, |entry| match *entry {
            Entry::Clock { advance_ns } => clock_ns.checked_add(advance_ns),
            _other => None,
        });
        if let Step::Ready(now_ns) = step {
            self.clock_ns = now_ns;
        }
        step
    }

    pub(super) fn follow_wall_clock(&mut self, now: Time) -> Step<u64> {
        self.follow(now, |entry| match *entry {
            Entry::WallClock { unix_ns } => Some(unix_ns),
            _other => None,
        })
    }

    pub(super) fn follow_entropy(&mut self, now: Time, bytes: &mut [u8]) -> Step<()> {
        self.follow(now, |entry| match *entry {
            Entry::Entropy(logged) if logged.len() == bytes.len() => {
                bytes.copy_from_slice(logged);
                Some(())
            }
            _other => None,
        })
    }

    pub(super) fn follow_output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        let made = (frame.len(), xxh3_64(frame));
        let ignores_divergence = self.planted(Mutant::IgnoreDivergence);
        let step = self.follow(now, |entry| match *entry {
            Entry::Output { length, digest } => {
                ((length as usize, digest) == made || ignores_divergence).then_some(())
            }
            _other => None,
        });
        if step != Step::Ready(()) {
            return step;
        }
        if self.planted(Mutant::SkipLastOutput)
            && matches!(self.role, Role::Backup(Backup::Finishing))
            && matches!(self.front(), Front::Incomplete)
        {
            return step;
        }
        if let Some(channel) = self.channel() {
            self.watermark = self.log_base + channel.consumed(Lane::Latency).0;
        }
        // The primary holds back no more outputs than this host has room for, and reports in every frame
        // what it released. So a full queue means that the peer violates the protocol.
        let released = self.log_base + self.channel().map_or(0, Channel::peer_executed);
        self.hold.drop_up_to(released);
        if !self.hold.room_for(frame.len()) {
            return self.diverge(now);
        }
        if self.watermark > released {
            self.hold_output(now, self.watermark, frame);
        } else {
            self.addresses.learn(frame);
        }
        step
    }

    pub(super) fn can_follow_input(&mut self, now: Time) -> Step<()> {
        match self.front() {
            Front::Entry(..) | Front::Malformed => Step::Ready(()),
            Front::Incomplete => self.log_exhausted(now),
        }
    }

    pub(super) fn follow_input(&mut self, now: Time) -> Step<Option<Input<'_>>> {
        let (is_frame, length, took) = match front_of(self.endpoint.as_ref()) {
            Front::Entry(Entry::Clock { .. }, _) => {
                return self.follow_clock(now).map(|now_ns| Some(Input::Clock { now_ns }));
            }
            Front::Entry(Entry::Frame(bytes), took) => {
                self.input[..bytes.len()].copy_from_slice(bytes);
                (true, bytes.len(), took)
            }
            Front::Entry(Entry::Console(bytes), took) => {
                self.input[..bytes.len()].copy_from_slice(bytes);
                (false, bytes.len(), took)
            }
            Front::Entry(
                Entry::Exit { .. }
                | Entry::UserWindow { .. }
                | Entry::CheckpointBegin { .. }
                | Entry::Page { .. }
                | Entry::CheckpointEnd { .. }
                | Entry::WallClock { .. }
                | Entry::Entropy(_)
                | Entry::Interrupt { .. }
                | Entry::Output { .. }
                | Entry::End { .. },
                _,
            ) => return Step::Ready(None),
            Front::Incomplete => return self.log_exhausted(now),
            Front::Malformed => return self.diverge(now),
        };
        self.count_front();
        self.consume(took);
        let bytes = &self.input[..length];
        Step::Ready(Some(if is_frame { Input::Frame(bytes) } else { Input::Console(bytes) }))
    }

    pub(super) fn follow_halt(&mut self, now: Time) -> Step<Halted> {
        match self.front() {
            Front::Entry(Entry::Clock { .. } | Entry::Frame(_) | Entry::Console(_), _) => {
                Step::Ready(Halted::Look)
            }
            Front::Incomplete => self.log_exhausted(now),
            Front::Entry(..) | Front::Malformed => self.diverge(now),
        }
    }

    pub(super) fn follow_interrupt(&mut self, now: Time, injected: u8) -> Step<()> {
        self.follow(now, |entry| match *entry {
            Entry::Interrupt { vector } if vector == injected => Some(()),
            _other => None,
        })
    }
}
