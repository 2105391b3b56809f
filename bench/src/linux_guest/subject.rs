//! The VMs under test and one round of INCR requests.

use super::Args;
use crate::counter_client::{CounterClient, RequestTimes};
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::log_share::LogShare;
use crate::vms::{Pair, PairOptions, Standalone, core_a, pin};
use vmm::demo::guest::Guest;

/// Warm-up requests per round, which are not recorded: the first accesses fault in and copy pages.
const WARM_UP: u64 = 10;

/// Silence timeout. Hosts that emulate kernel code on busy cores are late now and then, and this
/// benchmark kills no host.
const SILENCE_MS: u64 = 10_000;

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
        rounds: &Rounds,
        round: u32,
    ) -> Result<(), BenchError> {
        let requests = share(args.requests, rounds.count, round);
        let connect = || {
            pin(args.client_core)?;
            CounterClient::connect_to(guest.counter(), WARM_UP)
        };
        match self.kind {
            Kind::Standalone => {
                let vm = Standalone::start_guest("linux", core_a(), guest, &["run"])?;
                self.request_times.add(&vm.client(|| connect()?.run(requests, None))?);
                vm.stop().map(drop)
            }
            Kind::Protected => {
                let options = PairOptions {
                    guest: guest.clone(),
                    silence_ms: SILENCE_MS,
                    ..PairOptions::default()
                };
                let mut pair = Pair::start(&options)?;
                let mut client = pair.client(connect)?;
                let [before, _backup] = pair.statuses()?;
                self.request_times.add(&pair.client(|| client.run(requests, None))?);
                let [after, _backup] = pair.statuses()?;
                self.log.add(&before, &after);
                pair.stop()
            }
        }
    }
}
