//! The checker of received frames: what effect a frame may have.
//!
//! The simulator knows of each frame who sent it, in which session, and whether it was accepted before.
//! Only an unmodified frame from the other end of the same session, received for the first time, may
//! change the state of a channel.

use logchan::channel::FrameVerdict;
use logchan::endpoint::{Endpoint, EndpointVerdict};
use logchan::frame::FrameHeader;
use logchan::ids::Lane;
use logchan::seal::{OpenError, SEAL_HEADER_BYTES, WINDOW_FRAMES};
use logchan::time::Time;

use super::count::Count;
use super::host::Arrival;
use super::model::EndReason;
use super::world::{Sent, World, other, require_some};
use crate::sim::damage::{damage, pad};
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;
use crate::sim::{Checked, Violation, require};

/// Number of frames before the newest for which a channel detects duplicates.
const REMEMBERED: u64 = logchan::limits::REPLAY_BITS as u64;

/// The observable state of a channel.
#[derive(Debug, PartialEq, Eq)]
struct ChannelSnapshot {
    session: u64,
    is_open: bool,
    acked: u64,
    lanes: [(u64, usize, u64, usize); 2],
    lease_until: Option<Time>,
    heard_at: Time,
    peer_executed: u64,
    timeout: Option<Time>,
}

impl ChannelSnapshot {
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
    /// The endpoint of `host` receives a frame. `bytes` is scratch space for it.
    pub(super) fn handle_arrival_bytes(
        &mut self,
        host: usize,
        arrival: Arrival,
        bytes: &mut Vec<u8>,
    ) -> Checked {
        let id = arrival.frame;
        bytes.clear();
        bytes.extend_from_slice(self.frames.bytes(id));
        if let Some(seed) = arrival.damage {
            damage(bytes, &mut Rng::new(seed));
        }
        if let Some(seed) = arrival.pad {
            pad(bytes, &mut Rng::new(seed));
        }
        // Padding may replace what was cut off: the insecure tag ends with zeros.
        let is_intact = bytes.starts_with(self.frames.bytes(id));
        let own = &mut self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let before = ChannelSnapshot::of(&own.endpoint);
        let verdict = own.endpoint.handle_frame(now, bytes);
        let after = ChannelSnapshot::of(&own.endpoint);
        let what = format_args!("#{:06} {} bytes: {verdict:?}", id.0, bytes.len());
        self.trace.line(self.queue.now(), Some(host), "got", what);
        if self.hosts[host].session.is_none() && after.is_some() {
            self.check_new_session(host)?;
        }

        let sent = *self.frames.info(id);
        let is_authentic = is_intact
            && !sent.accepted
            && sent.from == Some(other(host))
            && sent.session.is_some()
            && sent.session == after.as_ref().map(|after| after.session);
        let session = before.as_ref().map(|before| before.session);
        self.check_notice(host, id, session, (verdict, is_intact))?;
        match verdict {
            EndpointVerdict::Channel(verdict) => {
                require!(
                    is_authentic,
                    "host {host} accepted #{:06}, which is not for it: {sent:?}",
                    id.0
                );
                self.frames.info_mut(id).accepted = true;
                let session = require_some(self.hosts[host].session)?;
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
                    self.note_sign_of_life(host, id, &sent)?;
                }
            }
            EndpointVerdict::PeerGone => self.check_silenced(host, before, after)?,
            EndpointVerdict::Handshake(_) | EndpointVerdict::Dropped(_) => {
                require!(
                    before.is_none() || before == after,
                    "#{:06} changed the channel of host {host} from {before:?} to {after:?}",
                    id.0
                );
                if is_authentic {
                    self.check_drop(host, &sent, verdict)?;
                }
            }
        }
        Ok(())
    }

    /// Checks that a death notice ended the channel of `host` and its lease, and changed nothing else.
    fn check_silenced(
        &self,
        host: usize,
        before: Option<ChannelSnapshot>,
        after: Option<ChannelSnapshot>,
    ) -> Checked {
        let (before, after) = (require_some(before)?, require_some(after)?);
        let ended = ChannelSnapshot { is_open: false, lease_until: None, timeout: None, ..before };
        // A handshake for new keys may have a timeout of its own.
        let after = ChannelSnapshot { timeout: None, ..after };
        require!(ended == after, "the notice left the channel of host {host} as {after:?}");
        Ok(())
    }

    /// Checks the verdict of a channel on an authentic frame. `is_same` says that the frame did not change
    /// the channel's state.
    fn check_verdict(
        &mut self,
        host: usize,
        sent: &Sent,
        verdict: FrameVerdict,
        was_open: bool,
        is_same: bool,
    ) -> Checked {
        let end = &self.sessions[require_some(self.hosts[host].session)?].ends[host];
        let is_newest = sent.number > end.newest_accepted;
        let fits = match verdict {
            FrameVerdict::Accepted | FrameVerdict::PayloadRepeated | FrameVerdict::NotKept => true,
            FrameVerdict::TooOld => is_same && sent.number + REMEMBERED < end.newest_accepted,
            FrameVerdict::Closed => {
                let is_left = end.ended == Some(EndReason::PeerBye) && !end.heard_notice;
                is_same && !was_open && !is_left
            }
            // The link drops such frames before the channel sees them; the channel's checks are a second
            // line of defence.
            FrameVerdict::Duplicate
            | FrameVerdict::StaleTerm
            | FrameVerdict::NewerTerm
            | FrameVerdict::WrongVm
            | FrameVerdict::WrongSession
            | FrameVerdict::SameRole
            | FrameVerdict::Malformed(_) => false,
        };
        require!(
            fits,
            "host {host}: verdict {verdict:?} on {sent:?}, newest {}",
            end.newest_accepted
        );
        let is_heard = verdict.is_sign_of_life() || !was_open || !is_newest;
        require!(is_heard, "host {host} took the newest frame for no sign of life: {verdict:?}");
        // A peer that respects the window and its number of frames always finds room.
        let is_kept = !was_open || verdict != FrameVerdict::NotKept;
        require!(is_kept, "host {host} had no room for {sent:?}");
        Ok(())
    }

    /// Updates the model after `host` accepted a frame that is a sign of life of its peer.
    fn note_sign_of_life(&mut self, host: usize, id: FrameId, sent: &Sent) -> Checked {
        let own = &self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        let session = &mut self.sessions[require_some(own.session)?];
        let [first, second] = &mut session.ends;
        let (end, peer) = if host == 0 { (first, second) } else { (second, first) };
        end.frames_accepted += 1;
        if sent.number > end.newest_accepted {
            end.newest_accepted = sent.number;
            end.heard[0] = now;
        }
        end.heard[1] = now;
        end.heard_bye |= sent.is_bye;
        peer.newest_heard_sent_at = peer.newest_heard_sent_at.max(Some(sent.at));
        if !self.options.sealed {
            let frame = self.frames.bytes(id);
            let header = FrameHeader::decode(&frame[SEAL_HEADER_BYTES..]);
            let (header, _) =
                header.map_err(|error| Violation(format!("accepted a frame with {error}")))?;
            end.wire.heard(now, &header);
        }
        self.counts.count(Count::Delivered);
        Ok(())
    }

    /// Checks that a link had a legitimate reason to drop an authentic frame.
    fn check_drop(&mut self, host: usize, sent: &Sent, verdict: EndpointVerdict) -> Checked {
        let own = &self.hosts[host];
        let end = &self.sessions[require_some(own.session)?].ends[host];
        let handshakes = own.endpoint.link_stats().sessions - sent.handshakes;
        let (is_excused, counter) = match verdict {
            // Confirmations have sequence numbers, too.
            EndpointVerdict::Dropped(OpenError::Replayed { .. }) => {
                (sent.number + WINDOW_FRAMES <= end.newest_opened + 8, Count::TooOldForSeal)
            }
            EndpointVerdict::Dropped(OpenError::StaleSession { .. }) => {
                // Two handshakes completed since the frame was sent, or one did and the frame is late
                // anyway. An end that receives only handshakes can be any number of keys behind, and
                // so can its peer.
                let is_late = handshakes >= 1 && sent.number < end.newest_opened;
                let is_behind = handshakes >= 2
                    || is_late
                    || sent.is_data_withheld
                    || self.is_data_withheld(host);
                (self.options.rekey_after.is_some() && is_behind, Count::KeyGaps)
            }
            EndpointVerdict::Dropped(
                OpenError::Malformed(_) | OpenError::OtherProtection | OpenError::BadTag { .. },
            )
            | EndpointVerdict::Handshake(_)
            | EndpointVerdict::PeerGone
            | EndpointVerdict::Channel(_) => (false, Count::KeyGaps),
        };
        require!(is_excused, "host {host} dropped {sent:?}: {verdict:?}");
        self.counts.count(counter);
        Ok(())
    }
}
