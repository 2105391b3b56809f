//! Round trips, each timed from before the request is handed over until its answer is known.

use super::policy::Policy;
use super::variant::Variant;
use super::{Args, variant};
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::lan::Lan;
use crate::series::Series;
use vmm::link::now;

/// Round trips that are not counted at the beginning of a turn that has a pace.
const WARM_UP_PACED: u64 = 3;

/// A variant under a policy, and what was measured.
pub(super) struct Subject {
    pub(super) variant: Variant,
    pub(super) policy: Policy,
    pub(super) times: Series,
    requests: u64,
    warm_up: u64,
}

/// What the options ask for. An idle line that blocks is there for UDP to be compared with.
pub(super) fn subjects(args: &Args) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for &policy in &args.policies {
        for &variant in &args.variants {
            if policy == Policy::IdleBlock && variant != Variant::Udp {
                continue;
            }
            let (requests, warm_up) = match policy.pace() {
                Some(_) => (args.idle_requests, args.warm_up.min(WARM_UP_PACED)),
                None => (args.requests, args.warm_up),
            };
            subjects.push(Subject { variant, policy, times: Series::new(), requests, warm_up });
        }
    }
    subjects
}

impl Subject {
    /// One turn: opens both sides, warms up, measures, closes.
    pub(super) fn turn(
        &mut self,
        lan: &Lan,
        rounds: &Rounds,
        round: u32,
    ) -> Result<(), BenchError> {
        let Subject { variant, policy, times, requests, warm_up } = self;
        let (variant, policy, warm_up) = (*variant, *policy, *warm_up);
        let requests = share(*requests, rounds.count, round);
        if requests == 0 {
            return Ok(());
        }
        let failed = |error| {
            BenchError::Wrong(format!("{} with {}: {error}", variant.name(), policy.name()))
        };
        let (turn, ()) = lan
            .run(
                || ask(&mut *variant.client(policy)?, policy, warm_up, requests),
                |ready| {
                    let mut server = variant.server(policy)?;
                    ready();
                    server.serve(warm_up + requests)
                },
            )
            .map_err(failed)?;
        times.add(&turn);
        Ok(())
    }
}

/// The asking side of a turn.
fn ask(
    client: &mut dyn variant::Client,
    policy: Policy,
    warm_up: u64,
    requests: u64,
) -> Result<Series, BenchError> {
    let mut times = Series::new();
    let start = now();
    for number in 0..warm_up + requests {
        if let Some(pace) = policy.pace() {
            // By a timetable: a slow answer does not move the requests that follow.
            client.rest(start + pace * number)?;
        }
        let asked = now();
        client.exchange(asked, number)?;
        let time = now().since(asked);
        if number >= warm_up {
            times.record(time.as_nanos());
        }
    }
    Ok(times)
}
