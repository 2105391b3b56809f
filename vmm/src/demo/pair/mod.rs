//! The demonstration of a protected VM: its primary is killed, or ordered to hand the VM over, repeatedly while
//! clients use the VM.
//!
//! - `running`: the pair and its clients
//! - `totals`, `summary`: the results

pub(super) mod running;
mod summary;
pub(super) mod totals;

pub use running::{Progress, VmPlan};
pub use summary::{Failover, Summary};
pub use totals::Totals;

use running::{Environment, RunningPair};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::TestbedError;
use testbed::clients::counting;
use testbed::figures::ms;
use testbed::pair::{Death, NoticedBy, Takeover};

/// A delay of the prober of more than this is reported, in nanoseconds.
const LATE_REPORTED_NS_MIN: u64 = 20_000_000;

/// Range of the random time from the VM's protection to a kill, in milliseconds.
pub(super) const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 50..=1250;

/// Parameters of a demonstration.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The VM.
    pub vm: VmPlan,
    /// Number of times to kill the primary.
    pub kills: u32,
    /// Number of times to hand the VM over, after the kills.
    pub handovers: u32,
    /// Seed for the times of the kills.
    pub seed: u64,
    /// What is killed.
    pub death: Death,
}

/// Runs the demonstration with the executable `program`. `interrupted` ends it early. Removes everything that
/// it created.
///
/// # Errors
///
/// If a process or a client fails, or something that must happen does not.
pub fn run(
    program: &Path,
    plan: &Plan,
    interrupted: &Arc<AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<Summary, TestbedError> {
    let environment = Environment::new(program, &plan.vm, interrupted, progress)?;
    environment.run(interrupted, progress, |pair| pair.run_plan(plan))
}

impl RunningPair<'_, '_> {
    fn run_plan(&mut self, plan: &Plan) -> Result<Summary, TestbedError> {
        self.begin()?;
        let Plan { kills, handovers, seed, .. } = *plan;
        self.progress.message(&format!(
            "killing the primary {kills} times (kill -9{}) and handing the VM over {handovers} times, at random \
             times with seed {seed}",
            match plan.death {
                Death::OfProcess => "",
                Death::OfHost => " of its supervisor and of itself",
            },
        ));
        let mut summary =
            Summary { plan: plan.clone(), pace: Some(self.pace), ..Summary::default() };
        let mut random = fastrand::Rng::with_seed(seed);
        for kill in 1..=kills {
            summary.failovers.push(loop {
                self.run_protected(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
                if let Some(failover) = self.fail_over(kill, plan.death)? {
                    break failover;
                }
            });
            self.progress.steps_done(kill);
        }
        for handover in 1..=handovers {
            self.run_protected(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
            summary.handovers.push(self.hand_over(handover)?);
            self.progress.steps_done(kills + handover);
        }
        summary.totals = self.finish()?;
        summary.pauses_ns = self.hosts.counts.pauses_ns.clone();
        Ok(summary)
    }

    /// Kills the primary and waits until the VM is protected again and every client is served. Returns `None`
    /// if the VM had left the killed host before the kill.
    fn fail_over(&mut self, kill: u32, death: Death) -> Result<Option<Failover>, TestbedError> {
        let (client, guest) = (self.network.client(), self.guest);
        let mut timers = Ok(String::new());
        let takeover = self.hosts.kill(death, || {
            timers = counting::timers(client, guest);
        })?;
        let Some(takeover) = takeover else { return Ok(None) };
        let what = format!(
            "kill {kill}: host {} killed; host {} noticed it by {}",
            takeover.dead,
            takeover.dead.other(),
            match takeover.noticed_by {
                NoticedBy::Supervisor => "the supervisor's notice",
                NoticedBy::Silence => "its silence",
                NoticedBy::HandOver => "a handover",
            }
        );
        self.measure(&what, takeover, timers).map(Some)
    }

    /// Hands the VM over and waits until it is protected again and every client is served.
    fn hand_over(&mut self, number: u32) -> Result<Failover, TestbedError> {
        let (client, guest) = (self.network.client(), self.guest);
        let mut timers = Ok(String::new());
        let takeover = self.hosts.hand_over(|| timers = counting::timers(client, guest))?;
        let host = takeover.dead;
        let what = format!("handover {number}: host {host} sent no more output");
        self.measure(&what, takeover, timers)
    }

    /// Measures a takeover: `what` says what happened at the end of its first part.
    fn measure(
        &mut self,
        what: &str,
        takeover: Takeover,
        timers: Result<String, TestbedError>,
    ) -> Result<Failover, TestbedError> {
        let load = self.load;
        let Takeover { dead, killed_ns, lost_ns, noticed_by, live_ns } = takeover;
        let detect_ns = lost_ns.saturating_sub(killed_ns);
        let golive_ns = live_ns.saturating_sub(lost_ns);
        self.progress.message(&format!(
            "{what} after {:.1} ms; the other host went live after another {:.1} ms",
            ms(detect_ns),
            ms(golive_ns),
        ));
        self.wait_until_served(live_ns)?;
        let outage_ns = gap(load.prober.seen().times.longest_gap(killed_ns, live_ns))?;
        let tcp_gap_ns = gap(load.counting.tally().times.longest_gap(killed_ns, live_ns))?;
        self.progress.message(&format!(
            "  outage seen by the clients: {:.1} ms by {}, {:.1} ms on the counter connection \
             (ss -ti when host {} was live: {})",
            ms(outage_ns),
            self.guest.probe().name(),
            ms(tcp_gap_ns),
            dead.other(),
            timers?,
        ));
        let served_ns = load.prober.seen().times.last().unwrap_or(live_ns);
        let late_ns = load.prober.send_delays().max_in(killed_ns, served_ns);
        if late_ns > LATE_REPORTED_NS_MIN {
            self.progress.message(&format!(
                "  (this machine is busy: the prober was scheduled up to {:.1} ms late)",
                ms(late_ns)
            ));
        }
        self.protect()?;
        // After a handover, the VM may be protected again before every client was served.
        let protected_ns =
            self.hosts.protected().map_or(0, |(_, since_ns)| since_ns).max(served_ns);
        self.hosts.wait("an answer to the prober", |_| {
            (load.prober.seen().times.last() > Some(protected_ns)).then_some(())
        })?;
        let sync_gap_ns = gap(load.prober.seen().times.longest_gap(served_ns, protected_ns))?;
        Ok(Failover {
            detect_ns,
            noticed_by,
            golive_ns,
            outage_ns,
            tcp_gap_ns,
            sync_gap_ns,
            late_ns,
        })
    }
}

/// Returns the longest time between two answers to a client, if there are two.
pub(super) fn gap(gap_ns: Option<u64>) -> Result<u64, TestbedError> {
    gap_ns.ok_or_else(|| TestbedError::Wrong("a client was answered only once".into()))
}
