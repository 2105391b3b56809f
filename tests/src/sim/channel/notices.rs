//! Death notices: what the supervisors hold and send, and the checker of the notices that an endpoint takes.

use logchan::endpoint::EndpointVerdict;

use super::count::Count;
use super::host::Arrival;
use super::world::{Event, Sent, World, other, require_some};
use crate::sim::frames::FrameId;
use crate::sim::{Checked, require};

impl World<'_> {
    /// Passes the notice of a new session, or of its new keys, to the supervisor of `host`.
    pub(super) fn brief_supervisor(&mut self, host: usize) -> Checked {
        let own = &mut self.hosts[host];
        if let Some(notice) = own.endpoint.poll_death_notice() {
            let session = require_some(own.endpoint.channel())?.config().session.0;
            own.notice = Some((notice, session));
        }
        Ok(())
    }

    /// The process of `host` is gone: its supervisor sends the notice that it holds, if it lives.
    pub(super) fn announce_death(&mut self, host: usize) {
        let Some((notice, session)) = self.hosts[host].notice else { return };
        let sends = self.supervisors.sends_after();
        if sends.is_empty() {
            return;
        }
        let sent = Sent { from: Some(host), notice_of: Some(session), ..Sent::made_up() };
        let frame = self.frames.push(notice.as_bytes(), sent);
        for after_ns in sends {
            self.queue.push(self.queue.now() + after_ns, Event::SendNotice { host, frame });
        }
    }

    /// A supervisor on `host` sends a copy of its notice. Not before that, an attacker can record it.
    pub(super) fn send_notice(&mut self, host: usize, frame: FrameId) {
        let now = self.queue.now();
        self.attacker.notices.push(frame);
        self.counts.count(Count::NoticesSent);
        self.trace.line(now, Some(host), "notice", format_args!("#{:06}", frame.0));
        let length = self.frames.bytes(frame).len();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.links[host].offer(now, length, &mut deliveries);
        for delivery in deliveries.drain(..) {
            let arrival = Arrival { frame, damage: delivery.damage, pad: delivery.pad };
            self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
        }
        self.deliveries = deliveries;
    }

    /// Checks what `host` made of a whole frame if that is a death notice, or if it took it for one. `session` is
    /// that of its channel; `is_whole`: the frame is as it was sent.
    pub(super) fn check_notice(
        &mut self,
        host: usize,
        frame: FrameId,
        session: Option<u64>,
        (verdict, is_whole): (EndpointVerdict, bool),
    ) -> Checked {
        let sent = *self.frames.info(frame);
        let is_of_peer =
            sent.from == Some(other(host)) && sent.notice_of.is_some() && sent.notice_of == session;
        let is_valid = is_whole && is_of_peer && !sent.accepted;
        if verdict == EndpointVerdict::PeerGone {
            require!(is_valid, "host {host} took #{:06} for its peer's notice: {sent:?}", frame.0);
            self.frames.info_mut(frame).accepted = true;
            self.counts.count(Count::NoticesTaken);
            let session = require_some(self.hosts[host].session)?;
            self.sessions[session].ends[host].heard_notice = true;
            return Ok(());
        }
        // After a change of keys that only one end has completed, the keys may be forgotten.
        let is_taken = !is_valid || self.options.rekey_after.is_some();
        require!(is_taken, "host {host} did not take its peer's notice: {verdict:?}");
        Ok(())
    }
}
