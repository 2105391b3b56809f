//! What runs in the toy machine: an operating system of a few lines, a counter and an echo.
//!
//! The counter gives each request of a client the next number. A request has a number of its own, so
//! that one which comes again gets the same answer: what TCP does for a client, in miniature.

use super::Machine;
use super::cpu::{Deed, Exit, KERNEL, MASKED, Plan, USER};
use super::devices::{self, Line, RECEIVED, RING_SLOTS, TAKEN, TO_SEND};
use crate::sim::system::packet::{self, Kind, Message};

/// Frames that the VM has sent since it was booted.
pub(crate) const SENT: usize = 0x00;
/// The counter.
pub(crate) const COUNTER: usize = 0x20;
/// Words noted.
const NOTES: usize = 0x28;
/// The timer is set.
const TIMER_SET: usize = 0x30;
/// It has something to say of its own accord.
const TO_SAY: usize = 0x38;
/// [`GuestOptions`].
const OPTIONS: usize = 0x40;

/// Number and value of each client's last request: page 5.
const CLIENTS: usize = 0x5000;
/// A ring of words, of what happened: page 6.
const NOTE_RING: usize = 0x6000;
const NOTE_WORDS: u64 = 512;
/// A word that computing sets and resets, alone in page 7: a page that is often as it was before.
const TOGGLE: usize = 0x7000;
/// What computing writes to: from page 8 on, but for the last page, which nobody writes to.
const SCRATCH_PAGE: u64 = 8;

/// Pages that the program needs, at least.
pub(crate) const PAGES_MIN: u64 = SCRATCH_PAGE + 2;

/// Steps after which computing writes a word.
const STEPS_PER_WORD: u64 = 64;

/// What kind of guest it is. The image holds it, so both hosts have it from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestOptions {
    /// How often it computes, in percent of its choices.
    pub(crate) busy_percent: u64,
    /// Steps of one computation, at most.
    pub(crate) compute_steps_max: u64,
    /// How often it reads clocks and entropy, in percent of its choices.
    pub(crate) chatter_percent: u64,
    /// Bytes of entropy at a time, at most.
    pub(crate) entropy_bytes_max: u64,
    /// Microseconds that the timer is set to, at most; 0: there is no timer.
    pub(crate) timer_us_max: u64,
    /// How often it speaks of its own accord, in percent of its timer's ticks.
    pub(crate) speak_percent: u64,
}

impl GuestOptions {
    fn words(&self) -> [u64; 6] {
        let Self {
            busy_percent,
            compute_steps_max,
            chatter_percent,
            entropy_bytes_max,
            timer_us_max,
            speak_percent,
        } = *self;
        [
            busy_percent,
            compute_steps_max,
            chatter_percent,
            entropy_bytes_max,
            timer_us_max,
            speak_percent,
        ]
    }
}

impl Machine {
    /// Puts the program and its options into memory.
    pub(crate) fn load(&mut self, options: &GuestOptions) {
        for (index, word) in options.words().into_iter().enumerate() {
            self.ram.set_word(OPTIONS + index * 8, word);
        }
        // A guest says who it is when it comes up.
        self.ram.set_word(TO_SAY, 1);
        self.choose_plan();
    }

    fn option(&self, index: usize) -> u64 {
        self.ram.word(OPTIONS + index * 8)
    }

    /// Something happens, and leaves its trace in registers and in memory.
    pub(crate) fn note(&mut self, what: u64) {
        self.cpu.note(what);
        let notes = self.ram.word(NOTES);
        self.ram.set_word(NOTE_RING + (notes % NOTE_WORDS) as usize * 8, self.cpu.hash);
        self.ram.set_word(NOTES, notes + 1);
    }

    /// One step of whatever the guest is at.
    pub(crate) fn step(&mut self) {
        self.cpu.step();
        if self.cpu.steps.is_multiple_of(STEPS_PER_WORD) {
            let pages = self.ram.pages();
            let word = self.cpu.steps / STEPS_PER_WORD;
            self.ram.set_word(TOGGLE, 5 + word % 2);
            let page = SCRATCH_PAGE + word % (pages - PAGES_MIN + 1);
            if page < pages - 1 {
                let offset = (self.cpu.hash % 512) as usize * 8;
                self.ram.set_word(page as usize * 4096 + offset, self.cpu.hash);
            }
        }
    }

    /// What the guest does immediately before it exits.
    pub(crate) fn do_deed(&mut self) {
        match std::mem::replace(&mut self.cpu.plan.deed, Deed::None) {
            Deed::None => {}
            Deed::Receive => self.receive(),
            Deed::Speak => {
                self.ram.set_word(TO_SAY, 0);
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
                self.say(&frame);
            }
        }
    }

    fn say(&mut self, frame: &[u8]) {
        let number = self.ram.word(SENT);
        self.ram.set_word(SENT, number + 1);
        devices::add_to_send(&mut self.ram, frame);
    }

    /// Takes the oldest frame received, and answers it if it is a request.
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
        self.say(&reply);
    }

    /// The handler of interrupts has read what devices want.
    pub(crate) fn handle_status(&mut self, status: u64) {
        self.note(status);
        if Line::Timer.is_in(status) {
            self.ram.set_word(TIMER_SET, 0);
            if self.cpu.choose(100) < self.option(5) {
                self.ram.set_word(TO_SAY, 1);
            }
        }
        if Line::Console.is_in(status) {
            let typed = std::mem::take(&mut self.devices.console);
            self.note(xxhash_rust::xxh3::xxh3_64(&typed));
        }
        let steps = 1 + self.cpu.choose(4) as u32;
        self.cpu.plan =
            Plan { handler: true, ..Plan::new([steps, 0, 0], Deed::None, Exit::Return) };
    }

    /// The guest chooses what to do next.
    pub(crate) fn choose_plan(&mut self) {
        let roll = self.cpu.choose(100);
        let to_send = self.ram.word(TO_SEND);
        let full = to_send == RING_SLOTS;
        let (deed, exit, computes) = if to_send > 0 && (full || roll < 80) {
            (Deed::None, Exit::Send, false)
        } else if self.ram.word(RECEIVED) > self.ram.word(TAKEN) {
            (Deed::Receive, Exit::Nothing, false)
        } else if self.ram.word(TO_SAY) > 0 {
            (Deed::Speak, Exit::Nothing, false)
        } else if roll < self.option(0) {
            (Deed::None, Exit::Nothing, true)
        } else if self.cpu.choose(100) < self.option(2) {
            (Deed::None, self.chatter(), false)
        } else if self.ram.word(TIMER_SET) == 0 && self.option(4) > 0 {
            self.ram.set_word(TIMER_SET, 1);
            let us = 1 + self.cpu.choose(self.option(4));
            (Deed::None, Exit::SetTimer(us as u32), false)
        } else {
            (Deed::None, Exit::Halt, false)
        };
        let mut left = [0; 3];
        if exit == Exit::Halt {
            // It has looked, and sleeps only if nothing comes until it does: cli, look, sti, hlt.
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
        self.cpu.plan = Plan::new(left, deed, exit);
    }

    fn chatter(&mut self) -> Exit {
        match self.cpu.choose(8) {
            0..=2 => Exit::Clock,
            3 => Exit::WallClock,
            4 => Exit::Entropy(1 + self.cpu.choose(self.option(3)) as u16),
            5 => Exit::Clocks(1 + self.cpu.choose(4) as u8),
            _ => Exit::Nothing,
        }
    }

    /// The guest woke up: it looks around.
    pub(crate) fn plan_after_halt(&mut self) {
        let steps = 1 + self.cpu.choose(4) as u32;
        self.cpu.plan = Plan::new([0, steps, 0], Deed::None, Exit::Nothing);
    }
}
