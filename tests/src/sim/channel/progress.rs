//! When there are no faults any more, everything must come to a good end, and soon.

use logchan::handshake::{ANSWER_EACH, RETRY_MAX};
use logchan::ids::{Lane, Role};

use super::count::Count;
use super::world::{Event, Phase, World, known, other};
use crate::sim::rng::Chance;
use crate::sim::{Checked, MS, require};

/// Silence timeouts that an idle channel must survive.
const CALM_SILENCES: u64 = 3;

impl World<'_> {
    /// Goes on to the next phase when it is time, and insists that it does become time.
    pub(super) fn look_at_progress(&mut self) -> Checked {
        let now = self.queue.now();
        match self.phase {
            Phase::Faults | Phase::Over => {}
            Phase::Meet { not_before, by } => {
                if now >= not_before && self.have_met() {
                    return self.begin_to_finish();
                }
                require!(now <= by, "the two did not meet: {}", self.describe());
            }
            Phase::Finish { by } => {
                if self.is_finished() {
                    let until = now + CALM_SILENCES * self.options.timing.silence.as_nanos();
                    self.phase = Phase::Calm { until };
                    self.trace.line(now, None, "calm", format_args!(""));
                    self.queue.push(until, Event::Look);
                }
                require!(now <= by, "not everything has arrived: {}", self.describe());
            }
            Phase::Calm { until } => {
                if now >= until {
                    self.phase = Phase::Over;
                    self.counts.count(Count::Calm);
                    for host in [0, 1] {
                        let own = &self.hosts[host];
                        let channel = known(own.endpoint.channel())?;
                        let is_held = channel.lease_held(own.clock.shows(now));
                        let is_primary = own.life().role == Role::Primary;
                        require!(is_held == is_primary, "host {host} has a lease: {is_held}");
                    }
                }
            }
        }
        Ok(())
    }

    /// Both have an open channel, to each other, and neither is about to give it up.
    fn have_met(&self) -> bool {
        let sessions = self.hosts.each_ref().map(|host| host.session);
        let open = self
            .hosts
            .iter()
            .all(|host| host.endpoint.channel().is_some_and(logchan::channel::Channel::is_open));
        let stays = self.hosts.iter().all(|host| !host.renew_wanted);
        open && stays && sessions[0] == sessions[1] && sessions[0].is_some()
    }

    fn begin_to_finish(&mut self) -> Checked {
        let now = self.queue.now();
        let timing = &self.options.timing;
        // A timeout that has grown to its largest, a window whose opening is told with the next
        // heartbeat, and some round trips.
        let finish_ns = 2 * (timing.heartbeat.as_nanos() + timing.retransmit_max.as_nanos());
        let by = now + finish_ns + 10 * MS;
        self.phase = Phase::Finish { by };
        self.queue.push(by + 1, Event::Look);
        self.trace.line(now, None, "finish", format_args!("by {by}"));
        for host in [0, 1] {
            // What was lost before must arrive also if nothing follows it.
            let is_idle = self.rng.chance(Chance::percent(50));
            let deeds = self.hosts[host].load.last_deeds();
            let deeds = if is_idle { Vec::new() } else { deeds };
            self.turn(host, &deeds)?;
        }
        Ok(())
    }

    /// What was appended was read at the other end, and is known to be safe there; and the primary has
    /// a lease.
    fn is_finished(&self) -> bool {
        let Some(session) = self.session(0) else { return false };
        [0, 1].into_iter().all(|host| {
            let (end, peer) = (&session.ends[host], &session.ends[other(host)]);
            let Some(channel) = self.hosts[host].endpoint.channel() else { return false };
            peer.consumed == end.appended
                && channel.acked().0 == end.appended[0]
                && Lane::ALL.map(|lane| channel.lane_acked(lane).0) == end.appended
                && channel.peer_executed() == peer.executed
                && self.hosts[host].refused == [None; 2]
                && self.hosts[host].lease_told == (end.role == Role::Primary)
        })
    }

    fn describe(&self) -> String {
        let of = |host: usize| {
            let own = &self.hosts[host];
            let end = own.session.map(|session| {
                let session = &self.sessions[session];
                let end = &session.ends[host];
                let refused = own.refused;
                format!("{:016x} over {:?} refused {refused:?}", session.id, end.over)
            });
            let life = own.life();
            format!(
                "host {host} {:?} of term {}, {:?}, {end:?}",
                life.role, life.term, own.endpoint
            )
        };
        format!("{}; {}", of(0), of(1))
    }
}

/// Time in which two that want to meet do so, beside what their owners take: until the next question
/// of those that have asked for long, and until a forger's questions do not count any more.
pub(super) const MEET_NS: u64 = RETRY_MAX.as_nanos() + 2 * ANSWER_EACH.as_nanos();
