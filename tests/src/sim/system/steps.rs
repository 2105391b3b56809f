//! What a machine does from one question to the next, in the order of the vCPU loop
//! (`vmm::vcpu::run_loop`):
//!
//! ```text
//!  Entry --> Running --> Position --> Exit --> Inputs --> [Inject] --> Entry
//!    |          |  ^                             ^ |
//!    |          v  |                             | v
//!    |         Stray ------> Capture ----------> | Halted
//!    +--- apply a checkpoint ------------------->+
//! ```
//!
//! How long anything takes, where a run is interrupted and which stray runs become checkpoints is left
//! to chance, and none of it may change what the other machine does.

use vmm::replay::boundary::Position;
use vmm::replica::{CopyRequest, Halted, NextRegion, OnBackupLoss, RoleName, Step, StopAdvice};

use super::count::Count;
use super::crash::Trigger;
use super::host::Host;
use super::machine::Machine;
use super::machine::cpu::Ahead;
use super::pair::Pair;
use super::process::{Place, Run, RunEnds};
use crate::sim::rng::Chance;
use crate::sim::{Checked, Violation, require};

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// It was answered: on to the next one.
    Went,
    /// It is not answered yet, or the guest runs.
    Waits,
    /// A position was reached.
    Position,
    /// A checkpoint was taken.
    Checkpoint,
    /// One was applied.
    Applied { full: bool },
    /// The guest's output was taken.
    Output { number: u64 },
    /// A halted guest was roused to be given to a backup.
    Roused,
    /// Everything is to begin anew.
    Invalidated,
}

/// Whether what a machine does is logged.
fn is_logging(role: RoleName) -> bool {
    matches!(role, RoleName::Closing | RoleName::Protected)
}

impl Pair<'_> {
    /// The machine of `host` goes on as far as it can.
    pub(crate) fn run_machine(&mut self, host: usize) -> Checked {
        loop {
            self.copy_memory(host);
            let Some(process) = &self.hosts[host].process else { return Ok(()) };
            let before = process.replica.role();
            let dropped = process.replica.stats().outputs_dropped;
            let (learned, logged) = (process.learned, process.logged_up_to());
            let did = self.ask(host)?;
            self.done += 1;
            self.look_at_role(host, before)?;
            self.look_at_learned(host, learned)?;
            if !matches!(did, Did::Position | Did::Output { .. })
                && let Some(process) = &mut self.hosts[host].process
                && process.logged_up_to() != logged
            {
                process.nondeterministic = process.logged_up_to();
            }
            self.look_at_place(host);
            match did {
                Did::Went => {}
                Did::Waits => {
                    self.done -= 1;
                    return Ok(());
                }
                Did::Position => self.reached_position(host, before)?,
                Did::Checkpoint => {
                    let Some(process) = &self.hosts[host].process else { return Ok(()) };
                    let after = process.replica.role();
                    if is_logging(before) {
                        self.note_position(host)?;
                    } else if is_logging(after) {
                        self.note_sync(host)?;
                    } else {
                        self.counts.count(Count::CheckpointsDropped);
                    }
                }
                Did::Applied { full } => {
                    self.end_flip(host);
                    self.counts.count(Count::Compared);
                    self.check_position(host, full)?;
                }
                Did::Output { number } => {
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    if process.replica.stats().outputs_dropped > dropped {
                        let blocks = self.options.pair.on_backup_loss == OnBackupLoss::Block;
                        let unprotected = matches!(before, RoleName::Alone | RoleName::Copying);
                        require!(blocks && unprotected, "host {host} drops output as {before}");
                        process.dropped.insert(number);
                    }
                    self.pull_trigger(host, Trigger::Output);
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    if is_logging(before) {
                        process.logged.insert(number, process.nondeterministic);
                    }
                }
                Did::Roused => self.counts.count(Count::Roused),
                Did::Invalidated => {
                    self.counts.count(Count::Invalidated);
                    let pair = &self.options.pair;
                    let empty = Machine::empty(pair.memory_pages, pair.pad_bytes);
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    process.machine = empty;
                    process.place = Place::Entry;
                    process.track = None;
                    process.flipped = false;
                }
            }
        }
    }

    /// The machine of `host` had learned so much of the world. If it has learned more, for the first time
    /// since it went live, it must have made what is on the LAN; unless somebody else has gone live since.
    fn look_at_learned(&mut self, host: usize, learned: u64) -> Checked {
        let newest = self.witness.newest().map(|(_, owner)| owner);
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let is_first = process.learned > learned && std::mem::take(&mut process.owes_said);
        if is_first && newest == Some(process.id) { self.check_takeover(host) } else { Ok(()) }
    }

    /// The machine stands still: some of its memory is copied, if somebody wants it.
    fn copy_memory(&mut self, host: usize) {
        let Host { thread_at: now, reading: clock, .. } = self.hosts[host];
        let own = &self.options.hosts[host];
        let Some(process) = &mut self.hosts[host].process else { return };
        if matches!(process.place, Place::Running(_)) || process.copies_at > now {
            return;
        }
        for _ in 0..own.copy_pages {
            match process.replica.poll_copy() {
                Some(CopyRequest::Begin) => {
                    process.machine.ram.take_marked();
                    process.replica.copy_begun();
                }
                Some(CopyRequest::Page(number)) => {
                    process.replica.copied(clock, process.machine.ram.page(number));
                }
                None => return,
            }
            self.done += 1;
            process.copies_at = now + own.copy_pause_ns;
        }
    }

    fn reached_position(&mut self, host: usize, before: RoleName) -> Checked {
        if is_logging(before) {
            self.counts.count(Count::Positions);
            return self.note_position(host);
        }
        if !super::check::is_whole(before) {
            return Ok(());
        }
        let flipped = self.hosts[host].process.as_ref().is_some_and(|process| process.flipped);
        require!(!flipped, "host {host} passes over a difference between its machine and the log");
        self.counts.count(Count::Compared);
        self.check_position(host, false)
    }

    /// Asks the engine the next question.
    fn ask(&mut self, host: usize) -> Checked<Did> {
        let Host { thread_at: now, reading: clock, rng, process, .. } = &mut self.hosts[host];
        let (now, clock) = (*now, *clock);
        let Some(process) = process else { return Ok(Did::Waits) };
        match &process.place {
            Place::Entry => self.enter(host),
            Place::Running(run) if run.until > now => Ok(Did::Waits),
            Place::Running(run) => {
                let run = *run;
                self.end_run(host, run);
                Ok(Did::Went)
            }
            Place::Stopped { window } => {
                let window = *window;
                self.ask_about_stray(host, window)
            }
            Place::Capture(_) => Ok(process.give_checkpoint(clock)),
            Place::Position { position, digest, exit } => {
                let (position, digest, exit) = (*position, *digest, *exit);
                // A guest with a broken register may not even come to its next exit.
                let breaks = rng.chance(Chance::percent(30)) && process.flipped;
                let step = if breaks {
                    process.replica.fatal(clock)
                } else {
                    process.replica.reached(clock, position, digest)
                };
                let is_window = position == Position::UserWindow;
                self.counts
                    .add(Count::UserWindows, u64::from(is_window && step == Step::Ready(())));
                Ok(process.take(step, |process, ()| {
                    process.place = match exit {
                        Some(exit) => Place::Exit { exit, at: 0 },
                        None => Place::Inputs { entered: 0 },
                    };
                    Did::Position
                }))
            }
            Place::Exit { exit, at } => {
                let (exit, at) = (*exit, *at);
                process.handle_exit(clock, exit, at)
            }
            Place::Inputs { entered } => {
                let entered = *entered;
                process.take_input(clock, entered, self.options.hosts[host].asks_first)
            }
            Place::Halted => {
                let step = process.replica.halted_guest(clock);
                Ok(process.take(step, |process, halted| match halted {
                    Halted::World => {
                        process.place = Place::Inputs { entered: 0 };
                        Did::Waits
                    }
                    Halted::Look => {
                        process.place = Place::Inputs { entered: 0 };
                        Did::Went
                    }
                    Halted::Capture => {
                        process.machine.cpu.halted = false;
                        process.place = Place::Entry;
                        Did::Roused
                    }
                }))
            }
            Place::Inject(vector) => {
                let vector = *vector;
                let step = process.replica.interrupt(clock, vector);
                self.counts.add(Count::Interrupts, u64::from(step == Step::Ready(())));
                Ok(process.take(step, |process, ()| {
                    process.machine.cpu.injected = Some(vector);
                    process.place = Place::Entry;
                    Did::Went
                }))
            }
            Place::Ended => Ok(Did::Waits),
        }
    }

    fn enter(&mut self, host: usize) -> Checked<Did> {
        let clock = self.hosts[host].reading;
        let pages = self.options.pair.memory_pages;
        let Some(process) = &mut self.hosts[host].process else { return Ok(Did::Waits) };
        let next = match process.replica.next_region(clock) {
            Step::Ready(next) => next,
            Step::Pending => return Ok(Did::Waits),
            Step::Invalidated => return Ok(Did::Invalidated),
        };
        let machine = &mut process.machine;
        match next {
            NextRegion::Run | NextRegion::RunToExit => {
                self.check_lag(host)?;
                self.counts.count(Count::Regions);
                let Some(process) = &mut self.hosts[host].process else { return Ok(Did::Waits) };
                let window = next == NextRegion::Run && process.machine.devices.interrupt_pending();
                let ahead = process.machine.enter(window);
                self.begin_run(host, ahead, window);
            }
            NextRegion::Apply => {
                let image = process.replica.take_checkpoint();
                let listed = image.pages.len() as u64;
                require!(listed <= pages, "host {host} applies {listed} pages of {pages}");
                let restored = machine.restore(&image);
                restored.map_err(|what| Violation(format!("host {host} applies {what}")))?;
                process.place = Place::Inputs { entered: 0 };
                return Ok(Did::Applied { full: image.full });
            }
            // To stop the vCPU may complete one more exit.
            NextRegion::Capture if machine.cpu.injected.is_none() && machine.cpu.is_at_exit() => {
                let exit = Some(machine.reach_exit());
                let digest = machine.cpu_digest();
                process.place = Place::Position { position: Position::Exit, digest, exit };
            }
            NextRegion::Capture => process.place = Place::Capture(machine.capture()),
            NextRegion::End => process.place = Place::Ended,
        }
        Ok(Did::Went)
    }

    /// The guest runs; its host may interrupt it.
    fn begin_run(&mut self, host: usize, ahead: Ahead, window: bool) {
        let own = &self.options.hosts[host];
        let Host { rng, process, thread_at, .. } = &mut self.hosts[host];
        let Some(process) = process else { return };
        let mut steps = ahead.steps;
        let mut ends = if ahead.at_window { RunEnds::Window } else { RunEnds::Exit };
        let regular = rng.within(1..=own.kick_steps_max);
        let kick = if rng.chance(own.stray) { rng.below(regular) } else { regular };
        if kick < steps {
            (steps, ends) = (kick, RunEnds::Kick);
        }
        if let Some((from, to)) = ahead.kernel
            && rng.chance(Chance::percent(50))
        {
            let at = rng.within(from..=to - 1);
            if at < steps {
                (steps, ends) = (at, RunEnds::KernelWindow);
            }
        }
        let takes_ns = steps * own.step_ns + rng.within(1..=own.exit_ns_max);
        let until = *thread_at + takes_ns;
        process.place = Place::Running(Run { until, steps, ends, window });
    }

    fn end_run(&mut self, host: usize, run: Run) {
        let counts_interrupted = self.bugs.count_interrupted;
        let Some(process) = &mut self.hosts[host].process else { return };
        let machine = &mut process.machine;
        machine.run(run.steps);
        let is_stray = match run.ends {
            RunEnds::Exit | RunEnds::Window => false,
            RunEnds::Kick => !counts_interrupted,
            RunEnds::KernelWindow => true,
        };
        if is_stray {
            self.counts.count(Count::Strays);
            process.place = Place::Stopped { window: run.window };
            process.kernel_window = run.ends == RunEnds::KernelWindow;
            return;
        }
        let exit = (run.ends == RunEnds::Exit).then(|| machine.reach_exit());
        let position = match run.ends {
            RunEnds::Window => Position::UserWindow,
            RunEnds::Exit | RunEnds::Kick | RunEnds::KernelWindow => Position::Exit,
        };
        let digest = machine.cpu_digest();
        process.place = Place::Position { position, digest, exit };
    }

    fn ask_about_stray(&mut self, host: usize, window: bool) -> Checked<Did> {
        let own = &self.options.hosts[host];
        let Host { rng, process, reading: clock, .. } = &mut self.hosts[host];
        let clock = *clock;
        let Some(process) = process else { return Ok(Did::Waits) };
        let advice = match process.replica.mid_region_stop(clock) {
            Step::Ready(advice) => advice,
            Step::Pending => return Ok(Did::Waits),
            Step::Invalidated => return Ok(Did::Invalidated),
        };
        let stops = match advice {
            StopAdvice::Resume => false,
            StopAdvice::Checkpoint => true,
            StopAdvice::AsNeeded => {
                let capacity = process.machine.devices.capacity(&process.machine.ram);
                let since = process.world.waiting_since(&capacity);
                let waited_ns = since.map(|since| process.world.now.since(since).as_nanos());
                let overdue = waited_ns.is_some_and(|ns| ns >= own.patience_ns);
                let anyway = rng.chance(own.checkpoint);
                overdue || anyway || process.kernel_window && rng.chance(Chance::percent(75))
            }
        };
        if !stops {
            let ahead = process.machine.cpu.ahead(window);
            self.begin_run(host, ahead, window);
        } else if process.replica.keeps_checkpoints() {
            process.place = Place::Capture(process.machine.capture());
        } else {
            process.place = Place::Inputs { entered: 0 };
        }
        Ok(Did::Went)
    }
}
