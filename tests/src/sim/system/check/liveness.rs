//! Checks that the pair recovers after healing.

use logchan::handshake::RETRY_MAX;
use logchan::ids::Lane;
use replication::replica::RoleName;

use crate::sim::system::count::Count;
use crate::sim::system::pair::{Event, Pair};
use crate::sim::system::process::RESYNC;
use crate::sim::{Checked, MS, require};

/// What the checkers require now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Safety only.
    Faults,
    /// That the VM gets protected and every client gets an answer to a new request.
    Recover {
        /// Start of the recovery.
        since: u64,
        /// Its deadline.
        by: u64,
    },
    /// Nothing: the run is complete.
    Over,
}

impl Pair<'_> {
    /// Begins the recovery phase: there are no faults from now on.
    pub(crate) fn demand_recovery(&mut self) {
        let since = self.queue.now();
        let pair = &self.options.pair;
        let silence_ns = pair.timing.silence.as_nanos();
        let witness = &self.options.witness;
        let claim_ns = pair.witness_retry_ns + witness.timeout_ns + 2 * witness.delay_ns_max;
        let restarts_ns = self.options.hosts.iter().map(|host| host.restart_ns_max).sum::<u64>();
        // Each host notices that the other is gone, one is granted the term, they connect, and memory is
        // copied.
        let by = since
            + 6 * silence_ns
            + 4 * claim_ns
            + restarts_ns
            + 2 * pair.witness_check_ns
            + 2 * RETRY_MAX.as_nanos()
            + RESYNC.delay_max.as_nanos()
            + 1000 * MS;
        self.phase = Phase::Recover { since, by };
        self.clients_paused = self.options.faults.pause_clients_at_end;
        self.queue.push(by + 1, Event::CheckProgress);
    }

    /// Number of bytes of a dead primary's log that were executed.
    fn executed_log(&self) -> u64 {
        let finishing = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let finishing = finishing.filter(|process| process.replica.role() == RoleName::Finishing);
        finishing
            .filter_map(|process| process.replica.channel())
            .map(|c| c.consumed(Lane::Latency).0)
            .sum()
    }

    /// Checks whether the pair has recovered, and its deadline.
    pub(crate) fn check_progress(&mut self) -> Checked {
        let Phase::Recover { since, by } = self.phase else { return Ok(()) };
        let now = self.queue.now();
        let role = |host: usize| self.hosts[host].process.as_ref().map(|p| p.replica.role());
        let roles = [role(0), role(1)];
        let protected = roles.contains(&Some(RoleName::Protected))
            && roles.contains(&Some(RoleName::Following));
        self.clients_paused &= !protected;
        let waiting = self.clients.waiting_since(since);
        // A VM that was forgotten must end, not recover: `check_copies` ends the run then.
        if protected && waiting == 0 && !self.witness.is_released() {
            self.counts.count(Count::Recovered);
            self.counts.add(Count::OutlivedStops, self.copies.stopped.into());
            self.counts.add(Count::RecoveryMs, (now - since) / MS);
            self.phase = Phase::Over;
            return Ok(());
        }
        let finished = self.executed_log();
        if now > by && finished > self.executed_log {
            // A slow host may have much log left to execute. As long as it makes progress, the deadline is
            // extended.
            self.executed_log = finished;
            let by = now + (by - since);
            self.phase = Phase::Recover { since, by };
            self.queue.push(by + 1, Event::CheckProgress);
            return Ok(());
        }
        if now > by {
            self.trace_hosts();
        }
        require!(
            now <= by,
            "{} ms after the last fault the hosts are {roles:?} and {waiting} clients wait",
            (now - since) / MS
        );
        Ok(())
    }
}
