//! The toy machine's guest program: a minimal operating system with a counter and an echo service.
//!
//! The counter service gives each request of a client the next number. A request has an id, and a repeated
//! request gets the same answer, as TCP would ensure for a client.

use super::Machine;
use super::cpu::{Exit, GuestAction, KERNEL, MASKED, Plan, USER};
use super::devices::{self, Line, RECEIVED, RING_SLOTS, TAKEN, TO_SEND};
use super::disk::{self, BLOCKS};
use crate::sim::system::packet::{self, Kind, Message};

/// Address of the number of frames that the VM has sent since boot.
pub(crate) const SENT: usize = 0x00;
/// Address of the counter.
pub(crate) const COUNTER: usize = 0x20;
/// Address of the number of words written to the ring at [`NOTE_RING`].
const NOTES: usize = 0x28;
/// Address of the flag that the timer is set.
const TIMER_SET: usize = 0x30;
/// Address of the flag that an unsolicited frame is to be sent.
const UNSOLICITED_DUE: usize = 0x38;
/// Address of the [`GuestOptions`].
const OPTIONS: usize = 0x40;

/// Address of the id and value of each client's last request: page 5.
const CLIENTS: usize = 0x5000;
/// Address of a ring of words that records what happened: page 6.
const NOTE_RING: usize = 0x6000;
const NOTE_WORDS: u64 = 512;
/// Address of a word that computing changes, alone in page 7: a page that often has its earlier content again, or is zero.
const TOGGLE: usize = 0x7000;
/// First page that computing writes to; the last page of memory is never written.
const SCRATCH_PAGE: u64 = 8;

/// Minimum number of pages of the program.
pub(crate) const PAGES_MIN: u64 = SCRATCH_PAGE + 2;

/// Number of steps after which computing writes a word.
const STEPS_PER_WORD: u64 = 64;

/// The behaviour of the guest. It is stored in guest memory, so that a backup gets it with the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestOptions {
    /// How often it computes, in percent of its choices.
    pub(crate) busy_percent: u64,
    /// Maximum number of steps of one computation.
    pub(crate) compute_steps_max: u64,
    /// How often it reads clocks and entropy, in percent of its choices.
    pub(crate) device_read_percent: u64,
    /// Maximum number of bytes of entropy at a time.
    pub(crate) entropy_bytes_max: u64,
    /// Maximum timer setting in microseconds; 0: there is no timer.
    pub(crate) timer_us_max: u64,
    /// How often it sends an unsolicited frame, in percent of its timer's ticks.
    pub(crate) unsolicited_percent: u64,
    /// How often it makes a request to its disk, in percent of its choices; 0: it has none.
    pub(crate) disk_percent: u64,
    /// Number of requests to its disk at a time.
    pub(crate) disk_depth: u64,
}

impl GuestOptions {
    fn words(&self) -> [u64; 8] {
        let Self {
            busy_percent,
            compute_steps_max,
            device_read_percent,
            entropy_bytes_max,
            timer_us_max,
            unsolicited_percent,
            disk_percent,
            disk_depth,
        } = *self;
        [
            busy_percent,
            compute_steps_max,
            device_read_percent,
            entropy_bytes_max,
            timer_us_max,
            unsolicited_percent,
            disk_percent,
            disk_depth,
        ]
    }
}

impl Machine {
    /// Loads the program and its options into memory.
    pub(crate) fn load(&mut self, options: &GuestOptions) {
        for (index, word) in options.words().into_iter().enumerate() {
            self.ram.set_word(OPTIONS + index * 8, word);
        }
        // A guest announces itself when it boots.
        self.ram.set_word(UNSOLICITED_DUE, 1);
        self.choose_plan();
    }

    fn option(&self, index: usize) -> u64 {
        self.ram.word(OPTIONS + index * 8)
    }

    /// Records an event in registers and in memory.
    pub(crate) fn note(&mut self, what: u64) {
        self.cpu.note(what);
        let notes = self.ram.word(NOTES);
        self.ram.set_word(NOTE_RING + (notes % NOTE_WORDS) as usize * 8, self.cpu.hash);
        self.ram.set_word(NOTES, notes + 1);
    }

    /// Executes one step of the guest.
    pub(crate) fn step(&mut self) {
        self.cpu.step();
        if self.cpu.steps.is_multiple_of(STEPS_PER_WORD) {
            let pages = self.ram.pages();
            let word = self.cpu.steps / STEPS_PER_WORD;
            self.ram.set_word(TOGGLE, [5, 6, 0][(word % 3) as usize]);
            let page = SCRATCH_PAGE + word % (pages - PAGES_MIN + 1);
            if page < pages - 1 {
                let offset = (self.cpu.hash % 512) as usize * 8;
                self.ram.set_word(page as usize * 4096 + offset, self.cpu.hash);
            }
        }
    }

    /// Performs the action of the current plan.
    pub(crate) fn do_action(&mut self) {
        match std::mem::replace(&mut self.cpu.plan.action, GuestAction::None) {
            GuestAction::None => {}
            GuestAction::Receive => self.receive(),
            GuestAction::AskDisk => {
                let kind = [0, 0, 0, 1, 1, 1, 2][self.cpu.choose(7) as usize];
                let block = if kind == 2 { 0 } else { self.cpu.choose(BLOCKS as u64) };
                disk::make_request(&mut self.ram, kind, block, self.cpu.hash | 1);
            }
            GuestAction::SendUnsolicited => {
                self.ram.set_word(UNSOLICITED_DUE, 0);
                let number = self.ram.word(SENT);
                let frame = if self.cpu.choose(2) == 0 {
                    packet::arp_announcement(number)
                } else {
                    let value = self.cpu.hash;
                    let data = &[];
                    packet::answer(
                        &Message { kind: Kind::Beacon, client: 0, id: 0, value, data },
                        number,
                    )
                };
                self.queue_frame(&frame);
            }
        }
    }

    /// Puts a frame into the send ring.
    fn queue_frame(&mut self, frame: &[u8]) {
        let number = self.ram.word(SENT);
        self.ram.set_word(SENT, number + 1);
        devices::add_to_send(&mut self.ram, frame);
    }

    /// Takes the oldest received frame, and answers it if it is a request.
    fn receive(&mut self) {
        let taken = self.ram.word(TAKEN);
        let frame = devices::received(&self.ram, taken).to_vec();
        self.ram.set_word(TAKEN, taken + 1);
        self.note(xxhash_rust::xxh3::xxh3_64(&frame));
        let Some(request) = packet::read_request(&frame) else { return };
        let number = self.ram.word(SENT);
        let reply = match request.kind {
            Kind::Count => {
                let place = CLIENTS + usize::from(request.client) * 16;
                let last = self.ram.word(place);
                let id = u64::from(request.id);
                if id < last {
                    return;
                }
                if id > last {
                    let value = self.ram.word(COUNTER) + 1;
                    self.ram.set_word(COUNTER, value);
                    self.ram.set_word(place, id);
                    self.ram.set_word(place + 8, value);
                }
                Message { kind: Kind::Counted, value: self.ram.word(place + 8), ..request }
            }
            Kind::Echo => Message { kind: Kind::Echoed, ..request },
            Kind::Counted | Kind::Echoed | Kind::Beacon => return,
        };
        let reply = packet::answer(&reply, number);
        self.queue_frame(&reply);
    }

    /// Handles the interrupt status that the interrupt handler has read.
    pub(crate) fn handle_status(&mut self, status: u64) {
        self.note(status);
        if Line::Timer.is_in(status) {
            self.ram.set_word(TIMER_SET, 0);
            if self.cpu.choose(100) < self.option(5) {
                self.ram.set_word(UNSOLICITED_DUE, 1);
            }
        }
        if Line::Console.is_in(status) {
            let typed = std::mem::take(&mut self.devices.console);
            self.note(xxhash_rust::xxh3::xxh3_64(&typed));
        }
        if Line::Disk.is_in(status) {
            self.note(self.ram.word(disk::VALUE));
        }
        let steps = 1 + self.cpu.choose(4) as u32;
        self.cpu.plan =
            Plan { handler: true, ..Plan::new([steps, 0, 0], GuestAction::None, Exit::Return) };
    }

    /// Chooses the guest's next plan.
    pub(crate) fn choose_plan(&mut self) {
        let roll = self.cpu.choose(100);
        let to_send = self.ram.word(TO_SEND);
        let full = to_send == RING_SLOTS;
        let (action, exit, computes) = if to_send > 0 && (full || roll < 80) {
            (GuestAction::None, Exit::Send, false)
        } else if self.ram.word(RECEIVED) > self.ram.word(TAKEN) {
            (GuestAction::Receive, Exit::Nothing, false)
        } else if self.ram.word(UNSOLICITED_DUE) > 0 {
            (GuestAction::SendUnsolicited, Exit::Nothing, false)
        } else if self.asks_disk() {
            (GuestAction::AskDisk, Exit::Disk, false)
        } else if roll < self.option(0) {
            (GuestAction::None, Exit::Nothing, true)
        } else if self.cpu.choose(100) < self.option(2) {
            (GuestAction::None, self.device_read_exit(), false)
        } else if self.ram.word(TIMER_SET) == 0 && self.option(4) > 0 {
            self.ram.set_word(TIMER_SET, 1);
            let us = 1 + self.cpu.choose(self.option(4));
            (GuestAction::None, Exit::SetTimer(us as u32), false)
        } else {
            (GuestAction::None, Exit::Halt, false)
        };
        let mut left = [0; 3];
        if exit == Exit::Halt {
            // The guest has checked for work with interrupts masked, and halts only if none arrives until
            // then: cli, check, sti, hlt.
            left[MASKED] = self.cpu.choose(6) as u32;
        } else {
            if self.cpu.choose(4) == 0 {
                left[MASKED] = self.cpu.choose(6) as u32;
            }
            left[KERNEL] = self.cpu.choose(6) as u32;
            left[USER] = self.cpu.choose(6) as u32;
        }
        if computes {
            let level = if self.cpu.choose(3) == 0 { KERNEL } else { USER };
            left[level] = self.cpu.choose(self.option(1)) as u32;
        }
        self.cpu.plan = Plan::new(left, action, exit);
    }

    fn asks_disk(&mut self) -> bool {
        let open = self.ram.word(disk::MADE) - self.ram.word(disk::COMPLETED);
        self.option(6) > 0 && open < self.option(7) && self.cpu.choose(100) < self.option(6)
    }

    fn device_read_exit(&mut self) -> Exit {
        match self.cpu.choose(8) {
            0..=2 => Exit::Clock,
            3 => Exit::WallClock,
            4 => Exit::Entropy(1 + self.cpu.choose(self.option(3)) as u16),
            5 => Exit::Clocks(1 + self.cpu.choose(4) as u8),
            _ => Exit::Nothing,
        }
    }

    /// Sets the plan after a halt: the guest then checks for work.
    pub(crate) fn plan_after_halt(&mut self) {
        let steps = 1 + self.cpu.choose(4) as u32;
        self.cpu.plan = Plan::new([0, steps, 0], GuestAction::None, Exit::Nothing);
    }
}
