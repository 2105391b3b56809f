//! The sequence of the faults, and the checks after each one.

use super::bound::Speed;
use super::deck::Deck;
use super::kind::{Kind, Side};
use super::summary::ChaosSummary;
use super::tools::Tools;
use super::{ChaosPlan, network};
use crate::demo::pair::gap;
use crate::demo::pair::running::RunningPair;
use crate::demo::pair::totals::Totals;
use crate::link::now;
use fastrand::Rng;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use testbed::TestbedError;
use testbed::clients::StopOnDrop;
use testbed::figures::ms;
use testbed::pair::{Host, Hosts};

/// Range of the time between a fault that is repaired and the next one, in milliseconds.
const CALM_MS: RangeInclusive<u64> = 50..=400;

/// After a repair, everything that follows from the fault happens within this many tenths of a silence timeout: a
/// host that was taken for dead finds out.
const SETTLED_TENTHS: u32 = 15;

/// A running pair under faults.
pub(super) struct Chaos<'p, 'scope, 'c> {
    plan: &'p ChaosPlan,
    /// The pair and its clients.
    pub(super) pair: &'p mut RunningPair<'scope, 'c>,
    /// What was prepared.
    pub(super) tools: &'p Tools,
    pub(super) speed: Speed,
    /// Random numbers of the current fault.
    pub(super) random: Rng,
    /// Frames that intruders have captured on each host, for later ones.
    pub(super) old_frames: network::OldFrames,
    /// Divergences that faults have caused.
    pub(super) corrupted: u64,
    summary: ChaosSummary,
}

/// A fault, and the state of the run before it.
struct Before {
    number: u64,
    kind: Kind,
    host: Host,
    t_ns: u64,
    /// See [`Chaos::alarms`].
    alarms: u64,
}

impl<'p, 'scope, 'c> Chaos<'p, 'scope, 'c> {
    /// Creates a run on `pair`, of which no process runs yet.
    ///
    /// # Errors
    ///
    /// If there is no kind of fault to draw.
    pub(super) fn new(
        plan: &'p ChaosPlan,
        pair: &'p mut RunningPair<'scope, 'c>,
        tools: &'p Tools,
    ) -> Result<Chaos<'p, 'scope, 'c>, TestbedError> {
        let kinds = plan.kinds.iter().copied().filter(|kind| kind.exists_with(pair.guest));
        let kinds: Vec<Kind> = kinds.collect();
        if kinds.is_empty() {
            let text = format!("none of these faults exists with the {} guest", pair.guest.name());
            return Err(TestbedError::Wrong(text));
        }
        let speed = Speed::new(&pair.pace, tools.claim);
        Ok(Chaos {
            plan,
            tools,
            speed,
            random: Rng::with_seed(plan.seed),
            old_frames: network::OldFrames::default(),
            corrupted: 0,
            summary: ChaosSummary::new(plan.clone(), pair.pace, kinds),
            pair,
        })
    }

    /// Runs to the end, or to the first failure.
    ///
    /// # Errors
    ///
    /// Only if the run is interrupted.
    pub(super) fn run(mut self) -> Result<ChaosSummary, TestbedError> {
        let totals = match self.suffer_all() {
            Ok(totals) => totals,
            Err(TestbedError::Interrupted) => return Err(TestbedError::Interrupted),
            Err(error) => {
                self.summary.failed(&error.to_string());
                self.totals()
            }
        };
        let is_protected = self.pair.hosts.protected().is_some();
        self.summary.is_unprotected = self.summary.has_failed() && !is_protected;
        self.summary.corrupted = self.corrupted;
        self.summary.totals = totals;
        self.summary.record_syncs(&self.pair.hosts.counts.syncs_ns);
        Ok(self.summary)
    }

    fn suffer_all(&mut self) -> Result<Totals, TestbedError> {
        self.pair.begin()?;
        let ChaosPlan { time, seed, .. } = *self.plan;
        let kinds = self.summary.kinds();
        self.pair.progress.message(&format!(
            "{} kinds of faults for {:.1} minutes, one at a time, with seed {seed}; a claim at the witness takes \
             {:.1} ms at most",
            kinds.len(),
            time.as_secs_f64() / 60.0,
            self.speed.claim.as_secs_f64() * 1e3,
        ));
        let mut deck = Deck::new(kinds, seed);
        let begun = Instant::now();
        while begun.elapsed() < time {
            let (kind, random) = deck.draw();
            self.random = random;
            let number = self.summary.begin(kind);
            self.suffer(number, kind)?;
            self.pair.progress.steps_done(begun.elapsed().as_secs() as u32);
        }
        self.summary.all_done();
        let totals = self.pair.finish()?;
        Ok(self.without_corrupted(totals))
    }

    /// Injects one fault, repairs everything, and checks what the clients and the capture have seen.
    fn suffer(&mut self, number: u64, kind: Kind) -> Result<(), TestbedError> {
        let row = kind.row();
        let calm = Duration::from_millis(self.random.u64(CALM_MS));
        self.pair.hosts.pause(calm)?;
        let primary = self.recover()?;
        let host = match row.side {
            Side::Primary | Side::Both => primary,
            Side::Backup => primary.other(),
            Side::Either if self.random.bool() => primary,
            Side::Either => primary.other(),
        };
        let before = Before { number, kind, host, t_ns: now().as_nanos(), alarms: self.alarms() };
        self.summary.hit(host);
        (row.inject)(self, host)?;
        self.pair.hosts.pause(self.speed.silence * SETTLED_TENTHS / 10)?;
        self.recover()?;
        self.judge(&before)
    }

    /// Replaces the processes that have ended, and waits until the VM is protected and every client is served.
    /// Returns the primary's host.
    fn recover(&mut self) -> Result<Host, TestbedError> {
        self.pair.hosts.protect(|_host, _pid| {})?;
        self.pair.hosts.wait_until_fit()?;
        self.pair.wait_until_served(now().as_nanos())?;
        // The VM may have moved meanwhile, if this machine stood still.
        self.pair.hosts.protect(|_host, _pid| {})
    }

    /// Reports what the clients have seen of a fault that is repaired.
    ///
    /// # Errors
    ///
    /// If it is not as it must be.
    fn judge(&mut self, before: &Before) -> Result<(), TestbedError> {
        let &Before { number, kind, host, t_ns: from_ns, alarms } = before;
        let (bound, to_ns) = (kind.row().bound, now().as_nanos());
        let prober = &self.pair.load.prober;
        // A new backup's copy of the VM is complete when it confirms the last part. The outputs wait for that, as
        // long as this machine needs: that is a cost of the repair, not of the fault.
        let syncs_ns = &self.pair.hosts.counts.syncs_ns;
        let outage_ns = gap(prober.seen().times.longest_gap_without(from_ns, to_ns, syncs_ns))?;
        let late = Duration::from_nanos(prober.send_delays().max_in(from_ns, to_ns));
        let longest_ns = bound.longest(&self.speed, late).as_nanos() as u64;
        let is_disturbed = !bound.has_alarm() && self.alarms() > alarms;
        self.summary.done(kind, outage_ns, is_disturbed);
        let disturbed = if is_disturbed { ", and a living host was taken for dead" } else { "" };
        self.pair.progress.message(&format!(
            "fault {number}: {} on host {host}: outage {:.1} ms (at most {:.1} ms){disturbed}; all is well {:.1} s \
             after its beginning",
            kind.name(),
            ms(outage_ns),
            ms(longest_ns),
            (to_ns - from_ns) as f64 / 1e9,
        ));
        if outage_ns > longest_ns && !is_disturbed {
            let (outage_ms, longest_ms) = (ms(outage_ns), ms(longest_ns));
            return Err(TestbedError::Wrong(format!(
                "no answer to the prober for {outage_ms:.1} ms, longer than {longest_ms:.1} ms"
            )));
        }
        self.totals().fault().map_or(Ok(()), |fault| Err(TestbedError::Wrong(fault)))
    }

    /// Returns the counts so far.
    fn totals(&self) -> Totals {
        self.without_corrupted(Totals::of(self.pair.load, self.pair.hosts))
    }

    /// Leaves out the divergences that faults have caused.
    fn without_corrupted(&self, totals: Totals) -> Totals {
        let divergences = totals.divergences.saturating_sub(self.corrupted);
        Totals { divergences, ..totals }
    }

    /// Returns how often a host took the other one for dead.
    fn alarms(&self) -> u64 {
        let counts = &self.pair.hosts.counts;
        counts.unplanned + counts.backups_lost
    }

    /// Returns the processes.
    pub(super) fn hosts(&mut self) -> &mut Hosts {
        self.pair.hosts
    }

    /// Waits for a random time within this range of tenths of a silence timeout.
    ///
    /// # Errors
    ///
    /// If a process or a client fails.
    pub(super) fn hold(&mut self, tenths: RangeInclusive<u32>) -> Result<(), TestbedError> {
        let time = self.speed.silence * self.random.u32(tenths) / 10;
        self.pair.hosts.pause(time)
    }

    /// Runs `work` on a thread of its own for as long as [`hold`](Self::hold) waits, and then sets its flag.
    /// Returns its result.
    ///
    /// # Errors
    ///
    /// Those of `work`, or if a process or a client fails.
    pub(super) fn hold_during<T: Send>(
        &mut self,
        tenths: RangeInclusive<u32>,
        work: impl FnOnce(&AtomicBool) -> Result<T, TestbedError> + Send,
    ) -> Result<T, TestbedError> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let working = scope.spawn(|| work(&stop));
            let stopper = StopOnDrop(&stop);
            let held = self.hold(tenths);
            drop(stopper);
            let result = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            held.and(result)
        })
    }
}
