//! The machine's calls of the engine that concern only its own process: the reads and writes of an exit, the
//! next input, a captured checkpoint.

use logchan::time::Time;
use replication::boundary::{DiskRequest, Input};
use replication::replica::Step;
use xxhash_rust::xxh3::xxh3_64;

use super::machine::Machine;
use super::machine::cpu::Exit;
use super::machine::devices::{TO_SEND, to_send};
use super::machine::disk::{self, MADE};
use super::packet;
use super::process::{Process, VcpuState};
use super::steps::{Outcome, is_logging};
use crate::sim::{Checked, require};

/// Maximum number of inputs at one position.
const INPUTS_MAX: usize = 1024;

impl Process {
    /// Passes the value of a ready step to `then`, and turns any other step into its outcome.
    pub(crate) fn when_ready<T>(
        &mut self,
        step: Step<T>,
        then: impl FnOnce(&mut Self, T) -> Outcome,
    ) -> Outcome {
        match step {
            Step::Ready(value) => then(self, value),
            Step::Pending => Outcome::Pending,
            Step::Invalidated => Outcome::Invalidated,
        }
    }

    pub(crate) fn send_checkpoint(&mut self, clock: Time) -> Outcome {
        let Self { replica, world, machine, vcpu_state, .. } = self;
        let VcpuState::Capture(captured) = vcpu_state else { return Outcome::Pending };
        let Ok(step) = replica.checkpoint(clock, world, &captured.view(&machine.ram));
        self.when_ready(step, |process, ()| {
            process.vcpu_state = VcpuState::Inputs { entered: 0 };
            Outcome::Checkpoint
        })
    }

    /// Performs the next device operation of an exit.
    pub(crate) fn handle_exit(&mut self, clock: Time, exit: Exit, at: u64) -> Checked<Outcome> {
        let Self { replica, world, machine, .. } = self;
        let step = match exit {
            Exit::Nothing | Exit::Status | Exit::Halt => return Ok(self.finish_exit(exit)),
            Exit::Disk => {
                machine.devices.disk.stalled = true;
                if let Some(outcome) = self.take_disk_requests() {
                    return Ok(outcome);
                }
                return Ok(self.finish_exit(exit));
            }
            Exit::Clocks(times) if at == u64::from(times) => return Ok(self.finish_exit(exit)),
            Exit::Send if at == machine.ram.word(TO_SEND) => return Ok(self.finish_exit(exit)),
            Exit::Clock | Exit::Clocks(_) | Exit::SetTimer(_) => {
                let Ok(step) = replica.clock_ns(clock, world);
                if let Step::Ready(now_ns) = step {
                    check_clock(machine, now_ns)?;
                    machine.answer_clock(now_ns);
                    if let Exit::SetTimer(us) = exit {
                        machine.devices.timer_ns = Some(now_ns + u64::from(us) * 1000);
                    }
                }
                step.map(|_| ())
            }
            Exit::WallClock => {
                let Ok(step) = replica.wall_clock_ns(clock, world);
                step.map(|unix_ns| machine.answer(unix_ns))
            }
            Exit::Entropy(length) => {
                let mut bytes = vec![0; length.into()];
                let Ok(step) = replica.entropy(clock, world, &mut bytes);
                step.map(|filled| machine.answer(xxh3_64(&bytes[..filled])))
            }
            Exit::Send => {
                let frame = to_send(&machine.ram, at).to_vec();
                let step = replica.output(clock, &frame);
                return Ok(self.when_ready(step, |process, ()| {
                    process.vcpu_state = VcpuState::Exit { exit, at: at + 1 };
                    Outcome::Output { number: packet::number(&frame).unwrap_or_default() }
                }));
            }
            Exit::Return => unreachable!("a return is not an exit"),
        };
        self.inputs_taken += u64::from(step == Step::Ready(()));
        Ok(self.when_ready(step, |process, ()| match exit {
            Exit::Clocks(_) => {
                process.vcpu_state = VcpuState::Exit { exit, at: at + 1 };
                Outcome::Advanced
            }
            Exit::Clock | Exit::SetTimer(_) | Exit::WallClock | Exit::Entropy(_) => {
                process.finish_exit(exit)
            }
            Exit::Nothing | Exit::Send | Exit::Disk | Exit::Status | Exit::Halt | Exit::Return => {
                unreachable!("handled above")
            }
        }))
    }

    /// Takes the requests to the disk that wait, as far as there is room. Returns the outcome of a call of the engine
    /// that is not ready.
    fn take_disk_requests(&mut self) -> Option<Outcome> {
        let logged_up_to = self.logged_up_to();
        let is_logging = is_logging(self.replica.role());
        let Self { replica, world, machine, required_changes, .. } = self;
        while machine.devices.disk.stalled && !replica.holds_disk_requests() {
            let Some(flight) = machine.devices.disk.next(&machine.ram) else {
                machine.devices.disk.stalled = machine.devices.disk.taken < machine.ram.word(MADE);
                break;
            };
            match disk::with_request(&flight, |request| replica.disk_request(world, request)) {
                Step::Ready(()) => {
                    if is_logging && flight.is_change() {
                        required_changes.insert(flight.number, logged_up_to);
                    }
                    machine.devices.disk.take(flight);
                    replica.begin_shared(world.now, world);
                }
                Step::Pending => return Some(Outcome::Pending),
                Step::Invalidated => return Some(Outcome::Invalidated),
            }
        }
        None
    }

    /// Passes the requests in flight to the engine, which has not seen them made.
    pub(crate) fn reissue(&mut self) {
        let Self { replica, world, machine, .. } = self;
        for flight in machine.devices.disk.flights() {
            let again = |request: &DiskRequest<'_>| replica.disk_request(world, request);
            let _step = disk::with_request(&flight, again);
        }
    }

    fn finish_exit(&mut self, exit: Exit) -> Outcome {
        self.machine.finish_exit(exit);
        self.vcpu_state = VcpuState::Inputs { entered: 0 };
        Outcome::Advanced
    }

    pub(crate) fn take_input(
        &mut self,
        clock: Time,
        entered: usize,
        polls_input_first: bool,
    ) -> Checked<Outcome> {
        if let Some(outcome) = self.take_disk_requests() {
            return Ok(outcome);
        }
        let Self { replica, world, machine, .. } = self;
        if entered < INPUTS_MAX {
            if polls_input_first {
                match replica.input_ready(clock, world) {
                    Step::Ready(()) => {}
                    Step::Pending => return Ok(Outcome::Pending),
                    Step::Invalidated => return Ok(Outcome::Invalidated),
                }
            }
            let capacity = machine.devices.capacity(&machine.ram);
            let Ok(step) = replica.next_input(clock, world, &capacity);
            require!(
                !(polls_input_first && step == Step::Pending),
                "the engine reports a ready input and then has none"
            );
            match step {
                Step::Ready(Some(input)) => {
                    self.inputs_taken += 1;
                    match input {
                        Input::Clock { now_ns } => check_clock(machine, now_ns)?,
                        Input::Frame(frame) => self.frame_taken = Some(frame.into()),
                        Input::Console(_) | Input::Disk(_) => {}
                    }
                    let Machine { devices, ram, .. } = machine;
                    devices.apply(ram, &input);
                    self.vcpu_state = VcpuState::Inputs { entered: entered + 1 };
                    return Ok(Outcome::Advanced);
                }
                Step::Ready(None) => {}
                Step::Pending => return Ok(Outcome::Pending),
                Step::Invalidated => return Ok(Outcome::Invalidated),
            }
        }
        let Machine { cpu, devices, .. } = machine;
        self.vcpu_state = if cpu.halted && !devices.interrupt_pending() {
            VcpuState::Halted
        } else {
            cpu.halted = false;
            if devices.interrupt_pending() && cpu.injectable() {
                VcpuState::Inject(devices.acknowledge())
            } else {
                VcpuState::Entry
            }
        };
        Ok(Outcome::Advanced)
    }
}

/// Checks that guest time does not go back, whichever host's clock it comes from.
fn check_clock(machine: &Machine, now_ns: u64) -> Checked {
    let before_ns = machine.devices.clock_ns;
    require!(now_ns >= before_ns, "guest time goes back from {before_ns} to {now_ns} ns");
    Ok(())
}
