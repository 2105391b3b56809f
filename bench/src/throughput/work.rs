//! The kinds of work that the client requests.

use super::Args;
use crate::counter_client::{CounterClient, RequestTimes};
use crate::error::BenchError;
use crate::vms::pin;
use std::time::Instant;
use testbed::{GUEST_ADDRESS, clients};

/// Warm-up requests per round and connection, which are not recorded.
const WARM_UP: u64 = 20;

/// Connections of `CounterMany`.
const CONNECTIONS: u64 = 16;

/// Bytes of one echo.
const ECHO_BYTES: usize = 256 << 10;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Counter requests on one connection, back to back.
    CounterOne,
    /// The same on 16 connections.
    CounterMany,
    /// Echoes of 256 KiB back to back, each on its own connection.
    Echo,
}

impl Work {
    /// All kinds of work.
    pub(super) const ALL: [Work; 3] = [Work::CounterOne, Work::CounterMany, Work::Echo];

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Work::CounterOne => "counter-1",
            Work::CounterMany => "counter-16",
            Work::Echo => "echo",
        }
    }

    /// Returns the number of requests or echoes per VM.
    pub(super) const fn amount(self, args: &Args) -> u64 {
        match self {
            Work::CounterOne | Work::CounterMany => args.requests,
            Work::Echo => (args.echo_mib << 20) / ECHO_BYTES as u64,
        }
    }

    /// Returns the payload bytes of one echo; `None` for counter requests.
    pub(super) const fn bytes(self) -> Option<u64> {
        match self {
            Work::CounterOne | Work::CounterMany => None,
            Work::Echo => Some(ECHO_BYTES as u64),
        }
    }

    /// Sends `amount` requests or echoes. Must be called in the client's namespace.
    pub(super) fn run(self, amount: u64, core: usize) -> Result<RequestTimes, BenchError> {
        pin(core)?;
        match self {
            Work::CounterOne => CounterClient::connect(WARM_UP)?.run(amount, None),
            Work::CounterMany => many(amount / CONNECTIONS),
            Work::Echo => echo(amount),
        }
    }
}

/// Sends `amount` requests on each connection, on all connections at the same time.
fn many(amount: u64) -> Result<RequestTimes, BenchError> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(CounterClient::connect(WARM_UP)?);
    }
    let begun = Instant::now();
    let all = std::thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || client.run(amount, None)))
            .collect();
        let mut all = RequestTimes::new();
        for thread in running {
            let request_times =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.add(&request_times);
        }
        Ok::<_, BenchError>(all)
    })?;
    Ok(RequestTimes { seconds: begun.elapsed().as_secs_f64(), ..all })
}

fn echo(amount: u64) -> Result<RequestTimes, BenchError> {
    let bytes: Vec<u8> = (0..ECHO_BYTES).map(|index| (index * 31 + index / 251) as u8).collect();
    let mut request_times = RequestTimes::new();
    let begun = Instant::now();
    for _ in 0..amount {
        let sent = Instant::now();
        clients::echo(GUEST_ADDRESS, &bytes)?;
        let time_ns = sent.elapsed().as_nanos() as u64;
        request_times.service.record(time_ns);
        request_times.response.record(time_ns);
    }
    request_times.seconds = begun.elapsed().as_secs_f64();
    Ok(request_times)
}
