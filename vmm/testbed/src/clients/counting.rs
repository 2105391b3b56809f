//! A client with one persistent connection to a counter service: each number must be the one after the number
//! before.

use super::traffic::sleep_unless_stopped;
use crate::clients::{Counter, CounterService};
use crate::clock::boottime_ns;
use crate::figures::Times;
use crate::pace::Pace;
use crate::{GUEST_ADDRESS, Guest, Namespace, TestbedError, command};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Pause between an answer and the next request, which gives the guest as much time for its other clients as
/// for this one: a minimum, and a number of the guest's answers (see [`Pace::pause`]).
const PAUSE: (Duration, u32) = (Duration::from_millis(1), 1);

/// Results of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered requests.
    pub requests: u64,
    /// Numbers that were skipped.
    pub lost: u64,
    /// Numbers that were received before.
    pub repeated: u64,
    /// Number of times that the connection ended and was made again.
    pub resets: u64,
    /// Largest number received.
    pub last: u64,
    /// Times of the answers.
    pub times: Times,
}

impl Tally {
    /// Records an answer. No other client uses the counter.
    fn record_answer(&mut self, number: u64, now_ns: u64) {
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
    vm: Ipv4Addr,
    service: &'static CounterService,
    pace: Pace,
    tally: Mutex<Tally>,
}

impl Counting {
    /// Creates a client of `service` of the VM with the address `vm`, with this pace.
    pub fn new(vm: Ipv4Addr, service: &'static CounterService, pace: Pace) -> Counting {
        Counting { vm, service, pace, tally: Mutex::default() }
    }

    /// Sends requests until `stop`, in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the connection can't be made.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), TestbedError> {
        let patience = self.pace.patience();
        let connect = || Counter::connect_to(self.service, self.vm, patience);
        let (least, answers) = PAUSE;
        let mut counter = connect()?;
        while !stop.load(Ordering::Relaxed) {
            match counter.ask() {
                Ok(number) => self.tally().record_answer(number, boottime_ns()),
                // Nothing to report: the demonstration is ending.
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(error) => {
                    tracing::warn!("{error}");
                    self.tally().resets += 1;
                    counter = connect()?;
                }
            }
            sleep_unless_stopped(self.pace.pause(least, answers), stop);
        }
        Ok(())
    }

    /// Returns the results so far.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panics while it holds the lock")
    }
}

/// Returns what ss(8) shows about the connection's timers: the retransmission timeout, a running timer, and
/// the segments being retransmitted.
///
/// # Errors
///
/// If ss fails.
pub fn timers(client: &Namespace, guest: &Guest) -> Result<String, TestbedError> {
    let target = format!("{GUEST_ADDRESS}:{}", guest.counter().port);
    let line = client.enter(|| command("ss", &["-tinoOH", "dst", &target]))?;
    let shown = ["timer:", "rto:", "backoff:", "unacked:", "retrans:"];
    let words = line.split_whitespace().filter(|word| shown.iter().any(|t| word.starts_with(t)));
    Ok(words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_distinguishes_lost_and_repeated_numbers() {
        let mut tally = Tally::default();
        for number in [1, 2, 3] {
            tally.record_answer(number, number);
        }
        assert_eq!((tally.lost, tally.repeated), (0, 0));
        tally.record_answer(6, 4);
        assert_eq!((tally.lost, tally.repeated), (2, 0));
        tally.record_answer(5, 5);
        tally.record_answer(6, 6);
        tally.record_answer(7, 7);
        assert_eq!((tally.requests, tally.lost, tally.repeated, tally.last), (7, 2, 2, 7));
        assert_eq!(tally.times.count(), 7);
    }
}
