//! The events of a process for those who follow them: from the vCPU thread, which never waits, to the control thread,
//! which keeps the last ones.
//!
//! [`EventFeed`] is the vCPU thread's end, and [`EventHistory`] the control thread's. Each event has a number. A number
//! that is missing stands for an event that was dropped, and every reader is told how many it missed.

use super::event::PairRecord;
use crate::kvm::clock;
use crate::limits::{EVENTS_BYTES_MAX, EVENTS_KEPT_MAX, EVENTS_WAITING_MAX};
use crossbeam::queue::ArrayQueue;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::Serialize;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Version of the lines that a follower receives; `docs/schema/` has the schema.
pub const EVENT_SCHEMA: u32 = 1;

/// How urgent an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLevel {
    /// The ordinary course of things.
    Info,
    /// An operator should look at it.
    Warning,
}

/// An event as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorEvent {
    /// The wall clock when it happened, milliseconds since 1970.
    pub unix_ms: u64,
    /// How urgent it is.
    pub level: EventLevel,
    /// The message that standard error has, too.
    pub text: String,
    /// The record of the event log.
    #[serde(flatten)]
    pub record: PairRecord,
}

impl OperatorEvent {
    /// Creates an event of this moment.
    pub fn now(record: PairRecord, level: EventLevel, text: String) -> OperatorEvent {
        OperatorEvent { unix_ms: clock::realtime_ns() / 1_000_000, level, text, record }
    }
}

/// A line that a reader receives.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    seq: u64,
    #[serde(flatten)]
    event: &'a OperatorEvent,
}

/// The line that stands for events that a reader missed.
#[derive(Serialize)]
struct LostLine {
    schema: u32,
    /// Number of the last one.
    seq: u64,
    event: &'static str,
    count: u64,
}

/// Takes the events of a process. None of its methods waits.
#[derive(Debug)]
pub struct EventFeed {
    waiting: ArrayQueue<OperatorEvent>,
    /// Events that were dropped before they had a number.
    dropped: AtomicU64,
    /// Wakes the control thread.
    bell: UnixStream,
}

impl EventFeed {
    /// Creates a feed and its reader.
    ///
    /// # Errors
    ///
    /// The pair of sockets can't be made.
    pub fn new() -> io::Result<(Arc<EventFeed>, EventHistory)> {
        let (bell, rung) = UnixStream::pair()?;
        let waiting = ArrayQueue::new(EVENTS_WAITING_MAX);
        let feed = Arc::new(EventFeed { waiting, dropped: AtomicU64::new(0), bell });
        let history = EventHistory {
            feed: Arc::clone(&feed),
            rung,
            lines: VecDeque::new(),
            bytes: 0,
            next_seq: 0,
        };
        Ok((feed, history))
    }

    /// Passes `event` on. If too many wait, it is dropped and counted.
    pub fn put(&self, event: OperatorEvent) {
        if self.waiting.push(event).is_err() {
            self.leave_out();
        }
        self.ring();
    }

    /// Counts an event that is not passed on.
    pub fn leave_out(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes the control thread. A byte that finds no room is not needed: the thread has not read those before it yet.
    pub(super) fn ring(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.bell.as_raw_fd(), &[0], flags);
    }
}

/// A line of an [`EventHistory`].
struct Kept {
    seq: u64,
    line: Vec<u8>,
}

/// The last events of a process, as the lines that readers receive.
pub struct EventHistory {
    feed: Arc<EventFeed>,
    rung: UnixStream,
    /// In the order of their numbers.
    lines: VecDeque<Kept>,
    /// Bytes of all lines.
    bytes: usize,
    next_seq: u64,
}

impl EventHistory {
    /// Takes what waits in the feed. The oldest events give way.
    pub(super) fn take(&mut self) {
        // One byte for each event, so that this ends.
        while recv(self.rung.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok_and(|n| n > 0)
        {
        }
        while let Some(event) = self.feed.waiting.pop() {
            let line = Line { schema: EVENT_SCHEMA, seq: self.next_seq, event: &event };
            let line = encode(&line);
            self.bytes += line.len();
            self.lines.push_back(Kept { seq: self.next_seq, line });
            self.next_seq += 1;
        }
        // Behind those that waited: the queue was full of them.
        self.next_seq += self.feed.dropped.swap(0, Ordering::Relaxed);
        while self.lines.len() > EVENTS_KEPT_MAX || self.bytes > EVENTS_BYTES_MAX {
            let oldest = self.lines.pop_front();
            self.bytes -= oldest.map_or(0, |kept| kept.line.len());
        }
    }

    /// Returns the number that the next event will have.
    pub(super) fn end(&self) -> u64 {
        self.next_seq
    }

    /// Returns the descriptor that is readable when there is something to take.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.rung.as_fd()
    }

    /// Returns the line for a reader who has everything before `seq`, and the number of the event behind that line. If
    /// events from `seq` on are missing, the line says how many. `None` if there is nothing new before `end`.
    pub(super) fn line(&self, seq: u64, end: u64) -> Option<(Vec<u8>, u64)> {
        let end = end.min(self.next_seq);
        if seq >= end {
            return None;
        }
        let at = self.lines.partition_point(|kept| kept.seq < seq);
        let found = self.lines.get(at).filter(|kept| kept.seq < end);
        match found {
            Some(Kept { seq: found, line }) if *found == seq => Some((line.clone(), seq + 1)),
            _missing => {
                let behind = found.map_or(end, |kept| kept.seq);
                let (schema, event) = (EVENT_SCHEMA, "events_lost");
                let lost = LostLine { schema, seq: behind - 1, event, count: behind - seq };
                Some((encode(&lost), behind))
            }
        }
    }
}

fn encode(line: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("a record has no maps with strange keys");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::time::Time;
    use replication::replica::RoleName;
    use serde_json::Value;

    fn event(text: &str) -> OperatorEvent {
        let record = PairRecord::started(Time::from_nanos(7), RoleName::Alone);
        OperatorEvent::now(record, EventLevel::Info, text.into())
    }

    /// Returns all lines from `seq` on.
    fn read(history: &EventHistory, mut seq: u64) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some((line, behind)) = history.line(seq, u64::MAX) {
            lines.push(serde_json::from_slice(&line).unwrap());
            seq = behind;
        }
        lines
    }

    #[test]
    fn event_has_its_number_its_text_and_its_record() {
        let (feed, mut history) = EventFeed::new().unwrap();
        feed.put(event("one"));
        feed.put(event("two"));
        history.take();
        let lines = read(&history, 0);
        assert_eq!((&lines[0]["seq"], &lines[0]["text"]), (&0.into(), &"one".into()));
        assert_eq!((&lines[1]["seq"], &lines[1]["text"]), (&1.into(), &"two".into()));
        assert_eq!((&lines[1]["event"], &lines[1]["role"]), (&"started".into(), &"alone".into()));
        assert_eq!((&lines[1]["t_ns"], &lines[1]["level"]), (&7.into(), &"info".into()));
        assert_eq!(lines.len(), 2);
        assert!(history.line(0, 1).is_some_and(|(_, behind)| behind == 1), "an end is kept to");
        assert!(history.line(1, 1).is_none());
    }

    #[test]
    fn full_queue_drops_and_the_reader_learns_how_many() {
        let (feed, mut history) = EventFeed::new().unwrap();
        for _ in 0..EVENTS_WAITING_MAX + 3 {
            feed.put(event("x"));
        }
        history.take();
        feed.put(event("last"));
        history.take();
        let lines = read(&history, 0);
        let [.., lost, last] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&lost["event"], &lost["count"]), (&"events_lost".into(), &3.into()));
        assert_eq!(last["text"], "last");
        assert_eq!(last["seq"].as_u64().unwrap(), EVENTS_WAITING_MAX as u64 + 3);
    }

    #[test]
    fn oldest_events_give_way_and_a_late_reader_learns_how_many() {
        let (feed, mut history) = EventFeed::new().unwrap();
        for number in 0..EVENTS_KEPT_MAX + 5 {
            feed.put(event(&number.to_string()));
            history.take();
        }
        let lines = read(&history, 0);
        assert_eq!((&lines[0]["event"], &lines[0]["count"]), (&"events_lost".into(), &5.into()));
        assert_eq!(lines[1]["text"], "5");
        assert_eq!(lines.len(), EVENTS_KEPT_MAX + 1);
        // Long ones take more of the memory.
        for _ in 0..5 {
            feed.put(event(&"x".repeat(EVENTS_BYTES_MAX / 4)));
            history.take();
        }
        assert!(history.bytes <= EVENTS_BYTES_MAX);
        assert_eq!(history.lines.len(), 3);
    }
}
