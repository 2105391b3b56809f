//! The faults of a run, and how they heal.

use replication::driver::Order;
use replication::replica::RoleName;

use super::check::Phase;
use super::count::Count;
use super::state::{Event, State};
use crate::sim::rng::Chance;
use crate::sim::system::check::{is_primary, is_synced_backup};
use crate::sim::{MS, US};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process crashes.
    Crash,
    /// A host freezes.
    Freeze,
    /// The log link is cut.
    Cut,
    /// A tap fails.
    Tap,
    /// A terminal is blocked.
    Terminal,
    /// The witness cannot be reached from a host.
    Outage,
    /// A backup is asked to stop.
    Stop,
    /// A primary is ordered to hand the VM over.
    HandOver,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Crash,
        Self::Freeze,
        Self::Cut,
        Self::Tap,
        Self::Terminal,
        Self::Outage,
        Self::Stop,
        Self::HandOver,
    ];
}

/// A point at which a process crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CrashPoint {
    /// The guest has made an output.
    Output,
    /// The log was sent.
    LogSent,
    /// Outputs were given to the tap's port, and are not on the LAN.
    Release,
    /// Outputs have just left.
    Released,
    /// A checkpoint was captured and not sent.
    Capture,
    /// A checkpoint is applied in part.
    Apply,
    /// A claim is on its way to the witness.
    Claim,
}

/// Crash points of a primary. `Released` is twice as likely: the backup may not know yet that the output left.
const OF_PRIMARY: [CrashPoint; 6] = [
    CrashPoint::Output,
    CrashPoint::LogSent,
    CrashPoint::Release,
    CrashPoint::Released,
    CrashPoint::Released,
    CrashPoint::Capture,
];

/// Crash points of a backup.
const OF_BACKUP: [CrashPoint; 2] = [CrashPoint::Apply, CrashPoint::Claim];

/// Probability of not destroying the last copy of the VM, after which a run shows nothing more.
const SPARES_LAST: Chance = Chance::percent(95);

/// How soon a freeze is tried again that found the host at a point where it must not freeze.
const FREEZE_RETRY_NS: u64 = 20 * US;

impl State {
    /// Whether the run is in the phase with faults.
    pub(super) fn is_faulty(&self) -> bool {
        self.phase == Phase::Faults
    }

    /// Schedules the first fault of each kind.
    pub(super) fn plan_faults(&mut self) {
        Fault::ALL.into_iter().for_each(|fault| self.plan(fault));
    }

    fn plan(&mut self, fault: Fault) {
        let faults = &self.options.faults;
        let every_ns = match fault {
            Fault::Crash => faults.crash_every_ns,
            Fault::Freeze => faults.freeze_every_ns,
            Fault::Cut => faults.cut_every_ns,
            Fault::Tap => faults.tap_every_ns,
            Fault::Terminal => faults.terminal_every_ns,
            Fault::Outage => faults.outage_every_ns,
            Fault::Stop => faults.stop_every_ns,
            Fault::HandOver => faults.hand_over_every_ns,
        };
        if let Some(every_ns) = every_ns {
            let at = self.queue.now() + self.rng.within(1..=2 * every_ns);
            self.queue.push(at, Event::Fault(fault));
        }
    }

    /// Begins a fault, and schedules the next one of its kind.
    pub(super) fn begin_fault(&mut self, fault: Fault) {
        if !self.is_faulty() {
            return;
        }
        let host = self.rng.below(2) as usize;
        match fault {
            Fault::Crash => self.crash(host),
            Fault::Freeze => self.begin_freeze(host),
            Fault::Cut => self.cut(),
            Fault::Tap => self.begin_tap_fault(host),
            Fault::Terminal => self.block_terminal(host),
            Fault::Outage => {
                self.hosts[host].is_witness_cut = true;
                self.counts.count(Count::Outages);
                self.schedule_mend(fault, self.options.faults.outage_ns_max, host);
            }
            Fault::Stop => self.begin_stop(host),
            Fault::HandOver => self.begin_handover(),
        }
        self.plan(fault);
    }

    /// The host that runs the VM, usually, if the VM is protected; else `host`.
    fn usually_primary(&mut self, host: usize) -> usize {
        let is_protected = |host: &usize| self.hosts[*host].role() == Some(RoleName::Protected);
        let primary = [0, 1].into_iter().find(is_protected);
        primary.filter(|_| self.rng.chance(Chance::percent(65))).unwrap_or(host)
    }

    fn crash(&mut self, host: usize) {
        let host = self.usually_primary(host);
        let Some(role) = self.hosts[host].role() else { return };
        if self.has_last_copy(host) && self.rng.chance(SPARES_LAST) {
            return;
        }
        let points: &[CrashPoint] = if is_primary(role) { &OF_PRIMARY } else { &OF_BACKUP };
        let point = self.rng.pick(points);
        if self.rng.chance(Chance::percent(60)) {
            self.hosts[host].crash_at = Some(point);
        } else {
            self.counts.count(Count::Crashes);
            self.counts.add(Count::CrashesOfPrimary, is_primary(role).into());
            self.hosts[host].is_doomed = true;
        }
    }

    /// The process of `host` is at a crash point. Returns whether it crashes there.
    pub(super) fn crashes_at(&mut self, host: usize, point: CrashPoint) -> bool {
        if self.hosts[host].crash_at != Some(point) {
            return false;
        }
        self.hosts[host].crash_at = None;
        if !self.is_faulty() || self.has_last_copy(host) {
            return false;
        }
        let role = self.hosts[host].role();
        self.counts.count(Count::Crashes);
        self.counts.count(Count::CrashesAtPoints);
        self.counts.add(Count::CrashesOfPrimary, role.is_some_and(is_primary).into());
        self.note(Some(host), "fault", format_args!("crash at {point:?}"));
        self.hosts[host].is_doomed = true;
        true
    }

    /// Draws whether the machine of `host` cannot apply the checkpoint that it has.
    pub(super) fn fails_to_apply(&mut self, host: usize) -> bool {
        let chance = self.options.faults.fails_to_apply;
        let fails = self.hosts[host].rng.chance(chance);
        if !fails || !self.is_faulty() || self.has_last_copy(host) {
            return false;
        }
        self.counts.count(Count::ApplyFailures);
        self.note(Some(host), "fault", format_args!("a checkpoint cannot be applied"));
        self.silence.disturb(self.queue.now());
        self.hosts[host].is_apply_failed = true;
        true
    }

    fn begin_freeze(&mut self, host: usize) {
        let host = self.usually_primary(host);
        let lasts_ns = self.draw_duration(self.options.faults.freeze_ns_max);
        if self.rng.chance(Chance::percent(60)) {
            // Long enough for a takeover, usually.
            let silence_ns = self.options.pair.timing.silence.as_nanos();
            let long_ns = self.rng.within(silence_ns..=4 * silence_ns);
            let is_long = self.rng.chance(Chance::percent(60));
            self.hosts[host].freeze_in_flush = Some(if is_long { long_ns } else { lasts_ns });
        } else {
            self.freeze(host, lasts_ns);
        }
    }

    /// Freezes `host` if it sends while outputs wait and such a freeze is planned.
    pub(super) fn freeze_in_flush(&mut self, host: usize) {
        let own = &mut self.hosts[host];
        let holds = own.process.as_ref().is_some_and(|process| !process.required.is_empty());
        if holds
            && let Some(lasts_ns) = own.freeze_in_flush.take()
            && self.is_faulty()
        {
            self.counts.count(Count::FreezesInFlush);
            self.freeze(host, lasts_ns);
        }
    }

    /// Freezes a host, or tries again soon if that is not possible now.
    pub(super) fn freeze(&mut self, host: usize, lasts_ns: u64) {
        let now = self.queue.now();
        if !self.is_faulty() {
            return;
        }
        let own = &mut self.hosts[host];
        if own.frozen.is_some() || own.process.is_none() {
            return;
        }
        if own.is_undisturbed {
            return self.queue.push(now + FREEZE_RETRY_NS, Event::Freeze { host, lasts_ns });
        }
        own.thaws += 1;
        own.frozen = Some(own.thaws);
        let ticket = own.thaws;
        self.queue.push(now + lasts_ns, Event::Thaw { host, ticket });
        let beyond = lasts_ns > self.options.pair.timing.silence.as_nanos();
        self.counts.count(Count::Freezes);
        self.counts.add(Count::FreezesBeyondSilence, beyond.into());
        self.silence.disturb(now);
        self.note(Some(host), "freeze", format_args!("for {lasts_ns} ns"));
    }

    /// Resumes a frozen host.
    pub(super) fn thaw(&mut self, host: usize, ticket: u64) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if own.frozen != Some(ticket) {
            return;
        }
        own.frozen = None;
        own.thawed_at = now;
        if std::mem::take(&mut own.is_due) {
            let ticket = own.ticket;
            self.queue.push(now, Event::Resume { host, ticket });
        }
        self.silence.disturb(now);
        self.note(Some(host), "thaw", format_args!(""));
    }

    fn cut(&mut self) {
        if self.links.iter().any(|link| link.is_cut()) {
            return;
        }
        let cut = self.rng.pick(&[[true, true], [true, false], [false, true]]);
        for (link, cut) in self.links.iter_mut().zip(cut) {
            link.set_cut(cut);
        }
        self.counts.count(Count::Cuts);
        self.counts.add(Count::OneWay, u64::from(cut != [true, true]));
        self.silence.disturb(self.queue.now());
        self.schedule_mend(Fault::Cut, self.options.faults.cut_ns_max, 0);
    }

    fn begin_tap_fault(&mut self, host: usize) {
        let host = self.usually_primary(host);
        if self.hosts[host].process.is_none()
            || self.hosts[host].tap_fault.is_some()
            || self.has_last_copy(host) && self.rng.chance(SPARES_LAST)
        {
            return;
        }
        self.counts.count(Count::TapFaults);
        self.fail_tap(host);
    }

    fn block_terminal(&mut self, host: usize) {
        let now = self.queue.now();
        let lasts_ns = self.draw_duration(self.options.faults.terminal_ns_max);
        self.hosts[host].terminal.blocked_until = now + lasts_ns;
        self.counts.count(Count::TerminalsBlocked);
        self.note(Some(host), "fault", format_args!("terminal blocked for {lasts_ns} ns"));
    }

    fn begin_stop(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let id = process.id;
        // An orderly stop of the primary ends the VM.
        if is_primary(process.role) || self.has_last_copy(host) {
            return;
        }
        self.counts.count(Count::Stops);
        self.queue.push(self.queue.now(), Event::Order { host, process: id, order: Order::Stop });
    }

    fn begin_handover(&mut self) {
        let is_protected = |host: &usize| self.hosts[*host].role() == Some(RoleName::Protected);
        let Some(host) = [0, 1].into_iter().find(is_protected) else { return };
        let Some(process) = &self.hosts[host].process else { return };
        let id = process.id;
        let order = self.rng.pick(&[Order::HandOver, Order::HandOver, Order::Leave]);
        self.queue.push(self.queue.now(), Event::Order { host, process: id, order });
    }

    /// Draws a duration: of any magnitude up to `ns_max`, uniformly up to `ns_max`, or close to the silence
    /// timeout.
    fn draw_duration(&mut self, ns_max: u64) -> u64 {
        let silence_ns = self.options.pair.timing.silence.as_nanos();
        match self.rng.below(3) {
            0 => self.rng.magnitude(10 * US..=ns_max),
            1 => self.rng.within(US..=ns_max),
            _ => self.rng.within(silence_ns * 3 / 4..=silence_ns * 3 / 2),
        }
    }

    /// Schedules the end of a fault that has begun.
    fn schedule_mend(&mut self, fault: Fault, ns_max: u64, host: usize) {
        let lasts_ns = self.draw_duration(ns_max);
        self.queue.push(self.queue.now() + lasts_ns, Event::Mend(fault));
        self.note(Some(host), "fault", format_args!("{fault:?} for {lasts_ns} ns"));
    }

    /// Ends a fault that has a duration.
    pub(super) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Cut => {
                self.links.iter_mut().for_each(|link| link.set_cut(false));
                self.silence.disturb(self.queue.now());
            }
            Fault::Outage => self.hosts.iter_mut().for_each(|host| host.is_witness_cut = false),
            Fault::Crash
            | Fault::Freeze
            | Fault::Tap
            | Fault::Terminal
            | Fault::Stop
            | Fault::HandOver => {}
        }
        self.note(None, "mend", format_args!("{fault:?}"));
    }

    /// Whether the process of `host` has the last copy of the VM.
    fn has_last_copy(&self, host: usize) -> bool {
        self.has_vm_copy(host) && !self.has_vm_copy(super::state::other(host))
    }

    /// Whether the process of `host` has a copy of the VM: it runs the VM or could take over.
    pub(super) fn has_vm_copy(&self, host: usize) -> bool {
        let Some(process) = &self.hosts[host].process else { return false };
        let newest = self.witness.newest();
        let may_boot = newest.is_none_or(|(_, owner)| owner == process.id);
        let role = process.role;
        (is_primary(role) && (role != RoleName::Starting || may_boot)) || is_synced_backup(role)
    }

    /// Ends all faults. From now on the run must recover.
    pub(super) fn heal(&mut self) {
        let now = self.queue.now();
        self.note(None, "heal", format_args!(""));
        self.demand_recovery();
        self.links.iter_mut().for_each(|link| link.heal());
        self.silence.disturb(now);
        for host in [0, 1] {
            let own = &mut self.hosts[host];
            own.is_witness_cut = false;
            (own.crash_at, own.freeze_in_flush) = (None, None);
            own.terminal.heal(now);
            let is_noticed =
                own.process.as_ref().is_some_and(|process| process.tap_failed_at.is_some());
            if !is_noticed {
                own.tap_fault = None;
            }
            if let Some(ticket) = own.frozen {
                self.thaw(host, ticket);
            }
            if self.hosts[host].process.is_none() {
                self.queue.push(now + MS, Event::Boot { host });
            }
        }
    }
}
