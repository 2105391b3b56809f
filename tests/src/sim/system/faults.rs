//! What goes wrong, and how all of it ends.

use vmm::replica::RoleName;

use super::check::{Gone, Phase, is_primary, is_whole};
use super::count::Count;
use super::crash::SPARES_LAST;
use super::host::Arrival;
use super::pair::{Event, Pair};
use super::process::Place;
use crate::sim::frames::FrameId;
use crate::sim::{Checked, MS, US};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process dies.
    Crash,
    /// A host stands still.
    Freeze,
    /// The log link is cut.
    Partition,
    /// A port of the LAN is cut.
    LanCut,
    /// The witness cannot be reached.
    Outage,
    /// A backup is stopped in good order.
    Leave,
    /// A bit of a backup's machine flips.
    Flip,
    /// Somebody on the log link plays back frames.
    Replay,
    /// The switch forgets.
    Forget,
    /// A clock changes its rate, or the wall clock is set.
    Drift,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Crash,
        Self::Freeze,
        Self::Partition,
        Self::LanCut,
        Self::Outage,
        Self::Leave,
        Self::Flip,
        Self::Replay,
        Self::Forget,
        Self::Drift,
    ];
}

impl Pair<'_> {
    /// Whether there are faults.
    pub(crate) fn is_faulty(&self) -> bool {
        self.phase == Phase::Faults
    }

    /// The first of each kind.
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
            Fault::Leave => faults.leave_every_ns,
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

    /// A fault happens, and the next one of its kind is planned.
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
            Fault::Leave => self.stop_backup(host)?,
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
        own.thaw_ticket += 1;
        let ticket = own.thaw_ticket;
        let lasts_ns = self.draw_while(self.options.faults.freeze_ns_max);
        self.queue.push(now + lasts_ns, Event::Thaw { host, ticket });
        let beyond = lasts_ns > self.options.pair.timing.silence.as_nanos();
        self.counts.count(Count::Freezes);
        self.counts.add(Count::FreezesBeyondSilence, beyond.into());
        self.trace.line(now, Some(host), "freeze", format_args!("for {lasts_ns} ns"));
    }

    /// A host goes on.
    pub(crate) fn thaw(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].frozen) {
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
        self.lasts(Fault::Partition, self.options.faults.partition_ns_max, format_args!("{cut:?}"));
    }

    fn cut_lan(&mut self) {
        let port = self.rng.below(self.lan.links.len() as u64) as usize;
        self.lan.set_cut(port, true);
        self.counts.count(Count::LanCuts);
        self.lasts(
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
        self.lasts(Fault::Outage, self.options.faults.outage_ns_max, format_args!("{cut:?}"));
    }

    /// How long something lasts: any magnitude, any length, or just about as long as the other host is
    /// patient.
    fn draw_while(&mut self, ns_max: u64) -> u64 {
        let silence_ns = self.options.pair.timing.silence.as_nanos();
        match self.rng.below(3) {
            0 => self.rng.magnitude(10 * US..=ns_max),
            1 => self.rng.within(US..=ns_max),
            _ => self.rng.within(silence_ns * 3 / 4..=silence_ns * 5 / 4),
        }
    }

    /// A fault has begun, and will end.
    fn lasts(&mut self, fault: Fault, ns_max: u64, what: std::fmt::Arguments<'_>) {
        let now = self.queue.now();
        let lasts_ns = self.draw_while(ns_max);
        self.queue.push(now + lasts_ns, Event::Mend(fault));
        self.trace.line(now, None, "fault", format_args!("{fault:?} {what} for {lasts_ns} ns"));
    }

    /// A fault that lasts is over.
    pub(crate) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Partition => self.links.iter_mut().for_each(|link| link.set_cut(false)),
            Fault::LanCut => (0..self.lan.links.len()).for_each(|p| self.lan.set_cut(p, false)),
            Fault::Outage => self.hosts.iter_mut().for_each(|host| host.witness_cut = false),
            Fault::Crash
            | Fault::Freeze
            | Fault::Leave
            | Fault::Flip
            | Fault::Replay
            | Fault::Forget
            | Fault::Drift => {}
        }
        self.trace.line(self.queue.now(), None, "mend", format_args!("{fault:?}"));
    }

    fn stop_backup(&mut self, host: usize) -> Checked {
        let is_backup = self.role(host).is_some_and(|role| {
            is_whole(role)
                || matches!(role, RoleName::Seeking | RoleName::Syncing | RoleName::Leaving)
        });
        if !is_backup
            || self.hosts[host].frozen
            || self.is_last(host) && self.rng.chance(SPARES_LAST)
        {
            return Ok(());
        }
        self.counts.count(Count::Leaves);
        self.stop(host)
    }

    /// Somebody stops the process of `host`.
    fn stop(&mut self, host: usize) -> Checked {
        let now = self.queue.now();
        let clock = self.read_clock(host);
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        self.trace.line(now, Some(host), "stop", format_args!("{:?}", process.id));
        self.custody.gone.push((process.id, Gone::Stopped));
        self.engine(host, |process| process.replica.stop(clock))?;
        self.turn(host)
    }

    fn flip(&mut self, host: usize) {
        let bit = self.rng.below(64);
        let now = self.queue.now();
        let Some(process) = &mut self.hosts[host].process else { return };
        // Where the processor is about to be compared, its digest was taken already.
        let is_between = match process.place {
            Place::Entry | Place::Running(_) | Place::Inputs { .. } => true,
            Place::Stopped { .. }
            | Place::Capture(_)
            | Place::Position { .. }
            | Place::Exit { .. }
            | Place::Halted
            | Place::Inject(_)
            | Place::Ended => false,
        };
        let follows = process.replica.role() == RoleName::Following && process.track.is_some();
        if !is_between || !follows || process.flipped {
            return;
        }
        process.machine.cpu.hash ^= 1 << bit;
        process.flipped = true;
        process.flips_due = 1;
        self.counts.count(Count::Flips);
        self.trace.line(now, Some(host), "flip", format_args!("bit {bit}"));
    }

    /// Frames of any session so far, of newer ones more often, to whom they were for or from.
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
        // Timers were set by the old rate.
        self.wake_soon(host);
    }

    /// From here on everything works, and must come to a good end.
    pub(crate) fn heal(&mut self) -> Checked {
        let now = self.queue.now();
        self.trace.line(now, None, "heal", format_args!(""));
        self.demand_recovery();
        self.links.iter_mut().for_each(|link| link.heal());
        self.lan.heal();
        for host in [0, 1] {
            self.hosts[host].witness_cut = false;
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
            self.custody.stopped = true;
            self.stop(host)?;
        }
        Ok(())
    }
}
