//! Checks that the pair recovers after healing.

use logchan::handshake::RETRY_MAX;
use replication::driver::{ANSWER_MAX, Order};
use replication::replica::RoleName;

use crate::sim::driver::count::Count;
use crate::sim::driver::state::{Event, State};
use crate::sim::system::process::ProcessId;
use crate::sim::{Checked, MS, require};

/// What the checkers require now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::driver) enum Phase {
    /// Safety only.
    Faults,
    /// That the VM gets protected and every client gets an answer to a new request.
    Recover {
        /// Start of the recovery.
        since: u64,
        /// Its deadline.
        by: u64,
    },
    /// That the VM stays protected until this time.
    Stay {
        /// The end of the run.
        until: u64,
    },
    /// That the processes end and none takes over: the primary was asked to stop.
    Stop {
        /// The processes, by host.
        of: [Option<ProcessId>; 2],
        /// The deadline.
        by: u64,
    },
    /// Nothing: the run is complete.
    Over,
}

impl State {
    /// Begins the recovery phase: there are no faults from now on.
    pub(in crate::sim::driver) fn demand_recovery(&mut self) {
        let since = self.queue.now();
        let pair = &self.options.pair;
        let silence_ns = pair.timing.silence.as_nanos();
        let witness = &self.options.witness;
        // A claim that hangs when the faults end keeps the host from asking again.
        let claim_ns = pair.witness_retry_ns + ANSWER_MAX.as_nanos() + 2 * witness.delay_ns_max;
        let hang_ns = witness.hang_ns_max + pair.witness_retry_ns;
        let restarts_ns = self.options.hosts.iter().map(|host| host.restart_ns_max).sum::<u64>();
        let apply_ns = self.options.hosts.iter().map(|host| host.apply_page_ns).max().unwrap_or(0);
        let by = since
            + 8 * silence_ns
            + 3 * claim_ns
            + hang_ns
            + restarts_ns
            + 2 * RETRY_MAX.as_nanos()
            + 10 * apply_ns * pair.memory_pages
            + self.tap_deadline_ns()
            + 1000 * MS;
        self.phase = Phase::Recover { since, by };
        self.queue.push(by + 1, Event::CheckProgress);
    }

    /// The processes, by host.
    fn processes_by_host(&self) -> [Option<ProcessId>; 2] {
        [0, 1].map(|host| self.hosts[host].process.as_ref().map(|process| process.id))
    }

    /// Asks the primary to stop, and the VM with it.
    fn stop_vm(&mut self) {
        let now = self.queue.now();
        let of = self.processes_by_host();
        let primary = (0..2).find(|&host| self.hosts[host].role() == Some(RoleName::Protected));
        if let Some(host) = primary
            && let Some(process) = of[host]
        {
            let told_ns = 2 * ANSWER_MAX.as_nanos();
            let by = now + 3 * self.options.pair.timing.silence.as_nanos() + told_ns + 500 * MS;
            self.phase = Phase::Stop { of, by };
            self.queue.push(now, Event::Order { host, process, order: Order::Stop });
            self.queue.push(by + 1, Event::CheckProgress);
        }
    }

    /// Number of bytes of a dead primary's log that were executed.
    fn executed_log(&self) -> u64 {
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let finishing = processes.filter(|process| process.role == RoleName::Finishing);
        finishing.map(|process| process.executed).sum()
    }

    /// Checks whether the pair has recovered, and its deadline.
    pub(in crate::sim::driver) fn check_progress(&mut self) -> Checked {
        let now = self.queue.now();
        let roles = [0, 1].map(|host| self.hosts[host].role());
        let is_protected = roles.contains(&Some(RoleName::Protected))
            && roles.contains(&Some(RoleName::Following));
        match self.phase {
            Phase::Faults | Phase::Over => {}
            Phase::Recover { since, by } => {
                let waiting = self.clients.waiting_since(since);
                if is_protected && waiting == 0 {
                    self.counts.count(Count::Recovered);
                    self.counts.add(Count::RecoveryMs, (now - since) / MS);
                    let until = now + 3 * self.options.pair.timing.silence.as_nanos();
                    self.phase = Phase::Stay { until };
                    self.queue.push(until, Event::CheckProgress);
                    return Ok(());
                }
                let executed = self.executed_log();
                if now > by && executed > self.executed {
                    // A slow host may have much log left to execute.
                    self.executed = executed;
                    let by = now + (by - since);
                    self.phase = Phase::Recover { since, by };
                    self.queue.push(by + 1, Event::CheckProgress);
                    return Ok(());
                }
                require!(
                    now <= by,
                    "{} ms after the last fault the hosts are {roles:?} and {waiting} clients wait",
                    (now - since) / MS
                );
            }
            Phase::Stay { until } => {
                require!(is_protected, "the VM is protected, and then the hosts are {roles:?}");
                if now >= until {
                    self.phase = Phase::Over;
                    if self.options.faults.stops_at_end {
                        self.stop_vm();
                    }
                }
            }
            Phase::Stop { of, by } => {
                let running = self.processes_by_host();
                let has_ended = (0..2).all(|host| running[host] != of[host]);
                let takes_over = roles.into_iter().flatten().any(|role| match role {
                    RoleName::Claiming | RoleName::Alone => true,
                    RoleName::Standalone
                    | RoleName::Starting
                    | RoleName::Copying
                    | RoleName::Closing
                    | RoleName::Protected
                    | RoleName::HandingOver
                    | RoleName::Losing
                    | RoleName::Seeking
                    | RoleName::Syncing
                    | RoleName::Following
                    | RoleName::Finishing
                    | RoleName::Leaving
                    | RoleName::Halted => false,
                });
                require!(
                    !takes_over && (has_ended || now <= by),
                    "the VM was stopped, and the hosts are {roles:?}"
                );
                if has_ended {
                    self.counts.count(Count::StoppedVms);
                    self.phase = Phase::Over;
                }
            }
        }
        Ok(())
    }
}
