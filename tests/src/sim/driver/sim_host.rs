//! [`SimHost`]: what a simulated host provides to the driver, as types; and its clock.

use logchan::time::{Duration, Time};
use replication::driver::{Clock, Host};

use super::link_port::SimLink;
use super::observer::SimObserver;
use super::supervisor::SimSupervisor;
use super::tap::SimTap;
use super::thread::{Thread, WakeBy};
use super::witness::SimWitness;

/// A host's tap has failed. It is the only part of a simulated host that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TapFailed;

impl std::fmt::Display for TapFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the tap has failed")
    }
}

/// A simulated host, as seen by the driver of the process that the thread `'t` runs.
#[derive(Debug)]
pub(super) enum SimHost<'t> {
    /// No value exists: only its types matter.
    #[expect(dead_code, reason = "no value exists")]
    Never(std::convert::Infallible, std::marker::PhantomData<&'t ()>),
}

impl<'t> Host for SimHost<'t> {
    type Error = TapFailed;
    type Clock = SimClock<'t>;
    type Link = SimLink<'t>;
    type World = SimTap<'t>;
    type Witness = SimWitness<'t>;
    type Supervisor = SimSupervisor<'t>;
    type Observer = SimObserver<'t>;

    fn wait_any(
        world: &mut SimTap<'t>,
        link: &mut SimLink<'t>,
        timeout: Duration,
    ) -> Result<(), TapFailed> {
        let by = WakeBy { link: true, tap: true, kick: true };
        world.check_tap()?;
        if !world.has_frame() {
            link.wait_for(Some(timeout), by);
        }
        world.check_tap()
    }
}

/// The clock of a host, with its rate error. A reading takes time.
pub(super) struct SimClock<'t>(pub(super) Thread<'t>);

impl Clock for SimClock<'_> {
    fn now(&self) -> Time {
        let Self(thread) = self;
        let takes_ns = thread.with(|state| state.hosts[thread.host].options.clock_ns);
        thread.spend(takes_ns);
        thread.now()
    }
}

impl Thread<'_> {
    /// What the host's clock shows.
    pub(super) fn now(&self) -> Time {
        self.with(|state| {
            let own = &state.hosts[self.host];
            own.clock.shows(state.queue.now() + own.debt_ns)
        })
    }

    /// When the host's clock shows `span` more than now, in true time.
    pub(super) fn in_true_time(&self, span: Duration) -> u64 {
        let until = self.now() + span;
        self.with(|state| state.hosts[self.host].clock.when(until))
    }
}
