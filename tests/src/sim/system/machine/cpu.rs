//! The toy machine's processor: it works through plans, step by step.
//!
//! A plan is what the guest does until it exits:
//!
//! ```text
//!   masked steps      kernel steps      user steps      deed      exit
//!   |--------------|--------------|--------------|-------|---------->
//!    IF=0, CPL0      IF=1, CPL0     IF=1, CPL3
//! ```
//!
//! An interrupt puts the handler's plan before what is left of the current one; at its end the
//! processor returns to that. Every step changes a register, so the number of steps between two
//! positions shows in every digest.

/// Levels of a plan.
pub(crate) const MASKED: usize = 0;
/// See [`MASKED`].
pub(crate) const KERNEL: usize = 1;
/// See [`MASKED`].
pub(crate) const USER: usize = 2;

/// What the guest does immediately before the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Nothing.
    None,
    /// Handles the oldest frame received, and may put an answer into the send ring.
    Receive,
    /// Puts a frame of its own accord into the send ring.
    Speak,
}

/// How a plan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A port that does nothing.
    Nothing,
    /// Reads guest time.
    Clock,
    /// Reads the wall clock.
    WallClock,
    /// Reads so many bytes of entropy.
    Entropy(u16),
    /// A string instruction: reads guest time so many times.
    Clocks(u8),
    /// Reads guest time and sets the timer to so many microseconds later.
    SetTimer(u32),
    /// Tells the network card of the frames in the send ring.
    Send,
    /// Asks which devices want something.
    Status,
    /// Waits for an interrupt.
    Halt,
    /// No exit: the interrupt handler returns.
    Return,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Steps left, by level.
    pub(crate) left: [u32; 3],
    /// Before the exit.
    pub(crate) deed: Deed,
    /// The end.
    pub(crate) exit: Exit,
    /// An interrupt handler's: IF stays 0 until it returns.
    pub(crate) handler: bool,
}

impl Plan {
    /// A plan of `steps` by level that ends in `exit`.
    pub(crate) fn new(left: [u32; 3], deed: Deed, exit: Exit) -> Self {
        Self { left, deed, exit, handler: false }
    }

    /// The level of the next step, if one is left.
    fn level(&self) -> Option<usize> {
        self.left.iter().position(|&steps| steps > 0)
    }
}

/// Registers, and what the processor is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Goes through everything that happens.
    pub(crate) hash: u64,
    /// The guest's own choices.
    pub(crate) random: u64,
    /// Steps since the machine was started.
    pub(crate) steps: u64,
    /// What it is at.
    pub(crate) plan: Plan,
    /// What it returns to after the interrupt handler.
    pub(crate) interrupted: Option<Plan>,
    /// A vector to be delivered when it is entered.
    pub(crate) injected: Option<u8>,
    /// It waits for an interrupt.
    pub(crate) halted: bool,
}

/// What lies ahead of a processor that is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Steps until the region ends by itself.
    pub(crate) steps: u64,
    /// It ends because interrupts are wanted, and CPL3 is entered.
    pub(crate) at_window: bool,
    /// The first step, if any, at which IF is 1 at CPL0, and the first at which that is over.
    pub(crate) kernel: Option<(u64, u64)>,
}

/// Multiplier and increment of a step (Knuth's MMIX generator).
const STEP: (u64, u64) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);

impl Cpu {
    /// A processor that has done nothing, and would do nothing but exit.
    pub(crate) fn new() -> Self {
        let plan = Plan::new([0; 3], Deed::None, Exit::Nothing);
        let (hash, random, steps) = (0, 0, 0);
        Self { hash, random, steps, plan, interrupted: None, injected: None, halted: false }
    }

    /// Something happens to the guest.
    pub(crate) fn note(&mut self, what: u64) {
        self.hash = (self.hash ^ what).wrapping_mul(STEP.0).rotate_left(29).wrapping_add(STEP.1);
    }

    /// The guest's next choice: a number below `bound`. It depends on everything that happened.
    pub(crate) fn choose(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(STEP.0).wrapping_add(self.hash | 1);
        let word = self.random ^ (self.random >> 31);
        ((u128::from(word.wrapping_mul(STEP.0)) * u128::from(bound)) >> 64) as u64
    }

    /// Whether an interrupt could be injected here.
    pub(crate) fn injectable(&self) -> bool {
        self.injected.is_none() && !self.is_masked()
    }

    fn is_masked(&self) -> bool {
        self.plan.handler || self.plan.left[MASKED] > 0 || self.plan.exit == Exit::Halt
    }

    /// Enters the guest: what was injected is delivered. `steps` is what the handler takes before and
    /// after it asks for the status.
    pub(crate) fn deliver(&mut self) {
        let Some(vector) = self.injected.take() else { return };
        assert!(self.interrupted.is_none(), "an interrupt of an interrupt handler");
        // The return address goes into the hash.
        let address = self.plan.left.iter().fold(self.steps, |address, &left| {
            address.wrapping_mul(STEP.0).wrapping_add(u64::from(left))
        });
        self.note(address ^ (u64::from(vector) << 56));
        let steps = 1 + self.choose(6) as u32;
        self.interrupted = Some(self.plan);
        self.plan = Plan { handler: true, ..Plan::new([steps, 0, 0], Deed::None, Exit::Status) };
    }

    /// What lies ahead, after [`deliver`](Self::deliver). `window`: interrupts are wanted.
    pub(crate) fn ahead(&self, window: bool) -> Ahead {
        let mut ahead = Ahead { steps: 0, at_window: false, kernel: None };
        let (mut plan, mut interrupted) = (self.plan, self.interrupted);
        loop {
            for (level, steps) in plan.left.into_iter().enumerate() {
                if steps == 0 || plan.handler || level == MASKED {
                    ahead.steps += u64::from(steps);
                    continue;
                }
                if window && level == USER {
                    ahead.at_window = true;
                    return ahead;
                }
                let start = ahead.steps;
                ahead.steps += u64::from(steps);
                if window && ahead.kernel.is_none() {
                    ahead.kernel = Some((start, ahead.steps));
                }
            }
            if plan.exit != Exit::Return {
                return ahead;
            }
            plan = interrupted.take().expect("an interrupt handler returns to something");
        }
    }

    /// One step. A plan must have one left, or return.
    pub(crate) fn step(&mut self) {
        loop {
            if let Some(level) = self.plan.level() {
                self.plan.left[level] -= 1;
                break;
            }
            self.finish_handler();
        }
        self.steps += 1;
        self.hash = self.hash.wrapping_mul(STEP.0).wrapping_add(STEP.1);
    }

    /// Returns from a handler that has no steps left, so that what is next is what there is.
    pub(crate) fn settle(&mut self) {
        if self.plan.exit == Exit::Return && self.plan.level().is_none() {
            self.finish_handler();
        }
    }

    fn finish_handler(&mut self) {
        assert_eq!(self.plan.exit, Exit::Return, "a step beyond an exit");
        self.plan = self.interrupted.take().expect("an interrupt handler returns to something");
    }

    /// Whether the next thing is an exit.
    pub(crate) fn is_at_exit(&self) -> bool {
        self.plan.exit != Exit::Return && self.plan.level().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(left: [u32; 3]) -> Cpu {
        Cpu { plan: Plan::new(left, Deed::None, Exit::Clock), ..Cpu::new() }
    }

    #[test]
    fn window_opens_where_user_mode_begins_and_maybe_before() {
        let cpu = cpu([2, 3, 4]);
        assert!(!cpu.injectable());
        let ahead = cpu.ahead(true);
        assert_eq!(ahead, Ahead { steps: 5, at_window: true, kernel: Some((2, 5)) });
        let ahead = cpu.ahead(false);
        assert_eq!(ahead, Ahead { steps: 9, at_window: false, kernel: None });
    }

    #[test]
    fn interrupt_handler_comes_first_and_returns() {
        let mut cpu = cpu([0, 0, 4]);
        cpu.injected = Some(32);
        cpu.deliver();
        let Ahead { steps, at_window, kernel } = cpu.ahead(true);
        assert!(steps > 0 && !at_window && kernel.is_none() && !cpu.injectable());
        (0..steps).for_each(|_| cpu.step());
        assert!(cpu.is_at_exit());
        cpu.plan = Plan { handler: true, ..Plan::new([2, 0, 0], Deed::None, Exit::Return) };
        assert_eq!(cpu.ahead(true), Ahead { steps: 2, at_window: true, kernel: None });
        (0..2).for_each(|_| cpu.step());
        cpu.settle();
        assert!(cpu.injectable() && cpu.interrupted.is_none() && !cpu.is_at_exit());
    }

    #[test]
    fn another_step_is_another_state() {
        let mut cpu = cpu([0, 0, 9]);
        cpu.step();
        let after_one = cpu.hash;
        cpu.step();
        assert_ne!(cpu.hash, after_one);
    }
}
