//! The primary of `understudy link`: sends entries and measures the time until each is acknowledged.

use super::drive::{End, linger, receive_events, wait_for_work};
use super::entries::EntryMaker;
use crate::link::{LogLink, now};
use hdrhistogram::Histogram;
use logchan::channel::Channel;
use logchan::ids::{Lane, LogSeq};
use logchan::time::{Duration, Time};
use netpath::PortError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// Largest value of the histogram; longer times are recorded as this one.
const ACK_NS_MAX: u64 = 3_600_000_000_000;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Number of entries; 0 for no limit.
    pub(super) count: u64,
    /// Interval between entries; zero to send each when the one before is acknowledged.
    pub(super) interval: Duration,
    /// Bytes of an entry.
    pub(super) bytes: usize,
}

/// Counts and times of what the primary sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) entries: u64,
    /// Nanoseconds from when an entry was due until its acknowledgement arrived. Delays of this process and
    /// of a full window count, as they would for an output of a VM.
    pub(super) ack_ns: Histogram<u64>,
}

struct Primary<'a> {
    plan: &'a Plan,
    maker: EntryMaker,
    sent: Sent,
    /// When the next entry is due. `None` while it waits for the acknowledgement of the one before.
    due: Option<Time>,
    /// End and due time of each unacknowledged entry; at most as many as fit into the window.
    in_flight: VecDeque<(LogSeq, Time)>,
    has_left: bool,
}

/// Sends the planned entries, or sends until `stop`, then closes the channel. Returns the measurements even
/// if the run ends with an error.
pub(super) fn run(
    link: &mut LogLink,
    plan: &Plan,
    stop: &AtomicBool,
) -> (Sent, Result<End, PortError>) {
    let window_bytes = link.endpoint().settings().window_bytes[Lane::Latency.index()];
    let mut primary = Primary {
        plan,
        maker: EntryMaker::new(plan.bytes),
        sent: Sent {
            entries: 0,
            ack_ns: Histogram::new_with_bounds(1, ACK_NS_MAX, 3).expect("the bounds are sound"),
        },
        due: Some(now()),
        in_flight: VecDeque::with_capacity(window_bytes / plan.bytes),
        has_left: false,
    };
    let end = primary.run(link, stop);
    (primary.sent, end)
}

impl Primary<'_> {
    fn run(&mut self, link: &mut LogLink, stop: &AtomicBool) -> Result<End, PortError> {
        loop {
            let end = receive_events(link)?;
            let channel = link.channel_mut().expect("a peer was met");
            self.record_acks(channel);
            match end {
                None => {}
                Some(End::PeerLeft) => {
                    linger(link)?;
                    return Ok(End::PeerLeft);
                }
                Some(end @ (End::Left | End::Silent { .. } | End::UnexpectedEntry { .. })) => {
                    return Ok(end);
                }
            }
            let mut until = None;
            if !self.is_done() && !stop.load(Ordering::Relaxed) {
                until = self.append(channel);
            } else if self.in_flight.is_empty() && !self.has_left {
                channel.bye(now());
                self.has_left = true;
            }
            if !link.transmit()? {
                wait_for_work(link, until)?;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.plan.count != 0 && self.sent.entries == self.plan.count
    }

    /// Records the times of the entries that are acknowledged by now.
    fn record_acks(&mut self, channel: &Channel) {
        let (acked, now) = (channel.acked(), now());
        while let Some((_, due)) = self.in_flight.pop_front_if(|(end, _)| *end <= acked) {
            self.sent.ack_ns.saturating_record(now.since(due).as_nanos());
        }
        if self.due.is_none() && self.in_flight.is_empty() {
            self.due = Some(now);
        }
    }

    /// Appends the entries that are due, as far as the window has room. Returns when the next one is due, or
    /// `None` if that depends on an acknowledgement.
    fn append(&mut self, channel: &mut Channel) -> Option<Time> {
        let now = now();
        while let Some(due) = self.due.filter(|due| *due <= now)
            && !self.is_done()
        {
            let entry = self.maker.make(self.sent.entries);
            let Ok(range) = channel.append(now, Lane::Latency, entry) else { return None };
            self.in_flight.push_back((range.end, due));
            self.sent.entries += 1;
            let interval = self.plan.interval;
            self.due = (interval > Duration::ZERO).then(|| due + interval);
        }
        self.due
    }
}
