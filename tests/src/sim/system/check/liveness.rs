//! What must come to pass when nothing goes wrong any more.

use logchan::handshake::RETRY_MAX;
use logchan::ids::Lane;
use vmm::replica::RoleName;

use crate::sim::system::count::Count;
use crate::sim::system::pair::{Event, Pair};
use crate::sim::{Checked, MS, require};

/// What is demanded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// That nothing happens that must not.
    Faults,
    /// That the VM is protected, and every client answered that asked before.
    Recover {
        /// Since when.
        since: u64,
        /// Until when.
        by: u64,
    },
    /// Nothing more.
    Over,
}

impl Pair<'_> {
    /// Nothing goes wrong from now on.
    pub(crate) fn demand_recovery(&mut self) {
        let since = self.queue.now();
        let pair = &self.options.pair;
        let silence_ns = pair.timing.silence.as_nanos();
        let witness = &self.options.witness;
        let claim_ns = pair.witness_retry_ns + witness.patience_ns + 2 * witness.delay_ns_max;
        let restarts_ns = self.options.hosts.iter().map(|host| host.restart_ns_max).sum::<u64>();
        // Each notices that the other is gone; one is given the term; they meet; memory is copied.
        let by = since
            + 6 * silence_ns
            + 4 * claim_ns
            + restarts_ns
            + 2 * RETRY_MAX.as_nanos()
            + 1000 * MS;
        self.phase = Phase::Recover { since, by };
        self.quiet = self.options.faults.quiet_at_end;
        self.queue.push(by + 1, Event::Look);
    }

    /// How much of a dead primary's log was executed.
    fn finished_log(&self) -> u64 {
        let finishing = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let finishing = finishing.filter(|process| process.replica.role() == RoleName::Finishing);
        finishing
            .filter_map(|process| process.replica.channel())
            .map(|c| c.consumed(Lane::Latency).0)
            .sum()
    }

    /// Whether what is demanded has come to pass, or is overdue.
    pub(crate) fn check_progress(&mut self) -> Checked {
        let Phase::Recover { since, by } = self.phase else { return Ok(()) };
        let now = self.queue.now();
        let role = |host: usize| self.hosts[host].process.as_ref().map(|p| p.replica.role());
        let roles = [role(0), role(1)];
        let protected = roles.contains(&Some(RoleName::Protected))
            && roles.contains(&Some(RoleName::Following));
        self.quiet &= !protected;
        let waiting = self.clients.iter().filter(|client| client.waits_since(since)).count();
        if protected && waiting == 0 {
            self.counts.count(Count::Recovered);
            self.counts.add(Count::OutlivedStops, self.custody.stopped.into());
            self.counts.add(Count::RecoveryMs, (now - since) / MS);
            self.phase = Phase::Over;
            return Ok(());
        }
        let finished = self.finished_log();
        if now > by && finished > self.finished {
            // A slow host may have much log left to execute, and does.
            self.finished = finished;
            let by = now + (by - since);
            self.phase = Phase::Recover { since, by };
            self.queue.push(by + 1, Event::Look);
            return Ok(());
        }
        if now > by {
            self.trace_hosts();
        }
        require!(
            now <= by,
            "{} ms after the last fault hosts are {roles:?}, {waiting} clients wait",
            (now - since) / MS
        );
        Ok(())
    }
}
