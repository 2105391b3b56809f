//! The answers on a backup: each comes from the log, and everything that the machine does is compared with
//! the log.

use super::engine::Replica;
use super::role::{Backup, Role};
use super::session::{Malformed, Session};
use super::step::{LiveInputs, NextRegion, Step, WaitFor};
use crate::boundary::{Input, Position, Region, VcpuDigest};
use crate::divergence::Divergence;
use crate::mutant::Mutant;
use crate::verifier::{LogCursor, Verdict, Verifier};
use alloc::boxed::Box;
use core::fmt::Display;
use logchan::entry::{Entry, REGISTERS};
use logchan::time::Time;

impl Replica {
    /// Answers a question for which the log has no entry yet. If the primary is dead, or has handed the VM
    /// over, there will be none: the log is executed to its end.
    fn log_exhausted<T>(&mut self, now: Time) -> Step<T> {
        match self.role {
            Role::Backup(Backup::Finishing) => self.log_finished(now),
            Role::Backup(Backup::Following) if self.session.ends_with_hand_over() => {
                self.log_finished(now);
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {}
        }
        Step::Pending
    }

    /// Leaves the session as diverged, and tells the machine at once that its state is invalid.
    fn diverge<T>(&mut self, now: Time, divergence: Box<Divergence>) -> Step<T> {
        self.leave(now, divergence);
        // The machine learns it from this answer, so the next one must not repeat it.
        self.invalidated = false;
        Step::Invalidated
    }

    /// Does the same as [`diverge`](Self::diverge): the log has `found` where `expected` was due.
    pub(super) fn diverge_malformed<T>(
        &mut self,
        now: Time,
        expected: &str,
        found: &dyn Display,
    ) -> Step<T> {
        self.leave_malformed(now, expected, found);
        self.invalidated = false;
        Step::Invalidated
    }

    /// Asks the verifier.
    pub(super) fn follow<T>(
        &mut self,
        now: Time,
        ask: impl FnOnce(&mut Verifier, &mut Session) -> Result<Verdict<T>, Malformed>,
    ) -> Step<T> {
        match ask(&mut self.verifier, &mut self.session) {
            Ok(Verdict::Agreed(value)) => Step::Ready(value),
            Ok(Verdict::NoEntry) => self.log_exhausted(now),
            Ok(Verdict::Diverged(divergence)) => self.diverge(now, divergence),
            Err(error) => self.diverge_malformed(now, "a log entry", &error),
        }
    }

    /// Implements the planted bug [`Mutant::IgnoreDivergence`]: takes the next entry if it is one of `kinds`,
    /// whatever it says.
    fn ignores_divergence(&mut self, kinds: fn(&Entry<'_>) -> bool) -> bool {
        let ignores = self.planted(Mutant::IgnoreDivergence)
            && matches!(self.session.front(), Ok(Some(entry)) if kinds(&entry));
        if ignores {
            self.session.consume();
        }
        ignores
    }

    pub(super) fn next_logged_region(&mut self, now: Time) -> Step<NextRegion> {
        if self.received.is_some() {
            return Step::Ready(NextRegion::Apply);
        }
        if matches!(self.role, Role::Backup(Backup::Following))
            && self.planted(Mutant::RunPastHorizon)
            && matches!(self.session.front(), Ok(None))
        {
            return Step::Ready(NextRegion::Run);
        }
        match self.follow(now, Verifier::next_region) {
            Step::Ready(Region::Run) => Step::Ready(NextRegion::Run),
            Step::Ready(Region::RunToExit) => Step::Ready(NextRegion::RunToExit),
            Step::Ready(Region::Apply) => match self.receive_incremental() {
                Ok(true) => Step::Ready(NextRegion::Apply),
                Ok(false) if self.apply_half_checkpoint() => Step::Ready(NextRegion::Apply),
                // An incomplete checkpoint is never applied: the log ends before it.
                Ok(false) => self.log_exhausted(now),
                Err(error) => self.diverge_malformed(now, "a checkpoint", &error),
            },
            Step::Ready(Region::End) => {
                self.diverge_malformed(now, "a position", &"the end of a recording")
            }
            Step::Ready(Region::Capture | Region::Pending) => {
                unreachable!("a log announces neither")
            }
            Step::Pending => Step::Pending,
            Step::Invalidated => Step::Invalidated,
        }
    }

    /// Implements the planted bug [`Mutant::ApplyHalfCheckpoint`]; returns whether it applies.
    fn apply_half_checkpoint(&mut self) -> bool {
        if !self.planted(Mutant::ApplyHalfCheckpoint)
            || !matches!(self.role, Role::Backup(Backup::Finishing))
        {
            return false;
        }
        let Self { session, verifier, received, .. } = self;
        let Ok(Some((begin, length))) = session.entry_at(0) else { return false };
        let made = verifier.checkpoint(&begin, None);
        session.consume_bytes(length);
        *received = made.ok();
        received.is_some()
    }

    pub(super) fn follow_position(
        &mut self,
        now: Time,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Step<()> {
        let is_position =
            |entry: &Entry<'_>| matches!(entry, Entry::Exit { .. } | Entry::Window { .. });
        if self.ignores_divergence(is_position) {
            return Step::Ready(());
        }
        self.follow(now, |verifier, log| verifier.reached(log, position, vcpu, exit))
    }

    pub(super) fn follow_clock(&mut self, now: Time) -> Step<u64> {
        self.follow(now, Verifier::clock)
    }

    pub(super) fn follow_wall_clock(&mut self, now: Time) -> Step<u64> {
        self.follow(now, Verifier::wall_clock)
    }

    pub(super) fn follow_entropy(&mut self, now: Time, bytes: &mut [u8]) -> Step<usize> {
        self.follow(now, |verifier, log| verifier.entropy(log, bytes))
    }

    pub(super) fn follow_output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        if !self.ignores_divergence(|entry| matches!(entry, Entry::Output { .. })) {
            let step = self.follow(now, |verifier, log| verifier.output(log, frame));
            if step != Step::Ready(()) {
                return step;
            }
        }
        if self.planted(Mutant::SkipLastOutput)
            && matches!(self.role, Role::Backup(Backup::Finishing))
            && matches!(self.session.front(), Ok(None))
        {
            return Step::Ready(());
        }
        let position = self.session.absolute(self.session.consumed());
        self.commit.output_logged(position);
        // The primary holds back no more outputs than this host has room for, and reports in every frame
        // what it released. So a full queue means that the peer violates the protocol.
        let released = self.session.absolute(self.session.peer_executed());
        self.commit.drop_up_to(released);
        if !self.commit.queue().room_for(frame.len()) {
            let found = "more outputs than the primary may hold back";
            return self.diverge_malformed(now, "the report of released outputs", &found);
        }
        if position > released {
            self.hold_output(now, position, frame);
        } else {
            self.announcements.learn(frame);
        }
        Step::Ready(())
    }

    pub(super) fn can_follow_input<W: LiveInputs>(&mut self, now: Time, world: &mut W) -> Step<()> {
        match self.session.front() {
            Ok(Some(_)) => self.can_follow_disk(now, world),
            Err(_) => Step::Ready(()),
            Ok(None) => self.log_exhausted(now),
        }
    }

    pub(super) fn follow_input<'a, W: LiveInputs>(
        &'a mut self,
        now: Time,
        world: &'a mut W,
    ) -> Step<Option<Input<'a>>> {
        match self.can_follow_disk(now, world) {
            Step::Ready(()) => self.follow_input_or_disk(now, world),
            Step::Pending => Step::Pending,
            Step::Invalidated => Step::Invalidated,
        }
    }

    pub(super) fn follow_halt(&mut self, now: Time) -> Step<WaitFor> {
        match self.follow(now, Verifier::halted) {
            Step::Ready(true) => Step::Ready(WaitFor::Nothing),
            Step::Ready(false) => {
                self.diverge_malformed(now, "an input", &"the end of a recording")
            }
            Step::Pending => Step::Pending,
            Step::Invalidated => Step::Invalidated,
        }
    }

    pub(super) fn follow_interrupt(&mut self, now: Time, injected: u8) -> Step<()> {
        self.follow(now, |verifier, log| verifier.interrupt(log, injected))
    }

    /// This region is run because the log has its end, so the guest continued on the primary.
    pub(super) fn follow_fatal(
        &mut self,
        now: Time,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Step<()> {
        let divergence = self.verifier.fatal(&mut self.session, registers, exit);
        self.diverge(now, divergence)
    }

    /// The machine cannot do what the log says, because of `why`: treats this backup as diverged. The caller
    /// replaces the machine.
    pub fn diverged(&mut self, now: Time, why: &dyn Display) {
        if let Role::Backup(Backup::Following | Backup::Finishing) = self.role {
            let _invalidated: Step<()> =
                self.diverge_malformed(now, "a checkpoint that the machine can apply", why);
        }
    }
}
