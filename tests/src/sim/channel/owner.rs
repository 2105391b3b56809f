//! The owners: who is the primary, who goes live, who comes back.
//!
//! There is one truth, which an owner learns when it asks: the *witness* knows the newest term and who
//! its primary is. A backup whose primary is silent may claim the next term, unless the primary has
//! gone on alone before; the other one then has been replaced. In the real system the witness is a
//! file that can be created once, here it is a word.

use logchan::ids::Role;

use super::count::{Count, count_channel, count_endpoint};
use super::host::Process;
use super::model::Over;
use super::world::{Event, Phase, World, other};
use crate::sim::Checked;
use crate::sim::rng::Chance;

/// Who speaks for the VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    /// The newest term.
    pub(super) term: u64,
    /// Its primary.
    pub(super) primary: usize,
    /// Sessions before this one no longer entitle a backup to go live.
    pub(super) barred: usize,
}

impl World<'_> {
    /// What `host` should be.
    pub(super) fn true_role(&self, host: usize) -> Role {
        if self.witness.primary == host { Role::Primary } else { Role::Backup }
    }

    /// `host` wants a new channel, after a while.
    pub(super) fn want_renewal(&mut self, host: usize) {
        let wish = &mut self.hosts[host];
        if wish.renew_wanted || wish.process == Process::Down {
            return;
        }
        wish.renew_wanted = true;
        wish.renew_ticket += 1;
        let ticket = wish.renew_ticket;
        let after_ns = self.rng.within(self.options.hosts[host].renew_ns.clone());
        let at = self.queue.now() + after_ns;
        self.queue.push(at, Event::Renew { host, ticket });
    }

    /// `host` begins anew, as what its owner thinks it is.
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

    /// The process of `host` ends.
    pub(super) fn kill(&mut self, host: usize) {
        self.leave_session(host);
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        self.handshakes_done += count_endpoint(self.counts, &own.endpoint);
        own.lives.last_mut().expect("a host has lived").until = Some(now);
        own.process = Process::Down;
        own.session = None;
        own.ring.clear();
        self.counts.count(Count::Restarts);
        self.trace.line(now, Some(host), "kill", format_args!(""));
    }

    /// Another process is started on `host`.
    pub(super) fn boot(&mut self, host: usize) {
        let (role, term) = self.decide(host);
        let now = self.queue.now();
        self.hosts[host].boot(now, &self.options, host, role, term);
        self.trace.line(now, Some(host), "boot", format_args!("as {role:?} of term {term}"));
    }

    /// What the owner of `host` makes it, and of which term.
    fn decide(&mut self, host: usize) -> (Role, u64) {
        let life = *self.hosts[host].life();
        let is_faulty = self.is_faulty();
        if self.may_go_live(host) && self.rng.chance(self.options.faults.go_live) {
            self.witness.term += 1;
            self.witness.primary = host;
            self.counts.count(Count::GoLives);
        }
        let known = self.hosts[host].term;
        let any_known = self.rng.pick(&[known, known, 0]);
        let loses = self.rng.chance(Chance::percent(30));
        let is_stubborn = self.rng.chance(self.options.faults.stubborn);
        if self.witness.primary == host {
            if is_faulty && loses {
                // Its VM is lost: it comes back as somebody else's backup.
                return (Role::Backup, any_known);
            }
            // Goes on alone: no backup of before may replace it any more.
            self.witness.barred = self.sessions.len();
            self.hosts[host].term = self.witness.term;
            (Role::Primary, self.witness.term)
        } else if life.role == Role::Primary && is_faulty && is_stubborn {
            self.counts.count(Count::Stubborn);
            (Role::Primary, life.term)
        } else {
            // What a backup knows is what it was told; a new one may know nothing.
            (Role::Backup, any_known)
        }
    }

    /// Whether the witness lets `host` go live: its primary is silent and has not gone on alone, or
    /// has come back without the VM.
    fn may_go_live(&self, host: usize) -> bool {
        let is_backup = self.hosts[host].life().role == Role::Backup;
        if !is_backup || self.witness.primary == host || !self.is_faulty() {
            return false;
        }
        let he = self.hosts[other(host)].life();
        if he.role == Role::Backup {
            return true;
        }
        self.hosts[host].session.is_some_and(|index| {
            let session = &self.sessions[index];
            let is_silent = session.ends[host].over == Some(Over::Silent);
            is_silent && index >= self.witness.barred && session.term == self.witness.term
        })
    }

    /// Nobody can ask `host` about its session any more.
    pub(super) fn leave_session(&mut self, host: usize) {
        let own = &self.hosts[host];
        count_channel(self.counts, &own.endpoint);
        if let Some(session) = own.session {
            let end = &mut self.sessions[session].ends[host];
            end.gone_at.get_or_insert(self.queue.now());
        }
    }

    /// Whether there still are faults.
    pub(super) fn is_faulty(&self) -> bool {
        self.phase == Phase::Faults
    }
}
