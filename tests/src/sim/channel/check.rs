//! The checker of invariants, which must hold after every driver iteration of a host.

use logchan::channel::Timing;
use logchan::ids::{Lane, Role};
use logchan::time::Time;

use super::count::Count;
use super::host::{Incarnation, Process};
use super::model::{End, Session};
use super::world::{World, other, require_some};
use crate::sim::{Checked, require};

/// Maximum number of idle wake-ups in one silence timeout, in addition to one for each frame and each
/// retransmission timeout (a retransmission may have to wait for the link).
const IDLE_WAKES_MAX: u64 = 100;

impl World<'_> {
    /// Checks a session that `host` has just established, and adds it to the model.
    pub(super) fn check_new_session(&mut self, host: usize) -> Checked {
        let at = self.queue.now();
        let own = &self.hosts[host];
        let channel = require_some(own.endpoint.channel())?;
        let peer = require_some(own.endpoint.peer())?;
        let current = own.incarnation();
        let (id, term) = (channel.config().session.0, channel.config().term.0);
        // Both a response and the first frame of a session prove a live peer: the incarnation existed at
        // some time since this end began its handshake.
        let is_peer = |incarnation: &&Incarnation| incarnation.id == peer.incarnation;
        let actual = self.hosts[other(host)].incarnations.iter().find(is_peer);
        let is_alive =
            actual.is_some_and(|actual| actual.until.is_none_or(|until| until >= current.since));
        require!(is_alive, "host {host} met a peer that has ended: {peer:?}, {actual:?}");
        let actual = require_some(actual)?;
        let matches_claim =
            actual.role == peer.identity.role && actual.term == peer.identity.term.0;
        require!(
            matches_claim && actual.role != current.role,
            "host {host} met {actual:?} as {peer:?}"
        );
        let (primary, backup) = match current.role {
            Role::Primary => (current.term, actual.term),
            Role::Backup => (actual.term, current.term),
        };
        require!(term == primary && backup <= primary, "{backup} met {primary}, in term {term}");
        require!(id == current.id ^ peer.incarnation, "session {id:016x} is not of these two ends");

        let now = own.clock.shows(at);
        let found = self.sessions.iter().position(|session| session.id == id);
        let index = found.unwrap_or(self.sessions.len());
        if found.is_none() {
            self.sessions.push(Session::new(id, term));
        }
        let session = &mut self.sessions[index];
        let end = &mut session.ends[host];
        require!(end.met.is_none(), "host {host} met the same peer twice");
        require!(session.term == term, "a session of terms {} and {term}", session.term);
        (end.met, end.met_at) = (Some(current.id), now);
        end.role = current.role;
        end.heard = [now; 2];
        end.wire.begin(now);
        let with = session.ends[other(host)].met;
        require!(with.is_none_or(|with| with == peer.incarnation), "a session of three ends");
        let own = &mut self.hosts[host];
        own.session = Some(index);
        own.term = own.term.max(term);
        let what = format_args!("{peer:?}");
        self.trace.line(at, Some(host), "met", what);
        Ok(())
    }

    /// Checks what the channel of `host` reports to its program and to the peer.
    pub(super) fn check_channel_state(&mut self, host: usize) -> Checked {
        let own = &self.hosts[host];
        let Some(channel) = own.endpoint.channel() else { return Ok(()) };
        let session = &mut self.sessions[require_some(own.session)?];
        let [first, second] = &mut session.ends;
        let (end, peer) = if host == 0 { (first, second) } else { (second, first) };
        let window_bytes = self.options.hosts[host].window_bytes;
        for lane in Lane::ALL {
            let index = lane.index();
            let (readable, consumed) = (channel.received(lane).len(), channel.consumed(lane).0);
            let received = consumed + readable as u64;
            let has = format_args!("host {host}, {lane:?}");
            require!(consumed == end.consumed[index], "{has}: {consumed} consumed");
            require!(readable <= window_bytes[index], "{has}: {readable} bytes kept");
            require!(
                received >= end.received[index],
                "{has}: {received} received, fewer than before"
            );
            require!(received <= peer.appended[index], "{has}: {received} received, not appended");
            end.received[index] = received;

            let acked = channel.lane_acked(lane).0;
            let held = peer.received[index];
            require!(acked <= held, "{has}: {acked} acknowledged, the peer holds {held}");
            let appended = channel.appended(lane).0;
            require!(appended == end.appended[index], "{has}: {appended} appended");
            let kept = (appended - acked) as usize;
            let room = channel.room(lane);
            require!(kept + room == window_bytes[index], "{has}: {kept} kept, room for {room}");
            if let Some(bytes) = own.refused[index] {
                let is_missing = room >= bytes && channel.is_open();
                require!(!is_missing, "{has}: room for {room} of {bytes} bytes, without an event");
            }
        }
        check_commit(host, end, peer, channel.acked().0)?;
        let executed = channel.peer_executed();
        let (before, true_executed) = (end.peer_executed, peer.executed);
        require!(
            (before..=true_executed).contains(&executed),
            "host {host}: the peer executed {executed}, not {before} to {true_executed}"
        );
        end.peer_executed = executed;
        let now = own.clock.shows(self.queue.now());
        let quiet = now.since(end.heard[1]);
        let is_late = end.ended.is_none() && quiet >= self.options.timing.silence;
        require!(!is_late, "host {host} heard nothing for {quiet}, without an event");
        require!(
            !end.heard_bye || end.ended.is_some(),
            "host {host} got no event for the peer's Bye"
        );
        require!(own.met_reported, "host {host} got no event for its new peer");
        require!(
            channel.is_open() == (end.ended.is_none() && !end.said_bye),
            "host {host}: end reported: {:?}, open: {}",
            end.ended,
            channel.is_open()
        );
        Ok(())
    }

    /// Checks the lease of `host`, now and until its end if nothing else happens.
    pub(super) fn check_lease(&mut self, host: usize) -> Checked {
        let at = self.queue.now();
        let own = &self.hosts[host];
        let now = own.clock.shows(at);
        let Some(channel) = own.endpoint.channel() else { return Ok(()) };
        let until = channel.lease_until();
        let is_held = channel.lease_held(now);
        require!(is_held == until.is_some_and(|until| now < until), "a lease to {until:?}");
        let session = require_some(own.session)?;
        let end = &mut self.sessions[session].ends[host];
        end.lease_until = until;
        let Some(until) = until else { return Ok(()) };
        require!(end.role == Role::Primary, "a backup has a lease");
        require!(!end.said_bye && !end.heard_bye, "host {host} has a lease after a Bye");
        let least = end.newest_heard_sent_at.map(|sent_at| sent_at + self.options.timing.lease);
        require!(
            Some(until) <= least,
            "the lease of host {host} lasts to {until:?}, the peer's frames allow {least:?}"
        );
        self.check_lease_and_silence(session, host)?;
        let peer_host = &self.hosts[other(host)];
        let channel = peer_host.endpoint.channel().filter(|_| peer_host.process != Process::Down);
        let peer_holds =
            channel.is_some_and(|channel| channel.lease_held(peer_host.clock.shows(at)));
        require!(!(is_held && peer_holds), "both hosts have a lease");
        Ok(())
    }

    /// Checks that the primary had no lease when its backup declared it silent, and had had none for at least
    /// the lease margin, in true time.
    pub(super) fn check_lease_and_silence(&self, session: usize, primary: usize) -> Checked {
        let ends = &self.sessions[session].ends;
        let (Some(until), Some(silent_at)) =
            (ends[primary].lease_until, ends[other(primary)].silent_at)
        else {
            return Ok(());
        };
        let margin_ns = self.options.timing.lease_margin.as_nanos();
        let end_by = silent_at.saturating_sub(margin_ns);
        if ends[primary].gone_at.is_some_and(|gone_at| gone_at <= end_by) {
            return Ok(());
        }
        let clock = &self.hosts[primary].clock;
        // Both clocks round to whole nanoseconds.
        let shows = clock.shows(end_by).as_nanos() + 2;
        require!(
            Time::from_nanos(shows) >= until,
            "the lease of host {primary} ends {} ns too late for the backup that goes live at {silent_at}",
            until.as_nanos() - shows
        );
        Ok(())
    }

    /// Checks that the endpoint's timeout is not in the past.
    pub(super) fn check_timeout(&self, host: usize) -> Checked {
        let own = &self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let timeout = own.endpoint.poll_timeout();
        let is_past = timeout.is_some_and(|timeout| timeout <= now);
        require!(!is_past, "host {host} has a timeout at {timeout:?}, and it is {now:?}");
        Ok(())
    }

    /// Counts a wake-up of a host, and checks the number of idle ones. `had_work` says whether it was not
    /// idle.
    pub(super) fn check_wake(&mut self, host: usize, had_work: bool) -> Checked {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if now - own.window_began > self.options.timing.silence.as_nanos() {
            (own.window_began, own.idle_wakes, own.frames) = (now, 0, 0);
        }
        own.idle_wakes += u64::from(!had_work);
        let wakes = own.idle_wakes;
        let Timing { silence, retransmit_max, .. } = self.options.timing;
        let timeouts = silence.as_nanos() / retransmit_max.as_nanos();
        let most = IDLE_WAKES_MAX + own.frames + timeouts;
        require!(
            wakes <= most,
            "host {host} had {wakes} idle wake-ups, at most {most} are allowed"
        );
        self.counts.add(Count::IdleWakes, u64::from(!had_work));
        Ok(())
    }
}

/// Checks that the peer holds the log that is acknowledged as committed, and the bulk that it requires.
fn check_commit(host: usize, end: &mut End, peer: &End, acked: u64) -> Checked {
    require!(acked >= end.acked, "host {host}: {acked} acknowledged, {} before", end.acked);
    end.acked = acked;
    let [latency, bulk] = peer.received;
    require!(acked <= latency, "host {host}: {acked} acknowledged, the peer holds {latency}");
    while end.barriers.front().is_some_and(|&(_, needs)| needs <= bulk) {
        end.barriers.pop_front();
    }
    if let Some(&(at, needs)) = end.barriers.front() {
        require!(
            acked <= at,
            "host {host}: {acked} acknowledged; beyond {at} it requires {needs} bytes of bulk, the peer holds {bulk}"
        );
    }
    Ok(())
}
