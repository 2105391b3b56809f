//! One connection to the counter service for the whole demonstration: every number must follow the
//! one before it.

use super::figures::Times;
use super::traffic::rest;
use crate::demo::DemoError;
use crate::demo::clients::Counter;
use crate::demo::guest::Guest;
use crate::demo::lan::{Namespace, command};
use crate::demo::pace::Pace;
use crate::demo::standalone::GUEST_ADDRESS;
use crate::kvm::clock::boottime_ns;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// From an answer to the next request: the guest gets as long for its other clients as for this one.
const PAUSE: (Duration, u32) = (Duration::from_millis(1), 1);

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered.
    pub requests: u64,
    /// Numbers that were left out.
    pub lost: u64,
    /// Numbers that had been given before.
    pub repeated: u64,
    /// Times the connection ended, and another one was made.
    pub resets: u64,
    /// The largest number.
    pub last: u64,
    /// When the answers came.
    pub times: Times,
}

impl Tally {
    /// An answer came. The counter counts the requests of nobody else.
    fn answered(&mut self, number: u64, now_ns: u64) {
        self.requests += 1;
        self.times.push(now_ns);
        if number <= self.last {
            self.repeated += 1;
        } else {
            self.lost += number - self.last - 1;
            self.last = number;
        }
    }
}

/// The client.
#[derive(Debug)]
pub struct Counting {
    guest: Guest,
    pace: Pace,
    tally: Mutex<Tally>,
}

impl Counting {
    /// Of a VM of this guest, at this pace.
    pub fn new(guest: Guest, pace: Pace) -> Counting {
        Counting { guest, pace, tally: Mutex::default() }
    }

    /// Asks until `stop`, in the namespace of the calling thread.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), DemoError> {
        let (service, patience) = (self.guest.counter(), self.pace.patience());
        let connect = || Counter::connect_to(service, GUEST_ADDRESS, patience);
        let (least, answers) = PAUSE;
        let mut counter = connect()?;
        while !stop.load(Ordering::Relaxed) {
            match counter.ask() {
                Ok(number) => self.tally().answered(number, boottime_ns()),
                // The demonstration has failed already, and says why.
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(error) => {
                    tracing::warn!("{error}");
                    self.tally().resets += 1;
                    counter = connect()?;
                }
            }
            rest(self.pace.pause(least, answers), stop);
        }
        Ok(())
    }

    /// What became of the requests so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with it")
    }
}

/// What ss(8) says of the connection's timers now: the retransmission timeout, a timer that runs, and
/// what is being retransmitted.
pub fn timers(client: &Namespace, guest: &Guest) -> Result<String, DemoError> {
    let target = format!("{GUEST_ADDRESS}:{}", guest.counter().port);
    let line = client.enter(|| command("ss", &["-tinoOH", "dst", &target]))?;
    let told = ["timer:", "rto:", "backoff:", "unacked:", "retrans:"];
    let words = line.split_whitespace().filter(|word| told.iter().any(|t| word.starts_with(t)));
    Ok(words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_tells_lost_from_repeated() {
        let mut tally = Tally::default();
        for number in [1, 2, 3] {
            tally.answered(number, number);
        }
        assert_eq!((tally.lost, tally.repeated), (0, 0));
        tally.answered(6, 4);
        assert_eq!((tally.lost, tally.repeated), (2, 0));
        tally.answered(5, 5);
        tally.answered(6, 6);
        tally.answered(7, 7);
        assert_eq!((tally.requests, tally.lost, tally.repeated, tally.last), (7, 2, 2, 7));
        assert_eq!(tally.times.count(), 7);
    }
}
