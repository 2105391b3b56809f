//! A client of the counter that takes times.
//!
//! Each answer must be the next number: a figure taken from wrong answers is none.

use crate::error::BenchError;
use crate::series::Series;
use std::time::{Duration, Instant};
use vmm::demo::clients::{Counter, CounterService};
use vmm::demo::guest::Guest;
use vmm::demo::standalone::GUEST_ADDRESS;

/// Times of requests.
pub(crate) struct RequestTimes {
    /// From the request to its answer.
    pub(crate) service: Series,
    /// From when the request was due to its answer: a client that came late because of an earlier
    /// answer counts that too (no coordinated omission). The same as `service` where nothing was due.
    pub(crate) response: Series,
    /// All of it.
    pub(crate) seconds: f64,
}

impl RequestTimes {
    /// Nothing yet.
    pub(crate) fn new() -> RequestTimes {
        RequestTimes { service: Series::new(), response: Series::new(), seconds: 0.0 }
    }

    /// Adds those of another turn.
    pub(crate) fn add(&mut self, other: &RequestTimes) {
        self.service.add(&other.service);
        self.response.add(&other.response);
        self.seconds += other.seconds;
    }

    /// Requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.service.len() as f64 / self.seconds
    }
}

/// One connection.
pub(crate) struct CounterClient {
    counter: Counter,
    last: u64,
}

impl CounterClient {
    /// Connects to the reference guest, and asks for `warm_up` numbers that are not measured.
    pub(crate) fn connect(warm_up: u64) -> Result<CounterClient, BenchError> {
        CounterClient::connect_to(Guest::Reference.counter(), warm_up)
    }

    /// The same with any guest's service that counts.
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

    /// One request.
    pub(crate) fn ask(&mut self) -> Result<(), BenchError> {
        let number = self.counter.ask()?;
        // Other connections count, too.
        if number <= self.last {
            let last = self.last;
            return Err(BenchError::Wrong(format!("the counter went from {last} to {number}")));
        }
        self.last = number;
        Ok(())
    }

    /// `count` requests, one after the other, or one at each multiple of `pace`.
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
