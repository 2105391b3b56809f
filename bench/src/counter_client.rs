//! A client of the guest's counter service that measures request times.
//!
//! It checks that the numbers increase, because figures of wrong answers are invalid.

use crate::error::BenchError;
use crate::series::Series;
use std::time::{Duration, Instant};
use testbed::clients::{Counter, CounterService};
use testbed::{GUEST_ADDRESS, Guest};

/// Times of counter requests.
pub(crate) struct RequestTimes {
    /// From sending a request to its answer.
    pub(crate) service: Series,
    /// From when the request was due to its answer. If an earlier answer delayed the client, this
    /// includes the delay (it avoids coordinated omission). Equal to `service` for requests without a
    /// pace.
    pub(crate) response: Series,
    /// Total duration, seconds.
    pub(crate) seconds: f64,
}

impl RequestTimes {
    /// Creates an empty set.
    pub(crate) fn new() -> RequestTimes {
        RequestTimes { service: Series::new(), response: Series::new(), seconds: 0.0 }
    }

    /// Adds the times of another round.
    pub(crate) fn add(&mut self, other: &RequestTimes) {
        self.service.add(&other.service);
        self.response.add(&other.response);
        self.seconds += other.seconds;
    }

    /// Returns the requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.service.len() as f64 / self.seconds
    }
}

/// One connection to the counter service.
pub(crate) struct CounterClient {
    counter: Counter,
    last: u64,
}

impl CounterClient {
    /// Connects to the reference guest and sends `warm_up` requests that are not measured.
    pub(crate) fn connect(warm_up: u64) -> Result<CounterClient, BenchError> {
        CounterClient::connect_to(Guest::Reference.counter(), warm_up)
    }

    /// Like [`CounterClient::connect`], with the counter service of any guest.
    pub(crate) fn connect_to(
        service: &'static CounterService,
        warm_up: u64,
    ) -> Result<CounterClient, BenchError> {
        let mut counter = Counter::connect_to(service, GUEST_ADDRESS, crate::PATIENCE)?;
        let last = counter.ask()?;
        let mut client = CounterClient { counter, last };
        (0..warm_up).try_for_each(|_| client.ask())?;
        Ok(client)
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn ask(&mut self) -> Result<(), BenchError> {
        let number = self.counter.ask()?;
        // Other connections also increment the counter, so numbers can be skipped.
        if number <= self.last {
            let last = self.last;
            return Err(BenchError::Wrong(format!("the counter went from {last} to {number}")));
        }
        self.last = number;
        Ok(())
    }

    /// Sends `count` requests, back to back or, with `pace`, one at each multiple of it.
    pub(crate) fn run(
        &mut self,
        count: u64,
        pace: Option<Duration>,
    ) -> Result<RequestTimes, BenchError> {
        let mut request_times = RequestTimes::new();
        let begun = Instant::now();
        for number in 0..count {
            let due = pace.map(|pace| begun + pace * number as u32);
            if let Some(due) = due {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let sent = Instant::now();
            self.ask()?;
            let answered = Instant::now();
            let since = |start: Instant| (answered - start).as_nanos() as u64;
            request_times.service.record(since(sent));
            request_times.response.record(since(due.unwrap_or(sent)));
        }
        request_times.seconds = begun.elapsed().as_secs_f64();
        Ok(request_times)
    }
}
