//! Two VMs, one recorded and one not, each in a namespace of its own; the same client asks them in
//! turns. Both vCPUs are pinned to one core and the client to the other.

use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use vmm::demo::DemoError;
use vmm::demo::clients::{Counter, first_ping_reply};
use vmm::demo::lan::Namespace;
use vmm::demo::standalone::{GUEST_ADDRESS, HOST_CIDR, TAP};
use vmm::demo::vm_process::VmProcess;

/// Core of the clients and of the VMs.
const CLIENT_CORE: usize = 0;
const VM_CORE: &str = "1";

/// Options of `record-cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Turns for each VM
    #[arg(long, default_value_t = 20)]
    turns: u32,
    /// Counter requests in a turn
    #[arg(long, default_value_t = 500)]
    requests: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One VM and what was measured on it.
struct Subject {
    name: &'static str,
    namespace: Namespace,
    vm: VmProcess,
    latency_ns: Histogram<u64>,
    seconds: f64,
}

impl Subject {
    fn start(name: &'static str, command: &[&str]) -> Result<Subject, DemoError> {
        let namespace = Namespace::new(name)?;
        namespace.add_tap(TAP, Some(HOST_CIDR))?;
        let program = understudy();
        let common = ["--tap", TAP, "--quiet", "--core", VM_CORE];
        let vm = namespace.enter(|| {
            let start = Instant::now();
            let mut vm = VmProcess::spawn(&program, &[command, &common].concat())?;
            first_ping_reply(&mut vm, GUEST_ADDRESS, start, std::time::Duration::from_secs(10))?;
            Ok(vm)
        })?;
        let latency_ns =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound");
        Ok(Subject { name, namespace, vm, latency_ns, seconds: 0.0 })
    }

    /// `requests` counter requests, one after the other.
    fn turn(&mut self, requests: u64) -> Result<(), DemoError> {
        let Subject { namespace, latency_ns, seconds, .. } = self;
        namespace.enter(|| {
            pin(CLIENT_CORE);
            let mut counter = Counter::connect(GUEST_ADDRESS)?;
            counter.ask()?;
            let turn = Instant::now();
            for _request in 0..requests {
                let start = Instant::now();
                counter.ask()?;
                latency_ns.saturating_record(start.elapsed().as_nanos() as u64);
            }
            *seconds += turn.elapsed().as_secs_f64();
            Ok(())
        })
    }

    fn requests_per_second(&self) -> f64 {
        self.latency_ns.len() as f64 / self.seconds
    }

    fn result(&self) -> serde_json::Value {
        json!({
            "requests_per_second": self.requests_per_second(),
            "p50_ns": self.latency_ns.value_at_quantile(0.5),
            "p99_ns": self.latency_ns.value_at_quantile(0.99),
            "p999_ns": self.latency_ns.value_at_quantile(0.999),
        })
    }
}

/// The program, built into the same folder.
fn understudy() -> PathBuf {
    std::env::current_exe().expect("a process has an executable").with_file_name("understudy")
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .expect("the core exists");
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), DemoError> {
    let folder = tempfile::tempdir().map_err(DemoError::client("making a folder"))?;
    let log = folder.path().join("cost.ulog");
    let log = log.to_str().expect("temporary folders are UTF-8");
    let mut subjects =
        [Subject::start("run", &["run"])?, Subject::start("record", &["record", "--log", log])?];
    for subject in &mut subjects {
        // Not measured: caches, ARP, the first connection.
        subject.turn(args.requests)?;
        subject.latency_ns.reset();
        subject.seconds = 0.0;
    }
    for _turn in 0..args.turns {
        for subject in &mut subjects {
            subject.turn(args.requests)?;
        }
    }
    let [run, record] = &subjects;
    let ratio = record.requests_per_second() / run.requests_per_second();
    if args.json {
        println!(
            "{}",
            json!({ "run": run.result(), "record": record.result(), "ratio_record_to_run": ratio })
        );
    } else {
        for subject in &subjects {
            println!("{:<7} {}", subject.name, subject.result());
        }
        println!("ratio record to run, requests per second: {ratio:.3}");
    }
    for subject in subjects {
        subject.vm.stop()?;
    }
    Ok(())
}
