//! Inputs of a channel: frames, and the passing of time.

use super::ack::Novelty;
use super::recv_window::Insertion;
use super::timer::Timer;
use super::{Channel, FrameVerdict, Mutant, State};
use crate::error::FrameError;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{FrameNumber, Lane, LogSeq, Role};
use crate::time::{Duration, Time};

impl Channel {
    /// Handles a frame from the wire whose seal was opened. Padding behind the frame is ignored.
    /// Whatever the bytes are, this does not panic, does not allocate, and does work bounded by the
    /// window.
    pub fn handle_frame(&mut self, now: Time, bytes: &[u8]) -> FrameVerdict {
        self.advance(now);
        let verdict = match FrameHeader::decode(bytes) {
            Ok((header, payload)) => {
                self.reject(&header).unwrap_or_else(|| self.accept(now, &header, payload))
            }
            Err(error) => FrameVerdict::Malformed(error),
        };
        self.stats.count(verdict, bytes.len());
        verdict
    }

    /// Confirms that the frames handled so far had arrived by `now`. The caller may handle frames with a
    /// time from before their arrival; it must then call this before the next timeout.
    pub fn heard_by(&mut self, now: Time) {
        self.advance(now);
        self.record_sign_of_life(now);
    }

    fn record_sign_of_life(&mut self, now: Time) {
        self.liveness.heard(now);
        if self.timers.is_set(Timer::Silence) {
            self.timers.set(Timer::Silence, self.liveness.silence_at());
        }
    }

    /// Handles the peer's death notice, which was opened: no frame of the peer will come any more. Whatever
    /// arrived stays readable.
    pub fn handle_peer_gone(&mut self, now: Time) {
        self.advance(now);
        match self.state {
            State::Open | State::PeerLeft => {
                self.events.gone = true;
                self.end_lease();
                self.close();
            }
            State::Leaving { .. } => self.leave(false),
            State::Left | State::Silent => {}
        }
    }

    /// Does what has become due. Must be called when [`poll_timeout`](Self::poll_timeout) is in the
    /// past; harmless at other times.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        if self.timers.take_expired(Timer::Silence, now) {
            self.handle_silence();
        }
        if self.timers.take_expired(Timer::Lease, now) {
            self.lose_lease();
        }
        if self.timers.take_expired(Timer::Retransmit, now) {
            self.handle_retransmit_timeout(now);
        }
        if self.timers.take_expired(Timer::Loss, now) {
            self.detect_losses(now);
        }
        if self.timers.take_expired(Timer::Ack, now) {
            self.pending_ack.set_due();
        }
        if self.timers.take_expired(Timer::Heartbeat, now) {
            self.heartbeat_due = !self.planted(Mutant::ForgetHeartbeat);
            if self.planted(Mutant::BusyTimer) {
                self.timers.set(Timer::Heartbeat, now);
            }
        }
    }

    /// Declares the peer silent before its silence timeout, for an owner who knows that no frame can pass. What
    /// follows is the same: the channel ends for good, and reports [`Event::PeerSilent`](super::Event::PeerSilent).
    pub fn declare_silent(&mut self, now: Time) {
        self.advance(now);
        self.handle_silence();
    }

    /// Returns a verdict if the frame is not for this channel, or no longer. Changes nothing but what
    /// the verdict says.
    fn reject(&mut self, header: &FrameHeader) -> Option<FrameVerdict> {
        if header.vm != self.config.vm {
            return Some(FrameVerdict::WrongVm);
        }
        if header.term < self.config.term {
            return Some(FrameVerdict::StaleTerm);
        }
        if header.term > self.config.term {
            if header.term > self.newest_term {
                self.newest_term = header.term;
                self.events.newer_term = Some(header.term);
            }
            return Some(FrameVerdict::NewerTerm);
        }
        if header.session != self.config.session {
            return Some(FrameVerdict::WrongSession);
        }
        if header.role == self.role {
            self.events.same_role |= !self.same_role_reported;
            self.same_role_reported = true;
            return Some(FrameVerdict::SameRole);
        }
        match self.state {
            State::Left | State::Silent => return Some(FrameVerdict::Closed),
            State::Open | State::Leaving { .. } | State::PeerLeft => {}
        }
        let acks_unsent_bytes =
            self.send.iter().zip(header.lanes).any(|(send, ack)| ack.received > send.sent());
        if acks_unsent_bytes || header.ack.newest >= self.next_number {
            return Some(FrameVerdict::Malformed(FrameError::AckOfUnsent));
        }
        match self.arrivals.novelty(header.number) {
            Novelty::New => None,
            Novelty::Duplicate if self.planted(Mutant::TakeRepeated) => None,
            Novelty::Duplicate => Some(FrameVerdict::Duplicate),
            Novelty::TooOld => Some(FrameVerdict::TooOld),
        }
    }

    /// Accepts a frame that the peer sent in this session and that was not received before.
    fn accept(&mut self, now: Time, header: &FrameHeader, payload: &[u8]) -> FrameVerdict {
        self.record_sign_of_life(now);
        self.handle_acks(now, header);

        let verdict = match header.kind.lane() {
            Some(lane) => self.accept_payload(lane, header.offset, payload),
            None => FrameVerdict::Accepted,
        };
        if verdict == FrameVerdict::NotKept {
            return verdict;
        }
        let at_once = header.ack_now
            || verdict == FrameVerdict::PayloadRepeated
            || !self.arrivals.is_next(header.number);
        let repeated = self.planted(Mutant::TakeRepeated)
            && self.arrivals.novelty(header.number) == Novelty::Duplicate;
        if !repeated {
            if self.arrivals.is_newest(header.number) {
                self.peer_unfit = header.unfit;
            }
            self.arrivals.record(now, header.number);
        }
        match header.kind {
            FrameKind::Bye => self.handle_bye(),
            FrameKind::Latency => self.pending_ack.add_log(),
            FrameKind::Bulk | FrameKind::Ack | FrameKind::Heartbeat => {}
        }
        if header.kind.wants_ack()
            && self.pending_ack.add(at_once)
            && !self.timers.is_set(Timer::Ack)
        {
            self.timers.set(Timer::Ack, now + super::ack::ACK_DELAY_MAX);
        }
        verdict
    }

    fn accept_payload(&mut self, lane: Lane, offset: u64, payload: &[u8]) -> FrameVerdict {
        if self.state != State::Open {
            return FrameVerdict::NotKept;
        }
        let deliver_twice = self.planted(Mutant::DeliverTwice);
        let recv = &mut self.recv[lane.index()];
        match recv.insert(offset, payload) {
            Insertion::Kept { in_order } => {
                if !in_order {
                    self.pending_ack.set_due();
                }
                FrameVerdict::Accepted
            }
            Insertion::Duplicate => {
                if deliver_twice {
                    recv.insert(recv.received(), payload);
                }
                FrameVerdict::PayloadRepeated
            }
            Insertion::OutOfWindow | Insertion::TooManyGaps => FrameVerdict::NotKept,
        }
    }

    /// Handles the acknowledgements in a frame.
    fn handle_acks(&mut self, now: Time, header: &FrameHeader) {
        if header.ack.newest > self.newest_acked {
            self.newest_acked = header.ack.newest;
            self.handle_newest_ack(now, header);
        }
        // An end that is leaving, or was left, does not care what of its log arrived.
        if self.state != State::Open {
            return;
        }
        let mut arrived = 0;
        let ignore_window = self.planted(Mutant::IgnoreWindow);
        for lane in Lane::ALL {
            let send = &mut self.send[lane.index()];
            let mut lane_ack = header.lanes[lane.index()];
            if ignore_window {
                lane_ack.window = u32::MAX;
            }
            let acked_before = send.acked();
            arrived += send.handle_ack(lane_ack, header.ack);
            let waiting = &mut self.unacked_since[lane.index()];
            if !send.has_unacked() {
                *waiting = None;
            } else if send.acked() > acked_before {
                *waiting = Some(now);
            }
            let wanted = &mut self.wants_room[lane.index()];
            if wanted.is_some_and(|bytes| send.room() >= bytes) {
                *wanted = None;
                self.events.room[lane.index()] = true;
            }
        }
        if self.planted(Mutant::RoomNeverTold) {
            self.events.room = [false; Lane::ALL.len()];
        }
        if arrived > 0 {
            self.rtt.reset_backoff();
            self.restart_retransmit(now);
        }
        self.detect_losses(now);

        let [latency, bulk] = &self.send;
        let bulk_acked =
            if self.planted(Mutant::CommitWithoutBulk) { u64::MAX } else { bulk.acked() };
        if self.commit.advance(latency.acked(), bulk_acked) {
            self.events.acked = Some(LogSeq(self.commit.position()));
        }
        let goes_back = self.planted(Mutant::ExecutedGoesBack);
        if header.executed > self.peer_executed
            || (goes_back && header.executed != self.peer_executed)
        {
            self.peer_executed = header.executed;
            self.events.executed = Some(header.executed);
        }
    }

    /// Handles the acknowledgement of a frame of ours that is newer than all acknowledged before.
    fn handle_newest_ack(&mut self, now: Time, header: &FrameHeader) {
        if let State::Leaving { first } = self.state
            && header.ack.newest >= first
        {
            self.leave(true);
        }
        let Some(sent) = self.sent_times.get(header.ack.newest) else { return };
        if sent.wants_ack && header.ack.held_ns < u32::MAX {
            let held = Duration::from_nanos(header.ack.held_ns.into());
            self.rtt.sample(now.since(sent.at).saturating_sub(held));
        }
        if self.role != Role::Primary || self.state != State::Open {
            return;
        }
        let from = if self.planted(Mutant::LeaseFromArrival) { now } else { sent.at };
        if self.liveness.extend_lease(from)
            && let Some(until) = self.liveness.lease_until()
        {
            self.timers.set(Timer::Lease, until);
            // An acknowledgement can be so late that its lease is already over.
            if now < until {
                self.report_lease(true);
            }
        }
    }

    fn detect_losses(&mut self, now: Time) {
        self.timers.stop(Timer::Loss);
        if !self.send.iter().any(super::SendWindow::has_unacked) {
            return;
        }
        let reordering_max = self.rtt.reordering_max();
        let forget_last = self.planted(Mutant::ForgetLastFrame);
        let mut loss_at: Option<Time> = None;
        for send in &mut self.send {
            let (lost, next) =
                send.detect_losses(now, self.newest_acked, reordering_max, forget_last);
            self.stats.lost_overtaken += lost as u64;
            loss_at = loss_at.into_iter().chain(next).min();
        }
        if let Some(at) = loss_at {
            self.timers.set(Timer::Loss, at);
        }
    }

    fn handle_retransmit_timeout(&mut self, now: Time) {
        if !self.planted(Mutant::NoBackOff) {
            self.rtt.back_off();
        }
        match self.state {
            State::Open => {
                let forget_last = self.planted(Mutant::ForgetLastFrame);
                for send in &mut self.send {
                    self.stats.lost_timeout += u64::from(send.handle_timeout(forget_last));
                }
                self.restart_retransmit(now);
            }
            State::Leaving { .. } => self.heartbeat_due = true,
            State::Left | State::PeerLeft | State::Silent => {}
        }
    }

    /// Restarts the retransmission timer at `now`, or stops it if nothing is in flight.
    pub(super) fn restart_retransmit(&mut self, now: Time) {
        if self.send.iter().any(super::SendWindow::has_unacked) {
            self.timers.set(Timer::Retransmit, self.rtt.retransmit_at(now));
        } else {
            self.timers.stop(Timer::Retransmit);
        }
    }

    fn handle_silence(&mut self) {
        match self.state {
            State::Open | State::PeerLeft => {
                self.events.silent = Some(self.liveness.heard_at());
                if self.planted(Mutant::AckAfterSilence) {
                    return;
                }
                self.lose_lease();
                self.end_lease();
                self.close();
            }
            State::Leaving { .. } => self.leave(false),
            State::Left | State::Silent => {}
        }
    }

    /// Ends the channel: its peer is dead.
    fn close(&mut self) {
        self.timers.stop_all();
        self.state = State::Silent;
    }

    fn handle_bye(&mut self) {
        match self.state {
            State::Open => {}
            // Both ends leave at once, so the peer will not take our silence for death.
            State::Leaving { .. } => self.events.left = Some(true),
            State::Left | State::PeerLeft | State::Silent => return,
        }
        self.events.bye = true;
        self.end_lease();
        if !self.planted(Mutant::ByeIsSilence) {
            self.timers.stop_all();
        }
        self.state = State::PeerLeft;
    }

    fn leave(&mut self, confirmed: bool) {
        self.events.left = Some(confirmed);
        self.timers.stop_all();
        self.state = State::Left;
    }
}

// The first frame's number is 1, so an acknowledgement of no frame is never one of a frame.
const _: () = assert!(FrameNumber::NONE.next().0 == 1);
