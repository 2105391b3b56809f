//! [`RequestList`]: the requests that the next challenge is for.

use super::{CHALLENGE_EACH, CHALLENGED_MAX};
use crate::time::Time;

/// Requests that were received since the last challenge was sent, and when the next one may be sent.
///
/// A request can be a recording, and a recording is not known as one before its answer is ignored. So all requests
/// of [`CHALLENGE_EACH`] get one answer, which costs the same whatever their number is. It has room for
/// [`CHALLENGED_MAX`]; if more distinct ones come, a random choice of them is answered, so that no order or timing of
/// recordings keeps a living peer's request out of every answer.
#[derive(Debug)]
pub(super) struct RequestList {
    listed: [u64; CHALLENGED_MAX],
    count: usize,
    /// Requests that were not in the list when they came.
    came: u64,
    /// State of a SplitMix64 generator. An attacker must not know it.
    random: u64,
    /// No challenge is sent before.
    not_before: Time,
    /// A challenge must be sent now.
    is_due: bool,
}

impl RequestList {
    /// Creates an empty list. `seed` is random.
    pub(super) fn new(seed: u64) -> RequestList {
        RequestList {
            listed: [0; CHALLENGED_MAX],
            count: 0,
            came: 0,
            random: seed,
            not_before: Time::default(),
            is_due: false,
        }
    }

    /// Adds a request.
    pub(super) fn push(&mut self, now: Time, request: u64) {
        if !self.listed[..self.count].contains(&request) {
            self.came += 1;
            if self.count < CHALLENGED_MAX {
                self.listed[self.count] = request;
                self.count += 1;
            } else if let Some(place) = usize::try_from(self.random() % self.came)
                .ok()
                .and_then(|place| self.listed.get_mut(place))
            {
                // Reservoir sampling: each of the requests that came is in the list with the same probability.
                *place = request;
            }
        }
        self.handle_timeout(now);
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Makes a challenge due if it may be sent by `now`.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.count > 0 && !self.is_due && now >= self.not_before {
            self.is_due = true;
            self.not_before = now + CHALLENGE_EACH;
        }
    }

    /// Returns when a challenge is due that is not due yet.
    pub(super) fn due_at(&self) -> Option<Time> {
        (self.count > 0 && !self.is_due).then_some(self.not_before)
    }

    /// Returns whether a challenge must be sent now.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Takes the requests that a challenge which is due is for; the list is empty then.
    pub(super) fn take_due(&mut self) -> Option<&[u64]> {
        if !core::mem::take(&mut self.is_due) {
            return None;
        }
        let count = core::mem::take(&mut self.count);
        self.came = 0;
        Some(&self.listed[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn challenge_is_due_at_once_and_then_at_intervals() {
        let mut list = RequestList::new(1);
        let start = Time::from_nanos(1);
        assert_eq!((list.is_due(), list.due_at()), (false, None));
        assert_eq!(list.take_due(), None);
        list.push(start, 7);
        list.push(start, 7);
        list.push(start, 8);
        assert_eq!(list.take_due(), Some(&[7, 8][..]));
        list.push(start, 7);
        assert_eq!((list.is_due(), list.due_at()), (false, Some(start + CHALLENGE_EACH)));
        assert_eq!(list.take_due(), None);
        list.handle_timeout(start + CHALLENGE_EACH);
        assert_eq!(list.take_due(), Some(&[7][..]));
        assert_eq!(list.due_at(), None);
        // It does not become due by itself.
        list.handle_timeout(start + CHALLENGE_EACH * 9);
        assert!(!list.is_due());
    }

    /// However an attacker orders recordings around a request, the request is answered as often as any of them.
    #[test]
    fn request_among_recordings_is_answered_in_proportion_wherever_it_comes() {
        const RECORDINGS: u64 = 200;
        const ROUNDS: u64 = 4000;
        for place in [0, RECORDINGS / 2, RECORDINGS] {
            let mut list = RequestList::new(5);
            let mut answered = 0;
            for round in 1..=ROUNDS {
                let now = Time::from_nanos(1) + CHALLENGE_EACH * round;
                let recorded = 1..=RECORDINGS;
                // The list's first request makes a challenge due, which the driver sends after it has received.
                for request in recorded.clone().take(place as usize) {
                    list.push(now, request);
                }
                list.push(now, u64::MAX);
                for request in recorded.skip(place as usize) {
                    list.push(now, request);
                }
                answered += u64::from(list.take_due().unwrap().contains(&u64::MAX));
            }
            let expected = ROUNDS * CHALLENGED_MAX as u64 / (RECORDINGS + 1);
            assert!((expected * 8 / 10..expected * 12 / 10).contains(&answered), "{answered}");
        }
    }

    #[test]
    fn list_of_many_requests_takes_no_more_than_its_room() {
        let mut list = RequestList::new(9);
        let now = Time::from_nanos(1);
        for request in 0..100_000 {
            list.push(now + Duration::from_nanos(request), request);
        }
        assert_eq!(list.take_due().map(<[u64]>::len), Some(CHALLENGED_MAX));
    }
}
