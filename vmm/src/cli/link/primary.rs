//! The primary: sends entries, and takes the time until each is acknowledged.

use super::drive::{End, see_off, take_in, wait_for_work};
use super::entries::EntryMaker;
use crate::link::{LogLink, now};
use hdrhistogram::Histogram;
use logchan::channel::Channel;
use logchan::ids::{Lane, LogSeq};
use logchan::time::{Duration, Time};
use netpath::PortError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest time that is told apart from longer ones.
const ACK_NS_MAX: u64 = 3_600_000_000_000;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many entries; 0 for no end.
    pub(super) count: u64,
    /// From one to the next; zero: when the one before is acknowledged.
    pub(super) interval: Duration,
    /// Bytes in each.
    pub(super) bytes: usize,
}

/// What was sent, and how it was answered.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) entries: u64,
    /// Nanoseconds from when an entry was due until it was known to be at the backup: if this
    /// process was late, or the window was full, that counts, as it would for an output.
    pub(super) ack_ns: Histogram<u64>,
}

struct Primary<'a> {
    plan: &'a Plan,
    maker: EntryMaker,
    sent: Sent,
    /// When the next entry is due; not known while it waits for the one before.
    due: Option<Time>,
    /// Where each unacknowledged entry ends, and when it was due. No more than the window holds.
    under_way: VecDeque<(LogSeq, Time)>,
    has_left: bool,
}

/// Sends what the plan says, or until `stop`, then leaves. What was measured is there in any case.
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
        under_way: VecDeque::with_capacity(window_bytes / plan.bytes),
        has_left: false,
    };
    let end = primary.run(link, stop);
    (primary.sent, end)
}

impl Primary<'_> {
    fn run(&mut self, link: &mut LogLink, stop: &AtomicBool) -> Result<End, PortError> {
        loop {
            let end = take_in(link)?;
            let channel = link.channel_mut().expect("a peer was met");
            self.settle(channel);
            match end {
                None => {}
                Some(End::PeerLeft) => {
                    see_off(link)?;
                    return Ok(End::PeerLeft);
                }
                Some(end @ (End::Left | End::Silent { .. } | End::Foreign { .. })) => {
                    return Ok(end);
                }
            }
            let mut until = None;
            if !self.is_done() && !stop.load(Ordering::Relaxed) {
                until = self.append(channel);
            } else if self.under_way.is_empty() && !self.has_left {
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

    /// Takes the time of what is acknowledged.
    fn settle(&mut self, channel: &Channel) {
        let (acked, now) = (channel.acked(), now());
        while let Some((_, due)) = self.under_way.pop_front_if(|(end, _)| *end <= acked) {
            self.sent.ack_ns.saturating_record(now.since(due).as_nanos());
        }
        if self.due.is_none() && self.under_way.is_empty() {
            self.due = Some(now);
        }
    }

    /// Appends what is due, as far as there is room. When the next one is due, unless that hangs on an
    /// acknowledgement.
    fn append(&mut self, channel: &mut Channel) -> Option<Time> {
        let now = now();
        while let Some(due) = self.due.filter(|due| *due <= now)
            && !self.is_done()
        {
            let entry = self.maker.make(self.sent.entries);
            let Ok(range) = channel.append(now, Lane::Latency, entry) else { return None };
            self.under_way.push_back((range.end, due));
            self.sent.entries += 1;
            let interval = self.plan.interval;
            self.due = (interval > Duration::ZERO).then(|| due + interval);
        }
        self.due
    }
}
