//! What is told, and how often, of a peer that is not met.

use logchan::handshake::Mismatch;
use logchan::time::{Duration, Time};

/// A peer that is there is met sooner.
const AFTER: Duration = Duration::from_millis(1000);

/// Looks out for a peer; says once per absence that none comes, and once why one does not fit.
#[derive(Debug, Default)]
pub(super) struct PeerAbsenceAlarm {
    /// Since when nobody is there.
    since: Option<Time>,
    reported: bool,
    /// Why the last one did not fit.
    refused: Option<Mismatch>,
}

impl PeerAbsenceAlarm {
    /// Somebody came who does not fit, and will come again: whether that is news. It is told instead
    /// of that nobody comes.
    pub(super) fn refused(&mut self, mismatch: Mismatch) -> bool {
        self.reported = true;
        self.refused.replace(mismatch) != Some(mismatch)
    }

    /// Somebody came who fits.
    pub(super) fn met(&mut self) {
        *self = PeerAbsenceAlarm::default();
    }

    /// Whether it is to be told now. `lacks_peer`: a peer is looked for.
    pub(super) fn is_due(&mut self, now: Time, lacks_peer: bool) -> bool {
        if !lacks_peer {
            (self.since, self.reported) = (None, false);
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let due = !self.reported && now.since(since) >= AFTER;
        self.reported |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::ids::VmId;

    #[test]
    fn absence_is_told_once_and_again_after_somebody_was_there() {
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
    fn absence_of_one_who_does_not_fit_is_not_told_twice() {
        let mut absence_alarm = PeerAbsenceAlarm::default();
        assert!(!absence_alarm.is_due(Time::from_nanos(0), true));
        assert!(absence_alarm.refused(Mismatch::Timing));
        assert!(!absence_alarm.refused(Mismatch::Timing), "it comes again and again");
        assert!(absence_alarm.refused(Mismatch::Vm { ours: VmId(1), theirs: VmId(2) }));
        assert!(!absence_alarm.is_due(Time::from_nanos(2_000_000_000), true));
        absence_alarm.met();
        assert!(absence_alarm.refused(Mismatch::Timing), "it was another one meanwhile");
    }
}
