//! The frames that reach the old primary's tap during a handover: the new primary's VM receives each that has arrived
//! over the log link, in order, and no VM receives a frame more often than it has arrived at a tap.
//!
//! A frame that the switch delivers to both taps has arrived twice. See `replica::passed`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use logchan::entry::Entry;
use logchan::entry_codec;
use logchan::ids::Lane;
use replication::replica::RoleName;

use super::is_primary;
use crate::sim::system::count::Count;
use crate::sim::system::packet::{self, VM_MAC};
use crate::sim::system::pair::Pair;
use crate::sim::{Checked, require};

/// What is known of frames that were passed on.
#[derive(Debug, Default)]
pub(crate) struct PassedLedger {
    /// For the bytes of each frame: how often they arrived at a tap, and how often a VM has taken them.
    frames: BTreeMap<Rc<[u8]>, (u64, u64)>,
    /// The frames behind the hand-over of a session, each with the log position of its end.
    sent: BTreeMap<u64, VecDeque<Sent>>,
}

/// The log position of a frame's end, and the frame.
type Sent = (u64, Rc<[u8]>);

impl PassedLedger {
    /// A frame arrives at a tap.
    pub(crate) fn arrived(&mut self, frame: &Rc<[u8]>) {
        self.frames.entry(Rc::clone(frame)).or_default().0 += 1;
    }
}

/// The frames that a process must give to its VM, or pass on, before others.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    frames: VecDeque<Rc<[u8]>>,
    /// As an old primary: how many of them are in its log.
    sent: usize,
}

/// Whether the VM of a process in this role takes frames that were passed on.
fn takes_passed(role: RoleName) -> bool {
    matches!(role, RoleName::Alone | RoleName::Copying | RoleName::Closing | RoleName::Protected)
}

/// The length of the entry of `frame`.
fn entry_bytes(frame: &[u8]) -> u64 {
    let mut entry = Vec::new();
    entry_codec::encode(&Entry::Frame(frame), &mut entry);
    entry.len() as u64
}

impl Pair<'_> {
    /// Gives the frames that wait in the tap of `host` to its engine, if that passes them on.
    pub(crate) fn pass_frames(&mut self, host: usize) -> Checked {
        loop {
            let clock = self.read_clock(host);
            let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
            if !process.replica.passes_frames() {
                return Ok(());
            }
            let Some(frame) = process.world.next_frame() else { return Ok(()) };
            let frame: Rc<[u8]> = frame.into();
            // The new primary's announcements are not for the VM.
            if packet::stations(&frame).is_some_and(|(_, from)| from != VM_MAC) {
                process.passed.frames.push_back(Rc::clone(&frame));
                self.counts.count(Count::FramesPassedOn);
            }
            self.work += 1;
            self.engine(host, |process| process.replica.pass_frame(clock, &frame))?;
        }
    }

    /// Notes what a call of the engine of `host` has done with passed frames. Before, its role was `before`, and it had
    /// passed on `sent_before` frames since its start.
    pub(crate) fn note_passed(&mut self, host: usize, before: RoleName, sent_before: u64) {
        let Some(process) = &mut self.hosts[host].process else { return };
        let role = process.replica.role();
        if role != before && (role == RoleName::Seeking || !is_primary(role) && is_primary(before))
        {
            // They are the other host's.
            process.passed = Waiting::default();
        }
        if role == RoleName::HandingOver && before != role {
            process.passed.sent = 0;
        }
        let Some(channel) = process.replica.channel() else { return };
        let session = channel.config().session.0;
        if role == RoleName::HandingOver {
            let new = (process.replica.stats().frames_passed_on - sent_before) as usize;
            let Waiting { frames, sent } = &mut process.passed;
            let new = frames.range(*sent..*sent + new);
            *sent += new.len();
            let appended = channel.appended(Lane::Latency).0;
            let mut end = appended - new.clone().map(|frame| entry_bytes(frame)).sum::<u64>();
            let ledger = self.passed.sent.entry(session).or_default();
            for frame in new {
                end += entry_bytes(frame);
                ledger.push_back((end, Rc::clone(frame)));
            }
        }
        if matches!(role, RoleName::Claiming | RoleName::Alone) {
            let executed = channel.consumed(Lane::Latency).0;
            let Some(sent) = self.passed.sent.get_mut(&session) else { return };
            let begins = sent.front().map(|(end, frame)| end - entry_bytes(frame));
            if begins.is_none_or(|begins| begins > executed) {
                // The log ends before the hand-over, with a checkpoint of which the primary's death left a part.
                return;
            }
            let arrived = executed + channel.received(Lane::Latency).len() as u64;
            while sent.front().is_some_and(|(end, _)| *end <= arrived)
                && let Some((_, frame)) = sent.pop_front()
            {
                process.passed.frames.push_back(frame);
            }
        }
    }

    /// Checks a frame that the machine of `host` has taken. `before` was its role.
    pub(crate) fn check_frame_taken(&mut self, host: usize, before: RoleName) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(frame) = process.frame_taken.take().filter(|_| is_primary(before)) else {
            return Ok(());
        };
        let frames = &mut process.passed.frames;
        if takes_passed(before) && !frames.is_empty() {
            require!(
                frames.pop_front().as_ref() == Some(&frame),
                "host {host}: the VM takes another frame before one that was passed on"
            );
            self.counts.count(Count::PassedFramesTaken);
        }
        let (arrived, taken) = self.passed.frames.entry(frame).or_default();
        *taken += 1;
        require!(
            taken <= arrived,
            "host {host}: the VM takes a frame for the {taken}. time that arrived {arrived} times"
        );
        Ok(())
    }

    /// Checks that no frame is forgotten that was passed on to `host`.
    pub(crate) fn check_passed(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let is_forgotten = takes_passed(process.replica.role())
            && !process.replica.has_passed_frame()
            && !process.passed.frames.is_empty();
        require!(
            !is_forgotten,
            "host {host} forgets {} frames that were passed on",
            process.passed.frames.len()
        );
        Ok(())
    }
}
