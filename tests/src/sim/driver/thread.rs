//! [`Thread`]: the thread of a process. It runs as a coroutine, and virtual time passes for it where it sleeps.
//!
//! Short work ([`Thread::spend`]) only adds to a debt, which the thread's clock shows at once and which its next
//! sleep repays. So nothing else happens between two steps without a sleep in between, as if the host had not
//! scheduled another thread there. A host can only freeze or crash where its thread sleeps.

use std::cell::RefCell;
use std::rc::Rc;

use corosensei::Yielder;

use super::faults::CrashPoint;
use super::state::State;
use crate::sim::{Checked, MS};

/// Most work without a sleep. More of it is an endless loop.
const DEBT_NS_MAX: u64 = 50 * MS;

/// What wakes a sleeping thread before its time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WakeBy {
    /// A frame on the log link.
    pub(super) link: bool,
    /// A frame from the LAN.
    pub(super) tap: bool,
    /// A kick.
    pub(super) kick: bool,
}

impl WakeBy {
    /// Nothing but time.
    pub(super) const TIME: Self = Self { link: false, tap: false, kick: false };
    /// A kick.
    pub(super) const KICK: Self = Self { kick: true, ..Self::TIME };
}

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Thread<'a> {
    state: Rc<RefCell<State>>,
    /// The host that it runs on.
    pub(super) host: usize,
    yielder: &'a Yielder<(), ()>,
}

impl<'a> Thread<'a> {
    /// Creates the handle of the coroutine that `yielder` suspends.
    pub(super) fn new(
        state: Rc<RefCell<State>>,
        host: usize,
        yielder: &'a Yielder<(), ()>,
    ) -> Self {
        Self { state, host, yielder }
    }

    /// Accesses the state of the run.
    pub(super) fn with<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        access(&mut self.state.borrow_mut())
    }

    /// Works for `ns`.
    pub(super) fn spend(&self, ns: u64) {
        let debt_ns = self.with(|state| {
            let host = &mut state.hosts[self.host];
            host.debt_ns += ns;
            host.debt_ns
        });
        assert!(debt_ns < DEBT_NS_MAX, "the thread of host {} does not sleep", self.host);
    }

    /// Sleeps for `ns`.
    pub(super) fn sleep(&self, ns: u64) {
        let at = self.with(|state| state.queue.now()) + ns;
        self.sleep_until(at, WakeBy::TIME);
    }

    /// Sleeps until `at`, or until something in `by` wakes the thread. Repays the debt first.
    pub(super) fn sleep_until(&self, at: u64, by: WakeBy) {
        if !self.with(|state| state.begin_sleep(self.host, at, by)) {
            self.yielder.suspend(());
        }
        self.with(|state| state.hosts[self.host].wake_by = WakeBy::TIME);
    }

    /// Sleeps for `ns`, and cannot freeze meanwhile.
    pub(super) fn sleep_undisturbed(&self, ns: u64) {
        self.with(|state| state.hosts[self.host].is_undisturbed = true);
        self.sleep(ns);
        self.with(|state| state.hosts[self.host].is_undisturbed = false);
    }

    /// Ends the run with the violation, if there is one.
    pub(super) fn check(&self, checked: Checked) {
        if let Err(violation) = checked {
            self.with(|state| state.violation.get_or_insert(violation).0.len());
            self.stop();
        }
    }

    /// Crashes the process here, if a crash is to happen at `point`.
    pub(super) fn reach(&self, point: CrashPoint) {
        if self.with(|state| state.crashes_at(self.host, point)) {
            self.stop();
        }
    }

    /// The process ends here: the event loop unwinds it.
    fn stop(&self) -> ! {
        loop {
            self.yielder.suspend(());
        }
    }
}
