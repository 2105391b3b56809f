//! The owners of the hosts, which decide who is the primary, who goes live and in which role a host comes
//! back.
//!
//! The *witness* knows the newest term and its primary; an owner learns them when it asks. A backup whose
//! primary is silent may claim the next term, unless the primary went on alone before; the old primary
//! is then replaced. In the real system the witness is a file that can be created once, here it is a
//! struct.

use logchan::ids::Role;

use super::count::{Count, count_channel, count_endpoint};
use super::host::Process;
use super::model::EndReason;
use super::world::{Event, Phase, World, other};
use crate::sim::Checked;
use crate::sim::rng::Chance;

/// The newest term and its owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    /// The newest term.
    pub(super) term: u64,
    /// The primary of that term.
    pub(super) primary: usize,
    /// Index of the first session whose backup may go live. The primary has gone on alone since the
    /// earlier ones.
    pub(super) first_valid_session: usize,
}

impl World<'_> {
    /// The role that `host` has according to the witness.
    pub(super) fn true_role(&self, host: usize) -> Role {
        if self.witness.primary == host { Role::Primary } else { Role::Backup }
    }

    /// Schedules a renewal of the endpoint of `host`.
    pub(super) fn schedule_renewal(&mut self, host: usize) {
        let own = &mut self.hosts[host];
        if own.renewal_scheduled || own.process == Process::Down {
            return;
        }
        own.renewal_scheduled = true;
        own.renew_ticket += 1;
        let ticket = own.renew_ticket;
        let after_ns = self.rng.within(self.options.hosts[host].renew_ns.clone());
        let at = self.queue.now() + after_ns;
        self.queue.push(at, Event::Renew { host, ticket });
    }

    /// Renews the endpoint of `host` in the role that its owner decides.
    pub(super) fn renew(&mut self, host: usize) -> Checked {
        self.read_rest(host)?;
        let (role, term) = self.decide(host);
        let now = self.queue.now();
        self.leave_session(host);
        let own = &mut self.hosts[host];
        own.renew(now, &self.options, host, role, term);
        self.trace.line(now, Some(host), "renew", format_args!("as {role:?} of term {term}"));
        Ok(())
    }

    /// Kills the process of `host`.
    pub(super) fn kill(&mut self, host: usize) {
        self.leave_session(host);
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        self.handshakes_done += count_endpoint(self.counts, &own.endpoint);
        own.incarnations.last_mut().expect("a host has an incarnation").until = Some(now);
        own.process = Process::Down;
        own.session = None;
        own.ring.clear();
        self.announce_death(host);
        self.counts.count(Count::Restarts);
        self.trace.line(now, Some(host), "kill", format_args!(""));
    }

    /// Starts a new process on `host`.
    pub(super) fn boot(&mut self, host: usize) {
        let (role, term) = self.decide(host);
        let now = self.queue.now();
        self.hosts[host].boot(now, &self.options, host, role, term);
        self.trace.line(now, Some(host), "boot", format_args!("as {role:?} of term {term}"));
    }

    /// The owner's decision about the role and term of `host`.
    fn decide(&mut self, host: usize) -> (Role, u64) {
        let current = *self.hosts[host].incarnation();
        let is_faulty = self.is_faulty();
        if self.may_go_live(host) && self.rng.chance(self.options.faults.go_live) {
            self.witness.term += 1;
            self.witness.primary = host;
            self.counts.count(Count::GoLives);
        }
        let known = self.hosts[host].term;
        let any_known = self.rng.pick(&[known, known, 0]);
        let loses = self.rng.chance(Chance::percent(30));
        let is_stale = self.rng.chance(self.options.faults.stale_primary);
        if self.witness.primary == host {
            if is_faulty && loses {
                // It has lost its VM, and comes back as a backup.
                return (Role::Backup, any_known);
            }
            // The primary goes on alone, so no earlier backup may replace it any more.
            self.witness.first_valid_session = self.sessions.len();
            self.hosts[host].term = self.witness.term;
            (Role::Primary, self.witness.term)
        } else if current.role == Role::Primary && is_faulty && is_stale {
            self.counts.count(Count::StalePrimaries);
            (Role::Primary, current.term)
        } else {
            // A backup knows only the terms that it was told; a new one may know none.
            (Role::Backup, any_known)
        }
    }

    /// Whether the witness lets `host` go live: its primary is dead and has not gone on alone, or has come
    /// back without the VM.
    fn may_go_live(&self, host: usize) -> bool {
        let is_backup = self.hosts[host].incarnation().role == Role::Backup;
        if !is_backup || self.witness.primary == host || !self.is_faulty() {
            return false;
        }
        let peer = self.hosts[other(host)].incarnation();
        if peer.role == Role::Backup {
            return true;
        }
        self.hosts[host].session.is_some_and(|index| {
            let session = &self.sessions[index];
            let is_dead = match session.ends[host].ended {
                Some(EndReason::Silent | EndReason::Gone) => true,
                Some(EndReason::PeerBye | EndReason::Left) | None => false,
            };
            is_dead
                && index >= self.witness.first_valid_session
                && session.term == self.witness.term
        })
    }

    /// Ends the session of `host` in the model.
    pub(super) fn leave_session(&mut self, host: usize) {
        let own = &self.hosts[host];
        count_channel(self.counts, &own.endpoint);
        if let Some(session) = own.session {
            let end = &mut self.sessions[session].ends[host];
            end.gone_at.get_or_insert(self.queue.now());
        }
    }

    /// Whether the run is in the phase with faults.
    pub(super) fn is_faulty(&self) -> bool {
        self.phase == Phase::Faults
    }
}
