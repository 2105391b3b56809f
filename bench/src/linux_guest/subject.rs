//! One VM that is asked to count.

use super::Args;
use crate::asking::{Asked, Asker};
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::log_share::LogShare;
use crate::vms::{Pair, PairOptions, Standalone, core_a, pin};
use vmm::demo::guest::Guest;

/// Requests at the beginning of a turn that are not measured: pages are touched first, and copied.
const WARM_UP: u64 = 10;

/// Hosts that emulate kernel code on busy cores are late now and then, and nobody is killed here.
const SILENCE_MS: u64 = 10_000;

/// What the VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody protects it.
    Standalone,
    /// It has a backup, on a sealed link.
    Protected,
}

impl Kind {
    /// Both.
    pub(super) const ALL: [Kind; 2] = [Kind::Standalone, Kind::Protected];

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Standalone => "standalone",
            Kind::Protected => "protected",
        }
    }
}

/// A VM, and what was measured on it.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) asked: Asked,
    /// What the primary wrote meanwhile.
    pub(super) log: LogShare,
}

impl Subject {
    /// Nothing measured yet.
    pub(super) fn new(kind: Kind) -> Subject {
        Subject { kind, asked: Asked::new(), log: LogShare::default() }
    }

    /// One turn: starts the VM, makes a share of the requests, stops it.
    pub(super) fn turn(
        &mut self,
        guest: &Guest,
        args: &Args,
        rounds: &Rounds,
        round: u32,
    ) -> Result<(), BenchError> {
        let requests = share(args.requests, rounds.count, round);
        let connect = || {
            pin(args.client_core)?;
            Asker::connect_to(guest.counter(), WARM_UP)
        };
        match self.kind {
            Kind::Standalone => {
                let vm = Standalone::start_guest("linux", core_a(), guest, &["run"])?;
                self.asked.add(&vm.client(|| connect()?.run(requests, None))?);
                vm.stop().map(drop)
            }
            Kind::Protected => {
                let options = PairOptions {
                    guest: guest.clone(),
                    silence_ms: SILENCE_MS,
                    ..PairOptions::default()
                };
                let mut pair = Pair::start(&options)?;
                let mut asker = pair.client(connect)?;
                let [before, _backup] = pair.statuses()?;
                self.asked.add(&pair.client(|| asker.run(requests, None))?);
                let [after, _backup] = pair.statuses()?;
                self.log.add(&before, &after);
                pair.stop()
            }
        }
    }
}
