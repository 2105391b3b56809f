//! Which host was live and when: by the event logs of the processes, and by the frames on the LAN.

use super::network::Host;

/// A time in which one host could send outputs of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeadershipInterval {
    host: Host,
    term: u64,
    from_ns: u64,
    /// `None` while it lasts.
    to_ns: Option<u64>,
}

/// Leadership intervals according to the event logs, ordered by their start.
#[derive(Debug, Default)]
pub struct LeadershipIntervals(Vec<LeadershipInterval>);

/// A change of the host that the VM's frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceChange {
    /// The new host.
    pub host: Host,
    /// When its first frame was seen, by CLOCK_BOOTTIME in nanoseconds.
    pub seen_ns: u64,
}

impl LeadershipIntervals {
    /// Records that `host` won `term` or went live in it, at `t_ns`.
    pub fn begin(&mut self, host: Host, term: u64, t_ns: u64) {
        let lasts =
            |interval: &&LeadershipInterval| interval.host == host && interval.to_ns.is_none();
        match self.0.iter().find(lasts) {
            // A backup that takes over records both events.
            Some(interval) if interval.term == term => {}
            Some(_) | None => {
                self.end(host, t_ns);
                self.0.push(LeadershipInterval { host, term, from_ns: t_ns, to_ns: None });
            }
        }
    }

    /// Records that `host` sends no more outputs, and has sent none since `t_ns`. Of several such records of one
    /// interval, the earliest counts: the end of a dead process's output is seen late.
    ///
    /// For a host that was made to die, `t_ns` is the time before that. It may have sent until it died, and the other
    /// host may have gone live by then; [`unexplained_changes`](Self::unexplained_changes) finds a frame that left too
    /// late.
    pub fn end(&mut self, host: Host, t_ns: u64) {
        let newest = self.0.iter_mut().rfind(|interval| interval.host == host);
        if let Some(interval) = newest {
            let to_ns = t_ns.max(interval.from_ns);
            interval.to_ns = Some(interval.to_ns.map_or(to_ns, |earlier| earlier.min(to_ns)));
        }
    }

    /// Counts the pairs of intervals of different hosts that overlap or have the same term.
    pub fn overlaps(&self) -> u64 {
        let overlap = |a: &LeadershipInterval, b: &LeadershipInterval| {
            a.from_ns < b.to_ns.unwrap_or(u64::MAX) && b.from_ns < a.to_ns.unwrap_or(u64::MAX)
        };
        let pairs = self.0.iter().enumerate().flat_map(|(index, a)| {
            self.0[index + 1..]
                .iter()
                .filter(move |b| b.host != a.host && (a.term == b.term || overlap(a, b)))
        });
        pairs.count() as u64
    }

    /// Counts the changes on the LAN that the event logs do not explain. Each change must be to the host that
    /// goes live next, and must not come before that host is live.
    pub fn unexplained_changes(&self, changes: &[SourceChange]) -> u64 {
        let mut intervals = self.0.iter().peekable();
        let mut leader = None;
        let mut unexplained = 0;
        for change in changes {
            while intervals.next_if(|interval| Some(interval.host) == leader).is_some() {}
            match intervals
                .next_if(|next| next.host == change.host && next.from_ns <= change.seen_ns)
            {
                Some(_) => leader = Some(change.host),
                None => unexplained += 1,
            }
        }
        unexplained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Host::{A, B};

    fn changes(changes: &[(Host, u64)]) -> Vec<SourceChange> {
        changes.iter().map(|&(host, seen_ns)| SourceChange { host, seen_ns }).collect()
    }

    /// A boots, is killed at 100; B goes live at 200, is killed at 300; A goes live at 400.
    fn two_failovers() -> LeadershipIntervals {
        let mut intervals = LeadershipIntervals::default();
        intervals.begin(A, 1, 0);
        intervals.end(A, 100);
        intervals.begin(B, 2, 200);
        intervals.begin(B, 2, 201);
        intervals.end(B, 300);
        intervals.begin(A, 3, 400);
        intervals
    }

    #[test]
    fn hosts_live_one_after_the_other_do_not_overlap() {
        let intervals = two_failovers();
        assert_eq!(intervals.overlaps(), 0);
        assert_eq!(intervals.unexplained_changes(&changes(&[(A, 5), (B, 210), (A, 410)])), 0);
    }

    #[test]
    fn earliest_record_of_an_end_counts() {
        let mut intervals = LeadershipIntervals::default();
        intervals.begin(A, 1, 0);
        intervals.end(A, 250);
        intervals.begin(B, 2, 200);
        assert_eq!(intervals.overlaps(), 1);
        intervals.end(A, 100);
        intervals.end(A, 300);
        assert_eq!(intervals.overlaps(), 0);
    }

    #[test]
    fn overlap_and_shared_term_are_counted() {
        let mut intervals = two_failovers();
        intervals.begin(B, 4, 500);
        assert_eq!(intervals.overlaps(), 1, "A's interval did not end");
        let mut intervals = two_failovers();
        intervals.end(A, 450);
        intervals.begin(B, 3, 500);
        assert_eq!(intervals.overlaps(), 1, "term 3 was A's");
    }

    #[test]
    fn primary_that_wins_the_next_term_is_neither_overlap_nor_change() {
        let mut intervals = LeadershipIntervals::default();
        intervals.begin(A, 1, 0);
        intervals.end(A, 100);
        intervals.begin(A, 2, 110);
        intervals.end(A, 150);
        intervals.begin(B, 3, 200);
        assert_eq!(intervals.overlaps(), 0);
        assert_eq!(intervals.unexplained_changes(&changes(&[(A, 5), (B, 210)])), 0);
    }

    #[test]
    fn frames_from_a_host_that_is_not_live_are_unexplained() {
        let intervals = two_failovers();
        let unexplained = [
            (vec![(A, 5), (B, 190), (A, 410)], "B before it is live; then A is not the next"),
            (vec![(A, 5), (B, 210), (A, 220), (B, 221), (A, 410)], "A after its death"),
            (vec![(A, 5), (B, 210), (A, 410), (B, 420)], "B after its death"),
        ];
        for (seen, why) in unexplained {
            assert!(intervals.unexplained_changes(&changes(&seen)) > 0, "{why}");
        }
    }
}
