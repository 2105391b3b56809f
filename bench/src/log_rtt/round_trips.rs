//! Measures round trips, each from before the request is handed over until its acknowledgement or reply
//! is known.

use super::policy::Policy;
use super::variant::Variant;
use super::{Args, variant};
use crate::error::BenchError;
use crate::interleave::Round;
use crate::lan::Lan;
use crate::outcome::Outcome;
use crate::series::{Series, ratio};
use serde_json::{Map, Value, json};
use vmm::link::now;

/// Default number of warm-up round trips per round, which are not recorded.
pub(super) const WARM_UP: u64 = 200;

/// Warm-up round trips per round of a paced policy.
const WARM_UP_PACED: u64 = 3;

/// A variant under a policy, and its measurements.
pub(super) struct Subject {
    variant: Variant,
    policy: Policy,
    times: Series,
    requests: u64,
    warm_up: u64,
}

/// The logging channel's round trip with spinning threads, for benchmarks that compare other times with
/// it.
pub(crate) struct RoundTrip {
    variant: Variant,
    policy: Policy,
    requests: u64,
    /// The round-trip times.
    pub(crate) times: Series,
}

impl RoundTrip {
    /// Measures `requests` round trips back to back.
    pub(crate) fn back_to_back(sealed: bool, requests: u64) -> RoundTrip {
        RoundTrip::new(sealed, Policy::Spin, requests)
    }

    /// Measures `requests` round trips, 100 per second.
    pub(crate) fn paced(sealed: bool, requests: u64) -> RoundTrip {
        RoundTrip::new(sealed, Policy::Poll, requests)
    }

    fn new(sealed: bool, policy: Policy, requests: u64) -> RoundTrip {
        let variant = if sealed { Variant::Channel } else { Variant::ChannelInsecure };
        RoundTrip { variant, policy, requests, times: Series::new() }
    }

    /// The name in reports.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.variant.name(), self.policy.name())
    }

    /// Runs one round.
    pub(crate) fn run_round(&mut self, lan: &Lan, round: Round) -> Result<(), BenchError> {
        let RoundTrip { variant, policy, requests, .. } = *self;
        let warm_up = if policy.pace().is_some() { WARM_UP_PACED } else { WARM_UP };
        let mut subject = Subject { variant, policy, times: Series::new(), requests, warm_up };
        subject.run_round(lan, round)?;
        self.times.add(&subject.times);
        Ok(())
    }
}

/// Returns the subjects that the options select. Policy `idle-block` is measured for UDP only, as a
/// reference.
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
    /// Runs one round: opens both sides, warms up, measures, closes.
    pub(super) fn run_round(&mut self, lan: &Lan, round: Round) -> Result<(), BenchError> {
        let Subject { variant, policy, times, requests, warm_up } = self;
        let (variant, policy, warm_up) = (*variant, *policy, *warm_up);
        let requests = round.share(*requests);
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

/// The requesting side of a round.
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
            // Requests follow a fixed schedule: a slow answer does not delay later requests.
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

/// Ratios of a subject's p50 to those of reference variants.
struct Ratios {
    to_udp: Option<f64>,
    to_tcp: Option<f64>,
    /// For policy `idle`: the ratio to UDP that blocks at the same pace.
    to_udp_block: Option<f64>,
}

impl Ratios {
    fn new(subject: &Subject, all: &[Subject]) -> Ratios {
        let p50 = |variant, policy| {
            let other = all.iter().find(|s| s.variant == variant && s.policy == policy)?;
            ratio(subject.times.quantile_ns(0.5), other.times.quantile_ns(0.5))
        };
        let to_udp_block = match subject.policy {
            Policy::Idle => p50(Variant::Udp, Policy::IdleBlock),
            Policy::Block | Policy::Spin | Policy::IdleBlock | Policy::Poll => None,
        };
        let [to_udp, to_tcp] = [Variant::Udp, Variant::Tcp].map(|v| p50(v, subject.policy));
        Ratios { to_udp, to_tcp, to_udp_block }
    }
}

/// Returns the figures by variant and policy.
pub(super) fn json(subjects: &[Subject]) -> Value {
    let mut variants: Map<String, Value> = Map::new();
    for subject in subjects {
        let ratios = Ratios::new(subject, subjects);
        let mut result = subject.times.json();
        result["requests"] = subject.times.len().into();
        result["ratio_p50_to_udp"] = json!(ratios.to_udp);
        result["ratio_p50_to_tcp"] = json!(ratios.to_tcp);
        if subject.policy == Policy::Idle {
            result["ratio_p50_to_udp_block"] = json!(ratios.to_udp_block);
        }
        let variant = variants.entry(subject.variant.name()).or_insert_with(|| json!({}));
        variant[subject.policy.name()] = result;
    }
    variants.into()
}

/// Adds every series to `outcome`.
pub(super) fn keep(outcome: &mut Outcome, subjects: Vec<Subject>) {
    for subject in subjects {
        let name = format!("{}-{}", subject.variant.name(), subject.policy.name());
        outcome.keep(&name, subject.times);
    }
}
