//! [`Followers`]: clients of the control socket that read events. None of them keeps another one, or the thread, waiting.

use super::event_feed::EventHistory;
use crate::limits::EVENT_FOLLOWERS_MAX;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// How long a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To the newest event.
    Now,
    /// As long as it is connected.
    Disconnected,
}

/// A client that reads events.
struct Follower {
    stream: UnixStream,
    /// Number of the next event for it.
    next: u64,
    /// Number behind the last event for it.
    end: u64,
    /// The rest of a line, for which its socket had no room.
    rest: Vec<u8>,
}

impl Follower {
    /// Sends what its socket has room for. Returns whether it reads on.
    fn send(&mut self, history: &EventHistory) -> bool {
        loop {
            if self.rest.is_empty() {
                let Some((line, behind)) = history.line(self.next, self.end) else {
                    return self.next < self.end;
                };
                (self.rest, self.next) = (line, behind);
            }
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.stream.as_raw_fd(), &self.rest, flags) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// The clients that read events.
#[derive(Default)]
pub(super) struct Followers(Vec<Follower>);

impl Followers {
    /// Takes a client. If there are too many, it is disconnected.
    pub(super) fn add(&mut self, stream: UnixStream, until: Until, history: &EventHistory) {
        if self.0.len() < EVENT_FOLLOWERS_MAX {
            let end = match until {
                Until::Now => history.end(),
                Until::Disconnected => u64::MAX,
            };
            self.0.push(Follower { stream, next: 0, end, rest: Vec::new() });
        }
    }

    /// Sends what there is to those who have room for it. Those who have disconnected or have everything are dropped.
    pub(super) fn send(&mut self, history: &EventHistory) {
        self.0.retain_mut(|follower| follower.send(history));
    }

    /// Drops the followers for whom `is_gone`, by their index.
    pub(super) fn drop_if(&mut self, is_gone: &[bool]) {
        let mut gone = is_gone.iter();
        self.0.retain(|_| !gone.next().copied().unwrap_or(false));
    }

    /// Returns for each follower its socket, and what to wait for beside the end of the connection.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.0.iter().map(|follower| {
            let is_full = !follower.rest.is_empty();
            let flags = if is_full { PollFlags::POLLOUT } else { PollFlags::empty() };
            (follower.stream.as_fd(), flags)
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EVENTS_KEPT_MAX;
    use crate::pair::event::PairRecord;
    use crate::pair::event_feed::{EventFeed, EventLevel, OperatorEvent};
    use logchan::time::Time;
    use replication::replica::RoleName;
    use std::io::{BufRead, BufReader};

    fn event(text: &str) -> OperatorEvent {
        let record = PairRecord::started(Time::from_nanos(7), RoleName::Alone);
        OperatorEvent::now(record, EventLevel::Info, text.into())
    }

    #[test]
    fn slow_reader_misses_events_learns_how_many_and_delays_nobody() {
        let (feed, mut history) = EventFeed::new().unwrap();
        let mut followers = Followers::default();
        let [(slow, slow_end), (quick, quick_end)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        followers.add(slow_end, Until::Disconnected, &history);
        followers.add(quick_end, Until::Disconnected, &history);
        let mut quick = BufReader::new(quick);
        let text = "x".repeat(500);
        // More than the socket of the slow one and the history have room for.
        let count = EVENTS_KEPT_MAX as u64 + 4000;
        for seq in 0..count {
            feed.put(event(&text));
            history.take();
            followers.send(&history);
            let mut line = String::new();
            quick.read_line(&mut line).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["seq"], seq, "the quick one misses nothing");
        }
        assert_eq!(followers.len(), 2);
        let mut slow = BufReader::new(slow);
        let (mut next, mut lost) = (0, 0);
        while next < count {
            let mut line = String::new();
            slow.read_line(&mut line).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            lost += line["count"].as_u64().unwrap_or(0);
            let seq = line["seq"].as_u64().unwrap();
            assert_eq!(seq + 1 - next, line["count"].as_u64().unwrap_or(1), "{line}");
            next = seq + 1;
            followers.send(&history);
        }
        assert!(lost > 0 && lost < count, "{lost}");
    }

    #[test]
    fn reader_of_the_past_ends_with_it_and_a_gone_one_is_dropped() {
        let (feed, mut history) = EventFeed::new().unwrap();
        feed.put(event("past"));
        history.take();
        let mut followers = Followers::default();
        let (reader, end) = UnixStream::pair().unwrap();
        followers.add(end, Until::Now, &history);
        feed.put(event("new"));
        history.take();
        followers.send(&history);
        assert_eq!(followers.len(), 0);
        assert_eq!(BufReader::new(reader).lines().count(), 1);

        let (reader, end) = UnixStream::pair().unwrap();
        followers.add(end, Until::Disconnected, &history);
        drop(reader);
        followers.send(&history);
        assert_eq!(followers.len(), 0);
    }

    #[test]
    fn line_that_is_longer_than_the_room_in_a_socket_arrives_whole() {
        let (feed, mut history) = EventFeed::new().unwrap();
        let mut followers = Followers::default();
        let (reader, end) = UnixStream::pair().unwrap();
        followers.add(end, Until::Disconnected, &history);
        let text = "x".repeat(600_000);
        feed.put(event(&text));
        feed.put(event("next"));
        history.take();
        followers.send(&history);
        let is_full = |followers: &Followers| {
            followers.wanted().any(|(_, flags)| flags == PollFlags::POLLOUT)
        };
        assert!(is_full(&followers));
        let reading = std::thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).collect::<Vec<_>>()
        });
        while is_full(&followers) {
            std::thread::yield_now();
            followers.send(&history);
        }
        drop(followers);
        let lines = reading.join().unwrap();
        let [long, next] = &lines[..] else { panic!("{} lines", lines.len()) };
        assert!(long.contains(&text) && next.contains("\"next\""));
    }

    #[test]
    fn follower_too_many_is_disconnected() {
        let (_feed, history) = EventFeed::new().unwrap();
        let mut followers = Followers::default();
        let mut readers = Vec::new();
        for _ in 0..=EVENT_FOLLOWERS_MAX {
            let (reader, end) = UnixStream::pair().unwrap();
            followers.add(end, Until::Disconnected, &history);
            readers.push(reader);
        }
        assert_eq!(followers.len(), EVENT_FOLLOWERS_MAX);
        assert_eq!(BufReader::new(readers.pop().unwrap()).lines().count(), 0);
    }
}
