//! What a machine asks, from one position to the next, in the order of
//! [`EventSource`](crate::replay::event_source::EventSource). Every question goes to the world and into
//! the log, or to the log and nowhere else; a machine cannot tell which, and is live from one
//! question to the next when its host takes over.

use super::config::OnBackupLoss;
use super::engine::Replica;
use super::mutant::Mutant;
use super::role::{Backup, Primary, Role};
use super::step::{Halted, NextRegion, Step, StrayAdvice, World};
use crate::checkpoint::Image;
use crate::replay::event_source::{Input, Position, Wants};
use logchan::channel::Channel;
use logchan::ids::Lane;
use logchan::time::Time;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The world; what it says is logged if there is a backup.
    World,
    /// The log.
    Log,
    /// Nobody yet.
    Nobody,
    /// Nobody any more.
    Void,
}

impl Replica {
    fn side(&mut self) -> Side {
        if std::mem::take(&mut self.void) {
            return Side::Void;
        }
        match &self.role {
            Role::Standalone => Side::World,
            Role::Primary(Primary::Starting(_)) => Side::Nobody,
            Role::Primary(
                Primary::Alone | Primary::Copying(_) | Primary::Protected(_) | Primary::Losing(_),
            ) => Side::World,
            Role::Backup(Backup::Following | Backup::Finishing) => Side::Log,
            Role::Backup(
                Backup::Seeking | Backup::Syncing | Backup::Claiming(_) | Backup::Leaving,
            ) => Side::Nobody,
            Role::Halted(_) => Side::Void,
        }
    }

    /// The world, which knows that the machine is live.
    pub(super) fn live<'w, W: World>(&mut self, world: &'w mut W) -> &'w mut W {
        if std::mem::take(&mut self.wake) {
            let starts_over = self.planted(Mutant::ClockStartsOver);
            world.go_live(if starts_over { 0 } else { self.clock_ns });
        }
        world
    }

    /// How does the next region end? Asked at a position, before entering.
    pub fn next_region(&mut self, now: Time) -> Step<NextRegion> {
        if let Role::Halted(_) = self.role {
            self.void = false;
            return Step::Ready(NextRegion::End);
        }
        match self.side() {
            Side::World => {
                self.run_begins(now);
                self.next_live_region()
            }
            Side::Log => self.next_logged_region(now),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    fn next_live_region(&mut self) -> Step<NextRegion> {
        let blocks = match self.config.on_backup_loss {
            OnBackupLoss::Continue => false,
            OnBackupLoss::Block => true,
        };
        let run = Step::Ready(NextRegion::Run);
        match &self.role {
            Role::Primary(Primary::Copying(copying)) if copying.is_through() => {
                Step::Ready(NextRegion::Capture)
            }
            Role::Primary(Primary::Alone | Primary::Copying(_) | Primary::Losing(_)) if blocks => {
                Step::Wait
            }
            Role::Primary(Primary::Protected(_))
                if self.lag_bytes() > self.config.lag_bytes_max =>
            {
                self.stats.lag_waits += 1;
                Step::Wait
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => run,
        }
    }

    /// Bytes of log that the backup has not executed.
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

    /// The region ended at `position`; `digest` covers the vCPU there.
    pub fn reached(&mut self, now: Time, position: Position, digest: u64) -> Step<()> {
        match self.side() {
            Side::World => {
                self.run_ended(now);
                self.record_position(now, position, digest)
            }
            Side::Log => self.follow_position(now, position, digest),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// Guest time: nanoseconds since the guest started.
    ///
    /// # Errors
    ///
    /// The world's.
    pub fn clock_ns<W: World>(&mut self, now: Time, world: &mut W) -> Result<Step<u64>, W::Error> {
        match self.side() {
            Side::World => {
                self.caught_up();
                let world = self.live(world);
                self.record_clock(now, world)
            }
            Side::Log => Ok(self.follow_clock(now)),
            Side::Nobody => Ok(Step::Wait),
            Side::Void => Ok(Step::Void),
        }
    }

    /// Wall clock: nanoseconds since 1970-01-01T00:00Z.
    ///
    /// # Errors
    ///
    /// The world's.
    pub fn wall_clock_ns<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
    ) -> Result<Step<u64>, W::Error> {
        match self.side() {
            Side::World => {
                self.caught_up();
                let world = self.live(world);
                self.record_wall_clock(now, world)
            }
            Side::Log => Ok(self.follow_wall_clock(now)),
            Side::Nobody => Ok(Step::Wait),
            Side::Void => Ok(Step::Void),
        }
    }

    /// Fills `bytes` with entropy.
    ///
    /// # Errors
    ///
    /// The world's.
    pub fn entropy<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
        bytes: &mut [u8],
    ) -> Result<Step<()>, W::Error> {
        match self.side() {
            Side::World => {
                self.caught_up();
                let world = self.live(world);
                self.record_entropy(now, world, bytes)
            }
            Side::Log => Ok(self.follow_entropy(now, bytes)),
            Side::Nobody => Ok(Step::Wait),
            Side::Void => Ok(Step::Void),
        }
    }

    /// A frame the guest sends, of a length that a port carries.
    pub fn output(&mut self, now: Time, frame: &[u8]) -> Step<()> {
        match self.side() {
            Side::World => self.record_output(now, frame),
            Side::Log => self.follow_output(now, frame),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// Whether [`next_input`](Self::next_input) has an answer now. For drivers that wait: an input
    /// borrows from the engine, so it cannot be asked for in a loop.
    pub fn input_ready(&mut self, now: Time) -> Step<()> {
        match self.side() {
            Side::World if self.is_catching_up() => Step::Ready(()),
            Side::World => self.can_record_input(),
            Side::Log => self.can_follow_input(now),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// The next input for this position, if there is one.
    ///
    /// # Errors
    ///
    /// The world's.
    pub fn next_input<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
        wants: &Wants,
    ) -> Result<Step<Option<Input<'_>>>, W::Error> {
        match self.side() {
            Side::World if self.is_catching_up() => Ok(Step::Ready(None)),
            Side::World => {
                let world = self.live(world);
                self.record_input(now, world, wants)
            }
            Side::Log => Ok(self.follow_input(now)),
            Side::Nobody => Ok(Step::Wait),
            Side::Void => Ok(Step::Void),
        }
    }

    /// The guest halted, and nothing is pending: what to wait for.
    pub fn halted_guest(&mut self, now: Time) -> Step<Halted> {
        match self.side() {
            // The world is asked first of all.
            Side::World if self.is_catching_up() => {
                self.caught_up();
                Step::Ready(Halted::Look)
            }
            Side::World => match &self.role {
                Role::Primary(Primary::Copying(copying))
                    if copying.is_through() && !self.planted(Mutant::SyncAwaitsInput) =>
                {
                    Step::Ready(Halted::Capture)
                }
                Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                    Step::Ready(Halted::World)
                }
            },
            Side::Log => self.follow_halt(now),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// `vector` is injected at this position.
    pub fn interrupt(&mut self, now: Time, vector: u8) -> Step<()> {
        match self.side() {
            Side::World => self.record_interrupt(now, vector),
            Side::Log => self.follow_interrupt(now, vector),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// A run ended at no position: `KVM_RUN` was interrupted, or a window opened at CPL0.
    pub fn stray(&mut self, now: Time) -> Step<StrayAdvice> {
        match self.side() {
            Side::World => {
                self.run_ended(now);
                Step::Ready(match &self.role {
                    _ if self.is_catching_up() => StrayAdvice::Resume,
                    Role::Primary(Primary::Copying(copying)) if copying.is_through() => {
                        StrayAdvice::Checkpoint
                    }
                    Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                        StrayAdvice::AsNeeded
                    }
                })
            }
            // The region ends where the log says.
            Side::Log => Step::Ready(StrayAdvice::Resume),
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// The guest can't go on. `Ready` if that is how it is.
    pub fn fatal(&mut self, now: Time) -> Step<()> {
        match self.side() {
            Side::World => Step::Ready(()),
            // The log has the guest going on, or there would be nothing to run.
            Side::Log => {
                self.diverged(now);
                Step::Void
            }
            Side::Nobody => Step::Wait,
            Side::Void => Step::Void,
        }
    }

    /// The machine cannot do what the log says.
    pub fn diverged(&mut self, now: Time) {
        if let Role::Backup(Backup::Following | Backup::Finishing) = self.role {
            self.leave(now);
        }
    }

    /// Does anybody want the images given to [`checkpoint`](Self::checkpoint)?
    pub fn keeps_checkpoints(&self) -> bool {
        match &self.role {
            Role::Primary(Primary::Protected(_)) => true,
            Role::Primary(Primary::Copying(copying)) => copying.is_through(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => false,
        }
    }

    /// The checkpoint that [`NextRegion::Apply`] announced. Pages that a full one does not list are
    /// zero.
    ///
    /// # Panics
    ///
    /// When none was announced.
    pub fn take_checkpoint(&mut self) -> Image {
        self.stats.checkpoints_applied += 1;
        self.staging.fetch().expect("a checkpoint was announced")
    }

    /// Whether the channel to the other host still takes and gives log.
    pub fn is_connected(&self) -> bool {
        self.channel().is_some_and(Channel::is_open)
    }
}
