//! Crashes of processes.

use replication::replica::RoleName;

use super::check::{EndCause, is_primary};
use super::count::Count;
use super::pair::Pair;
use super::process::VcpuState;
use crate::sim::rng::Chance;

/// The point at which a process is to crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// After it has logged an output.
    Output,
    /// After it has released an output.
    Release,
    /// After it has released an output whose log entry was not acknowledged, and which the log link has lost.
    EarlyRelease,
    /// Before or while it sends a checkpoint.
    Checkpoint,
}

/// The crash points to choose from. Output that has just left and is not yet in the backup's log is the most
/// valuable case.
const CRASH_POINTS: [CrashPoint; 4] =
    [CrashPoint::Output, CrashPoint::Release, CrashPoint::EarlyRelease, CrashPoint::Checkpoint];

/// Probability of not destroying the last copy of the VM, after which a run shows nothing more.
pub(crate) const SPARES_LAST: Chance = Chance::percent(93);

impl Pair<'_> {
    /// The role of the process of `host`, if it has one.
    pub(crate) fn role(&self, host: usize) -> Option<RoleName> {
        self.hosts[host].process.as_ref().map(|process| process.replica.role())
    }

    /// Whether the process of `host` has the last copy of the VM.
    pub(crate) fn has_last_copy(&self, host: usize) -> bool {
        let has_it = self.hosts[host].process.as_ref().is_some_and(|p| self.has_vm_copy(p));
        has_it && self.holders() == 1
    }

    /// Crashes a process, now or at a crash point.
    pub(crate) fn crash(&mut self, host: usize) {
        // Prefer the primary of a protected VM, the most interesting case.
        let protected = (0..2).find(|&host| self.role(host) == Some(RoleName::Protected));
        let host = protected.filter(|_| self.rng.chance(Chance::percent(60))).unwrap_or(host);
        if self.hosts[host].process.is_none()
            || self.has_last_copy(host) && self.rng.chance(SPARES_LAST)
        {
            return;
        }
        let point = self.rng.pick(&CRASH_POINTS);
        if protected == Some(host) && self.rng.chance(Chance::percent(60)) {
            self.hosts[host].crash_point = Some(point);
        } else {
            self.crash_now(host);
        }
    }

    fn crash_now(&mut self, host: usize) {
        let primary = self.role(host).is_some_and(is_primary);
        self.counts.count(Count::Crashes);
        self.counts.add(Count::CrashesOfPrimary, primary.into());
        self.end_process(host, EndCause::Crashed);
    }

    /// The process of `host` is at a crash point. If it is to crash there, it does so at the end of the driver
    /// iteration; the frames that it has sent are in transit. A process that is to crash after an early release loses
    /// its log link when it has logged an output.
    pub(crate) fn reach_crash_point(&mut self, host: usize, at: CrashPoint) {
        if self.hosts[host].crash_point == Some(at) {
            self.hosts[host].crash_point = None;
            self.hosts[host].crash_pending = self.is_faulty() && !self.has_last_copy(host);
        }
        if at == CrashPoint::Output
            && self.hosts[host].crash_point == Some(CrashPoint::EarlyRelease)
        {
            self.cut_log_of(host);
        }
    }

    /// Crashes the process of `host` at the end of a driver iteration, if it has passed its crash point.
    pub(crate) fn crash_if_pending(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].crash_pending) {
            self.crash_now(host);
        }
    }

    /// Handles the crash point of a captured checkpoint.
    pub(crate) fn check_capture_crash_point(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        if let VcpuState::Capture(_) = process.vcpu_state {
            self.reach_crash_point(host, CrashPoint::Checkpoint);
        }
    }
}
