//! Compares the requests to a disk that the same guest makes under our VMM and under QEMU/KVM, on the same image.
//!
//! All VMs run at once, and one at a time is used, in interleaved rounds. None is pinned to a core, because all have
//! threads beside the vCPU. The guest makes requests of 4 KiB at random places ([`CASES`]), with no client in between:
//! reads and writes with 1 and with 16 in flight; and flushes, each after a write.
//!
//! QEMU has the image with `cache=none,aio=io_uring`, our VMM as always: without the page cache of the host, through an
//! io_uring.

mod client;

use crate::error::BenchError;
use crate::interleave::{Round, Rounds};
use crate::outcome::{Measurement, Outcome, number};
use crate::qemu::{Irqchip, Program, Qemu, Variant};
use client::DiskClient;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use testbed::clients::Limit;
use testbed::standalone::Launch;
use testbed::vm_process::understudy;
use testbed::{Guest, Namespace, Standalone};
use vmm::outln;

/// Bytes of the image.
const IMAGE_BYTES: usize = 256 << 20;

const OURS: &str = "understudy";

/// What is measured.
const CASES: [Case; 5] = [
    Case { name: "reads_depth_1", work: "read random 1", share: 1 },
    Case { name: "reads_depth_16", work: "read random 16", share: 1 },
    Case { name: "writes_depth_1", work: "write random 1", share: 1 },
    Case { name: "writes_depth_16", work: "write random 16", share: 1 },
    // These take longer.
    Case { name: "flushes", work: "flush random 1", share: 4 },
];

/// One kind of requests.
struct Case {
    name: &'static str,
    /// What the guest's disk service is told: kind, order and number in flight.
    work: &'static str,
    /// One of how many requests is made.
    share: u64,
}

/// Options of `disk`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests of each kind that each VM makes, in total; of flushes, a quarter of it
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1000..))]
    requests: u64,
    /// Rounds that the requests are divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Seed of the order in which VMs are measured in each round, and of the places on the disk
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Name or path of the QEMU program
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// Folder of the image, on the disk to measure [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Whose VM it is.
enum Vm {
    Ours(Standalone),
    Qemu(Qemu),
}

/// Requests, and the time that they took, seconds.
#[derive(Clone, Copy, Default)]
struct Tally {
    requests: u64,
    seconds: f64,
}

/// One VM and what was measured on it.
struct Subject {
    name: String,
    vm: Vm,
    /// In the order of [`CASES`].
    tallies: [Tally; CASES.len()],
}

impl Subject {
    fn new(name: impl Into<String>, vm: Vm) -> Subject {
        Subject { name: name.into(), vm, tallies: [Tally::default(); CASES.len()] }
    }

    /// Runs one round: this round's share of the requests of each kind.
    fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let namespace = match &self.vm {
            Vm::Ours(vm) => &vm.namespace,
            Vm::Qemu(vm) => &vm.namespace,
        };
        let tallies = &mut self.tallies;
        namespace.enter(|| {
            let mut client = DiskClient::connect()?;
            for (tally, case) in tallies.iter_mut().zip(&CASES) {
                let requests = round.share(args.requests / case.share);
                let start = Instant::now();
                client.io(case.work, requests, round.seed)?;
                tally.seconds += start.elapsed().as_secs_f64();
                tally.requests += requests;
            }
            Ok(())
        })
    }

    /// Returns the requests per second of the kind `CASES[case]`.
    fn rate(&self, case: usize) -> f64 {
        self.tallies[case].requests as f64 / self.tallies[case].seconds
    }
}

impl Measurement for Args {
    const NAME: &'static str = "disk";
    const PRINT: fn(&Value) = table;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let program = Program::new(&self.qemu)?;
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("understudy-disk-");
        let folder = match &self.folder {
            Some(parent) => folder.tempdir_in(parent),
            None => folder.tempdir(),
        };
        let folder = folder.map_err(BenchError::os("making a folder for the image"))?;
        let image = folder.path().join("disk.img");
        make_image(&image).map_err(BenchError::os("making the image"))?;

        let mut subjects = vec![ours(&image.display().to_string())?];
        let mut figures = Map::new();
        let mut reasons = Vec::new();
        for irqchip in [Irqchip::Off, Irqchip::Split, Irqchip::On] {
            let name = format!("qemu-irqchip-{}", irqchip.as_str());
            let variant = Variant { irqchip, core: None, disk: Some(image.clone()) };
            match Qemu::start(&program, &variant)? {
                Ok(vm) => subjects.push(Subject::new(name, Vm::Qemu(vm))),
                Err(why) => {
                    reasons.push(format!("{name}: {why}"));
                    figures.insert(name, json!({ "does_not_boot": why }));
                }
            }
        }
        if subjects.len() == 1 {
            let reasons = reasons.join("; ");
            return Err(BenchError::Wrong(format!(
                "the guest boots under none of the QEMU variants: {reasons}"
            )));
        }
        let rounds = Rounds { count: self.turns, seed: self.seed };
        rounds.run("disks of understudy and QEMU", &mut subjects, |round, subject| {
            subject.run_round(self, round)
        })?;

        outcome.put("qemu", program.version.as_str());
        outcome.put("requests", self.requests);
        for (index, case) in CASES.iter().enumerate() {
            compare(outcome, &subjects, case.name, index);
        }
        for subject in subjects {
            let rates: Map<_, _> = (0..CASES.len())
                .map(|index| {
                    (format!("{}_per_second", CASES[index].name), json!(subject.rate(index)))
                })
                .collect();
            figures.insert(subject.name, rates.into());
            if let Vm::Ours(vm) = subject.vm {
                vm.stop()?;
            }
        }
        outcome.put("subjects", figures);
        Ok(())
    }
}

/// Makes an image without holes, of which a read must reach the disk.
fn make_image(path: &Path) -> io::Result<()> {
    let mut contents = vec![0; IMAGE_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut contents);
    let mut file = File::create(path)?;
    file.write_all(&contents)?;
    file.sync_all()
}

/// Starts our VM with the disk `image`.
fn ours(image: &str) -> Result<Subject, BenchError> {
    let disk = format!("{},format=raw", image.replace(',', ",,"));
    let (program, command) = (understudy()?, ["run", "--disk", &disk]);
    let launch = Launch { program: &program, guest: &Guest::Reference, command: &command };
    let vm = Standalone::start(Namespace::with_tap("ours")?, &launch, &Limit::HANG)?;
    Ok(Subject::new(OURS, Vm::Ours(vm)))
}

/// Adds the ratio of our VMM's rate of `CASES[case]` to the highest one of all QEMU variants.
fn compare(outcome: &mut Outcome, subjects: &[Subject], name: &str, case: usize) {
    let (ours, qemus): (Vec<_>, Vec<_>) =
        subjects.iter().partition(|subject| matches!(subject.vm, Vm::Ours(_)));
    let best = qemus.into_iter().max_by(|one, other| one.rate(case).total_cmp(&other.rate(case)));
    if let (Some(ours), Some(best)) = (ours.first(), best) {
        outcome.put(&format!("best_qemu_{name}"), best.name.as_str());
        outcome.put(&format!("ratio_{name}_to_qemu"), ours.rate(case) / best.rate(case));
    }
}

fn table(figures: &Value) {
    let text = |name: &str| figures[name].as_str().unwrap_or("-").to_string();
    outln!("{}; requests of 4 KiB per second", text("qemu"));
    let names = CASES.map(|case| format!("{:>16}", case.name)).concat();
    outln!("{:<22}{names}", "");
    for (name, subject) in figures["subjects"].as_object().into_iter().flatten() {
        if let Some(why) = subject["does_not_boot"].as_str() {
            outln!("{name:<22} does not boot the guest: {why}");
            continue;
        }
        let rate = |case: Case| number(&subject[format!("{}_per_second", case.name)]);
        let rates = CASES.map(|case| format!("{:>16.0}", rate(case))).concat();
        outln!("{name:<22}{rates}");
    }
    for Case { name, .. } in CASES {
        outln!(
            "{name} per second ratio, understudy / fastest QEMU ({}): {:.3}",
            text(&format!("best_qemu_{name}")),
            number(&figures[&format!("ratio_{name}_to_qemu")]),
        );
    }
}
