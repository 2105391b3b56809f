//! The toy machine's processor, which executes plans step by step.
//!
//! A plan is what the guest does until its next exit:
//!
//! ```text
//!   masked steps      kernel steps      user steps      action      exit
//!   |--------------|--------------|--------------|-------|---------->
//!    IF=0, CPL0      IF=1, CPL0     IF=1, CPL3
//! ```
//!
//! An interrupt suspends the current plan and starts the handler's; when that ends, the processor returns to
//! the suspended plan. Every step changes a register, so that the number of steps between two positions is
//! visible in every digest.

/// Index of a plan's steps with IF=0 at CPL0.
pub(crate) const MASKED: usize = 0;
/// Index of a plan's steps with IF=1 at CPL0.
pub(crate) const KERNEL: usize = 1;
/// Index of a plan's steps with IF=1 at CPL3.
pub(crate) const USER: usize = 2;

/// What the guest does at the end of a plan, immediately before the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestAction {
    /// Nothing.
    None,
    /// Handles the oldest received frame, and may put an answer into the send ring.
    Receive,
    /// Puts an unsolicited frame into the send ring.
    SendUnsolicited,
    /// Puts a request into the ring of the disk.
    AskDisk,
}

/// How a plan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An access to a port without a function.
    Nothing,
    /// Reads guest time.
    Clock,
    /// Reads the wall clock.
    WallClock,
    /// Reads this many bytes of entropy.
    Entropy(u16),
    /// A string instruction that reads guest time this many times.
    Clocks(u8),
    /// Reads guest time and sets the timer to this many microseconds later.
    SetTimer(u32),
    /// Kicks the network card to send the frames in the send ring.
    Send,
    /// Kicks the disk to take the requests in its ring.
    Disk,
    /// Reads and clears the devices' interrupt status.
    Status,
    /// Waits for an interrupt.
    Halt,
    /// Not an exit: the interrupt handler returns.
    Return,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Steps left at each level ([`MASKED`], [`KERNEL`], [`USER`]).
    pub(crate) left: [u32; 3],
    /// The action before the exit.
    pub(crate) action: GuestAction,
    /// The exit at the end.
    pub(crate) exit: Exit,
    /// Whether this is the plan of an interrupt handler: IF stays 0 until it returns.
    pub(crate) handler: bool,
}

impl Plan {
    /// Creates a plan of `left` steps by level that ends in `exit`.
    pub(crate) fn new(left: [u32; 3], action: GuestAction, exit: Exit) -> Self {
        Self { left, action, exit, handler: false }
    }

    /// The level of the next step, if any is left.
    fn level(&self) -> Option<usize> {
        self.left.iter().position(|&steps| steps > 0)
    }
}

/// The state of the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// A register that everything that happens changes.
    pub(crate) hash: u64,
    /// State of the generator of the guest's choices.
    pub(crate) random: u64,
    /// Number of steps since the machine was started.
    pub(crate) steps: u64,
    /// The current plan.
    pub(crate) plan: Plan,
    /// The plan to return to after the interrupt handler.
    pub(crate) interrupted: Option<Plan>,
    /// The interrupt vector to deliver at the next entry.
    pub(crate) injected: Option<u8>,
    /// Whether the processor waits for an interrupt.
    pub(crate) halted: bool,
}

/// The region that lies ahead of a processor at entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Number of steps until the region ends by itself.
    pub(crate) steps: u64,
    /// Whether it ends with an interrupt window at CPL3 instead of an exit.
    pub(crate) at_window: bool,
    /// The range of steps in which an interrupt window at CPL0 can open first, if one was requested.
    pub(crate) kernel: Option<(u64, u64)>,
}

/// Multiplier and increment of a step (Knuth's MMIX generator).
const STEP: (u64, u64) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);

impl Cpu {
    /// Creates a processor in its initial state, with a plan that exits immediately.
    pub(crate) fn new() -> Self {
        let plan = Plan::new([0; 3], GuestAction::None, Exit::Nothing);
        let (hash, random, steps) = (0, 0, 0);
        Self { hash, random, steps, plan, interrupted: None, injected: None, halted: false }
    }

    /// Mixes `what` into the hash register.
    pub(crate) fn note(&mut self, what: u64) {
        self.hash = (self.hash ^ what).wrapping_mul(STEP.0).rotate_left(29).wrapping_add(STEP.1);
    }

    /// The guest's next choice: a number below `bound` that depends on everything that has happened.
    pub(crate) fn choose(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(STEP.0).wrapping_add(self.hash | 1);
        let word = self.random ^ (self.random >> 31);
        ((u128::from(word.wrapping_mul(STEP.0)) * u128::from(bound)) >> 64) as u64
    }

    /// Whether an interrupt can be injected now.
    pub(crate) fn injectable(&self) -> bool {
        self.injected.is_none() && !self.is_masked()
    }

    fn is_masked(&self) -> bool {
        self.plan.handler || self.plan.left[MASKED] > 0 || self.plan.exit == Exit::Halt
    }

    /// Delivers an injected interrupt at entry: suspends the current plan and starts the handler's.
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
        self.plan =
            Plan { handler: true, ..Plan::new([steps, 0, 0], GuestAction::None, Exit::Status) };
    }

    /// The region that lies ahead after [`deliver`](Self::deliver). `window` says that an interrupt window is
    /// requested.
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

    /// Executes one step. The current plan must have one left, or be a handler that returns.
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

    /// Returns from a handler without steps left, so that the current plan is the next one to execute.
    pub(crate) fn settle(&mut self) {
        if self.plan.exit == Exit::Return && self.plan.level().is_none() {
            self.finish_handler();
        }
    }

    fn finish_handler(&mut self) {
        assert_eq!(self.plan.exit, Exit::Return, "a step beyond an exit");
        self.plan = self.interrupted.take().expect("an interrupt handler returns to something");
    }

    /// Whether the region has reached its exit.
    pub(crate) fn is_at_exit(&self) -> bool {
        self.plan.exit != Exit::Return && self.plan.level().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(left: [u32; 3]) -> Cpu {
        Cpu { plan: Plan::new(left, GuestAction::None, Exit::Clock), ..Cpu::new() }
    }

    #[test]
    fn window_opens_at_user_mode_and_possibly_in_the_kernel() {
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
        cpu.plan = Plan { handler: true, ..Plan::new([2, 0, 0], GuestAction::None, Exit::Return) };
        assert_eq!(cpu.ahead(true), Ahead { steps: 2, at_window: true, kernel: None });
        (0..2).for_each(|_| cpu.step());
        cpu.settle();
        assert!(cpu.injectable() && cpu.interrupted.is_none() && !cpu.is_at_exit());
    }

    #[test]
    fn every_step_changes_the_state() {
        let mut cpu = cpu([0, 0, 9]);
        cpu.step();
        let after_one = cpu.hash;
        cpu.step();
        assert_ne!(cpu.hash, after_one);
    }
}
