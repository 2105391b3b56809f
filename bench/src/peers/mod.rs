//! Compares the round trips that a client sees with the same guest image under our VMM and under
//! QEMU/KVM. No VM is protected.
//!
//! All VMs run at once on one core, each in its own network namespace with its own tap. The client runs
//! on the other core and measures the VMs in interleaved rounds. QEMU blocks when its guest is idle.
//! Our VMM does the same with `--spin-us 0`, so that variant is compared with QEMU. By default our VMM
//! first spins for 50 us; those ratios are reported separately (`_spinning`).
//!
//! - `ping`: ICMP echo through a raw socket

mod ping;

use crate::counter_client::CounterClient;
use crate::error::BenchError;
use crate::interleave::{Round, Rounds};
use crate::outcome::{Measurement, Outcome, number};
use crate::qemu::{Irqchip, Program, Qemu, Variant};
use crate::series::{Series, ratio};
use crate::vms::{core_a, core_b, pin, standalone};
use ping::Pinger;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;
use testbed::{GUEST_ADDRESS, Guest, Namespace, Standalone};
use vmm::outln;

/// Warm-up requests per round, which are not recorded.
const WARM_UP: u64 = 20;

/// Names of our VMM: blocking at once when idle, as QEMU does, and with its default wait policy.
const OURS_BLOCKING: &str = "understudy-blocking";
const OURS: &str = "understudy";

/// Options of `peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pings per VM, in total
    #[arg(long, default_value_t = 10_000)]
    pings: u64,
    /// Time from a reply to the next ping, microseconds
    #[arg(long, default_value_t = 1000)]
    gap_us: u64,
    /// Counter requests per VM, in total, sent back to back
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// Rounds that the pings and requests are divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Seed of the order in which VMs are measured in each round
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Name or path of the QEMU program
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
}

/// Whose VM it is.
enum Vm {
    Ours(Standalone),
    Qemu(Qemu),
}

impl Vm {
    fn namespace(&self) -> &Namespace {
        match self {
            Vm::Ours(vm) => &vm.namespace,
            Vm::Qemu(vm) => &vm.namespace,
        }
    }
}

/// One VM and what was measured on it.
struct Subject {
    name: String,
    vm: Vm,
    ping: Series,
    counter: Series,
}

impl Subject {
    fn new(name: impl Into<String>, vm: Vm) -> Subject {
        Subject { name: name.into(), vm, ping: Series::new(), counter: Series::new() }
    }

    fn ours(name: &str, options: &[&str]) -> Result<Subject, BenchError> {
        let vm = standalone("ours", core_b(), &Guest::Reference, &[&["run"], options].concat())?;
        Ok(Subject::new(name, Vm::Ours(vm)))
    }

    /// Runs one round: sends this round's share of the pings and requests.
    fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let gap = Duration::from_micros(args.gap_us);
        let (ping, request_times) = self.vm.namespace().enter(|| {
            pin(core_a())?;
            let pings = round.share(args.pings);
            let ping = Pinger::new(GUEST_ADDRESS, WARM_UP)?.run(pings, gap)?;
            let requests = round.share(args.requests);
            Ok::<_, BenchError>((ping, CounterClient::connect(WARM_UP)?.run(requests, None)?))
        })?;
        self.ping.add(&ping);
        self.counter.add(&request_times.service);
        Ok(())
    }
}

impl Measurement for Args {
    const NAME: &'static str = "peers";
    const PRINT: fn(&Value) = table;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let program = Program::new(&self.qemu)?;
        let mut subjects =
            vec![Subject::ours(OURS_BLOCKING, &["--spin-us", "0"])?, Subject::ours(OURS, &[])?];
        let mut figures = Map::new();
        let mut reasons = Vec::new();
        for irqchip in [Irqchip::Off, Irqchip::Split, Irqchip::On] {
            let name = format!("qemu-irqchip-{}", irqchip.as_str());
            let variant = Variant { irqchip, core: Some(core_b()), disk: None };
            match Qemu::start(&program, &variant)? {
                Ok(vm) => subjects.push(Subject::new(name, Vm::Qemu(vm))),
                Err(why) => {
                    reasons.push(format!("{name}: {why}"));
                    figures.insert(name, json!({ "does_not_boot": why }));
                }
            }
        }
        if subjects.iter().all(|subject| matches!(subject.vm, Vm::Ours(_))) {
            let reasons = reasons.join("; ");
            return Err(BenchError::Wrong(format!(
                "the guest boots under none of the QEMU variants: {reasons}"
            )));
        }
        let rounds = Rounds { count: self.turns, seed: self.seed };
        rounds.run("understudy and QEMU", &mut subjects, |round, subject| {
            subject.run_round(self, round)
        })?;

        outcome.put("qemu", program.version.as_str());
        outcome.put("pings", self.pings);
        outcome.put("gap_us", self.gap_us);
        outcome.put("requests", self.requests);
        compare(outcome, &subjects, "ping", |subject| &subject.ping);
        compare(outcome, &subjects, "counter", |subject| &subject.counter);
        for Subject { name, vm, ping, counter } in subjects {
            if let Vm::Ours(vm) = vm {
                vm.stop()?;
            }
            let ping = outcome.keep(&format!("{name}.ping"), ping);
            let counter = outcome.keep(&format!("{name}.counter"), counter);
            figures.insert(name, json!({ "ping": ping, "counter": counter }));
        }
        outcome.put("subjects", figures);
        Ok(())
    }

    /// Options for `report --quick`: takes less than half a minute.
    fn quick() -> Args {
        Args { pings: 1500, requests: 3000, turns: 6, ..Args::full() }
    }
}

/// Adds the ratios of our VMM's p50 to the lowest p50 of all QEMU variants, for one of the series.
fn compare(
    outcome: &mut Outcome,
    subjects: &[Subject],
    what: &str,
    series: impl Fn(&Subject) -> &Series,
) {
    let p50_ns = |subject: &Subject| series(subject).quantile_ns(0.5);
    let qemus = subjects.iter().filter(|subject| matches!(subject.vm, Vm::Qemu(_)));
    let Some(best) = qemus.min_by_key(|subject| p50_ns(subject)) else { return };
    outcome.put(&format!("best_qemu_{what}"), best.name.as_str());
    for (ours, suffix) in [(OURS_BLOCKING, ""), (OURS, "_spinning")] {
        let ours = subjects.iter().find(|subject| subject.name == ours);
        let to_qemu = ours.and_then(|ours| ratio(p50_ns(ours), p50_ns(best)));
        outcome.put(&format!("ratio_{what}_p50_to_qemu{suffix}"), to_qemu);
    }
}

fn table(figures: &Value) {
    let text = |name: &str| figures[name].as_str().unwrap_or("-").to_string();
    outln!("{}; times in us", text("qemu"));
    outln!(
        "{:<22} {:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}",
        "",
        "ping p50",
        "p99",
        "p99.9",
        "counter",
        "p99",
        "p99.9"
    );
    for (name, subject) in figures["subjects"].as_object().into_iter().flatten() {
        if let Some(why) = subject["does_not_boot"].as_str() {
            outln!("{name:<22} does not boot the guest: {why}");
            continue;
        }
        let us = |what: &str, quantile: &str| {
            subject[what][quantile].as_f64().map_or(f64::NAN, |ns| ns / 1e3)
        };
        let [ping, counter] = ["ping", "counter"]
            .map(|what| ["p50_ns", "p99_ns", "p999_ns"].map(|quantile| us(what, quantile)));
        outln!(
            "{name:<22} {:>9.1} {:>9.1} {:>9.1}   {:>9.1} {:>9.1} {:>9.1}",
            ping[0],
            ping[1],
            ping[2],
            counter[0],
            counter[1],
            counter[2]
        );
    }
    for what in ["ping", "counter"] {
        let ratio = |suffix: &str| number(&figures[&format!("ratio_{what}_p50_to_qemu{suffix}")]);
        outln!(
            "{what} p50 latency ratio, understudy / fastest QEMU ({}): {:.3} (both block when idle), {:.3} (understudy spins first)",
            text(&format!("best_qemu_{what}")),
            ratio(""),
            ratio("_spinning"),
        );
    }
}
