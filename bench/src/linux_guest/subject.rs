//! The VMs under test and one round of INCR requests.

use super::Args;
use crate::counter_client::{CounterClient, RequestTimes};
use crate::error::BenchError;
use crate::interleave::Round;
use crate::log_share::LogShare;
use crate::vms::{Protection, Vm, VmOptions, pin};
use std::time::{Duration, Instant};
use testbed::{Guest, TestbedError, pace};

/// Warm-up requests per round, which are not recorded: the first accesses fault in and copy pages.
const WARM_UP: u64 = 10;
/// Longest time of the requests of one round, and the fewest requests that are sent nevertheless. A guest
/// that answers slowly gets fewer requests than it was asked for.
const ROUND_MAX: Duration = Duration::from_secs(60);
const REQUESTS_MIN: u64 = 10;

/// How the VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without a backup.
    Standalone,
    /// With a backup, on a sealed link.
    Protected,
}

impl Kind {
    /// Both kinds.
    pub(super) const ALL: [Kind; 2] = [Kind::Standalone, Kind::Protected];

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Standalone => "standalone",
            Kind::Protected => "protected",
        }
    }
}

/// A VM and its measured times.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) request_times: RequestTimes,
    /// Log bytes that the primary wrote during the requests.
    pub(super) log: LogShare,
}

impl Subject {
    /// Creates a subject without measurements.
    pub(super) fn new(kind: Kind) -> Subject {
        Subject { kind, request_times: RequestTimes::new(), log: LogShare::default() }
    }

    /// Runs one round: starts the VM, sends this round's share of the requests, stops the VM.
    pub(super) fn run_round(
        &mut self,
        guest: &Guest,
        args: &Args,
        round: Round,
    ) -> Result<(), BenchError> {
        let requests = round.share(args.requests);
        let protection = match self.kind {
            Kind::Standalone => Protection::Standalone,
            Kind::Protected => Protection::Sealed,
        };
        let options = VmOptions { guest: guest.clone(), ..VmOptions::new(&[]) };
        let mut vm = Vm::start(protection, &options)?;
        let begun = Instant::now();
        let mut client = vm.client(|| CounterClient::connect_to(guest.counter(), WARM_UP))?;
        let requests = affordable(requests, begun.elapsed() / (WARM_UP as u32 + 1))?;
        let before = vm.status()?;
        let request_times = vm.client(|| {
            pin(args.client_core)?;
            client.run(requests, None)
        })?;
        self.request_times.add(&request_times);
        if let Some((before, after)) = before.zip(vm.status()?) {
            self.log.add(&before, &after);
        }
        vm.stop()
    }
}

/// Returns how many of `requests` are sent in one round to a guest that answers one in `answer`.
fn affordable(requests: u64, answer: Duration) -> Result<u64, BenchError> {
    if answer > pace::ANSWER_MAX {
        let why = format!("a request takes {answer:.1?}, more than {:?}", pace::ANSWER_MAX);
        return Err(TestbedError::TooSlow(why).into());
    }
    let most = ROUND_MAX.as_nanos() / answer.as_nanos().max(1);
    Ok(requests.min(u64::try_from(most).unwrap_or(u64::MAX).max(REQUESTS_MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_guest_gets_fewer_requests_and_a_hopeless_one_none() {
        let of = |ms| affordable(500, Duration::from_millis(ms)).ok();
        assert_eq!(of(15), Some(500));
        assert_eq!(of(600), Some(100));
        assert_eq!(of(1001), None);
        assert_eq!(affordable(5, Duration::ZERO).ok(), Some(5));
    }
}
