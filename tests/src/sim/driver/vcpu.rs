//! The vCPU loop of the toy machine over the driver, in the order of calls of `vmm::vcpu::run_loop`. It blocks
//! in the driver, as the real one does.

use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use replication::boundary::{
    Boundary, DeviceBoundary, EndState, Input, Memory, Position, Region, StopAction, Waited,
};
use replication::driver::Driver;
use replication::error::BoundaryError;
use xxhash_rust::xxh3::xxh3_64;

use super::check::{LogState, Share};
use super::count::Count;
use super::faults::CrashPoint;
use super::options::HostOptions;
use super::sim_host::{SimHost, TapFailed};
use super::thread::{Thread, WakeBy};
use crate::sim::rng::Chance;
use crate::sim::system::machine::Machine;
use crate::sim::system::machine::cpu::Exit;
use crate::sim::system::machine::devices::{TO_SEND, to_send};
use crate::sim::system::packet;
use crate::sim::system::steps::{exit_name, vcpu_digest};
use crate::sim::{MS, Violation};

/// Maximum number of inputs at one position.
const INPUTS_MAX: usize = 1024;

/// Interval of keepalives while a checkpoint is applied.
const KEEPALIVE_NS: u64 = MS;

/// Probability that a checkpoint takes as long per page as the first one of a sync.
const SLOW_APPLY: Chance = Chance::percent(10);

/// Why a machine's run ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The driver ended it.
    Boundary(BoundaryError<TapFailed>),
    /// A checkpoint could not be applied.
    CannotApply(String),
}

impl From<BoundaryError<TapFailed>> for Stop {
    fn from(error: BoundaryError<TapFailed>) -> Self {
        Self::Boundary(error)
    }
}

type Ran<T = ()> = Result<T, Stop>;

/// How a region ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// The guest halted.
    Halt,
    /// Any other position.
    Running,
}

/// The machine's memory, for precopy.
struct Pages<'m, 't> {
    machine: &'m mut Machine,
    thread: &'m Thread<'t>,
}

impl Memory for Pages<'_, '_> {
    type Error = BoundaryError<TapFailed>;

    fn take_written(&mut self) -> Result<Vec<u64>, Self::Error> {
        Ok(self.machine.ram.take_dirty())
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        let host = self.thread.host;
        let takes_ns = self.thread.with(|state| state.hosts[host].options.copy_page_ns);
        self.thread.sleep(takes_ns);
        *page = *self.machine.ram.page(number);
    }
}

/// See the [module](self).
pub(super) struct Vcpu<'m, 'd, 't> {
    machine: &'m mut Machine,
    driver: &'d mut Driver<SimHost<'t>>,
    thread: &'m Thread<'t>,
    share: Share,
}

impl<'m, 'd, 't> Vcpu<'m, 'd, 't> {
    /// Creates the vCPU of `machine`.
    pub(super) fn new(
        machine: &'m mut Machine,
        driver: &'d mut Driver<SimHost<'t>>,
        thread: &'m Thread<'t>,
    ) -> Self {
        Self { machine, driver, thread, share: Share::default() }
    }

    /// Runs the machine until the driver ends the run.
    ///
    /// # Errors
    ///
    /// The machine's state is not valid any more, or the host has failed.
    pub(super) fn run(mut self) -> Ran {
        loop {
            self.poll_memory()?;
            let reached = match self.call(|driver| driver.next_region())? {
                Region::Run => {
                    let pending = self.machine.devices.interrupt_pending();
                    self.run_region(pending)?
                }
                Region::RunToExit => self.run_region(false)?,
                Region::Pending => continue,
                Region::Apply => {
                    self.apply()?;
                    Reached::Running
                }
                // Stopping the vCPU may complete one more exit.
                Region::Capture if self.is_at_exit() => self.handle_exit()?,
                Region::Capture => {
                    self.take_checkpoint()?;
                    Reached::Running
                }
                Region::End => return self.end(),
            };
            self.enter_inputs(reached)?;
            self.inject()?;
        }
    }

    fn is_at_exit(&self) -> bool {
        self.machine.cpu.injected.is_none() && self.machine.cpu.is_at_exit()
    }

    /// Calls the driver, and records what the call has added to the log.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Driver<SimHost<'t>>) -> Result<T, BoundaryError<TapFailed>>,
    ) -> Ran<T> {
        let result = call(self.driver);
        let now = self.thread.now();
        let checked = self.thread.with(|state| {
            let replica = &self.driver.parts().replica;
            state.look(self.thread.host, replica);
            state.check_timeout(self.thread.host, now, replica.poll_timeout())
        });
        self.thread.check(checked);
        Ok(result?)
    }

    /// Calls the driver for something nondeterministic.
    fn ask<T>(
        &mut self,
        call: impl FnOnce(&mut Driver<SimHost<'t>>) -> Result<T, BoundaryError<TapFailed>>,
    ) -> Ran<T> {
        let before = self.logged();
        let answer = self.call(call)?;
        let after = self.logged();
        if after != before {
            self.thread.with(|state| state.note_nondeterministic(self.thread.host, after));
        }
        Ok(answer)
    }

    /// Session and end of the log.
    fn logged(&self) -> (u64, u64) {
        let channel = self.driver.parts().replica.channel();
        channel.map_or((0, 0), |c| (c.config().session.0, c.appended(Lane::Latency).0))
    }

    fn outputs_made(&self) -> u64 {
        self.machine.sent() - self.machine.ram.word(TO_SEND)
    }

    /// The machine has taken a nondeterministic value or an input.
    fn took_input(&mut self) {
        let made = self.outputs_made();
        self.thread.check(self.thread.with(|state| state.check_takeover(self.thread.host, made)));
    }

    fn poll_memory(&mut self) -> Ran {
        let mut pages = Pages { machine: self.machine, thread: self.thread };
        self.driver.poll_memory(&mut pages)?;
        let now =
            self.thread.with(|state| state.queue.now() + state.hosts[self.thread.host].debt_ns);
        let share = self.driver.parts().replica.guest_share();
        let checked = self.share.check(now, share);
        self.thread.check(checked);
        Ok(())
    }

    fn run_region(&mut self, window: bool) -> Ran<Reached> {
        let mut ahead = self.machine.enter(window);
        loop {
            let (step_ns, exit_ns, spurious, kernel) = self.thread.with(|state| {
                let own = &mut state.hosts[self.thread.host];
                let exit_ns = own.rng.within(1..=own.options.exit_ns_max);
                let spurious = own.rng.chance(own.options.spurious_stop);
                let spurious = spurious.then(|| own.rng.below(ahead.steps.max(1)));
                let kernel = ahead.kernel.map(|(from, to)| own.rng.within(from..=to - 1));
                let kernel = kernel.filter(|_| own.rng.chance(Chance::percent(50)));
                state.counts.count(Count::Regions);
                (state.hosts[self.thread.host].options.step_ns, exit_ns, spurious, kernel)
            });
            // Where the region ends, unless the vCPU is kicked before.
            let (steps, is_kernel_window) = match (kernel, spurious) {
                (Some(at), Some(stop)) if at < stop => (at, true),
                (Some(at), None) => (at, true),
                (_, Some(stop)) => (stop, false),
                (None, None) => (ahead.steps, false),
            };
            let is_whole = kernel.is_none() && spurious.is_none();
            let ran = self.sleep_in_guest(steps * step_ns + if is_whole { exit_ns } else { 0 });
            let steps = match ran {
                None => steps,
                Some(ran_ns) => (ran_ns / step_ns).min(steps),
            };
            self.machine.run(steps);
            if ran.is_none() && is_whole {
                if !ahead.at_window {
                    return self.handle_exit();
                }
                let digest = vcpu_digest(self.machine.cpu_digest());
                let name = exit_name(None);
                self.call(|driver| driver.reached(Position::Window, &digest, &name))?;
                return Ok(Reached::Running);
            }
            self.thread.with(|state| state.counts.count(Count::MidRegionStops));
            let action = if ran.is_none() && is_kernel_window {
                self.call(|driver| driver.window_at_cpl0())?
            } else {
                self.poll_memory()?;
                let capacity = self.machine.devices.capacity(&self.machine.ram);
                self.call(|driver| driver.interrupted(&capacity, window))?
            };
            match action {
                StopAction::Resume => ahead = self.machine.cpu.ahead(window),
                StopAction::Checkpoint => {
                    self.take_checkpoint()?;
                    return Ok(Reached::Running);
                }
            }
        }
    }

    /// The guest runs for `ns`. Returns for how long it ran until it was kicked, if it was.
    fn sleep_in_guest(&mut self, ns: u64) -> Option<u64> {
        // What was done before it entered the guest.
        self.thread.sleep(0);
        let (now, kick_at) = self.thread.with(|state| {
            let own = &state.hosts[self.thread.host];
            assert!(own.kick_at.is_some(), "the guest is entered, and nothing kicks it");
            let has_order = own.process.as_ref().is_some_and(|p| p.order.is_some());
            // A signal that is pending at entry ends the run at once.
            let kick_at = if has_order { Some(0) } else { own.kick_at };
            (state.queue.now(), kick_at)
        });
        let until = now + ns;
        let wake_at = kick_at.map_or(until, |at| at.max(now + 1).min(until));
        self.thread.sleep_until(wake_at, WakeBy::KICK);
        let ran_ns = self.thread.with(|state| state.queue.now()) - now;
        self.share.ran(ran_ns);
        (ran_ns < ns).then_some(ran_ns)
    }

    fn handle_exit(&mut self) -> Ran<Reached> {
        let exit = self.machine.reach_exit();
        let digest = vcpu_digest(self.machine.cpu_digest());
        let name = exit_name(Some(exit));
        self.call(|driver| driver.reached(Position::Exit, &digest, &name))?;
        match exit {
            Exit::Nothing => self.driver.console_output(b'a' + (self.machine.cpu.hash % 26) as u8),
            Exit::Status => self.driver.interrupt_served(),
            // The guest has no disk here.
            Exit::Halt | Exit::Disk => {}
            Exit::Clock | Exit::SetTimer(_) => {
                let now_ns = self.read_clock()?;
                if let Exit::SetTimer(us) = exit {
                    self.machine.devices.timer_ns = Some(now_ns + u64::from(us) * 1000);
                }
            }
            Exit::Clocks(times) => {
                for _ in 0..times {
                    self.read_clock()?;
                }
            }
            Exit::WallClock => {
                let unix_ns = self.ask(|driver| driver.wall_clock_ns())?;
                self.machine.answer(unix_ns);
                self.took_input();
            }
            Exit::Entropy(length) => {
                let mut bytes = vec![0; length.into()];
                let filled = self.ask(|driver| driver.entropy(&mut bytes))?;
                self.machine.answer(xxh3_64(&bytes[..filled]));
                self.took_input();
            }
            Exit::Send => {
                for at in 0..self.machine.ram.word(TO_SEND) {
                    let frame = to_send(&self.machine.ram, at).to_vec();
                    let number = packet::number(&frame).expect("a frame of the VM");
                    self.thread.with(|state| state.require_log(self.thread.host, number));
                    self.call(|driver| driver.output(&frame))?;
                }
            }
            Exit::Return => unreachable!("a return is not an exit"),
        }
        self.machine.finish_exit(exit);
        let at_end = self.log_state();
        self.call(|driver| driver.exit_handled())?;
        if exit == Exit::Send {
            let host = self.thread.host;
            self.thread.check(self.thread.with(|state| state.check_log_sent(host, at_end)));
        }
        Ok(if exit == Exit::Halt { Reached::Halt } else { Reached::Running })
    }

    /// What the channel could send now.
    fn log_state(&self) -> LogState {
        let channel = self.driver.parts().replica.channel();
        let wants_to_send = channel.is_some_and(|channel| channel.wants_to_send(Lane::Latency));
        let frames = self.thread.with(|state| state.log_frames(self.thread.host));
        LogState { wants_to_send, frames }
    }

    fn read_clock(&mut self) -> Ran<u64> {
        let now_ns = self.ask(|driver| driver.clock_ns())?;
        self.check_clock(now_ns);
        self.machine.answer_clock(now_ns);
        self.took_input();
        Ok(now_ns)
    }

    fn check_clock(&self, now_ns: u64) {
        let before_ns = self.machine.devices.clock_ns;
        if now_ns < before_ns {
            let what = format!("guest time goes back from {before_ns} to {now_ns} ns");
            self.thread.check(Err(Violation(what)));
        }
    }

    fn enter_inputs(&mut self, reached: Reached) -> Ran {
        loop {
            for _ in 0..INPUTS_MAX {
                let capacity = self.machine.devices.capacity(&self.machine.ram);
                let before = self.logged();
                let Some(input) = self.driver.next_input(&capacity)? else { break };
                if let Input::Clock { now_ns } = input
                    && now_ns < self.machine.devices.clock_ns
                {
                    let what = format!("guest time goes back to {now_ns} ns by an input");
                    self.thread.check(Err(Violation(what)));
                }
                let Machine { devices, ram, .. } = &mut *self.machine;
                devices.apply(ram, &input);
                let after = self.logged();
                if before != after {
                    self.thread.with(|state| state.note_nondeterministic(self.thread.host, after));
                }
                self.took_input();
            }
            self.thread.with(|state| state.look(self.thread.host, &self.driver.parts().replica));
            if reached == Reached::Running || self.machine.devices.interrupt_pending() {
                break;
            }
            let capacity = self.machine.devices.capacity(&self.machine.ram);
            match self.call(|driver| driver.wait(&capacity))? {
                Waited::Poll => self.poll_memory()?,
                Waited::End => break,
            }
        }
        self.machine.cpu.halted = false;
        Ok(())
    }

    fn inject(&mut self) -> Ran {
        if self.machine.devices.interrupt_pending() && self.machine.cpu.injectable() {
            let vector = self.machine.devices.acknowledge();
            self.ask(|driver| driver.interrupt(vector))?;
            self.machine.cpu.injected = Some(vector);
        }
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Ran {
        if !self.driver.keeps_checkpoints() {
            return Ok(());
        }
        let captured = self.machine.capture();
        let pages = captured.pages();
        self.thread.reach(CrashPoint::Capture);
        let page_ns =
            self.thread.with(|state| state.hosts[self.thread.host].options.capture_page_ns);
        self.thread.sleep((pages + 1) * page_ns);
        // Stopping the vCPU consumes a kick that has come meanwhile.
        self.thread.with(|state| {
            let now = state.queue.now();
            let own = &mut state.hosts[self.thread.host];
            own.kick_at = own.kick_at.filter(|&at| at > now);
        });
        let before = self.logged();
        let image = captured.view(&self.machine.ram);
        let result = self.driver.checkpoint(&image);
        let after = self.logged();
        self.thread.with(|state| {
            let host = self.thread.host;
            state.look(host, &self.driver.parts().replica);
            if before != after {
                state.counts.count(Count::CheckpointsSent);
                state.note_nondeterministic(host, after);
            }
        });
        Ok(result?)
    }

    fn apply(&mut self) -> Ran {
        let image = self.call(|driver| driver.take_checkpoint())?;
        let (page_ns, silence_ns) = self.thread.with(|state| {
            state.counts.count(Count::CheckpointsApplied);
            let own = &mut state.hosts[self.thread.host];
            // A host that takes long for each of them would only be overloaded.
            let is_slow = own.rng.chance(SLOW_APPLY) || image.full;
            let HostOptions { apply_page_ns, capture_page_ns, .. } = own.options;
            let page_ns = if is_slow { apply_page_ns } else { capture_page_ns };
            (page_ns, state.options.pair.timing.silence.as_nanos())
        });
        let mut left_ns = (image.pages.len() as u64 + 1) * page_ns;
        if left_ns > silence_ns {
            self.thread.with(|state| state.counts.count(Count::LongApplies));
        }
        let mut result = Ok(());
        while left_ns > 0 {
            let span_ns = left_ns.min(KEEPALIVE_NS);
            self.thread.sleep(span_ns);
            left_ns -= span_ns;
            self.thread.reach(CrashPoint::Apply);
            if result.is_ok() {
                result = self.call(|driver| driver.keepalive());
            }
        }
        let is_full = image.full;
        if self.thread.with(|state| state.fails_to_apply(self.thread.host)) {
            return Err(Stop::CannotApply("a planned failure".into()));
        }
        self.machine.restore(&image).map_err(Stop::CannotApply)?;
        result?;
        if is_full {
            let made = self.outputs_made();
            self.thread.with(|state| state.note_base(self.thread.host, made));
        }
        self.call(|driver| driver.applied())
    }

    fn end(&mut self) -> Ran {
        let end = EndState { natural_exits: 0, interrupts: 0, memory_digest: 0, state_digest: 0 };
        self.call(|driver| driver.end(&end))
    }
}
