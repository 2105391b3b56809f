//! What an endpoint tells, which must be true.

use logchan::channel::Event as Told;
use logchan::endpoint::EndpointEvent;
use logchan::handshake::Mismatch;
use logchan::ids::{Lane, Role};

use super::count::Count;
use super::host::Life;
use super::model::Over;
use super::world::{Phase, World, known, other};
use crate::sim::rng::Chance;
use crate::sim::{Checked, Violation, require};

impl World<'_> {
    /// Takes all events of `host`. Whether there were any.
    pub(super) fn take_events(&mut self, host: usize) -> Checked<bool> {
        let mut any = false;
        // A handshake may have made a channel.
        if self.hosts[host].session.is_none() && self.hosts[host].endpoint.channel().is_some() {
            self.meet(host)?;
        }
        while let Some(event) = self.hosts[host].endpoint.poll_event() {
            any = true;
            self.trace.line(self.queue.now(), Some(host), "told", format_args!("{event:?}"));
            match event {
                EndpointEvent::Met { peer, term } => {
                    let own = &mut self.hosts[host];
                    require!(!own.met_told, "host {host} is told twice whom it met");
                    own.met_told = true;
                    let session = &self.sessions[known(own.session)?];
                    let is_so = session.id == peer.session.0 && session.term == term.0;
                    require!(is_so, "host {host} met {peer:?} in term {term}");
                }
                EndpointEvent::Refused { mismatch, proven } => {
                    self.check_refusal(host, mismatch, proven)?;
                    let is_mistaken = self.hosts[host].life().role != self.true_role(host);
                    let gives_up = self.rng.chance(Chance::percent(20));
                    let yields = if is_mistaken { self.options.faults.yields } else { gives_up };
                    let wants = if self.is_faulty() { yields } else { is_mistaken };
                    if wants {
                        self.want_renewal(host);
                    }
                }
                EndpointEvent::Channel(told) => self.check_told(host, told)?,
            }
        }
        let own = &self.hosts[host];
        if let Some(channel) = own.endpoint.channel() {
            let is_held = channel.lease_held(own.clock.shows(self.queue.now()));
            let told = own.lease_told;
            require!(told == is_held, "host {host} has a lease: {is_held}, told {told}");
            let end = &self.sessions[known(own.session)?].ends[host];
            let is = (channel.acked().0, channel.peer_executed());
            require!(end.told == is, "host {host} was told {:?}, it is {is:?}", end.told);
        }
        Ok(any)
    }

    fn check_told(&mut self, host: usize, told: Told) -> Checked {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        let now = own.clock.shows(at);
        let channel = known(own.endpoint.channel())?;
        let session = known(own.session)?;
        let peer_heard_bye = self.sessions[session].ends[other(host)].heard_bye;
        let end = &mut self.sessions[session].ends[host];
        let silence = self.options.timing.silence;
        match told {
            Told::PeerSilent { heard_at } => {
                let is_first = end.over.is_none() && !end.said_bye && !end.heard_bye;
                require!(is_first, "host {host} is told of silence after {:?}", end.over);
                require!(
                    end.heard[0] <= heard_at && heard_at <= end.heard[1],
                    "host {host} heard its peer at {heard_at:?}, not in {:?}",
                    end.heard
                );
                let quiet = now.since(heard_at);
                require!(quiet >= silence, "host {host}: {quiet} are no silence");
                (end.over, end.silent_at) = (Some(Over::Silent), Some(at));
                let role = end.role;
                self.counts.count(Count::Silences);
                if role == Role::Backup {
                    self.check_lease_and_silence(session, other(host))?;
                }
                self.ended(host)?;
            }
            Told::PeerBye => {
                require!(end.over.is_none() && end.heard_bye, "host {host}: no goodbye was said");
                end.over = Some(Over::PeerBye);
                self.counts.count(Count::ByesHeard);
                self.ended(host)?;
            }
            Told::Left { confirmed } => {
                require!(end.said_bye, "host {host} has left without a goodbye");
                let is_first = end.over.is_none() || end.over == Some(Over::PeerBye);
                require!(is_first, "host {host} left after {:?}", end.over);
                let is_heard = end.heard_bye || peer_heard_bye;
                let quiet = now.since(end.heard[0]);
                require!(
                    if confirmed { is_heard } else { quiet >= silence },
                    "host {host} left, confirmed: {confirmed}"
                );
                end.over.get_or_insert(Over::Left);
                self.counts.add(Count::ByesConfirmed, u64::from(confirmed));
                self.ended(host)?;
            }
            Told::LeaseHeld | Told::LeaseLost => {
                let is_held = told == Told::LeaseHeld;
                require!(own.lease_told != is_held, "host {host} is told the same twice");
                own.lease_told = is_held;
                let counter = if is_held { Count::LeasesHeld } else { Count::LeasesLost };
                self.counts.count(counter);
                let is_calm = matches!(self.phase, Phase::Calm { .. });
                require!(!is_calm, "host {host}: {told:?} when all is well");
            }
            Told::Acked { up_to } => {
                let acked = channel.acked();
                require!(up_to == acked, "host {host} is told {up_to}, acknowledged is {acked}");
                end.told.0 = up_to.0;
            }
            Told::PeerExecuted { up_to } => {
                let executed = channel.peer_executed();
                require!(up_to == executed, "host {host} is told {up_to}, executed is {executed}");
                end.told.1 = up_to;
            }
            Told::Room { lane } => return self.append_again(host, lane),
            Told::PeerTermNewer { .. } | Told::PeerSameRole => {
                return Err(Violation(format!("host {host} is told {told:?} by whom it met")));
            }
        }
        Ok(())
    }

    /// There is room for what was refused.
    fn append_again(&mut self, host: usize, lane: Lane) -> Checked {
        let own = &mut self.hosts[host];
        let bytes = own.refused[lane.index()].take();
        let bytes = bytes.ok_or_else(|| Violation(format!("host {host}: room, for nobody")))?;
        let room = known(own.endpoint.channel())?.room(lane);
        require!(room >= bytes, "host {host} is told of room for {bytes}, and has {room}");
        self.counts.count(Count::RoomsTold);
        self.append(host, lane, bytes)
    }

    /// The channel of `host` is over.
    fn ended(&mut self, host: usize) -> Checked {
        let is_well = matches!(self.phase, Phase::Finish { .. } | Phase::Calm { .. });
        require!(!is_well, "the channel of host {host} ends when all is well");
        self.want_renewal(host);
        Ok(())
    }

    /// Somebody does not fit, and is or was so.
    fn check_refusal(&self, host: usize, mismatch: Mismatch, proven: bool) -> Checked {
        let life = *self.hosts[host].life();
        let differs = |him: &Life| match mismatch {
            Mismatch::Role { role } => role == life.role && role == him.role,
            Mismatch::Replaced { ours, theirs } => {
                let is_so = life.role == Role::Primary && him.role == Role::Backup;
                is_so && ours.0 == life.term && theirs.0 == him.term && him.term > life.term
            }
            Mismatch::OldPrimary { ours, theirs } => {
                let is_so = life.role == Role::Backup && him.role == Role::Primary;
                is_so && ours.0 == life.term && theirs.0 == him.term && him.term < life.term
            }
            // Nothing of that is ever different here.
            Mismatch::ProtocolVersion { .. }
            | Mismatch::Vm { .. }
            | Mismatch::CpuModel { .. }
            | Mismatch::Witness { .. }
            | Mismatch::Timing
            | Mismatch::GuestImage { .. } => false,
        };
        let is_alive = |him: &Life| him.until.is_none_or(|until| until >= life.since);
        let mut his = self.hosts[other(host)].lives.iter();
        let is_true = if proven {
            his.any(|him| differs(him) && is_alive(him))
        } else {
            // A recording may be of anybody, also of what this host was before.
            his.chain(&self.hosts[host].lives).any(differs)
        };
        require!(is_true, "host {host} refuses, proven {proven}: {mismatch}");
        Ok(())
    }
}
