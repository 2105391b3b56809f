//! The nondeterminism boundary of a pair: the questions that a machine asks from one position to the next,
//! in the order of [`Boundary`](crate::boundary::Boundary). Each question is either answered by the
//! world, and the answer is logged, or it is answered from the log alone. The machine cannot tell which.
//! When its host takes over, it is live from one question to the next.

use super::config::OnBackupLoss;
use super::engine::Replica;
use super::role::{Backup, Primary, Role};
use super::step::{LiveInputs, NextRegion, Step, StopAdvice, WaitFor};
use crate::boundary::{DeviceCapacity, Input, Position, VcpuDigest};
use crate::checkpoint::Image;
use crate::mutant::Mutant;
use core::fmt::Display;
use logchan::entry::REGISTERS;
use logchan::ids::Lane;
use logchan::time::Time;

/// Where the answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// From the world. Its answers are logged if there is a backup.
    Live,
    /// From the log.
    Replaying,
    /// There is no answer yet: the machine must wait.
    Blocked,
    /// The machine's state is no longer valid.
    Invalidated,
}

impl Replica {
    fn mode(&mut self) -> Mode {
        if core::mem::take(&mut self.invalidated) {
            return Mode::Invalidated;
        }
        match &self.role {
            Role::Standalone => Mode::Live,
            Role::Primary(Primary::Starting(_) | Primary::HandingOver(_)) => Mode::Blocked,
            Role::Primary(
                Primary::Alone | Primary::Copying(_) | Primary::Protected(_) | Primary::Losing(_),
            ) => Mode::Live,
            Role::Backup(Backup::Following | Backup::Finishing) => Mode::Replaying,
            Role::Backup(
                Backup::Seeking | Backup::Syncing | Backup::Claiming(_) | Backup::Leaving,
            ) => Mode::Blocked,
            Role::Halted(_) => Mode::Invalidated,
        }
    }

    /// Returns `Ready` if the machine may do what passes the boundary and is not part of the log.
    pub(super) fn may_act(&mut self) -> Step<()> {
        match self.mode() {
            Mode::Live | Mode::Replaying => Step::Ready(()),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// Tells the world that the machine has gone live, if it does not know yet: from then on it has the guest's
    /// time, and keeps the frames that arrive. Call it soon: a guest that computes without exits takes no input
    /// that would do it.
    pub fn wake<W: LiveInputs>(&mut self, world: &mut W) {
        self.live(world);
    }

    /// Returns the world, after telling it that the machine has gone live if it does not know yet.
    pub(super) fn live<'w, W: LiveInputs>(&mut self, world: &'w mut W) -> &'w mut W {
        if let Some(clock_ns) = self.resume_clock_at.take() {
            world.go_live(clock_ns);
        }
        world
    }

    /// Returns how the next region ends. To be called at a position, before the vCPU enters.
    pub fn next_region(&mut self, now: Time) -> Step<NextRegion> {
        if let Role::Halted(_) = self.role {
            self.invalidated = false;
            return Step::Ready(NextRegion::End);
        }
        match self.mode() {
            Mode::Live => {
                self.replay_out.run_begins(now);
                self.next_live_region()
            }
            Mode::Replaying => self.next_logged_region(now),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    fn next_live_region(&mut self) -> Step<NextRegion> {
        let blocks = match self.config.on_backup_loss {
            OnBackupLoss::Continue => false,
            OnBackupLoss::Block => true,
        };
        let run = Step::Ready(NextRegion::Run);
        match &self.role {
            Role::Primary(Primary::Copying(_)) if self.closes_sync() => {
                Step::Ready(NextRegion::Capture)
            }
            // It can't be saved before its requests to disks are done.
            Role::Primary(Primary::Copying(_)) if self.drains_disks() => run,
            Role::Primary(Primary::Alone | Primary::Copying(_) | Primary::Losing(_)) if blocks => {
                Step::Pending
            }
            Role::Primary(Primary::Protected(_))
                if self.lag_bytes() > self.config.lag_bytes_max =>
            {
                self.stats.lag_waits += 1;
                Step::Pending
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => run,
        }
    }

    /// Returns the number of bytes of log that the backup has not executed.
    pub fn lag_bytes(&self) -> u64 {
        match (&self.role, self.channel()) {
            (Role::Primary(Primary::Protected(_)), Some(channel)) => {
                channel.appended(Lane::Latency).0.saturating_sub(channel.peer_executed())
            }
            (Role::Backup(Backup::Following | Backup::Finishing), Some(channel)) => {
                channel.received(Lane::Latency).len() as u64
            }
            (Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_), _) => 0,
        }
    }

    /// The region ended at `position` with the vCPU state `vcpu`. `exit` names the kind of exit.
    pub fn reached(
        &mut self,
        now: Time,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Step<()> {
        match self.mode() {
            Mode::Live => {
                self.replay_out.run_ended(now);
                self.record_position(now, position, vcpu)
            }
            Mode::Replaying => self.follow_position(now, position, vcpu, exit),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// Returns guest time: nanoseconds since the guest started.
    ///
    /// # Errors
    ///
    /// Errors of the world.
    pub fn clock_ns<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        match self.mode() {
            Mode::Live => {
                self.replay_out.end();
                let world = self.live(world);
                self.record_clock(now, world)
            }
            Mode::Replaying => Ok(self.follow_clock(now)),
            Mode::Blocked => Ok(Step::Pending),
            Mode::Invalidated => Ok(Step::Invalidated),
        }
    }

    /// Returns the wall clock: nanoseconds since 1970-01-01T00:00Z.
    ///
    /// # Errors
    ///
    /// Errors of the world.
    pub fn wall_clock_ns<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        match self.mode() {
            Mode::Live => {
                self.replay_out.end();
                let world = self.live(world);
                self.record_wall_clock(now, world)
            }
            Mode::Replaying => Ok(self.follow_wall_clock(now)),
            Mode::Blocked => Ok(Step::Pending),
            Mode::Invalidated => Ok(Step::Invalidated),
        }
    }

    /// Fills the front of `bytes` with entropy and returns how many bytes it filled.
    ///
    /// # Errors
    ///
    /// Errors of the world.
    pub fn entropy<W: LiveInputs>(
        &mut self,
        now: Time,
        world: &mut W,
        bytes: &mut [u8],
    ) -> Result<Step<usize>, W::Error> {
        match self.mode() {
            Mode::Live => {
                self.replay_out.end();
                let world = self.live(world);
                self.record_entropy(now, world, bytes)
            }
            Mode::Replaying => Ok(self.follow_entropy(now, bytes)),
            Mode::Blocked => Ok(Step::Pending),
            Mode::Invalidated => Ok(Step::Invalidated),
        }
    }

    /// The guest sends `frame`, whose length is within the limits of a port.
    pub fn output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        match self.mode() {
            Mode::Live => self.record_output(now, frame),
            Mode::Replaying => self.follow_output(now, frame),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// Returns `Ready` if [`next_input`](Self::next_input) has an answer now. For drivers that wait: an
    /// input borrows from the engine, so `next_input` cannot be called in a loop.
    pub fn input_ready<W: LiveInputs>(&mut self, now: Time, world: &mut W) -> Step<()> {
        match self.mode() {
            Mode::Live if self.replay_out.is_active() => Step::Ready(()),
            Mode::Live => self.can_record_input(),
            Mode::Replaying => self.can_follow_input(now, world),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// Returns the next input for this position, if there is one.
    ///
    /// # Errors
    ///
    /// Errors of the world.
    pub fn next_input<'a, W: LiveInputs>(
        &'a mut self,
        now: Time,
        world: &'a mut W,
        capacity: &DeviceCapacity,
    ) -> Result<Step<Option<Input<'a>>>, W::Error> {
        match self.mode() {
            Mode::Live if self.replay_out.is_active() => Ok(Step::Ready(None)),
            Mode::Live => {
                let world = self.live(world);
                if self.takes_passed(capacity) {
                    return Ok(self.record_passed(now));
                }
                self.record_input(now, world, capacity)
            }
            Mode::Replaying => Ok(self.follow_input(now, world)),
            Mode::Blocked => Ok(Step::Pending),
            Mode::Invalidated => Ok(Step::Invalidated),
        }
    }

    /// The guest halted and no interrupt is pending. Returns what the machine waits for.
    pub fn halted_guest(&mut self, now: Time) -> Step<WaitFor> {
        match self.mode() {
            // The halt ends the replay-out. Inputs that were refused meanwhile may be waiting.
            Mode::Live if self.replay_out.is_active() => {
                self.replay_out.end();
                Step::Ready(WaitFor::Nothing)
            }
            Mode::Live => match &self.role {
                Role::Primary(Primary::Copying(_))
                    if self.closes_sync() && !self.planted(Mutant::SyncAwaitsInput) =>
                {
                    Step::Ready(WaitFor::Capture)
                }
                Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                    Step::Ready(WaitFor::Input)
                }
            },
            Mode::Replaying => self.follow_halt(now),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// The machine injects `vector` at this position.
    pub fn interrupt(&mut self, now: Time, vector: u8) -> Step<()> {
        match self.mode() {
            Mode::Live => self.record_interrupt(now, vector),
            Mode::Replaying => self.follow_interrupt(now, vector),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// A run ended at no position: `KVM_RUN` was interrupted, or an interrupt window opened at CPL0.
    /// Returns what to do about it.
    pub fn mid_region_stop(&mut self, now: Time) -> Step<StopAdvice> {
        match self.mode() {
            Mode::Live => {
                self.replay_out.run_ended(now);
                Step::Ready(match &self.role {
                    _ if self.replay_out.is_active() => StopAdvice::Resume,
                    Role::Primary(Primary::Copying(_)) if self.closes_sync() => {
                        StopAdvice::Checkpoint
                    }
                    Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                        StopAdvice::AsNeeded
                    }
                })
            }
            // The log determines where the region ends.
            Mode::Replaying => Step::Ready(StopAdvice::Resume),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// The guest cannot continue (a triple fault, for example). Returns `Ready` if that is true of the VM,
    /// and not only of a backup that diverged.
    pub fn fatal(
        &mut self,
        now: Time,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Step<()> {
        match self.mode() {
            Mode::Live => Step::Ready(()),
            Mode::Replaying => self.follow_fatal(now, registers, exit),
            Mode::Blocked => Step::Pending,
            Mode::Invalidated => Step::Invalidated,
        }
    }

    /// Returns whether a backup needs the images that are passed to [`checkpoint`](Self::checkpoint).
    pub fn keeps_checkpoints(&self) -> bool {
        match &self.role {
            Role::Primary(Primary::Protected(_)) => true,
            Role::Primary(Primary::Copying(_)) => self.closes_sync(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => false,
        }
    }

    /// Returns the checkpoint that [`NextRegion::Apply`] announced. Pages that a full checkpoint does not
    /// list are zero.
    ///
    /// # Panics
    ///
    /// Panics if no checkpoint was announced.
    pub fn take_checkpoint(&mut self) -> Image {
        self.stats.checkpoints_applied += 1;
        self.received.take().expect("a checkpoint was announced")
    }
}
