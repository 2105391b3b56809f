//! Questions that a machine asks of its own process alone: what an exit reads and writes, which input
//! comes next, whether a checkpoint was taken.

use logchan::time::Time;
use vmm::replay::boundary::Input;
use vmm::replica::Step;
use xxhash_rust::xxh3::xxh3_64;

use super::machine::Machine;
use super::machine::cpu::Exit;
use super::machine::devices::{TO_SEND, to_send};
use super::packet;
use super::process::{Place, Process};
use super::steps::Did;
use crate::sim::{Checked, require};

/// Inputs that enter at one position, at most.
const INPUTS_MAX: usize = 1024;

impl Process {
    /// Takes an answer, if it is one.
    pub(crate) fn take<T>(&mut self, step: Step<T>, then: impl FnOnce(&mut Self, T) -> Did) -> Did {
        match step {
            Step::Ready(value) => then(self, value),
            Step::Pending => Did::Waits,
            Step::Invalidated => Did::Invalidated,
        }
    }

    pub(crate) fn give_checkpoint(&mut self, clock: Time) -> Did {
        let Self { replica, world, machine, place, .. } = self;
        let Place::Capture(captured) = place else { return Did::Waits };
        let Ok(step) = replica.checkpoint(clock, world, &captured.view(&machine.ram));
        self.take(step, |process, ()| {
            process.place = Place::Inputs { entered: 0 };
            Did::Checkpoint
        })
    }

    /// The devices do the next thing that an exit asks for.
    pub(crate) fn handle_exit(&mut self, clock: Time, exit: Exit, at: u64) -> Checked<Did> {
        let Self { replica, world, machine, .. } = self;
        let step = match exit {
            Exit::Nothing | Exit::Status | Exit::Halt => return Ok(self.finish_exit(exit)),
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
                step.map(|()| machine.answer(xxh3_64(&bytes)))
            }
            Exit::Send => {
                let frame = to_send(&machine.ram, at).to_vec();
                let step = replica.output(clock, &frame);
                return Ok(self.take(step, |process, ()| {
                    process.place = Place::Exit { exit, at: at + 1 };
                    Did::Output { number: packet::number(&frame).unwrap_or_default() }
                }));
            }
            Exit::Return => unreachable!("a return is no exit"),
        };
        self.learned += u64::from(step == Step::Ready(()));
        Ok(self.take(step, |process, ()| match exit {
            Exit::Clocks(_) => {
                process.place = Place::Exit { exit, at: at + 1 };
                Did::Went
            }
            Exit::Clock | Exit::SetTimer(_) | Exit::WallClock | Exit::Entropy(_) => {
                process.finish_exit(exit)
            }
            Exit::Nothing | Exit::Send | Exit::Status | Exit::Halt | Exit::Return => {
                unreachable!("handled above")
            }
        }))
    }

    fn finish_exit(&mut self, exit: Exit) -> Did {
        self.machine.finish_exit(exit);
        self.place = Place::Inputs { entered: 0 };
        Did::Went
    }

    pub(crate) fn take_input(
        &mut self,
        clock: Time,
        entered: usize,
        asks_first: bool,
    ) -> Checked<Did> {
        let Self { replica, world, machine, .. } = self;
        if entered < INPUTS_MAX {
            if asks_first {
                match replica.input_ready(clock) {
                    Step::Ready(()) => {}
                    Step::Pending => return Ok(Did::Waits),
                    Step::Invalidated => return Ok(Did::Invalidated),
                }
            }
            let capacity = machine.devices.capacity(&machine.ram);
            let Ok(step) = replica.next_input(clock, world, &capacity);
            require!(
                !(asks_first && step == Step::Pending),
                "an answer that is there is not given"
            );
            match step {
                Step::Ready(Some(input)) => {
                    self.learned += 1;
                    if let Input::Clock { now_ns } = input {
                        check_clock(machine, now_ns)?;
                    }
                    let Machine { devices, ram, .. } = machine;
                    devices.apply(ram, &input);
                    self.place = Place::Inputs { entered: entered + 1 };
                    return Ok(Did::Went);
                }
                Step::Ready(None) => {}
                Step::Pending => return Ok(Did::Waits),
                Step::Invalidated => return Ok(Did::Invalidated),
            }
        }
        let Machine { cpu, devices, .. } = machine;
        self.place = if cpu.halted && !devices.interrupt_pending() {
            Place::Halted
        } else {
            cpu.halted = false;
            if devices.interrupt_pending() && cpu.injectable() {
                Place::Inject(devices.acknowledge())
            } else {
                Place::Entry
            }
        };
        Ok(Did::Went)
    }
}

/// Guest time never goes back, whoever's clock it comes from.
fn check_clock(machine: &Machine, now_ns: u64) -> Checked {
    let before_ns = machine.devices.clock_ns;
    require!(now_ns >= before_ns, "guest time goes back from {before_ns} to {now_ns} ns");
    Ok(())
}
