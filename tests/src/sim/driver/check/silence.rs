//! Checks that a host falls silent only after a fault. Long work, a lagging backup, a slow terminal and a witness
//! that hangs are no reasons.

use replication::driver::Notice;
use replication::replica::{ReplicaEvent, RoleName};

use crate::sim::driver::check::Phase;
use crate::sim::driver::host::Arrival;
use crate::sim::driver::link_port::log_frame;
use crate::sim::driver::state::{State, other};
use crate::sim::system::steps::is_logging;
use crate::sim::{Checked, require};

/// What the checker knows of the pair's health.
#[derive(Debug, Default)]
pub(in crate::sim::driver) struct Silence {
    /// When a fault began or ended, or a process ended.
    disturbed_at: u64,
    /// The VM was protected for a while after that.
    is_settled: bool,
}

impl Silence {
    /// A fault begins or ends.
    pub(in crate::sim::driver) fn disturb(&mut self, now: u64) {
        *self = Self { disturbed_at: now, is_settled: false };
    }

    /// Takes note of the roles of the hosts.
    pub(in crate::sim::driver) fn see(
        &mut self,
        now: u64,
        roles: [Option<RoleName>; 2],
        silence_ns: u64,
    ) {
        let is_pair = roles.contains(&Some(RoleName::Protected))
            && roles.contains(&Some(RoleName::Following));
        self.is_settled |= is_pair && now >= self.disturbed_at + 2 * silence_ns;
    }
}

impl State {
    /// Checks a notice of the driver of `host`.
    pub(in crate::sim::driver) fn check_notice(&mut self, host: usize, notice: &Notice) -> Checked {
        match notice {
            Notice::Diverged(divergence) => {
                let is_planned = std::mem::take(&mut self.hosts[host].is_apply_failed);
                require!(is_planned, "host {host} diverges: {divergence}");
            }
            Notice::Replica { event, .. } => match event {
                ReplicaEvent::BackupSilent { .. } | ReplicaEvent::PrimarySilent { .. } => {
                    require!(
                        !self.silence.is_settled || self.has_fault(),
                        "host {host} takes its peer for dead, and nothing has happened: {event:?}"
                    );
                    let is_whole = |arrival: &Arrival| {
                        arrival.damage.is_none() && log_frame(&arrival.frame).is_some()
                    };
                    require!(
                        !self.hosts[host].ring.iter().any(is_whole),
                        "host {host} takes its peer for dead, and a frame of it has arrived"
                    );
                    if let ReplicaEvent::PrimarySilent { .. } = event {
                        self.check_lease(other(host))?;
                    }
                }
                ReplicaEvent::BackupStalled { .. } | ReplicaEvent::SyncStalled { .. } => {
                    require!(
                        !self.silence.is_settled || self.has_fault(),
                        "host {host} finds the link stalled, and nothing has happened: {event:?}"
                    );
                }
                ReplicaEvent::BackupGone | ReplicaEvent::PrimaryGone { .. } => {
                    return self.check_reported_death(host);
                }
                ReplicaEvent::PeerMet { .. }
                | ReplicaEvent::PeerRefused { .. }
                | ReplicaEvent::TermWon { .. }
                | ReplicaEvent::WitnessUnreachable { .. }
                | ReplicaEvent::SyncBegun
                | ReplicaEvent::SyncDelayed(_)
                | ReplicaEvent::GuestSlowed { .. }
                | ReplicaEvent::GuestSlowedForDisks { .. }
                | ReplicaEvent::GuestNotSlowed
                | ReplicaEvent::SyncGivenUp(_)
                | ReplicaEvent::DisksCopied(_)
                | ReplicaEvent::Protected
                | ReplicaEvent::LanLost
                | ReplicaEvent::LanBack
                | ReplicaEvent::BackupHealth { .. }
                | ReplicaEvent::WitnessLost
                | ReplicaEvent::WitnessBack
                | ReplicaEvent::ReleaseFailed
                | ReplicaEvent::HandingOver
                | ReplicaEvent::HandoverFailed
                | ReplicaEvent::BackupLeft
                | ReplicaEvent::Following
                | ReplicaEvent::WentLive { .. }
                | ReplicaEvent::LogFinished
                | ReplicaEvent::Diverged
                | ReplicaEvent::DiskFault(_)
                | ReplicaEvent::Halted(_) => {}
            },
            Notice::SyncClosed { .. }
            | Notice::NobodyMet { .. }
            | Notice::HandoverRefused
            | Notice::StopRefused
            | Notice::WitnessFailed { .. }
            | Notice::SupervisorLost { .. }
            | Notice::GoesSilent => {}
        }
        Ok(())
    }

    /// The backup takes the primary on `host` for dead. The primary's lease must be over, and its margin as well.
    fn check_lease(&self, host: usize) -> Checked {
        let own = &self.hosts[host];
        let Some(process) = own.process.as_ref().filter(|p| is_logging(p.role)) else {
            return Ok(());
        };
        let is_same = self.hosts[other(host)].process.as_ref().map(|p| p.session);
        let Some(until) = process.lease_until.filter(|_| is_same == Some(process.session)) else {
            return Ok(());
        };
        let ends_at = own.clock.when(until) + self.options.pair.timing.lease_margin.as_nanos();
        let now = self.queue.now() + self.hosts[other(host)].debt_ns;
        require!(
            ends_at <= now + 1,
            "the backup takes host {host} for dead {} ns before the margin of its lease ends",
            ends_at - now
        );
        Ok(())
    }

    /// Whether there is a reason for silence now.
    fn has_fault(&self) -> bool {
        let is_lossy = !self.options.is_calm && self.phase == Phase::Faults;
        let is_cut = self.links.iter().any(|link| link.is_cut());
        let is_broken = |host: &crate::sim::driver::host::Host| {
            host.frozen.is_some() || host.process.is_none() || host.tap_fault.is_some()
        };
        is_lossy || is_cut || self.hosts.iter().any(is_broken)
    }
}
