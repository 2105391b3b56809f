//! [`SimSupervisor`]: the supervisor of a process, and the death notices that it sends.

use std::collections::BTreeSet;
use std::rc::Rc;

use logchan::seal::DeathNotice;
use replication::driver::{Notice, SupervisorPort};
use replication::replica::{ReplicaEvent, RoleName};

use super::count::Count;
use super::host::{Arrival, Process};
use super::state::{Event, State, other};
use super::thread::Thread;
use crate::sim::supervisor::Supervisors;
use crate::sim::system::process::ProcessId;
use crate::sim::{Checked, MS, require};

/// How soon after a process has received a notice its driver must have finished the round of work in which it did.
const ACTS_WITHIN_NS: u64 = 20 * MS;

/// The supervisor of a process, as the process sees it.
pub(super) struct SimSupervisor<'t>(pub(super) Thread<'t>);

/// What the supervisor of a process holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    notice: Option<DeathNotice>,
    /// It has refused a newer notice, which was not offered to it again.
    is_outdated: bool,
}

/// The supervisors of both hosts, and what the checker knows of dead processes.
#[derive(Debug)]
pub(super) struct Notices {
    supervisors: Supervisors,
    /// The sessions that processes were in whose supervisors send, or have sent, a notice.
    announced: BTreeSet<u64>,
}

impl Notices {
    /// Creates the supervisors of a run.
    pub(super) fn new(supervisors: Supervisors) -> Self {
        Self { supervisors, announced: BTreeSet::new() }
    }
}

impl SupervisorPort for SimSupervisor<'_> {
    fn try_hold(&mut self, notice: &DeathNotice) -> bool {
        self.0.with(|state| {
            let takes = state.notices.supervisors.takes();
            let Some(process) = &mut state.hosts[self.0.host].process else { return false };
            process.held.is_outdated = !takes;
            if takes {
                process.held.notice = Some(*notice);
            }
            takes
        })
    }

    fn stand_down(&mut self) {
        self.0.with(|state| {
            if let Some(process) = &mut state.hosts[self.0.host].process {
                process.held.notice = None;
            }
        });
    }

    fn poll_lost(&mut self) -> Option<String> {
        None
    }
}

impl State {
    /// `process` of `host` has crashed: its supervisor sends the notice that it holds, if it lives.
    pub(super) fn announce_death(&mut self, host: usize, process: &Process) {
        let Some(notice) = process.held.notice else { return };
        let sends = self.notices.supervisors.sends_after();
        if sends.is_empty() {
            return;
        }
        self.notices.announced.extend(&process.sessions);
        let frame: Rc<[u8]> = notice.as_bytes().as_slice().into();
        let session = (!process.held.is_outdated).then_some(process.session);
        for after_ns in sends {
            let frame = Rc::clone(&frame);
            self.queue
                .push(self.queue.now() + after_ns, Event::SendNotice { host, frame, session });
        }
    }

    /// A supervisor on `host` sends a copy of its notice, which must end `session`, the last of its process.
    pub(super) fn send_notice(&mut self, host: usize, frame: &Rc<[u8]>, session: Option<u64>) {
        let now = self.queue.now();
        self.counts.count(Count::NoticesSent);
        self.note(Some(host), "death", format_args!("session {session:?}"));
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.links[host].offer(now, frame.len(), &mut deliveries);
        for delivery in deliveries.drain(..) {
            let (damage, pad) = (delivery.damage, delivery.pad);
            let arrival = Arrival { frame: Rc::clone(frame), damage, pad, ends: session };
            self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
        }
        self.deliveries = deliveries;
    }

    /// A process takes a whole notice out of its ring, which must end `session`.
    pub(super) fn notice_received(&mut self, host: usize, session: u64) {
        let Some(process) = &self.hosts[host].process else { return };
        if process.session == session {
            let process = process.id;
            self.counts.count(Count::NoticesReceived);
            let at = self.queue.now() + ACTS_WITHIN_NS;
            self.queue.push(at, Event::CheckNotice { host, process, session });
        }
    }

    /// Checks that a process which has received the notice of its peer's death is not in the session with it any more.
    pub(super) fn check_notice_acted_on(
        &self,
        host: usize,
        process: ProcessId,
        session: u64,
    ) -> Checked {
        let own = &self.hosts[host];
        let was_frozen = own.frozen.is_some() || self.queue.now() < own.thawed_at + ACTS_WITHIN_NS;
        let Some(process) = own.process.as_ref().filter(|own| own.id == process) else {
            return Ok(());
        };
        let is_in_session = process.session == session
            && match process.role {
                RoleName::Copying
                | RoleName::Closing
                | RoleName::Protected
                | RoleName::HandingOver
                | RoleName::Syncing
                | RoleName::Following => true,
                RoleName::Standalone
                | RoleName::Starting
                | RoleName::Alone
                | RoleName::Losing
                | RoleName::Seeking
                | RoleName::Finishing
                | RoleName::Claiming
                | RoleName::Leaving
                | RoleName::Halted => false,
            };
        require!(
            !is_in_session || was_frozen,
            "host {host} is {} in the session of a process whose death notice it has received",
            process.role
        );
        Ok(())
    }

    /// Takes note of the session of a peer that `host` has met.
    pub(super) fn note_session(&mut self, host: usize, notice: &Notice) {
        if let Notice::Replica { event: ReplicaEvent::PeerMet { peer, .. }, .. } = notice
            && let Some(process) = &mut self.hosts[host].process
        {
            process.sessions.push(peer.session.0);
        }
    }

    /// Checks that the driver of `host` reports the death of a process that is dead.
    pub(super) fn check_reported_death(&self, host: usize) -> Checked {
        let process = self.hosts[host].process.as_ref();
        let session = process.and_then(|process| process.sessions.last().copied());
        require!(
            session.is_some_and(|session| self.notices.announced.contains(&session)),
            "host {host} takes its peer for dead in session {session:?}, and no supervisor said so"
        );
        Ok(())
    }
}
