//! The machine's vCPU loop: its calls of the engine, in the order of `vmm::vcpu::run_loop`:
//!
//! ```text
//!  Entry --> Running --> Position --> Exit --> Inputs --> [Inject] --> Entry
//!    |          |  ^                             ^ |
//!    |          v  |                             | v
//!    |        Stopped -----> Capture ----------> | Halted
//!    +--- apply a checkpoint ------------------->+
//! ```
//!
//! Durations, the places where a run is interrupted, and which mid-region stops become checkpoints are random.
//! None of this may change what the other machine does.

use logchan::entry::REGISTERS;
use logchan::time::Duration;
use replication::boundary::{Position, VcpuDigest};
use replication::replica::{
    CopyRequest, LocalDisks as _, NextRegion, OnBackupLoss, RoleName, Step, StopAdvice, WaitFor,
};

use super::count::Count;
use super::crash::CrashPoint;
use super::host::Host;
use super::machine::Machine;
use super::machine::cpu::{Ahead, Exit};
use super::pair::Pair;
use super::process::{Run, RunEnd, VcpuState};
use crate::sim::rng::Chance;
use crate::sim::{Checked, US, Violation, require};

/// Pause between two copies of pages while the guest is paused.
const COPY_PAUSE_NS_MIN: u64 = 10 * US;

/// The outcome of a call of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The machine advanced to the next call.
    Advanced,
    /// The call is not ready yet, or the guest runs.
    Pending,
    /// A position was reached.
    Position,
    /// A checkpoint was sent.
    Checkpoint,
    /// A checkpoint was applied.
    Applied { full: bool },
    /// An output of the guest was accepted.
    Output { number: u64 },
    /// A halted guest was woken, so that its state can be captured for a backup.
    WokenForSync,
    /// The machine's state is invalid and must be replaced.
    Invalidated,
}

/// Returns the vCPU state with this digest, as the engine sees it. Some registers are made up from the digest,
/// so that they differ where it does.
pub(in crate::sim) fn vcpu_digest(digest: u64) -> VcpuDigest {
    let registers = std::array::from_fn(|index| if index % 3 == 0 { digest << index } else { 0 });
    VcpuDigest { digest, registers }
}

pub(in crate::sim) fn exit_name(exit: Option<Exit>) -> String {
    exit.map_or_else(|| String::from("a user window"), |exit| format!("{exit:?}"))
}

/// Whether a machine in this role is logged.
pub(in crate::sim) fn is_logging(role: RoleName) -> bool {
    matches!(role, RoleName::Closing | RoleName::Protected)
}

impl Pair<'_> {
    /// Runs the machine of `host` as far as possible.
    pub(crate) fn run_machine(&mut self, host: usize) -> Checked {
        loop {
            self.copy_memory(host);
            let Some(process) = &self.hosts[host].process else { return Ok(()) };
            let before = process.replica.role();
            let dropped = process.replica.stats().outputs_dropped;
            let sent_before = process.replica.stats().frames_passed_on;
            let (inputs_taken, logged) = (process.inputs_taken, process.logged_up_to());
            let outcome = self.step_machine(host)?;
            self.work += 1;
            self.note_passed(host, before, sent_before);
            self.handle_role_change(host, before)?;
            self.check_disk(host)?;
            self.check_first_input(host, inputs_taken)?;
            self.check_frame_taken(host, before)?;
            if !matches!(outcome, Outcome::Position | Outcome::Output { .. })
                && let Some(process) = &mut self.hosts[host].process
                && process.logged_up_to() != logged
            {
                process.nondeterministic = process.logged_up_to();
            }
            self.check_capture_crash_point(host);
            match outcome {
                Outcome::Advanced => {}
                Outcome::Pending => {
                    self.work -= 1;
                    return Ok(());
                }
                Outcome::Position => self.reached_position(host, before)?,
                Outcome::Checkpoint => {
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
                Outcome::Applied { full } => {
                    if full && let Some(process) = &mut self.hosts[host].process {
                        process.reissue();
                    }
                    self.end_flip(host);
                    self.counts.count(Count::Compared);
                    self.check_position(host, full)?;
                }
                Outcome::Output { number } => {
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    if process.replica.stats().outputs_dropped > dropped {
                        let blocks = self.options.pair.on_backup_loss == OnBackupLoss::Block;
                        let unprotected = matches!(before, RoleName::Alone | RoleName::Copying);
                        require!(blocks && unprotected, "host {host} drops output as {before}");
                        process.dropped.insert(number);
                    }
                    self.reach_crash_point(host, CrashPoint::Output);
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    if is_logging(before) {
                        process.required_positions.insert(number, process.nondeterministic);
                        let flushed = process.machine.devices.disk.flushed;
                        process.required_writes.insert(number, flushed);
                    }
                }
                Outcome::WokenForSync => self.counts.count(Count::WokenForSync),
                Outcome::Invalidated => {
                    self.counts.count(Count::Invalidated);
                    let pair = &self.options.pair;
                    let empty = Machine::empty(pair.memory_pages, pair.pad_bytes);
                    let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
                    process.machine = empty;
                    process.world.forget_requests();
                    process.vcpu_state = VcpuState::Entry;
                    process.track = None;
                    process.flipped = false;
                }
            }
        }
    }

    /// Checks the first nondeterministic input of the machine of `host` since it went live: before it, the
    /// machine must have reproduced all output on the LAN, unless another process has gone live since.
    /// `inputs_before` is the number of inputs before the last call.
    fn check_first_input(&mut self, host: usize, inputs_before: u64) -> Checked {
        let newest = self.witness.newest().map(|(_, owner)| owner);
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let is_first =
            process.inputs_taken > inputs_before && std::mem::take(&mut process.must_reproduce);
        if is_first && newest == Some(process.id) { self.check_takeover(host) } else { Ok(()) }
    }

    /// Copies some pages for a sync, if the engine requests them and the guest does not run.
    fn copy_memory(&mut self, host: usize) {
        let Host { thread_at: now, reading: clock, .. } = self.hosts[host];
        let own = &self.options.hosts[host];
        let Some(process) = &mut self.hosts[host].process else { return };
        if matches!(process.vcpu_state, VcpuState::Running(_)) || process.next_copy_at > now {
            return;
        }
        for _ in 0..own.copy_pages {
            match process.replica.poll_copy() {
                Some(CopyRequest::Begin) => {
                    process.machine.ram.take_dirty();
                    process.replica.copy_begun(clock);
                }
                Some(CopyRequest::Written) => {
                    let pages = process.machine.ram.take_dirty();
                    process.replica.written(clock, pages);
                }
                Some(CopyRequest::Page(number)) => {
                    process.replica.copied(clock, process.machine.ram.page(number));
                }
                None => return,
            }
            self.work += 1;
            // While a slowed guest pauses, there is nothing else to do.
            let is_paused = process.is_paused(now);
            process.next_copy_at =
                now + if is_paused { COPY_PAUSE_NS_MIN } else { own.copy_pause_ns };
        }
    }

    fn reached_position(&mut self, host: usize, before: RoleName) -> Checked {
        if is_logging(before) {
            self.counts.count(Count::Positions);
            return self.note_position(host);
        }
        if !super::check::is_synced_backup(before) {
            return Ok(());
        }
        let flipped = self.hosts[host].process.as_ref().is_some_and(|process| process.flipped);
        require!(!flipped, "host {host} misses a difference between its machine and the log");
        self.counts.count(Count::Compared);
        self.check_position(host, false)
    }

    /// Makes the next call of the engine.
    fn step_machine(&mut self, host: usize) -> Checked<Outcome> {
        let Host { thread_at: now, reading: clock, rng, process, .. } = &mut self.hosts[host];
        let (now, clock) = (*now, *clock);
        let Some(process) = process else { return Ok(Outcome::Pending) };
        match &process.vcpu_state {
            VcpuState::Entry | VcpuState::Stopped { .. } if process.is_paused(now) => {
                Ok(Outcome::Pending)
            }
            VcpuState::Entry => self.enter(host),
            VcpuState::Running(run) if run.until > now => Ok(Outcome::Pending),
            VcpuState::Running(run) => {
                let run = *run;
                self.end_run(host, run);
                Ok(Outcome::Advanced)
            }
            VcpuState::Stopped { window } => {
                let window = *window;
                self.handle_mid_region_stop(host, window)
            }
            VcpuState::Capture(_) => Ok(process.send_checkpoint(clock)),
            VcpuState::Position { position, digest, exit } => {
                let (position, digest, exit) = (*position, *digest, *exit);
                // A guest with a flipped register bit may not even reach its next exit.
                let breaks = rng.chance(Chance::percent(30)) && process.flipped;
                let step = if breaks {
                    process.replica.fatal(clock, &[0; REGISTERS], &"a fault")
                } else {
                    let vcpu = vcpu_digest(digest);
                    process.replica.reached(clock, position, &vcpu, &exit_name(exit))
                };
                let is_window = position == Position::Window;
                self.counts.add(Count::Windows, u64::from(is_window && step == Step::Ready(())));
                Ok(process.when_ready(step, |process, ()| {
                    process.vcpu_state = match exit {
                        Some(exit) => VcpuState::Exit { exit, at: 0 },
                        None => VcpuState::Inputs { entered: 0 },
                    };
                    Outcome::Position
                }))
            }
            VcpuState::Exit { exit, at } => {
                let (exit, at) = (*exit, *at);
                process.handle_exit(clock, exit, at)
            }
            VcpuState::Inputs { entered } => {
                let entered = *entered;
                process.take_input(clock, entered, self.options.hosts[host].polls_input_first)
            }
            VcpuState::Halted => {
                let step = process.replica.halted_guest(clock);
                Ok(process.when_ready(step, |process, halted| match halted {
                    WaitFor::Input => {
                        process.vcpu_state = VcpuState::Inputs { entered: 0 };
                        Outcome::Pending
                    }
                    WaitFor::Nothing => {
                        process.vcpu_state = VcpuState::Inputs { entered: 0 };
                        Outcome::Advanced
                    }
                    WaitFor::Capture => {
                        process.machine.cpu.halted = false;
                        process.vcpu_state = VcpuState::Entry;
                        Outcome::WokenForSync
                    }
                }))
            }
            VcpuState::Inject(vector) => {
                let vector = *vector;
                let step = process.replica.interrupt(clock, vector);
                self.counts.add(Count::Interrupts, u64::from(step == Step::Ready(())));
                Ok(process.when_ready(step, |process, ()| {
                    process.machine.cpu.injected = Some(vector);
                    process.vcpu_state = VcpuState::Entry;
                    Outcome::Advanced
                }))
            }
            VcpuState::Ended => Ok(Outcome::Pending),
        }
    }

    fn enter(&mut self, host: usize) -> Checked<Outcome> {
        let clock = self.hosts[host].reading;
        let pages = self.options.pair.memory_pages;
        let Some(process) = &mut self.hosts[host].process else { return Ok(Outcome::Pending) };
        let next = match process.replica.next_region(clock) {
            Step::Ready(next) => next,
            Step::Pending => return Ok(Outcome::Pending),
            Step::Invalidated => return Ok(Outcome::Invalidated),
        };
        let machine = &mut process.machine;
        match next {
            NextRegion::Run | NextRegion::RunToExit => {
                self.check_lag(host)?;
                self.counts.count(Count::Regions);
                let Some(process) = &mut self.hosts[host].process else {
                    return Ok(Outcome::Pending);
                };
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
                process.vcpu_state = VcpuState::Inputs { entered: 0 };
                return Ok(Outcome::Applied { full: image.full });
            }
            // Stopping the vCPU may complete one more exit.
            NextRegion::Capture if machine.cpu.injected.is_none() && machine.cpu.is_at_exit() => {
                let exit = Some(machine.reach_exit());
                let digest = machine.cpu_digest();
                process.vcpu_state = VcpuState::Position { position: Position::Exit, digest, exit };
            }
            NextRegion::Capture => process.vcpu_state = VcpuState::Capture(machine.capture()),
            NextRegion::End => process.vcpu_state = VcpuState::Ended,
        }
        Ok(Outcome::Advanced)
    }

    /// Starts a run of the guest, and draws where the host interrupts it.
    fn begin_run(&mut self, host: usize, ahead: Ahead, window: bool) {
        let own = &self.options.hosts[host];
        let Host { rng, process, thread_at, .. } = &mut self.hosts[host];
        let Some(process) = process else { return };
        let mut steps = ahead.steps;
        let mut ends = if ahead.at_window { RunEnd::Window } else { RunEnd::Exit };
        let regular = rng.within(1..=own.kick_steps_max);
        let kick = if rng.chance(own.spurious_stop) { rng.below(regular) } else { regular };
        if kick < steps {
            (steps, ends) = (kick, RunEnd::Kick);
        }
        if let Some((from, to)) = ahead.kernel
            && rng.chance(Chance::percent(50))
        {
            let at = rng.within(from..=to - 1);
            if at < steps {
                (steps, ends) = (at, RunEnd::KernelWindow);
            }
        }
        let takes_ns = steps * own.step_ns + rng.within(1..=own.exit_ns_max);
        let until = *thread_at + takes_ns;
        let pause = process.replica.guest_share().pause_after(Duration::from_nanos(takes_ns));
        process.paused_until = until + pause.as_nanos();
        process.vcpu_state = VcpuState::Running(Run { until, steps, ends, window });
    }

    fn end_run(&mut self, host: usize, run: Run) {
        let counts_interrupted = self.bugs.count_interrupted;
        let Some(process) = &mut self.hosts[host].process else { return };
        let machine = &mut process.machine;
        machine.run(run.steps);
        let is_mid_region = match run.ends {
            RunEnd::Exit | RunEnd::Window => false,
            RunEnd::Kick => !counts_interrupted,
            RunEnd::KernelWindow => true,
        };
        if is_mid_region {
            self.counts.count(Count::MidRegionStops);
            process.vcpu_state = VcpuState::Stopped { window: run.window };
            process.kernel_window = run.ends == RunEnd::KernelWindow;
            return;
        }
        let exit = (run.ends == RunEnd::Exit).then(|| machine.reach_exit());
        let position = match run.ends {
            RunEnd::Window => Position::Window,
            RunEnd::Exit | RunEnd::Kick | RunEnd::KernelWindow => Position::Exit,
        };
        let digest = machine.cpu_digest();
        process.vcpu_state = VcpuState::Position { position, digest, exit };
    }

    fn handle_mid_region_stop(&mut self, host: usize, window: bool) -> Checked<Outcome> {
        let own = &self.options.hosts[host];
        let Host { rng, process, reading: clock, .. } = &mut self.hosts[host];
        let clock = *clock;
        let Some(process) = process else { return Ok(Outcome::Pending) };
        let advice = match process.replica.mid_region_stop(clock) {
            Step::Ready(advice) => advice,
            Step::Pending => return Ok(Outcome::Pending),
            Step::Invalidated => return Ok(Outcome::Invalidated),
        };
        let stops = match advice {
            StopAdvice::Resume => false,
            StopAdvice::Checkpoint => true,
            StopAdvice::AsNeeded => {
                let capacity = process.machine.devices.capacity(&process.machine.ram);
                let since = process.world.waiting_since(&capacity);
                let waited_ns = since.map(|since| process.world.now.since(since).as_nanos());
                let overdue = waited_ns.is_some_and(|ns| ns >= own.input_wait_ns_max);
                let anyway = rng.chance(own.checkpoint);
                let is_released =
                    capacity.disk_requests_held && !process.replica.holds_disk_requests();
                overdue
                    || anyway
                    || is_released
                    || process.kernel_window && rng.chance(Chance::percent(75))
            }
        };
        if !stops {
            let ahead = process.machine.cpu.ahead(window);
            self.begin_run(host, ahead, window);
        } else if process.replica.keeps_checkpoints() {
            process.vcpu_state = VcpuState::Capture(process.machine.capture());
        } else {
            process.vcpu_state = VcpuState::Inputs { entered: 0 };
        }
        Ok(Outcome::Advanced)
    }
}
