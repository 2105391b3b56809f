//! The checker of the events that an endpoint reports.

use logchan::channel::Event as ChannelEvent;
use logchan::endpoint::EndpointEvent;
use logchan::handshake::Mismatch;
use logchan::ids::{Lane, Role};

use super::count::Count;
use super::host::Incarnation;
use super::model::EndReason;
use super::world::{Phase, World, other, require_some};
use crate::sim::rng::Chance;
use crate::sim::{Checked, Violation, require};

impl World<'_> {
    /// Polls and checks all events of `host`. Returns whether there were any.
    pub(super) fn take_events(&mut self, host: usize) -> Checked<bool> {
        let mut any = false;
        // A handshake may have established a channel.
        if self.hosts[host].session.is_none() && self.hosts[host].endpoint.channel().is_some() {
            self.check_new_session(host)?;
        }
        while let Some(event) = self.hosts[host].endpoint.poll_event() {
            any = true;
            self.trace.line(self.queue.now(), Some(host), "event", format_args!("{event:?}"));
            match event {
                EndpointEvent::Met { peer, term } => {
                    let own = &mut self.hosts[host];
                    require!(!own.met_reported, "host {host} gets a second event for its peer");
                    own.met_reported = true;
                    let session = &self.sessions[require_some(own.session)?];
                    let is_so = session.id == peer.session.0 && session.term == term.0;
                    require!(is_so, "host {host} met {peer:?} in term {term}");
                }
                EndpointEvent::Refused { mismatch, proven } => {
                    self.check_refusal(host, mismatch, proven)?;
                    let is_mistaken = self.hosts[host].incarnation().role != self.true_role(host);
                    let gives_up = self.rng.chance(Chance::percent(20));
                    let yields = if is_mistaken { self.options.faults.yields } else { gives_up };
                    let wants = if self.is_faulty() { yields } else { is_mistaken };
                    if wants {
                        self.schedule_renewal(host);
                    }
                }
                EndpointEvent::Channel(event) => self.check_channel_event(host, event)?,
            }
        }
        let own = &self.hosts[host];
        if let Some(channel) = own.endpoint.channel() {
            let is_held = channel.lease_held(own.clock.shows(self.queue.now()));
            let reported = own.lease_reported;
            require!(
                reported == is_held,
                "host {host} has a lease: {is_held}, reported {reported}"
            );
            let end = &self.sessions[require_some(own.session)?].ends[host];
            let is = (channel.acked().0, channel.peer_executed());
            require!(end.reported == is, "host {host}: reported {:?}, it is {is:?}", end.reported);
        }
        Ok(any)
    }

    fn check_channel_event(&mut self, host: usize, event: ChannelEvent) -> Checked {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        let now = own.clock.shows(at);
        let channel = require_some(own.endpoint.channel())?;
        let session = require_some(own.session)?;
        let peer_heard_bye = self.sessions[session].ends[other(host)].heard_bye;
        let end = &mut self.sessions[session].ends[host];
        let silence = self.options.timing.silence;
        match event {
            ChannelEvent::PeerSilent { heard_at } => {
                let is_first = end.ended.is_none() && !end.said_bye && !end.heard_bye;
                require!(is_first, "host {host}: silence reported after {:?}", end.ended);
                require!(
                    end.heard[0] <= heard_at && heard_at <= end.heard[1],
                    "host {host} heard its peer at {heard_at:?}, not in {:?}",
                    end.heard
                );
                let quiet = now.since(heard_at);
                require!(quiet >= silence, "host {host}: silence reported after {quiet}");
                (end.ended, end.silent_at) = (Some(EndReason::Silent), Some(at));
                let role = end.role;
                self.counts.count(Count::Silences);
                if role == Role::Backup {
                    self.check_lease_and_silence(session, other(host))?;
                }
                self.handle_channel_end(host)?;
            }
            ChannelEvent::PeerGone => {
                let is_first = end.ended.is_none() || end.ended == Some(EndReason::PeerBye);
                require!(is_first && end.heard_notice, "host {host}: no notice was received");
                end.ended = Some(EndReason::Gone);
                self.handle_channel_end(host)?;
            }
            ChannelEvent::PeerBye => {
                require!(end.ended.is_none() && end.heard_bye, "host {host}: no Bye was received");
                end.ended = Some(EndReason::PeerBye);
                self.counts.count(Count::ByesHeard);
                self.handle_channel_end(host)?;
            }
            ChannelEvent::Left { confirmed } => {
                require!(end.said_bye, "host {host} has left without a Bye");
                let is_first = end.ended.is_none() || end.ended == Some(EndReason::PeerBye);
                require!(is_first, "host {host} left after {:?}", end.ended);
                let is_heard = end.heard_bye || peer_heard_bye;
                let quiet = now.since(end.heard[0]);
                require!(
                    if confirmed { is_heard } else { quiet >= silence || end.heard_notice },
                    "host {host} left, confirmed: {confirmed}"
                );
                end.ended.get_or_insert(EndReason::Left);
                self.counts.add(Count::ByesConfirmed, u64::from(confirmed));
                self.handle_channel_end(host)?;
            }
            ChannelEvent::LeaseHeld | ChannelEvent::LeaseLost => {
                let is_held = event == ChannelEvent::LeaseHeld;
                require!(own.lease_reported != is_held, "host {host}: {event:?} reported twice");
                own.lease_reported = is_held;
                let counter = if is_held { Count::LeasesHeld } else { Count::LeasesLost };
                self.counts.count(counter);
                let is_idle = matches!(self.phase, Phase::Idle { .. });
                require!(!is_idle, "host {host}: {event:?} in the idle phase");
            }
            ChannelEvent::Acked { up_to } => {
                let acked = channel.acked();
                require!(up_to == acked, "host {host}: {up_to} reported, {acked} acknowledged");
                end.reported.0 = up_to.0;
            }
            ChannelEvent::PeerExecuted { up_to } => {
                let executed = channel.peer_executed();
                require!(up_to == executed, "host {host}: {up_to} reported, {executed} executed");
                end.reported.1 = up_to;
            }
            ChannelEvent::Room { lane } => return self.retry_append(host, lane),
            ChannelEvent::PeerTermNewer { .. } | ChannelEvent::PeerSameRole => {
                return Err(Violation(format!("host {host}: {event:?} from the peer that it met")));
            }
        }
        Ok(())
    }

    /// Appends again what was refused, after an event that there is room.
    fn retry_append(&mut self, host: usize, lane: Lane) -> Checked {
        let own = &mut self.hosts[host];
        let bytes = own.refused[lane.index()].take();
        let bytes = bytes.ok_or_else(|| {
            Violation(format!("host {host}: room reported, and no append was refused"))
        })?;
        let room = require_some(own.endpoint.channel())?.room(lane);
        require!(room >= bytes, "host {host}: room for {bytes} reported, and there is {room}");
        self.counts.count(Count::RoomEvents);
        self.append(host, lane, bytes)
    }

    /// The channel of `host` has ended, which must not happen after healing.
    fn handle_channel_end(&mut self, host: usize) -> Checked {
        let is_well = matches!(self.phase, Phase::Drain { .. } | Phase::Idle { .. });
        require!(!is_well, "the channel of host {host} ends after healing");
        self.schedule_renewal(host);
        Ok(())
    }

    /// Checks that a refused peer really had the reported mismatch.
    fn check_refusal(&self, host: usize, mismatch: Mismatch, proven: bool) -> Checked {
        let current = *self.hosts[host].incarnation();
        let differs = |peer: &Incarnation| match mismatch {
            Mismatch::Role { role } => role == current.role && role == peer.role,
            Mismatch::Replaced { ours, theirs } => {
                let is_so = current.role == Role::Primary && peer.role == Role::Backup;
                is_so && ours.0 == current.term && theirs.0 == peer.term && peer.term > current.term
            }
            Mismatch::OldPrimary { ours, theirs } => {
                let is_so = current.role == Role::Backup && peer.role == Role::Primary;
                is_so && ours.0 == current.term && theirs.0 == peer.term && peer.term < current.term
            }
            // These never differ in this simulator.
            Mismatch::ProtocolVersion { .. }
            | Mismatch::Vm { .. }
            | Mismatch::CpuModel { .. }
            | Mismatch::HostProfile(_)
            | Mismatch::Witness { .. }
            | Mismatch::Timing
            | Mismatch::GuestImage { .. }
            | Mismatch::Disks => false,
        };
        let is_alive = |peer: &Incarnation| peer.until.is_none_or(|until| until >= current.since);
        let mut peers = self.hosts[other(host)].incarnations.iter();
        let is_justified = if proven {
            peers.any(|peer| differs(peer) && is_alive(peer))
        } else {
            // A replayed frame may come from any incarnation, also an earlier one of this host.
            peers.chain(&self.hosts[host].incarnations).any(differs)
        };
        require!(is_justified, "host {host} refuses, proven {proven}: {mismatch}");
        Ok(())
    }
}
