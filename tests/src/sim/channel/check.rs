//! What must hold after every turn of a host, whatever has happened.

use logchan::channel::Timing;
use logchan::ids::{Lane, Role};
use logchan::time::Time;

use super::count::Count;
use super::host::{Life, Process};
use super::model::{End, Session};
use super::world::{World, known, other};
use crate::sim::{Checked, require};

/// Wake-ups for nothing in the time of one silence timeout, beside one for each frame and each
/// retransmission timeout: what was to be sent again may have to wait for the link.
const IDLE_WAKES_MAX: u64 = 100;

impl World<'_> {
    /// `host` has a channel that it had not before.
    pub(super) fn meet(&mut self, host: usize) -> Checked {
        let at = self.queue.now();
        let own = &self.hosts[host];
        let channel = known(own.endpoint.channel())?;
        let peer = known(own.endpoint.peer())?;
        let life = own.life();
        let (id, term) = (channel.config().session.0, channel.config().term.0);
        // Both a response and the first frame of a session prove a peer that lives: one that it was
        // at some time since we asked.
        let is_he = |life: &&Life| life.incarnation == peer.incarnation;
        let him = self.hosts[other(host)].lives.iter().find(is_he);
        let is_alive = him.is_some_and(|him| him.until.is_none_or(|until| until >= life.since));
        require!(is_alive, "host {host} met a peer that is no more: {peer:?}, {him:?}");
        let him = known(him)?;
        let is_himself = him.role == peer.identity.role && him.term == peer.identity.term.0;
        require!(is_himself && him.role != life.role, "host {host} met {him:?} as {peer:?}");
        let (primary, backup) = match life.role {
            Role::Primary => (life.term, him.term),
            Role::Backup => (him.term, life.term),
        };
        require!(term == primary && backup <= primary, "{backup} met {primary}, in term {term}");
        require!(id == life.incarnation ^ peer.incarnation, "session {id:016x} is not of the two");

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
        (end.met, end.met_at) = (Some(life.incarnation), now);
        end.role = life.role;
        end.heard = [now; 2];
        end.wire.begin(now);
        let with = session.ends[other(host)].met;
        require!(with.is_none_or(|with| with == peer.incarnation), "a session of three");
        let own = &mut self.hosts[host];
        own.session = Some(index);
        own.term = own.term.max(term);
        let what = format_args!("{peer:?}");
        self.trace.line(at, Some(host), "met", what);
        Ok(())
    }

    /// What `host` promises: to its program, and to the world.
    pub(super) fn check_promises(&mut self, host: usize) -> Checked {
        let own = &self.hosts[host];
        let Some(channel) = own.endpoint.channel() else { return Ok(()) };
        let session = &mut self.sessions[known(own.session)?];
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
            require!(received >= end.received[index], "{has}: {received} received, and lost");
            require!(received <= peer.appended[index], "{has}: {received} received, from nowhere");
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
                let untold = room >= bytes && channel.is_open();
                require!(!untold, "{has}: room for {room} of {bytes} bytes, and nobody is told");
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
        let is_late = end.over.is_none() && quiet >= self.options.timing.silence;
        require!(!is_late, "host {host} heard nothing for {quiet} and was not told");
        require!(!end.heard_bye || end.over.is_some(), "host {host} was not told of the goodbye");
        require!(own.met_told, "host {host} was not told whom it met");
        require!(
            channel.is_open() == (end.over.is_none() && !end.said_bye),
            "host {host} was told {:?}, open: {}",
            end.over,
            channel.is_open()
        );
        Ok(())
    }

    /// The lease of `host`, now and as it will be if nothing else happens.
    pub(super) fn check_lease(&mut self, host: usize) -> Checked {
        let at = self.queue.now();
        let own = &self.hosts[host];
        let now = own.clock.shows(at);
        let Some(channel) = own.endpoint.channel() else { return Ok(()) };
        let until = channel.lease_until();
        let is_held = channel.lease_held(now);
        require!(is_held == until.is_some_and(|until| now < until), "a lease to {until:?}");
        let session = known(own.session)?;
        let end = &mut self.sessions[session].ends[host];
        end.lease_until = until;
        let Some(until) = until else { return Ok(()) };
        require!(end.role == Role::Primary, "a backup has a lease");
        require!(!end.said_bye && !end.heard_bye, "host {host} said goodbye and has a lease");
        let least = end.newest_heard_sent_at.map(|sent_at| sent_at + self.options.timing.lease);
        require!(
            Some(until) <= least,
            "the lease of host {host} lasts to {until:?}, the peer heard nothing after {least:?}"
        );
        self.check_lease_and_silence(session, host)?;
        let he = &self.hosts[other(host)];
        let his = he.endpoint.channel().filter(|_| he.process != Process::Down);
        let he_holds = his.is_some_and(|channel| channel.lease_held(he.clock.shows(at)));
        require!(!(is_held && he_holds), "both hosts have a lease");
        Ok(())
    }

    /// At the time when its backup was told that it is silent, the primary had no lease, and had had
    /// none for as long as the margin is: in true time, whenever it is asked.
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
        // A clock shows whole nanoseconds, and so does the other one.
        let shows = clock.shows(end_by).as_nanos() + 2;
        require!(
            Time::from_nanos(shows) >= until,
            "the lease of host {primary} ends {} ns late for the backup that goes live at {silent_at}",
            until.as_nanos() - shows
        );
        Ok(())
    }

    /// The endpoint does not ask to be woken for what is over.
    pub(super) fn check_timeout(&self, host: usize) -> Checked {
        let own = &self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let timeout = own.endpoint.poll_timeout();
        let is_past = timeout.is_some_and(|timeout| timeout <= now);
        require!(!is_past, "host {host} is to be woken at {timeout:?}, and it is {now:?}");
        Ok(())
    }

    /// A host was woken; `for_something`: it had to do.
    pub(super) fn check_wake(&mut self, host: usize, for_something: bool) -> Checked {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if now - own.while_began > self.options.timing.silence.as_nanos() {
            (own.while_began, own.idle_wakes, own.frames) = (now, 0, 0);
        }
        own.idle_wakes += u64::from(!for_something);
        let wakes = own.idle_wakes;
        let Timing { silence, retransmit_max, .. } = self.options.timing;
        let timeouts = silence.as_nanos() / retransmit_max.as_nanos();
        let most = IDLE_WAKES_MAX + own.frames + timeouts;
        require!(wakes <= most, "host {host} was woken {wakes} times for nothing");
        self.counts.add(Count::IdleWakes, u64::from(!for_something));
        Ok(())
    }
}

/// What is acknowledged is safe at the peer, and so is the bulk that it needs.
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
            "host {host}: {acked} acknowledged, from {at} on it needs {needs} bytes of bulk, the peer holds {bulk}"
        );
    }
    Ok(())
}
