//! Checks the log: that it is with the backup before an output leaves, and that it is sent without delay.

use std::collections::BTreeMap;

use replication::limits::{BULK_BACKLOG_BYTES_MAX, BULK_FRAMES_PER_TRANSMIT};
use replication::replica::RoleName;

use crate::sim::driver::count::Count;
use crate::sim::driver::state::State;
use crate::sim::system::steps::is_logging;
use crate::sim::{Checked, require};

/// Most bulk frames that may join the backlog at a time, and one that is on the wire.
const BULK_FRAMES_MAX: u64 = BULK_FRAMES_PER_TRANSMIT + 1;

/// The log that has reached a backup's process, by session.
#[derive(Debug, Default)]
pub(in crate::sim::driver) struct LogRecord {
    sessions: BTreeMap<u64, Received>,
}

/// The log of one session.
#[derive(Debug, Default)]
struct Received {
    /// Everything up to here has arrived.
    up_to: u64,
    /// Beginnings and ends of pieces behind a gap.
    pieces: BTreeMap<u64, u64>,
}

impl LogRecord {
    /// A piece of the log has arrived.
    pub(in crate::sim::driver) fn receive(&mut self, session: u64, offset: u64, length: u64) {
        let received = self.sessions.entry(session).or_default();
        let end = received.pieces.entry(offset).or_default();
        *end = (*end).max(offset + length);
        while let Some((&offset, &end)) = received.pieces.first_key_value()
            && offset <= received.up_to
        {
            received.up_to = received.up_to.max(end);
            received.pieces.remove(&offset);
        }
    }

    fn up_to(&self, session: u64) -> u64 {
        self.sessions.get(&session).map_or(0, |received| received.up_to)
    }
}

/// What the channel of a host could send, and what it has sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim::driver) struct LogState {
    /// Log could be sent.
    pub(in crate::sim::driver) wants_to_send: bool,
    /// Frames of the log that were sent.
    pub(in crate::sim::driver) frames: u64,
}

impl State {
    /// Something nondeterministic was logged; the log ends at `end` now (session and position).
    pub(in crate::sim::driver) fn note_nondeterministic(&mut self, host: usize, end: (u64, u64)) {
        if let Some(process) = &mut self.hosts[host].process {
            process.nondeterministic = end;
        }
    }

    /// The guest of `host` makes output `number`, which depends on the log so far.
    pub(in crate::sim::driver) fn require_log(&mut self, host: usize, number: u64) {
        if let Some(process) = &mut self.hosts[host].process
            && is_logging(process.role)
        {
            process.required.insert(number, process.nondeterministic);
        }
    }

    /// An output leaves `host`: its log must have arrived at the backup's process, if the VM has a backup.
    pub(super) fn check_required_log(&mut self, host: usize, number: u64) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let required = process.required.remove(&number);
        let Some((session, position)) = required.filter(|_| is_logging(process.role)) else {
            return Ok(());
        };
        if session != process.session {
            return Ok(());
        }
        self.counts.count(Count::OutputsChecked);
        let held = self.log.up_to(session);
        require!(
            held >= position,
            "output {number} leaves host {host}, needs {position} bytes of log, and {held} have arrived"
        );
        Ok(())
    }

    /// A frame of the log was given to the link.
    pub(in crate::sim::driver) fn note_log_sent(&mut self, host: usize, session: u64, end: u64) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.log_frames += 1;
        if process.log_sent.0 != session {
            process.log_sent = (session, 0);
        }
        process.log_sent.1 = process.log_sent.1.max(end);
    }

    /// Number of frames of the log that the process of `host` has given to the link.
    pub(in crate::sim::driver) fn log_frames(&self, host: usize) -> u64 {
        self.hosts[host].process.as_ref().map_or(0, |process| process.log_frames)
    }

    /// The guest of `host` continues after an exit that made output. If an output waits for log, and that log could
    /// be sent when the exit ended, some of it must have been sent.
    pub(in crate::sim::driver) fn check_log_sent(&self, host: usize, before: LogState) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        if !matches!(process.role, RoleName::Closing | RoleName::Protected) {
            return Ok(());
        }
        let (session, sent) = process.log_sent;
        let needed = process.required.values().filter(|(of, _)| *of == process.session);
        let needed = needed.map(|(_, position)| *position).max().unwrap_or(0);
        let sent = if session == process.session { sent } else { 0 };
        require!(
            needed <= sent || !before.wants_to_send || process.log_frames > before.frames,
            "host {host} continues with an output that waits for {needed} bytes of log; {sent} were sent"
        );
        Ok(())
    }

    /// A frame of the log joins the transmit queue of `host`. Checks the bulk frames in front of it.
    pub(in crate::sim::driver) fn check_log_delay(&mut self, host: usize) -> Checked {
        let now = self.queue.now();
        let frame_bytes_max = self.options.pair.frame_bytes_max as u64;
        let own = &mut self.hosts[host];
        while own.bulk_queue.front().is_some_and(|(leaves_at, _)| *leaves_at <= now) {
            own.bulk_queue.pop_front();
        }
        let bytes: u64 = own.bulk_queue.iter().map(|(_, bytes)| bytes).sum();
        self.counts.add(Count::LogBehindBulk, u64::from(bytes > 0));
        let most = u64::from(BULK_BACKLOG_BYTES_MAX) + BULK_FRAMES_MAX * frame_bytes_max;
        require!(
            bytes <= most,
            "log of host {host} waits for {bytes} bytes of bulk frames; at most {most} are allowed"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_counts_up_to_its_first_gap() {
        let mut log = LogRecord::default();
        log.receive(1, 0, 10);
        log.receive(1, 20, 10);
        assert_eq!(log.up_to(1), 10);
        log.receive(1, 5, 20);
        assert_eq!((log.up_to(1), log.up_to(2)), (30, 0));
    }
}
