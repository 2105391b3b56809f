//! The encoding of the toy machine's state in a checkpoint: little-endian words.

use logchan::limits::PAGE_BYTES;
use replication::checkpoint::{CheckpointImage, Image};

use super::Machine;
use super::cpu::{Cpu, Exit, GuestAction, Plan};
use super::devices::Devices;
use super::disk::{DISK_WORDS, Disk};
use super::ram::{PageContents, Ram};

/// A checkpoint that was just captured. Its pages are still in the machine's memory.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    vcpu: Vec<u8>,
    devices: Vec<u8>,
    pages: Vec<u64>,
}

impl Captured {
    /// Number of its pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The checkpoint together with the memory that it was captured from.
    pub(crate) fn view<'a>(&'a self, ram: &'a Ram) -> View<'a> {
        View { captured: self, ram }
    }
}

/// See [`Captured::view`].
#[derive(Debug)]
pub(crate) struct View<'a> {
    captured: &'a Captured,
    ram: &'a Ram,
}

impl CheckpointImage for View<'_> {
    fn vcpu(&self) -> &[u8] {
        &self.captured.vcpu
    }

    fn devices(&self) -> &[u8] {
        &self.captured.devices
    }

    fn pages(&self) -> &[u64] {
        &self.captured.pages
    }

    fn full(&self) -> bool {
        false
    }

    fn memory_pages(&self) -> u64 {
        self.ram.pages()
    }

    fn read_page(&self, number: u64, page: &mut PageContents) {
        *page = *self.ram.page(number);
    }
}

const ACTIONS: [GuestAction; 4] =
    [GuestAction::None, GuestAction::Receive, GuestAction::SendUnsolicited, GuestAction::AskDisk];

fn exit_words(exit: Exit) -> [u64; 2] {
    match exit {
        Exit::Nothing => [0, 0],
        Exit::Clock => [1, 0],
        Exit::WallClock => [2, 0],
        Exit::Entropy(bytes) => [3, bytes.into()],
        Exit::Clocks(times) => [4, times.into()],
        Exit::SetTimer(us) => [5, us.into()],
        Exit::Send => [6, 0],
        Exit::Status => [7, 0],
        Exit::Halt => [8, 0],
        Exit::Return => [9, 0],
        Exit::Disk => [10, 0],
    }
}

fn exit_of([kind, value]: [u64; 2]) -> Exit {
    match kind {
        0 => Exit::Nothing,
        1 => Exit::Clock,
        2 => Exit::WallClock,
        3 => Exit::Entropy(value as u16),
        4 => Exit::Clocks(value as u8),
        5 => Exit::SetTimer(value as u32),
        6 => Exit::Send,
        7 => Exit::Status,
        8 => Exit::Halt,
        9 => Exit::Return,
        10 => Exit::Disk,
        _ => panic!("{kind} is not the number of an exit"),
    }
}

const PLAN_WORDS: usize = 7;

fn plan_words(plan: &Plan) -> [u64; PLAN_WORDS] {
    let [masked, kernel, user] = plan.left.map(u64::from);
    let [kind, value] = exit_words(plan.exit);
    [masked, kernel, user, plan.action as u64, kind, value, plan.handler.into()]
}

fn plan_of(words: &[u64]) -> Plan {
    let &[masked, kernel, user, action, kind, value, handler] = words else {
        panic!("a plan of {} words", words.len());
    };
    Plan {
        left: [masked, kernel, user].map(|steps| steps as u32),
        action: ACTIONS[action as usize],
        exit: exit_of([kind, value]),
        handler: handler != 0,
    }
}

/// Encodes `None` as 0 and a value as the value plus one.
fn option_word(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value + 1)
}

fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn to_words(bytes: &[u8]) -> Vec<u64> {
    let (chunks, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "{} bytes are not whole words", bytes.len());
    chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}

/// Words of the processor's state.
const CPU_WORDS: usize = 5 + 1 + 2 * PLAN_WORDS;

impl Machine {
    pub(crate) fn cpu_bytes(&self) -> Vec<u8> {
        let Cpu { hash, random, steps, plan, interrupted, injected, halted } = &self.cpu;
        let mut words = vec![*hash, *random, *steps];
        words.push(option_word(injected.map(u64::from)));
        words.push(u64::from(*halted));
        words.push(u64::from(interrupted.is_some()));
        words.extend(plan_words(plan));
        words.extend(plan_words(&interrupted.unwrap_or(*plan)));
        to_bytes(&words)
    }

    fn set_cpu(&mut self, bytes: &[u8]) {
        let words = to_words(&bytes[..CPU_WORDS * 8]);
        let [hash, random, steps, injected, halted, is_interrupted] = words[..6] else {
            panic!("a processor of {} words", words.len());
        };
        let (plan, interrupted) = words[6..].split_at(PLAN_WORDS);
        self.cpu = Cpu {
            hash,
            random,
            steps,
            plan: plan_of(plan),
            interrupted: (is_interrupted != 0).then(|| plan_of(interrupted)),
            injected: injected.checked_sub(1).map(|vector| vector as u8),
            halted: halted != 0,
        };
    }

    pub(crate) fn devices_bytes(&self) -> Vec<u8> {
        let Devices { pending, status, timer_ns, clock_ns, console, disk } = &self.devices;
        let mut words = vec![*pending, *status, option_word(*timer_ns), *clock_ns];
        words.extend(disk.words());
        words.extend(console.iter().map(|&byte| u64::from(byte)));
        to_bytes(&words)
    }

    fn set_devices(&mut self, bytes: &[u8]) {
        let words = to_words(bytes);
        let [pending, status, timer, clock_ns] = words[..4] else {
            panic!("devices of {} words", words.len());
        };
        let timer_ns = timer.checked_sub(1);
        let (disk, console) = words[4..].split_at(DISK_WORDS);
        let (disk, console) =
            (Disk::of_words(disk), console.iter().map(|&word| word as u8).collect());
        self.devices = Devices { pending, status, timer_ns, clock_ns, console, disk };
    }

    /// Captures a checkpoint with the pages that changed since the last one.
    pub(crate) fn capture(&mut self) -> Captured {
        let mut vcpu = self.cpu_bytes();
        vcpu.resize(vcpu.len() + self.pad_bytes, 0xa5);
        Captured { vcpu, devices: self.devices_bytes(), pages: self.ram.take_dirty() }
    }

    /// Applies a checkpoint.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the checkpoint.
    pub(crate) fn restore(&mut self, image: &Image) -> Result<(), String> {
        if image.full {
            self.ram = Ram::new(self.ram.pages());
        }
        for page in &image.pages {
            if page.number >= self.ram.pages() {
                return Err(format!("page {} of {}", page.number, self.ram.pages()));
            }
            let bytes: Option<&[u8; PAGE_BYTES]> = page.bytes.as_deref();
            self.ram.restore(page.number, bytes);
        }
        self.set_cpu(&image.vcpu);
        self.set_devices(&image.devices);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::system::machine::program::{GuestOptions, PAGES_MIN};
    use replication::checkpoint::PageImage;

    fn options() -> GuestOptions {
        GuestOptions {
            busy_percent: 30,
            compute_steps_max: 500,
            device_read_percent: 50,
            entropy_bytes_max: 64,
            timer_us_max: 1000,
            unsolicited_percent: 50,
            disk_percent: 0,
            disk_depth: 1,
        }
    }

    fn run_one(machine: &mut Machine, at: u64) {
        let ahead = machine.enter(false);
        machine.run(ahead.steps);
        let exit = machine.reach_exit();
        machine.answer(at);
        machine.finish_exit(exit);
        machine.cpu.halted = false;
        if machine.cpu.injectable() && at.is_multiple_of(3) {
            machine.cpu.injected = Some(33);
        }
    }

    #[test]
    fn machine_restored_from_a_checkpoint_continues_identically() {
        let mut machine = Machine::boot(PAGES_MIN + 3, 100, &options());
        let mut copy = Machine::empty(PAGES_MIN + 3, 100);
        for at in 0..2000 {
            run_one(&mut machine, at);
            if at < 1000 {
                continue;
            }
            if at.is_multiple_of(100) {
                let captured = machine.capture();
                let pages = captured.pages.iter().map(|&number| PageImage {
                    number,
                    bytes: Some(Box::new(*machine.ram.page(number))),
                });
                let image = Image {
                    full: at == 1000,
                    vcpu: captured.vcpu.clone(),
                    devices: captured.devices.clone(),
                    pages: pages.collect(),
                };
                copy.restore(&image).unwrap();
            } else {
                run_one(&mut copy, at);
            }
            assert_eq!(machine.digest(), copy.digest(), "after {at}");
        }
    }
}
