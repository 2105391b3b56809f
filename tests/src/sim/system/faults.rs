//! The faults of a run, and how they heal.

use replication::replica::{AfterHandover, RoleName};

use super::check::{EndCause, Phase, is_primary, is_synced_backup};
use super::count::Count;
use super::crash::SPARES_LAST;
use super::host::{Arrival, Host};
use super::pair::{Event, Pair};
use super::process::VcpuState;
use crate::sim::frames::FrameId;
use crate::sim::rng::Chance;
use crate::sim::{Checked, MS, US};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process crashes.
    Crash,
    /// A host freezes.
    Freeze,
    /// The log link is cut.
    Partition,
    /// A port of the LAN is cut.
    LanCut,
    /// The witness is unreachable.
    Outage,
    /// A host finds another storage in the place of the witness.
    OtherWitness,
    /// A backup is stopped in an orderly way.
    StopBackup,
    /// A primary is ordered to hand the VM over.
    HandOver,
    /// Claims are removed from the witness's storage.
    RemoveClaims,
    /// An operator says that no host runs the VM, while one does.
    ForgetVm,
    /// A bit of a backup's machine flips.
    Flip,
    /// An attacker on the log link replays frames.
    Replay,
    /// The switch loses its address table.
    Forget,
    /// A clock changes its rate, and the wall clock is set.
    Drift,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Crash,
        Self::Freeze,
        Self::Partition,
        Self::LanCut,
        Self::Outage,
        Self::OtherWitness,
        Self::StopBackup,
        Self::HandOver,
        Self::RemoveClaims,
        Self::ForgetVm,
        Self::Flip,
        Self::Replay,
        Self::Forget,
        Self::Drift,
    ];
}

impl Pair<'_> {
    /// Whether the run is in the phase with faults.
    pub(crate) fn is_faulty(&self) -> bool {
        self.phase == Phase::Faults
    }

    /// Schedules the first fault of each kind.
    pub(crate) fn plan_faults(&mut self) {
        Fault::ALL.into_iter().for_each(|fault| self.plan(fault));
    }

    fn plan(&mut self, fault: Fault) {
        let faults = &self.options.faults;
        let every_ns = match fault {
            Fault::Crash => faults.crash_every_ns,
            Fault::Freeze => faults.freeze_every_ns,
            Fault::Partition => faults.partition_every_ns,
            Fault::LanCut => faults.lan_cut_every_ns,
            Fault::Outage => faults.outage_every_ns,
            Fault::OtherWitness => faults.other_witness_every_ns,
            Fault::StopBackup => faults.stop_backup_every_ns,
            Fault::HandOver => faults.hand_over_every_ns,
            Fault::RemoveClaims => faults.remove_claims_every_ns,
            Fault::ForgetVm => faults.forget_vm_every_ns,
            Fault::Flip => faults.flip_every_ns,
            Fault::Replay => faults.replay_every_ns,
            Fault::Forget => faults.forget_every_ns,
            Fault::Drift => Some(faults.drift_every_ns),
        };
        if let Some(every_ns) = every_ns {
            let at = self.queue.now() + self.rng.within(1..=2 * every_ns);
            self.queue.push(at, Event::Fault(fault));
        }
    }

    /// Begins a fault, and schedules the next one of its kind.
    pub(crate) fn begin_fault(&mut self, fault: Fault) -> Checked {
        let host = self.rng.below(2) as usize;
        if !self.is_faulty() && fault != Fault::Drift {
            return Ok(());
        }
        match fault {
            Fault::Crash => self.crash(host),
            Fault::Freeze => self.freeze(host),
            Fault::Partition => self.partition(),
            Fault::LanCut => self.cut_lan(),
            Fault::Outage => self.cut_witness(),
            Fault::OtherWitness => self.replace_witness(host),
            Fault::StopBackup => self.stop_backup(host)?,
            Fault::HandOver => self.hand_over()?,
            Fault::RemoveClaims => self.remove_claims(),
            Fault::ForgetVm => self.forget_vm(),
            Fault::Flip => self.flip(host),
            Fault::Replay => self.replay(),
            Fault::Forget => self.lan.forget(),
            Fault::Drift => self.drift(host),
        }
        self.plan(fault);
        Ok(())
    }

    fn freeze(&mut self, host: usize) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if own.frozen || own.process.is_none() {
            return;
        }
        own.frozen = true;
        own.disturbed_at = now;
        own.thaw_ticket += 1;
        let ticket = own.thaw_ticket;
        let lasts_ns = self.draw_duration(self.options.faults.freeze_ns_max);
        self.queue.push(now + lasts_ns, Event::Thaw { host, ticket });
        let beyond = lasts_ns > self.options.pair.timing.silence.as_nanos();
        self.counts.count(Count::Freezes);
        self.counts.add(Count::FreezesBeyondSilence, beyond.into());
        self.trace.line(now, Some(host), "freeze", format_args!("for {lasts_ns} ns"));
        if self.bugs.notice_while_alive
            && let Some(process) = &self.hosts[host].process
            && let Some(notice) = process.held_notice
        {
            let sessions = process.sessions.clone();
            self.announce_death(host, notice, &sessions);
        }
    }

    /// Resumes a frozen host.
    pub(crate) fn thaw(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].frozen) {
            self.hosts[host].disturbed_at = self.queue.now();
            self.trace.line(self.queue.now(), Some(host), "thaw", format_args!(""));
            self.wake_soon(host);
        }
    }

    fn partition(&mut self) {
        if self.links.iter().any(|link| link.is_cut()) {
            return;
        }
        let cut = self.rng.pick(&[[true, true], [true, false], [false, true]]);
        for (link, cut) in self.links.iter_mut().zip(cut) {
            link.set_cut(cut);
        }
        self.counts.count(Count::Partitions);
        self.counts.add(Count::OneWay, u64::from(cut != [true, true]));
        self.schedule_mend(
            Fault::Partition,
            self.options.faults.partition_ns_max,
            format_args!("{cut:?}"),
        );
    }

    /// Cuts the direction of the log link in which `host` sends, if the link is not cut.
    pub(crate) fn cut_log_of(&mut self, host: usize) {
        if !self.is_faulty() || self.links.iter().any(|link| link.is_cut()) {
            return;
        }
        self.links[host].set_cut(true);
        self.counts.count(Count::Partitions);
        self.counts.count(Count::OneWay);
        self.schedule_mend(
            Fault::Partition,
            self.options.faults.partition_ns_max,
            format_args!("from host {host}"),
        );
    }

    fn cut_lan(&mut self) {
        let port = self.rng.below(self.lan.links.len() as u64) as usize;
        self.lan.set_cut(port, true);
        self.counts.count(Count::LanCuts);
        self.schedule_mend(
            Fault::LanCut,
            self.options.faults.partition_ns_max,
            format_args!("port {port}"),
        );
    }

    fn cut_witness(&mut self) {
        let cut = self.rng.pick(&[[true, true], [true, false], [false, true]]);
        for (host, cut) in self.hosts.iter_mut().zip(cut) {
            host.witness_cut |= cut;
        }
        self.counts.count(Count::Outages);
        self.schedule_mend(
            Fault::Outage,
            self.options.faults.outage_ns_max,
            format_args!("{cut:?}"),
        );
    }

    /// The witness's folder is not mounted on `host`, or another one is.
    fn replace_witness(&mut self, host: usize) {
        if self.hosts[host].other_witness.is_some() {
            return;
        }
        let has_claims = self.rng.chance(Chance::percent(50));
        self.hosts[host].other_witness = Some(self.witness.other(self.bugs, has_claims));
        self.counts.count(Count::OtherWitnesses);
        self.schedule_mend(
            Fault::OtherWitness,
            self.options.faults.outage_ns_max,
            format_args!("host {host}, with claims: {has_claims}"),
        );
    }

    /// Draws a duration: of any magnitude up to `ns_max`, uniformly up to `ns_max`, or close to the silence
    /// timeout.
    fn draw_duration(&mut self, ns_max: u64) -> u64 {
        let silence_ns = self.options.pair.timing.silence.as_nanos();
        match self.rng.below(3) {
            0 => self.rng.magnitude(10 * US..=ns_max),
            1 => self.rng.within(US..=ns_max),
            _ => self.rng.within(silence_ns * 3 / 4..=silence_ns * 5 / 4),
        }
    }

    /// Schedules the end of a fault that has begun.
    fn schedule_mend(&mut self, fault: Fault, ns_max: u64, what: std::fmt::Arguments<'_>) {
        let now = self.queue.now();
        let lasts_ns = self.draw_duration(ns_max);
        self.queue.push(now + lasts_ns, Event::Mend(fault));
        self.trace.line(now, None, "fault", format_args!("{fault:?} {what} for {lasts_ns} ns"));
    }

    /// Ends a fault that has a duration.
    pub(crate) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Partition => self.links.iter_mut().for_each(|link| link.set_cut(false)),
            Fault::LanCut => (0..self.lan.links.len()).for_each(|p| self.lan.set_cut(p, false)),
            Fault::Outage => self.hosts.iter_mut().for_each(|host| host.witness_cut = false),
            Fault::OtherWitness => self.hosts.iter_mut().for_each(|host| host.other_witness = None),
            Fault::Crash
            | Fault::Freeze
            | Fault::StopBackup
            | Fault::HandOver
            | Fault::RemoveClaims
            | Fault::ForgetVm
            | Fault::Flip
            | Fault::Replay
            | Fault::Forget
            | Fault::Drift => {}
        }
        self.trace.line(self.queue.now(), None, "mend", format_args!("{fault:?}"));
    }

    fn stop_backup(&mut self, host: usize) -> Checked {
        let is_backup = self.role(host).is_some_and(|role| {
            is_synced_backup(role)
                || matches!(role, RoleName::Seeking | RoleName::Syncing | RoleName::Leaving)
        });
        if !is_backup
            || self.hosts[host].frozen
            || self.has_last_copy(host) && self.rng.chance(SPARES_LAST)
        {
            return Ok(());
        }
        self.counts.count(Count::BackupsStopped);
        self.stop(host)
    }

    /// Orders the primary to hand the VM over, or to leave after that.
    fn hand_over(&mut self) -> Checked {
        let protected = (0..2).find(|&host| self.role(host) == Some(RoleName::Protected));
        let Some(host) = protected.filter(|&host| !self.hosts[host].frozen) else { return Ok(()) };
        let after = self.rng.pick(&[AfterHandover::Follow, AfterHandover::Leave]);
        let clock = self.read_clock(host);
        self.trace.line(self.queue.now(), Some(host), "order", format_args!("{after:?}"));
        self.engine(host, |process| process.replica.hand_over(clock, after))?;
        self.drive(host)
    }

    /// Stops the process of `host` in an orderly way.
    fn stop(&mut self, host: usize) -> Checked {
        let now = self.queue.now();
        let clock = self.read_clock(host);
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        self.trace.line(now, Some(host), "stop", format_args!("{:?}", process.id));
        self.copies.gone.push((process.id, EndCause::Stopped));
        if !self.engine(host, |process| process.replica.stop(clock))? {
            self.copies.gone.pop();
        }
        self.drive(host)
    }

    /// The host that runs the VM must stop it soon.
    fn forget_vm(&mut self) {
        // An operator who errs does so once: nobody boots the VM at the same time, and no claim was removed, in whose
        // place this one would come.
        if self.is_starting() || !self.is_claim_old() || !self.witness.is_whole() {
            return;
        }
        if self.witness.forget(self.queue.now()) {
            self.counts.count(Count::Forgotten);
            self.trace.line(self.queue.now(), None, "fault", format_args!("the VM is forgotten"));
        }
    }

    /// Whether a process asks whether it may boot the VM.
    pub(crate) fn is_starting(&self) -> bool {
        (0..2).any(|host| self.role(host) == Some(RoleName::Starting))
    }

    /// Whether every question that was asked before the newest claim has reached the witness or was given up.
    fn is_claim_old(&self) -> bool {
        let silence_ns = self.options.pair.timing.silence.as_nanos();
        let frozen_ns = self.options.faults.freeze_ns_max;
        let old_ns = 4 * silence_ns + frozen_ns + 10 * self.options.witness.timeout_ns;
        self.queue.now() >= self.witness.granted_at() + old_ns
    }

    /// A program that cleans up removes claims. Their owner makes the newest one again.
    fn remove_claims(&mut self) {
        let all = self.rng.below(2) == 0;
        // It removes old files. A host that is late with a claim would win a term again that was just claimed.
        if self.is_starting() || !self.is_claim_old() {
            return;
        }
        self.witness.remove(all);
        self.counts.count(Count::ClaimsRemoved);
        self.trace.line(
            self.queue.now(),
            None,
            "fault",
            format_args!("claims removed, all: {all}"),
        );
    }

    fn flip(&mut self, host: usize) {
        let bit = self.rng.below(64);
        let now = self.queue.now();
        let Some(process) = &mut self.hosts[host].process else { return };
        // In the other states the digest to compare has already been computed.
        let is_between = match process.vcpu_state {
            VcpuState::Entry | VcpuState::Running(_) | VcpuState::Inputs { .. } => true,
            VcpuState::Stopped { .. }
            | VcpuState::Capture(_)
            | VcpuState::Position { .. }
            | VcpuState::Exit { .. }
            | VcpuState::Halted
            | VcpuState::Inject(_)
            | VcpuState::Ended => false,
        };
        let follows = process.replica.role() == RoleName::Following && process.track.is_some();
        if !is_between || !follows || process.flipped {
            return;
        }
        process.machine.cpu.hash ^= 1 << bit;
        process.flipped = true;
        process.undetected_flips = 1;
        self.counts.count(Count::Flips);
        self.trace.line(now, Some(host), "flip", format_args!("bit {bit}"));
    }

    /// Replays recorded frames of any session, to their receiver or back to their sender. Newer frames are more
    /// likely.
    fn replay(&mut self) {
        let now = self.queue.now();
        let count = u64::from(self.frames.count());
        if count == 0 {
            return;
        }
        for _ in 0..self.rng.magnitude(1..=16) {
            let to = self.rng.below(2) as usize;
            let frame = FrameId((count - self.rng.magnitude(1..=count)) as u32);
            let arrival = Arrival { frame, damage: None, pad: None };
            self.queue.push(now, Event::Arrive { to, arrival });
            self.counts.count(Count::Replayed);
            self.trace.line(now, Some(to), "replayed", format_args!("#{:06}", frame.0));
        }
        self.replay_notice();
    }

    fn drift(&mut self, host: usize) {
        let now = self.queue.now();
        let most_ppb = u64::from(self.options.pair.timing.clock_drift_ppm) * 1000;
        let any_ppb = self.rng.within(0..=2 * most_ppb) as i64 - most_ppb as i64;
        let own = &mut self.hosts[host];
        if self.options.hosts[host].clock_wanders {
            own.clock.set_rate(now, any_ppb);
            self.trace.line(now, Some(host), "rate", format_args!("{any_ppb} ppb"));
        }
        if let Some(process) = &mut own.process {
            process.world.set_wall_clock();
        }
        // Its wake-ups were computed with the old rate.
        self.wake_soon(host);
    }

    /// Ends all faults. From now on the run must recover.
    pub(crate) fn heal(&mut self) -> Checked {
        let now = self.queue.now();
        self.trace.line(now, None, "heal", format_args!(""));
        self.witness.restore();
        self.healed_at = now;
        self.demand_recovery();
        self.links.iter_mut().for_each(|link| link.heal());
        self.lan.heal();
        for host in [0, 1] {
            self.hosts[host].witness_cut = false;
            self.hosts[host].other_witness = None;
            let Host { process, disk, .. } = &mut self.hosts[host];
            let disk = process.as_mut().map(|process| &mut process.world.disk).or(disk.as_mut());
            if let Some(disk) = disk {
                disk.heal();
            }
            self.thaw(host);
            if self.hosts[host].process.is_none() {
                self.queue.push(now + MS, Event::Boot { host });
            }
        }
        let primary = (0..2).find(|&host| self.role(host).is_some_and(is_primary));
        if self.options.faults.stops_at_end
            && let Some(host) = primary
        {
            self.counts.count(Count::Stops);
            self.copies.stopped = true;
            self.stop(host)?;
        }
        Ok(())
    }
}
