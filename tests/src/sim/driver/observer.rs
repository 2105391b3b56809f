//! [`SimObserver`]: receives the driver's notices, writes them to the terminal, and shows the checkers what
//! happens.

use logchan::time::{Duration, Time};
use replication::driver::{CheckpointMoment, DriverView, Moment, Notice, Observer};
use replication::replica::{Replica, ReplicaEvent};

use super::count::Count;
use super::faults::CrashPoint;
use super::link_port::SimLink;
use super::sim_host::SimHost;
use super::tap::SimTap;
use super::thread::Thread;

/// See the [module](self).
pub(super) struct SimObserver<'t> {
    pub(super) thread: Thread<'t>,
    /// The planted bug: messages are written on this thread.
    pub(super) waits_for_terminal: bool,
}

impl Thread<'_> {
    /// Writes a message or a byte to the terminal: through its queue or, planted, on this thread.
    pub(super) fn write_to_terminal(&self, waits: bool) {
        let taken_at = self.with(|state| {
            let now = state.queue.now();
            let own = &mut state.hosts[self.host];
            let takes_ns = own.options.terminal_ns;
            state.counts.count(Count::TerminalWrites);
            if waits {
                return Some(own.terminal.write(now, takes_ns));
            }
            let is_dropped = own.terminal.queue(now, takes_ns).is_none();
            state.counts.add(Count::TerminalDrops, is_dropped.into());
            None
        });
        if let Some(taken_at) = taken_at {
            let began = self.with(|state| state.queue.now());
            self.sleep_until(taken_at, super::thread::WakeBy::TIME);
            self.check(self.with(|state| state.check_blocked(self.host, began, "the terminal")));
        }
    }
}

impl<'t> Observer<SimHost<'t>> for SimObserver<'t> {
    fn notice(&mut self, replica: &Replica, notice: Notice) {
        let thread = &self.thread;
        let host = thread.host;
        let checked = thread.with(|state| {
            state.look(host, replica);
            state.note(Some(host), "notice", format_args!("{notice:?}"));
            state.count_notice(&notice);
            state.note_session(host, &notice);
            state.check_notice(host, &notice)
        });
        thread.check(checked);
        thread.write_to_terminal(self.waits_for_terminal);
    }

    fn frame(&mut self, _world: &mut SimTap<'t>, moment: Moment, _now: impl FnOnce() -> Time) {
        if moment == Moment::Made {
            self.thread.reach(CrashPoint::Output);
        }
    }

    fn held(&mut self, span: Duration) {
        let is_held = span > Duration::ZERO;
        self.thread.with(|state| state.counts.add(Count::OutputsHeld, is_held.into()));
    }

    fn checkpoint(&mut self, _now: Time, _moment: CheckpointMoment) {}

    fn driven(&mut self, _now: Time, driver: DriverView<'_, SimHost<'t>>) {
        self.thread.with(|state| {
            state.counts.count(Count::Driven);
            state.look(self.thread.host, driver.replica);
        });
    }

    fn why_nobody(&self, _link: &mut SimLink<'t>, _replica: &Replica) -> String {
        "no frame has arrived".to_string()
    }
}

impl super::state::State {
    fn count_notice(&mut self, notice: &Notice) {
        let count = match notice {
            Notice::Replica { event, .. } => match event {
                ReplicaEvent::WentLive { .. } => Count::Takeovers,
                ReplicaEvent::Protected => Count::Syncs,
                ReplicaEvent::BackupSilent { .. } => Count::BackupsSilent,
                ReplicaEvent::BackupStalled { .. } => Count::BackupsStalled,
                ReplicaEvent::PrimarySilent { .. } => Count::PrimariesSilent,
                ReplicaEvent::BackupGone | ReplicaEvent::PrimaryGone { .. } => Count::NoticesTaken,
                ReplicaEvent::WitnessUnreachable { .. } => Count::WitnessUnreachable,
                ReplicaEvent::HandingOver => Count::Handovers,
                ReplicaEvent::HandoverFailed => Count::HandoversFailed,
                ReplicaEvent::GuestSlowed { .. } | ReplicaEvent::GuestSlowedForDisks { .. } => {
                    Count::GuestsSlowed
                }
                ReplicaEvent::LanLost
                | ReplicaEvent::LanBack
                | ReplicaEvent::BackupHealth { .. }
                | ReplicaEvent::WitnessLost
                | ReplicaEvent::WitnessBack
                | ReplicaEvent::ReleaseFailed
                | ReplicaEvent::PeerMet { .. }
                | ReplicaEvent::PeerRefused { .. }
                | ReplicaEvent::TermWon { .. }
                | ReplicaEvent::SyncBegun
                | ReplicaEvent::SyncDelayed(_)
                | ReplicaEvent::SyncStalled { .. }
                | ReplicaEvent::GuestNotSlowed
                | ReplicaEvent::SyncGivenUp(_)
                | ReplicaEvent::DisksCopied(_)
                | ReplicaEvent::BackupLeft
                | ReplicaEvent::Following
                | ReplicaEvent::LogFinished
                | ReplicaEvent::Diverged
                | ReplicaEvent::DiskFault(_)
                | ReplicaEvent::Halted(_) => return,
            },
            Notice::Diverged(_) => Count::Divergences,
            Notice::WitnessFailed { .. } => Count::WitnessFailures,
            Notice::SyncClosed { .. }
            | Notice::NobodyMet { .. }
            | Notice::HandoverRefused
            | Notice::StopRefused
            | Notice::SupervisorLost { .. }
            | Notice::GoesSilent => return,
        };
        self.counts.count(count);
    }
}
