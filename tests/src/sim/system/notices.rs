//! Death notices: what the supervisors hold and send, and which notices may count.

use std::collections::BTreeSet;

use logchan::endpoint::EndpointVerdict;
use logchan::seal::DeathNotice;

use super::count::Count;
use super::host::Arrival;
use super::pair::{Event, Pair, other};
use crate::sim::frames::FrameId;
use crate::sim::supervisor::Supervisors;
use crate::sim::{Checked, require};

/// See the [module](self).
pub(crate) struct Notices {
    /// When supervisors send.
    pub(crate) supervisors: Supervisors,
    /// The notices that were on the wire, which an attacker has recorded.
    recorded: Vec<FrameId>,
    /// The sessions of the processes whose supervisors have sent, or will send, a notice.
    announced: BTreeSet<u64>,
}

impl Notices {
    /// Creates the notices of a run, of which there are none.
    pub(crate) fn new(supervisors: Supervisors) -> Self {
        Self { supervisors, recorded: Vec::new(), announced: BTreeSet::new() }
    }
}

impl Pair<'_> {
    /// Passes the notice of a new session of `host` to its supervisor, as the driver does.
    pub(crate) fn brief_supervisor(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        if let Some(notice) = process.replica.poll_death_notice() {
            process.sessions.extend(process.session());
            process.new_notice = Some(notice);
        }
        if process.new_notice.is_some() && self.notices.supervisors.takes() {
            process.held_notice = process.new_notice.take();
        }
    }

    /// The process of `host` is gone: its supervisor sends `notice`, if it lives.
    pub(crate) fn announce_death(&mut self, host: usize, notice: DeathNotice, sessions: &[u64]) {
        let sends = self.notices.supervisors.sends_after();
        if sends.is_empty() {
            return;
        }
        self.notices.announced.extend(sessions);
        // The kernel has finished the process's last system call before the process counts as gone, so what it
        // gave to the tap has left.
        let from = self.hosts[host].tap_busy_until.max(self.queue.now());
        for after_ns in sends {
            self.queue.push(from + after_ns, Event::SendNotice { host, notice });
        }
    }

    /// A supervisor on `host` sends a copy of its notice. Not before that, an attacker can record it.
    pub(crate) fn send_notice(&mut self, host: usize, notice: DeathNotice) {
        let now = self.queue.now();
        let frame = self.frames.push(notice.as_bytes(), ());
        self.notices.recorded.push(frame);
        self.counts.count(Count::NoticesSent);
        self.trace.line(now, Some(host), "notice", format_args!("#{:06}", frame.0));
        self.send_copies(host, now, frame);
    }

    /// An attacker sends a notice again that was on the wire before.
    pub(crate) fn replay_notice(&mut self) {
        let count = self.notices.recorded.len();
        if let Some((index, to)) = self.notices.supervisors.replays(count) {
            let frame = self.notices.recorded[index];
            let now = self.queue.now();
            self.queue.push(
                now,
                Event::Arrive { to, arrival: Arrival { frame, damage: None, pad: None } },
            );
            self.counts.count(Count::NoticesReplayed);
            self.trace.line(now, Some(to), "replayed", format_args!("#{:06}, a notice", frame.0));
        }
    }

    /// Checks that a notice which ended `session` of `host` was sent by the supervisor of a process that was in
    /// that session.
    pub(crate) fn check_notice(
        &mut self,
        host: usize,
        session: Option<u64>,
        verdict: EndpointVerdict,
    ) -> Checked {
        if verdict != EndpointVerdict::PeerGone {
            return Ok(());
        }
        self.counts.count(Count::NoticesTaken);
        require!(
            session.is_some_and(|session| self.notices.announced.contains(&session)),
            "host {host} takes host {} for dead in a session that no supervisor gave up",
            other(host)
        );
        Ok(())
    }
}
