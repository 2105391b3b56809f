//! A frame comes in: what it may do, and what it must not.
//!
//! The world knows of each frame who sent it, in which session, and whether it was there before. Only
//! one that comes from the other end of this very session, as it was sent, for the first time, may
//! change anything.

use logchan::channel::FrameVerdict;
use logchan::endpoint::{Endpoint, EndpointVerdict};
use logchan::frame::FrameHeader;
use logchan::ids::Lane;
use logchan::seal::{OpenError, SEAL_HEADER_BYTES, WINDOW_FRAMES};
use logchan::time::Time;

use super::count::Count;
use super::host::Arrival;
use super::model::Over;
use super::world::{Sent, World, known, other};
use crate::sim::damage::{damage, pad};
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;
use crate::sim::{Checked, Violation, require};

/// Frames before the newest that a channel tells apart.
const REMEMBERED: u64 = logchan::limits::REPLAY_BITS as u64;

/// All that can be asked of a channel.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    session: u64,
    is_open: bool,
    acked: u64,
    lanes: [(u64, usize, u64, usize); 2],
    lease_until: Option<Time>,
    heard_at: Time,
    peer_executed: u64,
    timeout: Option<Time>,
}

impl Seen {
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let channel = endpoint.channel()?;
        let lane = |lane: Lane| {
            let consumed = channel.consumed(lane).0;
            let readable = channel.received(lane).len();
            (consumed, readable, channel.lane_acked(lane).0, channel.room(lane))
        };
        Some(Self {
            session: channel.config().session.0,
            is_open: channel.is_open(),
            acked: channel.acked().0,
            lanes: Lane::ALL.map(lane),
            lease_until: channel.lease_until(),
            heard_at: channel.heard_at(),
            peer_executed: channel.peer_executed(),
            timeout: channel.poll_timeout(),
        })
    }
}

impl World<'_> {
    /// The endpoint of `host` gets a frame; `bytes` is room for it.
    pub(super) fn take_in_bytes(
        &mut self,
        host: usize,
        arrival: Arrival,
        bytes: &mut Vec<u8>,
    ) -> Checked {
        let id = arrival.frame;
        bytes.clear();
        bytes.extend_from_slice(self.frames.bytes(id));
        let mut is_intact = true;
        if let Some(seed) = arrival.damage {
            damage(bytes, &mut Rng::new(seed));
            is_intact = bytes.starts_with(self.frames.bytes(id));
        }
        if let Some(seed) = arrival.pad {
            pad(bytes, &mut Rng::new(seed));
        }
        let own = &mut self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let before = Seen::of(&own.endpoint);
        let verdict = own.endpoint.handle_frame(now, bytes);
        let after = Seen::of(&own.endpoint);
        let what = format_args!("#{:06} {} bytes: {verdict:?}", id.0, bytes.len());
        self.trace.line(self.queue.now(), Some(host), "got", what);
        if self.hosts[host].session.is_none() && after.is_some() {
            self.meet(host)?;
        }

        let sent = *self.frames.known(id);
        let is_true = is_intact
            && !sent.taken
            && sent.from == Some(other(host))
            && sent.session.is_some()
            && sent.session == after.as_ref().map(|after| after.session);
        match verdict {
            EndpointVerdict::Channel(verdict) => {
                require!(is_true, "host {host} took #{:06}, which is not for it: {sent:?}", id.0);
                self.frames.known_mut(id).taken = true;
                let session = known(self.hosts[host].session)?;
                let opened = &mut self.sessions[session].ends[host].newest_opened;
                *opened = sent.number.max(*opened);
                let is_same = before.is_some() && before == after;
                self.check_verdict(
                    host,
                    &sent,
                    verdict,
                    before.is_none_or(|b| b.is_open),
                    is_same,
                )?;
                if verdict.is_sign_of_life() {
                    self.heard(host, id, &sent)?;
                }
            }
            EndpointVerdict::Handshake | EndpointVerdict::Dropped(_) => {
                require!(
                    before.is_none() || before == after,
                    "#{:06} changed the channel of host {host} from {before:?} to {after:?}",
                    id.0
                );
                if is_true {
                    self.check_drop(host, &sent, verdict)?;
                }
            }
        }
        Ok(())
    }

    /// What a channel may make of a frame that is for it. `is_same`: it made nothing of it.
    fn check_verdict(
        &mut self,
        host: usize,
        sent: &Sent,
        verdict: FrameVerdict,
        was_open: bool,
        is_same: bool,
    ) -> Checked {
        let end = &self.sessions[known(self.hosts[host].session)?].ends[host];
        let is_newest = sent.number > end.newest_taken;
        let fits = match verdict {
            FrameVerdict::Accepted | FrameVerdict::PayloadRepeated | FrameVerdict::NotKept => true,
            FrameVerdict::TooOld => is_same && sent.number + REMEMBERED < end.newest_taken,
            FrameVerdict::Closed => is_same && !was_open && end.over != Some(Over::PeerBye),
            // The link lets no such frame through; what the channel knows of it is a second fence.
            FrameVerdict::Duplicate
            | FrameVerdict::StaleTerm
            | FrameVerdict::NewerTerm
            | FrameVerdict::WrongVm
            | FrameVerdict::WrongSession
            | FrameVerdict::SameRole
            | FrameVerdict::Malformed(_) => false,
        };
        require!(fits, "host {host} made {verdict:?} of {sent:?}, newest {}", end.newest_taken);
        let is_heard = verdict.is_sign_of_life() || !was_open || !is_newest;
        require!(is_heard, "host {host} did not hear the newest frame: {verdict:?}");
        // Who keeps to the window, and to its number of frames, finds room.
        let is_kept = !was_open || verdict != FrameVerdict::NotKept;
        require!(is_kept, "host {host} had no room for {sent:?}");
        Ok(())
    }

    /// The peer of `host` was heard.
    fn heard(&mut self, host: usize, id: FrameId, sent: &Sent) -> Checked {
        let own = &self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let session = &mut self.sessions[known(own.session)?];
        let [first, second] = &mut session.ends;
        let (end, peer) = if host == 0 { (first, second) } else { (second, first) };
        end.frames_taken += 1;
        if sent.number > end.newest_taken {
            end.newest_taken = sent.number;
            end.heard[0] = now;
        }
        end.heard[1] = now;
        end.heard_bye |= sent.is_bye;
        peer.newest_heard_sent_at = peer.newest_heard_sent_at.max(Some(sent.at));
        if !self.options.sealed {
            let frame = self.frames.bytes(id);
            let header = FrameHeader::decode(&frame[SEAL_HEADER_BYTES..]);
            let (header, _) = header.map_err(|error| Violation(format!("{error} was taken")))?;
            end.wire.heard(now, &header);
        }
        self.counts.count(Count::Delivered);
        Ok(())
    }

    /// A link may not open every frame that is for it.
    fn check_drop(&mut self, host: usize, sent: &Sent, verdict: EndpointVerdict) -> Checked {
        let own = &self.hosts[host];
        let end = &self.sessions[known(own.session)?].ends[host];
        let handshakes = own.endpoint.link_stats().sessions - sent.handshakes;
        let (is_excused, counter) = match verdict {
            // Confirmations have numbers, too.
            EndpointVerdict::Dropped(OpenError::Replayed { .. }) => {
                (sent.number + WINDOW_FRAMES <= end.newest_opened + 8, Count::TooOldForSeal)
            }
            EndpointVerdict::Dropped(OpenError::StaleSession { .. }) => {
                // Two handshakes have taken place; or one, and the frame is late anyhow. Who hears of
                // handshakes and of nothing else may be left behind by any number of keys, and leave
                // the other one behind.
                let is_late = handshakes >= 1 && sent.number < end.newest_opened;
                let is_behind = handshakes >= 2 || is_late || sent.is_muted || self.is_muted(host);
                (self.options.rekey_after.is_some() && is_behind, Count::KeyGaps)
            }
            EndpointVerdict::Dropped(
                OpenError::Malformed(_) | OpenError::OtherProtection | OpenError::BadTag { .. },
            )
            | EndpointVerdict::Handshake
            | EndpointVerdict::Channel(_) => (false, Count::KeyGaps),
        };
        require!(is_excused, "host {host} dropped {sent:?}: {verdict:?}");
        self.counts.count(counter);
        Ok(())
    }
}
