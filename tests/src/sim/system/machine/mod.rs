//! The toy machine: deterministic, with everything that makes a real machine hard to replicate.
//!
//! Its behaviour is a function of its own state and of the inputs that cross the nondeterminism boundary.
//! Everything that happens changes registers and memory, so that a difference between two machines spreads.

pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod disk;
pub(crate) mod image;
pub(crate) mod program;
pub(crate) mod ram;

use xxhash_rust::xxh3::xxh3_64;

use cpu::{Ahead, Cpu, Exit};
use devices::Devices;
use program::GuestOptions;
use ram::Ram;

/// The processor, the devices and the memory.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The processor.
    pub(crate) cpu: Cpu,
    /// The devices.
    pub(crate) devices: Devices,
    /// Memory.
    pub(crate) ram: Ram,
    /// Padding of the processor's state in a checkpoint, because a real one is longer.
    pad_bytes: usize,
}

impl Machine {
    /// Creates a machine without state, to be restored from a checkpoint.
    pub(crate) fn empty(pages: u64, pad_bytes: usize) -> Self {
        let (cpu, devices) = (Cpu::new(), Devices::default());
        Self { cpu, devices, ram: Ram::new(pages), pad_bytes }
    }

    /// Creates a machine with the guest program loaded.
    pub(crate) fn boot(pages: u64, pad_bytes: usize, options: &GuestOptions) -> Self {
        let mut machine = Self::empty(pages, pad_bytes);
        machine.load(options);
        machine
    }

    /// Enters the guest: delivers an injected interrupt, and returns what lies ahead.
    pub(crate) fn enter(&mut self, window: bool) -> Ahead {
        self.cpu.deliver();
        self.cpu.ahead(window)
    }

    /// Executes `steps` steps, at most as many as lie ahead.
    pub(crate) fn run(&mut self, steps: u64) {
        (0..steps).for_each(|_| self.step());
        self.cpu.settle();
    }

    /// Completes a region that has ended in an exit, and returns the exit.
    pub(crate) fn reach_exit(&mut self) -> Exit {
        assert!(self.cpu.is_at_exit(), "an exit with steps to do");
        self.do_action();
        self.cpu.plan.exit
    }

    /// Gives the guest the value that it read.
    pub(crate) fn answer(&mut self, value: u64) {
        self.note(value);
    }

    /// Gives the guest the guest time that it read.
    pub(crate) fn answer_clock(&mut self, now_ns: u64) {
        self.devices.clock_ns = now_ns;
        self.note(now_ns);
    }

    /// Completes an exit after its device operations: the guest chooses its next plan.
    pub(crate) fn finish_exit(&mut self, exit: Exit) {
        match exit {
            Exit::Status => {
                let status = std::mem::take(&mut self.devices.status);
                self.handle_status(status);
            }
            Exit::Send => {
                self.ram.set_word(devices::TO_SEND, 0);
                self.choose_plan();
            }
            Exit::Halt => {
                self.cpu.halted = true;
                self.plan_after_halt();
            }
            Exit::Nothing
            | Exit::Clock
            | Exit::WallClock
            | Exit::Entropy(_)
            | Exit::Clocks(_)
            | Exit::Disk
            | Exit::SetTimer(_) => self.choose_plan(),
            Exit::Return => unreachable!("a return is not an exit"),
        }
    }

    /// A digest of the processor, which the hosts compare at each position.
    pub(crate) fn cpu_digest(&self) -> u64 {
        xxh3_64(&self.cpu_bytes())
    }

    /// A digest of the complete state, which the simulator compares.
    pub(crate) fn digest(&mut self) -> u64 {
        let parts = [self.cpu_digest(), xxh3_64(&self.devices_bytes()), self.ram.digest()];
        xxh3_64(&parts.map(u64::to_le_bytes).concat())
    }

    /// Number of frames that the guest has sent, including those in the send ring.
    pub(crate) fn sent(&self) -> u64 {
        self.ram.word(program::SENT)
    }
}
