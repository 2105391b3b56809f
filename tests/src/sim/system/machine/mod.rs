//! A toy machine: deterministic, with everything that makes a real one hard to follow.
//!
//! What it does is a function of its own state and of what comes through the door. Everything that
//! happens goes into registers and memory, so a difference between two of them spreads.

pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod image;
pub(crate) mod program;
pub(crate) mod ram;

use xxhash_rust::xxh3::xxh3_64;

use cpu::{Ahead, Cpu, Exit};
use devices::Devices;
use program::GuestOptions;
use ram::Ram;

/// Registers, devices, memory.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The processor.
    pub(crate) cpu: Cpu,
    /// The devices.
    pub(crate) devices: Devices,
    /// Memory.
    pub(crate) ram: Ram,
    /// Bytes that a checkpoint has beside the processor's state, as a real one's is longer.
    pad_bytes: usize,
}

impl Machine {
    /// A machine that is to be given its state.
    pub(crate) fn empty(pages: u64, pad_bytes: usize) -> Self {
        let (cpu, devices) = (Cpu::new(), Devices::default());
        Self { cpu, devices, ram: Ram::new(pages), pad_bytes }
    }

    /// A machine with the program in it.
    pub(crate) fn boot(pages: u64, pad_bytes: usize, options: &GuestOptions) -> Self {
        let mut machine = Self::empty(pages, pad_bytes);
        machine.load(options);
        machine
    }

    /// Enters the guest; what lies ahead of it then.
    pub(crate) fn enter(&mut self, window: bool) -> Ahead {
        self.cpu.deliver();
        self.cpu.ahead(window)
    }

    /// Executes `steps` steps, no more than lie ahead.
    pub(crate) fn run(&mut self, steps: u64) {
        (0..steps).for_each(|_| self.step());
        self.cpu.settle();
    }

    /// The region has ended in an exit, which is this one.
    pub(crate) fn reach_exit(&mut self) -> Exit {
        assert!(self.cpu.is_at_exit(), "an exit with steps to do");
        self.do_deed();
        self.cpu.plan.exit
    }

    /// Something was read.
    pub(crate) fn answer(&mut self, value: u64) {
        self.note(value);
    }

    /// The clock was read.
    pub(crate) fn answer_clock(&mut self, now_ns: u64) {
        self.devices.clock_ns = now_ns;
        self.note(now_ns);
    }

    /// The exit's devices have done their work: the guest makes its next plan.
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
            | Exit::SetTimer(_) => self.choose_plan(),
            Exit::Return => unreachable!("a return is no exit"),
        }
    }

    /// A digest of the processor: what hosts compare at each position.
    pub(crate) fn cpu_digest(&self) -> u64 {
        xxh3_64(&self.cpu_bytes())
    }

    /// A digest of everything: what the simulator compares.
    pub(crate) fn digest(&mut self) -> u64 {
        let parts = [self.cpu_digest(), xxh3_64(&self.devices_bytes()), self.ram.digest()];
        xxh3_64(&parts.map(u64::to_le_bytes).concat())
    }

    /// Frames that the guest has sent, those in the send ring included.
    pub(crate) fn sent(&self) -> u64 {
        self.ram.word(program::SENT)
    }
}
