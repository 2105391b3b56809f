//! Who was live, and when: by the accounts of the processes, and by the frames on the LAN.

use super::network::Host;

/// A time in which one host could speak for the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reign {
    host: Host,
    term: u64,
    from_ns: u64,
    /// `None`: it lasts.
    to_ns: Option<u64>,
}

/// What the processes say of it, in the order of its beginnings.
#[derive(Debug, Default)]
pub struct Reigns(Vec<Reign>);

/// From here on, frames of the VM came from another host than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From this one.
    pub host: Host,
    /// When the first of them was seen, CLOCK_BOOTTIME in nanoseconds.
    pub seen_ns: u64,
}

impl Reigns {
    /// `host` won `term`, or went live in it.
    pub fn begin(&mut self, host: Host, term: u64, t_ns: u64) {
        let lasts = |reign: &&Reign| reign.host == host && reign.to_ns.is_none();
        match self.0.iter().find(lasts) {
            // A backup says both.
            Some(reign) if reign.term == term => {}
            Some(_) | None => {
                self.end(host, t_ns);
                self.0.push(Reign { host, term, from_ns: t_ns, to_ns: None });
            }
        }
    }

    /// `host` will not speak any more, and has not since `t_ns`.
    pub fn end(&mut self, host: Host, t_ns: u64) {
        for reign in self.0.iter_mut().filter(|reign| reign.host == host) {
            reign.to_ns.get_or_insert(t_ns.max(reign.from_ns));
        }
    }

    /// Pairs of reigns of different hosts that overlap or have the same term.
    pub fn doubles(&self) -> u64 {
        let overlap = |a: &Reign, b: &Reign| {
            a.from_ns < b.to_ns.unwrap_or(u64::MAX) && b.from_ns < a.to_ns.unwrap_or(u64::MAX)
        };
        let pairs = self.0.iter().enumerate().flat_map(|(index, a)| {
            self.0[index + 1..]
                .iter()
                .filter(move |b| b.host != a.host && (a.term == b.term || overlap(a, b)))
        });
        pairs.count() as u64
    }

    /// Turns on the LAN that no account explains: each must be to the host that goes live next, and not
    /// come before that.
    pub fn unexplained(&self, turns: &[Turn]) -> u64 {
        let mut reigns = self.0.iter().peekable();
        let mut speaker = None;
        let mut unexplained = 0;
        for turn in turns {
            while reigns.next_if(|reign| Some(reign.host) == speaker).is_some() {}
            match reigns.next_if(|next| next.host == turn.host && next.from_ns <= turn.seen_ns) {
                Some(_) => speaker = Some(turn.host),
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

    fn turns(turns: &[(Host, u64)]) -> Vec<Turn> {
        turns.iter().map(|&(host, seen_ns)| Turn { host, seen_ns }).collect()
    }

    /// A boots, is killed at 100; B goes live at 200, is killed at 300; A goes live at 400.
    fn two_failovers() -> Reigns {
        let mut reigns = Reigns::default();
        reigns.begin(A, 1, 0);
        reigns.end(A, 100);
        reigns.begin(B, 2, 200);
        reigns.begin(B, 2, 201);
        reigns.end(B, 300);
        reigns.begin(A, 3, 400);
        reigns
    }

    #[test]
    fn hosts_that_are_live_one_after_the_other_are_no_double() {
        let reigns = two_failovers();
        assert_eq!(reigns.doubles(), 0);
        assert_eq!(reigns.unexplained(&turns(&[(A, 5), (B, 210), (A, 410)])), 0);
    }

    #[test]
    fn overlap_and_shared_term_are_doubles() {
        let mut reigns = two_failovers();
        reigns.begin(B, 4, 500);
        assert_eq!(reigns.doubles(), 1, "A was not said to be over");
        let mut reigns = two_failovers();
        reigns.end(A, 450);
        reigns.begin(B, 3, 500);
        assert_eq!(reigns.doubles(), 1, "term 3 was A's");
    }

    #[test]
    fn primary_that_lost_its_backup_and_won_the_next_term_is_no_double_and_no_turn() {
        let mut reigns = Reigns::default();
        reigns.begin(A, 1, 0);
        reigns.end(A, 100);
        reigns.begin(A, 2, 110);
        reigns.end(A, 150);
        reigns.begin(B, 3, 200);
        assert_eq!(reigns.doubles(), 0);
        assert_eq!(reigns.unexplained(&turns(&[(A, 5), (B, 210)])), 0);
    }

    #[test]
    fn frames_of_a_host_that_is_not_live_are_unexplained() {
        let reigns = two_failovers();
        let strays = [
            (vec![(A, 5), (B, 190), (A, 410)], "B before it is live; then A is not the next"),
            (vec![(A, 5), (B, 210), (A, 220), (B, 221), (A, 410)], "A after its death"),
            (vec![(A, 5), (B, 210), (A, 410), (B, 420)], "B after its death"),
        ];
        for (seen, why) in strays {
            assert!(reigns.unexplained(&turns(&seen)) > 0, "{why}");
        }
    }
}
