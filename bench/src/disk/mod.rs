//! Compares the requests to a disk that the same guest makes under our VMM and under QEMU/KVM, on the same image.
//!
//! All VMs run at once, and one at a time is used, in interleaved rounds. Neither is pinned to a core, because both have
//! threads beside the vCPU. The guest makes one request of a sector at a time:
//!
//! - `reads`: it reads a chain of sectors, with no client in between
//! - `appends`: a client has it append a link to the chain, which is a read, and twice a write and a flush
//!
//! QEMU has the image with `cache=none,aio=io_uring`, our VMM as always: without the page cache of the host, through an
//! io_uring.

mod client;

use crate::error::BenchError;
use crate::interleave::{Round, Rounds};
use crate::outcome::{Measurement, Outcome, number};
use crate::qemu::{Irqchip, Program, Qemu, Variant};
use crate::series::Series;
use client::DiskClient;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;
use testbed::clients::Limit;
use testbed::standalone::Launch;
use testbed::vm_process::understudy;
use testbed::{Guest, Namespace, Standalone};
use vmm::outln;

/// Bytes of the image.
const IMAGE_BYTES: u64 = 64 << 20;

/// Links of the chain before the first round, so that its reading takes long against its command.
const FIRST_LINKS: u64 = 1000;

const OURS: &str = "understudy";

/// Options of `disk`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Links that each VM appends, in total
    #[arg(long, default_value_t = 2000)]
    appends: u64,
    /// Times that each VM reads the chain in a round
    #[arg(long, default_value_t = 2)]
    chains: u32,
    /// Rounds that the appends are divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Seed of the order in which VMs are measured in each round
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

/// One VM and what was measured on it.
struct Subject {
    name: String,
    vm: Vm,
    appends: Series,
    /// Sectors read, and the time that it took, seconds.
    reads: u64,
    read_seconds: f64,
}

impl Subject {
    fn new(name: impl Into<String>, vm: Vm) -> Subject {
        Subject { name: name.into(), vm, appends: Series::new(), reads: 0, read_seconds: 0.0 }
    }

    /// Runs `work` with a client of this VM.
    fn client<T: Send>(
        &self,
        work: impl FnOnce(&mut DiskClient) -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        let namespace = match &self.vm {
            Vm::Ours(vm) => &vm.namespace,
            Vm::Qemu(vm) => &vm.namespace,
        };
        namespace.enter(|| work(&mut DiskClient::connect()?))
    }

    /// Runs one round: this round's share of the appends, and the readings of the chain.
    fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let (appends, reads, seconds) = self.client(|client| {
            let mut appends = Series::new();
            for _ in 0..round.share(args.appends) {
                let start = Instant::now();
                client.append("a link of the benchmark")?;
                appends.record(start.elapsed().as_nanos() as u64);
            }
            let start = Instant::now();
            let mut reads = 0;
            for _ in 0..args.chains {
                // The sector with the number of links is read, too.
                reads += client.read_chain()? + 1;
            }
            Ok((appends, reads, start.elapsed().as_secs_f64()))
        })?;
        self.appends.add(&appends);
        self.reads += reads;
        self.read_seconds += seconds;
        Ok(())
    }

    /// Returns the sectors read per second.
    fn reads_per_second(&self) -> f64 {
        self.reads as f64 / self.read_seconds
    }

    /// Returns the appends per second of a client that makes one after the other, from their median.
    fn appends_per_second(&self) -> f64 {
        1e9 / self.appends.quantile_ns(0.5) as f64
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
        File::create(&image)
            .and_then(|file| file.set_len(IMAGE_BYTES))
            .map_err(BenchError::os("making the image"))?;

        let mut subjects = vec![ours(&image.display().to_string())?];
        subjects[0].client(|client| {
            (0..FIRST_LINKS).try_for_each(|_| client.append("a first link").map(drop))
        })?;
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
        outcome.put("appends", self.appends);
        compare(outcome, &subjects, "reads", Subject::reads_per_second);
        compare(outcome, &subjects, "appends", Subject::appends_per_second);
        for subject in subjects {
            let rates = [subject.reads_per_second(), subject.appends_per_second()];
            let Subject { name, vm, appends, .. } = subject;
            if let Vm::Ours(vm) = vm {
                vm.stop()?;
            }
            let appends = outcome.keep(&format!("{name}.append"), appends);
            figures.insert(
                name,
                json!({
                    "reads_per_second": rates[0],
                    "appends_per_second": rates[1],
                    "append": appends,
                }),
            );
        }
        outcome.put("subjects", figures);
        Ok(())
    }
}

/// Starts our VM with the disk `image`.
fn ours(image: &str) -> Result<Subject, BenchError> {
    let disk = format!("{},format=raw", image.replace(',', ",,"));
    let (program, command) = (understudy()?, ["run", "--disk", &disk]);
    let launch = Launch { program: &program, guest: &Guest::Reference, command: &command };
    let vm = Standalone::start(Namespace::with_tap("ours")?, &launch, &Limit::HANG)?;
    Ok(Subject::new(OURS, Vm::Ours(vm)))
}

/// Adds the ratio of our VMM's rate to the highest one of all QEMU variants.
fn compare(
    outcome: &mut Outcome,
    subjects: &[Subject],
    what: &str,
    rate: impl Fn(&Subject) -> f64,
) {
    let (ours, qemus): (Vec<_>, Vec<_>) =
        subjects.iter().partition(|subject| matches!(subject.vm, Vm::Ours(_)));
    let best = qemus.into_iter().max_by(|one, other| rate(one).total_cmp(&rate(other)));
    if let (Some(ours), Some(best)) = (ours.first(), best) {
        outcome.put(&format!("best_qemu_{what}"), best.name.as_str());
        outcome.put(&format!("ratio_{what}_to_qemu"), rate(ours) / rate(best));
    }
}

fn table(figures: &Value) {
    let text = |name: &str| figures[name].as_str().unwrap_or("-").to_string();
    outln!("{}; one request of 512 bytes at a time", text("qemu"));
    outln!("{:<22} {:>10} {:>10} {:>12} {:>9}", "", "reads/s", "appends/s", "append p50", "p99");
    for (name, subject) in figures["subjects"].as_object().into_iter().flatten() {
        if let Some(why) = subject["does_not_boot"].as_str() {
            outln!("{name:<22} does not boot the guest: {why}");
            continue;
        }
        let us = |quantile: &str| number(&subject["append"][quantile]) / 1e3;
        outln!(
            "{name:<22} {:>10.0} {:>10.0} {:>9.0} us {:>6.0} us",
            number(&subject["reads_per_second"]),
            number(&subject["appends_per_second"]),
            us("p50_ns"),
            us("p99_ns"),
        );
    }
    for what in ["reads", "appends"] {
        outln!(
            "{what} per second ratio, understudy / fastest QEMU ({}): {:.3}",
            text(&format!("best_qemu_{what}")),
            number(&figures[&format!("ratio_{what}_to_qemu")]),
        );
    }
}
