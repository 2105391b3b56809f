//! The checker of progress: after healing, the ends must connect, deliver everything and stay connected,
//! within deadlines.

use logchan::handshake::{RETRY_FIRST, RETRY_MAX};
use logchan::ids::{Lane, Role};

use super::count::Count;
use super::world::{Event, Phase, World, other, require_some};
use crate::sim::rng::Chance;
use crate::sim::{Checked, MS, require};

/// Number of silence timeouts that an idle channel must survive.
const IDLE_SILENCES: u64 = 3;

impl World<'_> {
    /// Enters the next phase when the current one is complete, and checks its deadline.
    pub(super) fn check_progress(&mut self) -> Checked {
        let now = self.queue.now();
        match self.phase {
            Phase::Faults | Phase::Done => {}
            Phase::Connect { not_before, by } => {
                if now >= not_before && self.are_connected() {
                    return self.begin_drain();
                }
                require!(now <= by, "the ends did not connect: {}", self.describe());
            }
            Phase::Drain { by } => {
                if self.is_drained() {
                    let until = now + IDLE_SILENCES * self.options.timing.silence.as_nanos();
                    self.phase = Phase::Idle { until };
                    self.trace.line(now, None, "idle", format_args!(""));
                    self.queue.push(until, Event::CheckProgress);
                }
                require!(now <= by, "not everything was delivered: {}", self.describe());
            }
            Phase::Idle { until } => {
                if now >= until {
                    self.phase = Phase::Done;
                    self.counts.count(Count::Completed);
                    for host in [0, 1] {
                        let own = &self.hosts[host];
                        let channel = require_some(own.endpoint.channel())?;
                        let is_held = channel.lease_held(own.clock.shows(now));
                        let is_primary = own.incarnation().role == Role::Primary;
                        require!(is_held == is_primary, "host {host} has a lease: {is_held}");
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether both ends have an open channel in the same session and no renewal is scheduled.
    fn are_connected(&self) -> bool {
        let sessions = self.hosts.each_ref().map(|host| host.session);
        let open = self
            .hosts
            .iter()
            .all(|host| host.endpoint.channel().is_some_and(logchan::channel::Channel::is_open));
        let stays = self.hosts.iter().all(|host| !host.renewal_scheduled);
        open && stays && sessions[0] == sessions[1] && sessions[0].is_some()
    }

    fn begin_drain(&mut self) -> Checked {
        let now = self.queue.now();
        let timing = &self.options.timing;
        // Retransmission timeouts at their maximum, a window update that is sent with the next heartbeat,
        // and some round trips.
        let drain_ns = 2 * (timing.heartbeat.as_nanos() + timing.retransmit_max.as_nanos());
        let by = now + drain_ns + 10 * MS;
        self.phase = Phase::Drain { by };
        self.queue.push(by + 1, Event::CheckProgress);
        self.trace.line(now, None, "drain", format_args!("by {by}"));
        for host in [0, 1] {
            // In some runs nothing more is appended: frames lost before must arrive even if none follows.
            let is_idle = self.rng.chance(Chance::percent(50));
            let actions = self.hosts[host].load.final_actions();
            let actions = if is_idle { Vec::new() } else { actions };
            self.drive(host, &actions)?;
        }
        Ok(())
    }

    /// Whether all appended bytes were read and acknowledged, and the primary has a lease.
    fn is_drained(&self) -> bool {
        let Some(session) = self.session(0) else { return false };
        [0, 1].into_iter().all(|host| {
            let (end, peer) = (&session.ends[host], &session.ends[other(host)]);
            let Some(channel) = self.hosts[host].endpoint.channel() else { return false };
            peer.consumed == end.appended
                && channel.acked().0 == end.appended[0]
                && Lane::ALL.map(|lane| channel.lane_acked(lane).0) == end.appended
                && channel.peer_executed() == peer.executed
                && self.hosts[host].refused == [None; 2]
                && self.hosts[host].lease_reported == (end.role == Role::Primary)
        })
    }

    fn describe(&self) -> String {
        let of = |host: usize| {
            let own = &self.hosts[host];
            let end = own.session.map(|session| {
                let session = &self.sessions[session];
                let end = &session.ends[host];
                let refused = own.refused;
                format!("{:016x} ended {:?} refused {refused:?}", session.id, end.ended)
            });
            let current = own.incarnation();
            format!(
                "host {host} {:?} of term {}, {:?}, {end:?}",
                current.role, current.term, own.endpoint
            )
        };
        format!("{}; {}", of(0), of(1))
    }
}

/// Maximum time in which the two ends connect, in addition to the owners' delays: the longest interval
/// between requests, and some of the shortest.
pub(super) const CONNECT_NS: u64 = RETRY_MAX.as_nanos() + 5 * RETRY_FIRST.as_nanos();
