//! Decides when to report that no peer is met, or that a peer does not match.

use logchan::handshake::Mismatch;
use logchan::time::{Duration, Time};

/// Absence after which the alarm is due. A peer that is running is met sooner.
const ALARM_AFTER: Duration = Duration::from_millis(1000);

/// Reports the absence of a peer once per absence, and each mismatch of a peer once.
#[derive(Debug, Default)]
pub(super) struct PeerAbsenceAlarm {
    /// When the absence began.
    since: Option<Time>,
    reported: bool,
    /// The mismatch that was reported last.
    refused: Option<Mismatch>,
}

impl PeerAbsenceAlarm {
    /// A peer was refused, and will try again. Returns whether its mismatch was not reported before. The
    /// mismatch is reported instead of the absence.
    pub(super) fn refused(&mut self, mismatch: Mismatch) -> bool {
        self.reported = true;
        self.refused.replace(mismatch) != Some(mismatch)
    }

    /// A peer was met.
    pub(super) fn met(&mut self) {
        *self = PeerAbsenceAlarm::default();
    }

    /// Returns whether the absence must be reported now. `lacks_peer`: this host waits for a peer.
    pub(super) fn is_due(&mut self, now: Time, lacks_peer: bool) -> bool {
        if !lacks_peer {
            (self.since, self.reported) = (None, false);
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let due = !self.reported && now.since(since) >= ALARM_AFTER;
        self.reported |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::ids::VmId;

    #[test]
    fn absence_is_reported_once_and_again_after_peer_returned() {
        let mut absence_alarm = PeerAbsenceAlarm::default();
        let mut at = |ms: u64, lacks_peer| {
            absence_alarm.is_due(Time::from_nanos(ms * 1_000_000), lacks_peer)
        };
        assert!(!at(0, true) && !at(999, true));
        assert!(at(1000, true));
        assert!(!at(5000, true), "once");
        assert!(!at(6000, false));
        assert!(!at(7000, true) && !at(7999, true) && at(8000, true));
    }

    #[test]
    fn mismatch_is_reported_once_instead_of_absence() {
        let mut absence_alarm = PeerAbsenceAlarm::default();
        assert!(!absence_alarm.is_due(Time::from_nanos(0), true));
        assert!(absence_alarm.refused(Mismatch::Timing));
        assert!(!absence_alarm.refused(Mismatch::Timing), "the same peer tries again");
        assert!(absence_alarm.refused(Mismatch::Vm { ours: VmId(1), theirs: VmId(2) }));
        assert!(!absence_alarm.is_due(Time::from_nanos(2_000_000_000), true));
        absence_alarm.met();
        assert!(absence_alarm.refused(Mismatch::Timing), "another peer was met meanwhile");
    }
}
