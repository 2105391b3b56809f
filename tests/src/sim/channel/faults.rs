//! Faults of hosts and links, and how they heal.

use super::count::Count;
use super::drive::FRAMES_AT_ONCE_MAX;
use super::host::Process;
use super::options::ClockStyle;
use super::progress::CONNECT_NS;
use super::world::{Event, Fault, Phase, World};
use crate::sim::Checked;
use crate::sim::link::Link;

impl World<'_> {
    /// Schedules the first fault of each kind.
    pub(super) fn begin_faults(&mut self) {
        for fault in Fault::ALL {
            self.plan(fault);
        }
    }

    /// Schedules the next fault of this kind, if this run has any.
    fn plan(&mut self, fault: Fault) {
        let faults = &self.options.faults;
        let every_ns = match fault {
            Fault::Partition => faults.partition_every_ns,
            Fault::Freeze => faults.freeze_every_ns,
            Fault::Restart => faults.restart_every_ns,
            Fault::Forge => faults.forge_every_ns,
            Fault::Hold => faults.hold_every_ns,
            Fault::Drift => Some(faults.drift_every_ns),
        };
        if let Some(every_ns) = every_ns {
            let at = self.queue.now() + self.rng.within(1..=2 * every_ns);
            self.queue.push(at, Event::Fault(fault));
        }
    }

    /// Begins a fault, and schedules the next one of its kind.
    pub(super) fn begin_fault(&mut self, fault: Fault) -> Checked {
        let host = self.rng.below(2) as usize;
        if fault == Fault::Drift {
            // Clocks drift until the end of the run, also after healing.
            self.change_rate(host);
            self.counts.count(Count::DriftChanges);
            if self.hosts[host].process == Process::Running {
                self.drive(host, &[])?;
            }
        } else if !self.is_faulty() {
            return Ok(());
        }
        match fault {
            Fault::Partition => self.partition(),
            Fault::Freeze => self.freeze(host),
            Fault::Restart => self.restart(host),
            Fault::Forge => self.forge(),
            Fault::Hold => self.hold_back(host),
            Fault::Drift => {}
        }
        self.plan(fault);
        Ok(())
    }

    fn partition(&mut self) {
        if self.links.iter().any(|link| link.is_cut()) {
            return;
        }
        let cut = self.rng.pick(&[[true, true], [true, false], [false, true]]);
        for (link, cut) in self.links.iter_mut().zip(cut) {
            link.set_cut(cut);
        }
        let now = self.queue.now();
        let lasts_ns = self.rng.within(self.options.faults.partition_ns.clone());
        self.queue.push(now + lasts_ns, Event::Mend);
        self.counts.count(Count::Partitions);
        self.counts.add(Count::OneWay, u64::from(cut != [true, true]));
        self.trace.line(now, None, "cut", format_args!("{cut:?} for {lasts_ns} ns"));
    }

    fn freeze(&mut self, host: usize) {
        if self.hosts[host].process != Process::Running {
            return;
        }
        self.hosts[host].process = Process::Frozen;
        let now = self.queue.now();
        let lasts_ns = self.rng.within(self.options.faults.freeze_ns.clone());
        self.queue.push(now + lasts_ns, Event::Thaw { host });
        self.counts.count(Count::Freezes);
        let is_long = lasts_ns > self.options.timing.silence.as_nanos();
        self.counts.add(Count::FreezesBeyondSilence, u64::from(is_long));
        self.trace.line(now, Some(host), "freeze", format_args!("for {lasts_ns} ns"));
    }

    fn restart(&mut self, host: usize) {
        if self.hosts[host].process == Process::Down {
            return;
        }
        self.kill(host);
        let down_ns = self.rng.within(self.options.faults.down_ns.clone());
        self.queue.push(self.queue.now() + down_ns, Event::Boot { host });
    }

    /// Changes the rate of the clock of `host`, within the configured drift.
    pub(super) fn change_rate(&mut self, host: usize) {
        let most_ppb = i64::from(self.options.timing.clock_drift_ppm) * 1000;
        let any_ppb = self.rng.within(0..=2 * most_ppb as u64) as i64 - most_ppb;
        let fast_ppb = match self.options.hosts[host].clock {
            ClockStyle::Fastest => most_ppb,
            ClockStyle::Slowest => -most_ppb,
            ClockStyle::Wanders => any_ppb,
        };
        let now = self.queue.now();
        self.hosts[host].clock.set_rate(now, fast_ppb);
        self.trace.line(now, Some(host), "rate", format_args!("{fast_ppb} ppb fast"));
    }

    /// Ends all faults. From now on the run must make progress.
    pub(super) fn heal(&mut self) -> Checked {
        let now = self.queue.now();
        self.trace.line(now, None, "heal", format_args!(""));
        let silence_ns = self.options.timing.silence.as_nanos();
        // An end whose peer is already dead notices it within this time, counted from the arrival of the
        // last frame that the peer sent.
        let empty_at = self.links.iter().map(Link::empty_at).fold(now, u64::max);
        let not_before = empty_at + silence_ns * 6 / 5;
        let renewals_ns = self.options.hosts.iter().map(|host| host.renew_ns.end()).sum::<u64>();
        let by = not_before + renewals_ns + CONNECT_NS;
        self.phase = Phase::Connect { not_before, by };
        self.queue.push(not_before, Event::CheckProgress);
        self.queue.push(by + 1, Event::CheckProgress);
        for host in [0, 1] {
            self.links[host].heal();
            let own = &mut self.hosts[host];
            own.load.read_all();
            own.reads_at = now;
            own.ring_frames_max = FRAMES_AT_ONCE_MAX;
            match own.process {
                Process::Running => self.drive(host, &[])?,
                Process::Frozen => self.thaw(host)?,
                Process::Down => {
                    self.boot(host);
                    self.drive(host, &[])?;
                }
            }
            let has_ended = self.session(host).is_some_and(|s| s.ends[host].ended.is_some());
            let is_mistaken = self.hosts[host].incarnation().role != self.true_role(host);
            if has_ended || is_mistaken {
                self.schedule_renewal(host);
            }
        }
        Ok(())
    }
}
