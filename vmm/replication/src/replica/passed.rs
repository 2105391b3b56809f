//! Frames that reach the old primary's tap during a handover.
//!
//! From the hand-over until a switch has learned that the VM is elsewhere, the LAN delivers the VM's frames to the
//! tap of the old primary. A client's TCP would wait for its retransmission timer, 200 ms or more, for a frame that
//! is lost there. So the old primary passes them on as entries behind the hand-over, and the new one delivers them:
//!
//! ```text
//!  tap --> [ frames ] ---- log: hand-over, frame, frame, ... ----> [ frames ] --> VM     once it is live
//!              |
//!              +--> VM    if the backup fails, and this host continues
//! ```
//!
//! - They are not part of the log that the backup executes: the VM has not received them. Each is an ordinary input
//!   of the host that delivers it, in a term that this host owns, so no output can depend on it before. Their session
//!   is one of the term before, and what it still carries is traffic of the LAN, which any station may send.
//! - The old primary keeps what it passes on until it becomes a backup. When the queue is full, it gives the oldest
//!   copies up. It never gives up a frame that it has not passed on: those that have no room stay in the tap.
//! - The new primary keeps the session for [`passing_time`](Replica::passing_time) after it has gone live, because
//!   frames are on their way until the switch knows the new place. Then it sends Bye: the old primary makes its claim,
//!   loses it, and becomes the backup.
//! - A frame that is delivered to both taps (broadcast, multicast, unknown destination) can reach the VM twice: passed
//!   on, and from the new primary's own tap, if it arrives after that host has gone live. The two are not compared.
//!   Protocols on Ethernet tolerate a duplicate as they tolerate a retransmission, and a lost frame costs more.

use super::engine::Replica;
use super::role::{Backup, HandingOver, Losing, Primary, Role};
use super::step::Step;
use crate::MacAddr;
use crate::boundary::{DeviceCapacity, Input};
use crate::hold::{HoldLimits, HoldQueue, Positions};
use crate::limits::{
    FRAME_MAX, FRAME_MIN, INPUT_ENTRY_BYTES_MAX, PASSED_BYTES_MAX, PASSED_FRAMES_MAX,
    PASSING_NS_MAX,
};
use crate::mutant::Mutant;
use alloc::vec::Vec;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::{Duration, Time};

/// Frames for the VM that it has not received. Allocates nothing after [`new`](Self::new).
#[derive(Debug)]
pub(super) struct Passed {
    frames: HoldQueue,
    /// On an old primary: how many frames, from the oldest on, were passed on, and their bytes.
    sent: usize,
    sent_bytes: usize,
    /// On an old primary: copies that had to make room in this handover.
    given_up: u64,
    /// The frame that the VM took last.
    taken: Vec<u8>,
}

impl Passed {
    pub(super) fn new() -> Passed {
        let limits = HoldLimits::new(PASSED_FRAMES_MAX, PASSED_BYTES_MAX);
        Passed {
            frames: HoldQueue::new(limits.expect("limits within their bounds")),
            sent: 0,
            sent_bytes: 0,
            given_up: 0,
            taken: Vec::with_capacity(FRAME_MAX),
        }
    }

    /// A handover begins: frames that the VM has not taken since the last one are passed on, too.
    pub(super) fn begin(&mut self) {
        (self.sent, self.sent_bytes) = (0, 0);
        self.given_up = 0;
    }

    /// Returns how many frames are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Drops every frame.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.begin();
    }

    /// Returns whether any frame fits, at most at the expense of copies.
    fn accepts_any(&self) -> bool {
        let unsent_bytes = self.frames.bytes() - self.sent_bytes;
        self.frames.len() - self.sent < PASSED_FRAMES_MAX
            && unsent_bytes + FRAME_MAX <= PASSED_BYTES_MAX
    }

    /// Appends `frame`, and returns whether there was room.
    fn push(&mut self, frame: &[u8]) -> bool {
        while self.sent > 0 && !self.frames.room_for(frame.len()) {
            self.sent_bytes -= self.frames.front().map_or(0, |held| held.frame.len());
            self.frames.pop();
            self.sent -= 1;
            self.given_up += 1;
        }
        // The positions of this queue mean nothing.
        self.frames.push(Positions::default(), 0, frame).is_ok()
    }

    /// Returns the oldest frame that was not passed on.
    fn unsent(&self) -> Option<&[u8]> {
        self.frames.get(self.sent).map(|held| held.frame)
    }

    /// Moves the oldest frame to `taken`.
    fn take(&mut self) {
        let Self { frames, taken, .. } = self;
        taken.clear();
        taken.extend_from_slice(frames.front().expect("has_passed_frame returned true").frame);
        frames.pop();
    }
}

impl Replica {
    /// Returns whether this host hands the VM over, and takes frames for it: the driver must wait for frames of the
    /// tap, and give them to [`pass_frame`](Self::pass_frame).
    pub fn passes_frames(&self) -> bool {
        self.has_ended_log() && self.session.is_open() && self.passed.accepts_any()
    }

    /// Returns whether this host has handed the VM over, and waits.
    fn has_ended_log(&self) -> bool {
        match self.role {
            Role::Primary(Primary::HandingOver(HandingOver { log_ends_at, .. })) => {
                log_ends_at.is_none() || self.planted(Mutant::PassBeforeHandover)
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => false,
        }
    }

    /// Passes a frame of this host's tap on to the new primary, if it is for the VM.
    pub fn pass_frame(&mut self, now: Time, frame: &[u8]) {
        if self.passes_frames() && self.is_for_vm(frame) && !self.passed.push(frame) {
            self.stats.passed_frames_dropped += 1;
        }
        self.pass_on(now);
    }

    /// Returns whether the VM is to receive `frame`. A frame with its own source address comes from the new primary,
    /// which announces the VM; a VM that received it would believe in another station with its address.
    fn is_for_vm(&self, frame: &[u8]) -> bool {
        let address = |at: usize| {
            let octets = frame.get(at..at + 6)?;
            Some(MacAddr(octets[0], octets[1], octets[2], octets[3], octets[4], octets[5]))
        };
        let (Some(to), Some(from)) = (address(0), address(6)) else { return false };
        (FRAME_MIN..=FRAME_MAX).contains(&frame.len())
            && (!to.is_unicast() || self.announcements.is_station(to))
            && !self.announcements.is_station(from)
    }

    /// Appends the frames that wait behind the hand-over, as far as there is room.
    pub(super) fn pass_on(&mut self, now: Time) {
        if !self.has_ended_log() || !self.session.is_open() {
            return;
        }
        while self.session.room(Lane::Latency) >= INPUT_ENTRY_BYTES_MAX
            && let Some(frame) = self.passed.unsent()
        {
            self.session.append(now, &Entry::Frame(frame));
            self.passed.sent_bytes += frame.len();
            self.passed.sent += 1;
            self.stats.frames_passed_on += 1;
        }
    }

    /// Takes the frames that have arrived behind the hand-over.
    pub(super) fn receive_passed(&mut self) {
        let expects_frames = match &self.role {
            Role::Backup(Backup::Claiming(_)) | Role::Primary(Primary::Alone) => true,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => false,
        };
        if !expects_frames || !self.session.is_handed_over() {
            return;
        }
        let Self { session, passed, stats, .. } = self;
        loop {
            let length = match session.entry_at(0) {
                Ok(None) => return,
                Ok(Some((entry, length))) => {
                    let was_taken = match entry {
                        Entry::Frame(frame) => frame.len() >= FRAME_MIN && passed.push(frame),
                        // Nothing else has a meaning behind a hand-over.
                        _other => false,
                    };
                    stats.passed_frames_dropped += u64::from(!was_taken);
                    length
                }
                Err(_malformed) => {
                    stats.passed_frames_dropped += 1;
                    session.received_bytes()
                }
            };
            session.consume_bytes(length);
        }
    }

    /// Returns whether a frame that was passed on waits for the VM, which runs on this host.
    pub fn has_passed_frame(&self) -> bool {
        let may_take = match &self.role {
            Role::Primary(
                Primary::Alone
                | Primary::Copying(_)
                | Primary::Protected(_)
                | Primary::Losing(Losing { handed_over: None, .. }),
            ) => !self.replay_out.is_active(),
            // A VM that was handed over may turn out to be the other host's. What it takes until then must not be
            // missing if it is this host's.
            Role::Primary(
                Primary::Starting(_)
                | Primary::HandingOver(_)
                | Primary::Losing(Losing { handed_over: Some(_), .. }),
            )
            | Role::Standalone
            | Role::Backup(_)
            | Role::Halted(_) => false,
        };
        may_take && !self.passed.frames.is_empty()
    }

    /// Returns whether the next input is a frame that was passed on.
    pub(super) fn takes_passed(&self, capacity: &DeviceCapacity) -> bool {
        capacity.frame && self.has_passed_frame()
    }

    /// Returns the oldest frame that was passed on, as an input of this host.
    pub(super) fn record_passed(&mut self, now: Time) -> Step<Option<Input<'_>>> {
        if self.can_record_input() == Step::Pending {
            return Step::Pending;
        }
        self.passed.take();
        self.stats.passed_frames_taken += 1;
        let frame = core::mem::take(&mut self.passed.taken);
        self.record(now, |writer| writer.input(&Input::Frame(&frame)));
        self.passed.taken = frame;
        Step::Ready(Some(Input::Frame(&self.passed.taken)))
    }

    /// The backup failed, and this host continues: the VM takes the copies.
    pub(super) fn take_passed_back(&mut self) {
        self.stats.passed_frames_dropped += self.passed.given_up;
        self.passed.begin();
    }

    /// Sends Bye in the session in which the VM was handed over to this host, which is live: the old primary need not
    /// wait for silence. Returns whether it did.
    pub(super) fn end_passing(&mut self, now: Time) -> bool {
        let ends = self.session.is_handed_over() && self.session.is_open();
        if ends {
            self.session.bye_or_close(now);
            self.session.cancel_renewal();
        }
        ends
    }

    /// How long a new primary takes frames of the old one after it has gone live. The switch learns from the first
    /// announcement; the rest is for a thread of the old primary that is late.
    pub(super) fn passing_time(&self) -> Duration {
        // The old primary must not take it for silent before.
        Duration::from_nanos(PASSING_NS_MAX.min(self.config.timing.silence.as_nanos() / 2))
    }
}
