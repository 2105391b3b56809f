//! `understudy demo`.

use super::exit_code::CliError;
use super::{blueprint, output, signals};
use crate::boot::cpu_features::ModelName;
use crate::demo::chaos::{self, ChaosPlan, Kind};
use crate::demo::many::{self, ManyPlan};
use crate::demo::pair::{self, Plan, Progress, VmPlan};
use crate::demo::standalone;
use crate::disk::{DiskError, DiskOptions, ImageError};
use crate::files::Access;
use crate::kvm::System;
use crate::kvm::system::DEV_KVM;
use crate::limits::DEMO_LINES_MAX;
use crate::link::timing::{SILENCE_MS_MAX, SILENCE_MS_MIN};
use crate::stdio;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use netpath::ring::probe::probe;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use testbed::TestbedError;
use testbed::guest::{self, Guest, GuestDisk};
use testbed::pair::{Death, PairVm};

/// Upper limit of `--kills`; that many kills take hours.
const KILLS_MAX: i64 = 10_000;

/// Kills of a demonstration without options.
const KILLS_DEFAULT: u32 = 3;

/// Upper limit of `--chaos`: a week.
const CHAOS_MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

/// Options of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Needs root. Creates two hosts, a client and a LAN from network namespaces, boots a VM on one host with a
backup on the other, runs ping, curl, TCP and UDP clients against it, and repeatedly kills the primary
(kill -9 of its process; with --power-loss also of the supervisor that would tell the backup at once). Removes
everything at the end. Progress is printed on standard error, the results on standard output.

First measures how fast an unprotected VM answers on this host. The load of the clients, all time limits and
the default silence timeout follow from that measurement, which is reported (\"pace\" with --json).

With --chaos, one fault after the other hits the pair instead, drawn by the seed: hosts are killed, frozen
and cut off, taps and links fail, the witness vanishes, disks fill up, the machine is overloaded, operators
give orders. After each fault everything is repaired. The service must have been back within the fault's
bound, the VM must be protected again, and nothing may be lost, repeated or contradictory. The first failure
ends the run: its message names the fault, the seed, the folder with the logs of all processes, and the
command that repeats the run.

With --vms, that many VMs share the two hosts, the log link and the witness, half of them primary on each host.
A kill is the loss of a whole host: all its processes are killed at once, without a word to the other host. Every
VM must go on; then the host comes back, and all are protected again. The silence timeout grows with the number
of processes for each core of this machine, on which all of them run.

With --guest linux the VM is a Debian kernel with redis and busybox's httpd, from the snapshot that
scripts/linux-guest.sh saves. Its clients are redis (INCR on one connection, each answer must be the next
number; redis-cli and redis-benchmark if they are installed), curl and ping.

With --disk, the VM has a disk, with an image on each host, and a host that was killed comes back with its old
image. On the reference guest's, a client appends to a chain of hashes; of the Linux guest's
(scripts/linux-guest.sh --disk 256), redis makes its append-only file stable before each answer, and so does
SQLite with a row of a table. At the end, the images must be
equal and have everything that was answered.

Exit codes: 0 if nothing was lost, repeated or reset and nothing diverged; 1 otherwise, if the demonstration
can't continue, and with --chaos also if the service was not back in time; 3 if io_uring lacks something
on this host; 6 if the snapshot does not exist or this version can't read it; 7 if it was
made with another CPU model; 16 if this host is too slow for the demonstration.

Examples:
  understudy demo
  understudy demo --kills 20 --watch
  understudy demo --kills 20 --json
  understudy demo --handovers 20
  understudy demo --chaos 20 --seed 1 --json
  understudy demo --chaos 2 --faults cut-log-link,freeze-primary
  understudy demo --power-loss
  understudy demo --guest linux --kills 10
  understudy demo --guest linux --disk --kills 10
  understudy demo --vms 8 --kills 4 --json
  understudy demo --standalone")]
pub struct DemoArgs {
    /// Number of times to kill the primary [default: 3, or 0 with --handovers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=KILLS_MAX))]
    kills: Option<u32>,
    /// Number of times to hand the VM over to the backup, after the kills
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(..=KILLS_MAX))]
    handovers: u32,
    /// Number of VMs on the two hosts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=i64::from(PairVm::MAX)),
          conflicts_with_all = [
              "handovers", "chaos", "guest", "snapshot", "disk", "cpu_model", "power_loss", "standalone",
          ])]
    vms: Option<u8>,
    /// Inject faults of all kinds for this many minutes, one at a time
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["kills", "handovers"])]
    chaos: Option<f64>,
    /// Inject only these kinds of faults
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "chaos")]
    faults: Vec<Kind>,
    /// Guest to run
    #[arg(long, value_name = "GUEST", default_value = "reference")]
    guest: GuestName,
    /// Snapshot of the Linux guest
    /// [default: understudy/linux-guest/guest.snap below $XDG_CACHE_HOME or ~/.cache, with --disk
    /// understudy/linux-guest-disk/guest.snap; the disk's image is data.img beside it]
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Give the VM a disk, with an image on each host, and check both images at the end
    #[arg(long)]
    disk: bool,
    /// CPU model of the VM [default: v1, or that of the snapshot]
    #[arg(long, value_name = "NAME")]
    cpu_model: Option<ModelName>,
    /// Silence timeout: declare the peer dead after receiving nothing from it for this long, milliseconds
    /// [default: 100, with a Linux guest 500; more on a slow host]
    #[arg(long, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silence: Option<u64>,
    /// Seed for the random times of the kills, and for the order of the faults [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Kill the primary's supervisor first, as a loss of power does: the death is noticed by silence only
    #[arg(long)]
    power_loss: bool,
    /// Run one unprotected VM in one namespace instead
    #[arg(
        long,
        conflicts_with_all = [
            "kills", "handovers", "chaos", "silence", "seed", "guest", "snapshot", "disk", "cpu_model",
            "power_loss",
        ]
    )]
    standalone: bool,
    /// Show both hosts on the terminal, as 'understudy watch' does; what is printed otherwise follows at its end
    #[arg(long, conflicts_with_all = ["standalone", "vms", "json"])]
    watch: bool,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Kind] {
        &Kind::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A guest on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GuestName {
    /// The reference guest that is built into this program
    Reference,
    /// A Debian kernel with redis and httpd, started from a snapshot
    Linux,
}

impl DemoArgs {
    /// Returns the picture of both hosts, if the user wants it.
    fn watched(&self, program: &Path) -> Option<Watch> {
        let (program, child, lines) = (program.to_path_buf(), None, VecDeque::new());
        self.watch.then_some(Watch { program, child, lines })
    }

    fn guest_disk(&self) -> GuestDisk {
        if self.disk { GuestDisk::Mirrored } else { GuestDisk::None }
    }

    /// Returns the VM to run.
    fn vm(&self) -> Result<VmPlan, CliError> {
        let (guest, disk) = (self.guest()?, self.guest_disk());
        Ok(VmPlan { guest, disk, cpu_model: self.cpu_model, silence_ms: self.silence })
    }

    /// Returns the guest to run. Checks the CPU model and a snapshot here, before the LAN is created.
    fn guest(&self) -> Result<Guest, CliError> {
        match (self.guest, &self.snapshot) {
            (GuestName::Reference, None) => {
                if let Some(name) = self.cpu_model {
                    System::open(DEV_KVM)?.cpu_model(name)?;
                }
                Ok(Guest::Reference)
            }
            (GuestName::Reference, Some(_)) => {
                Err(CliError::Usage("--snapshot needs a Linux guest: add --guest linux".into()))
            }
            (GuestName::Linux, named) => {
                let disk = self.guest_disk();
                let path =
                    named.clone().or_else(|| guest::default_snapshot(disk)).ok_or_else(|| {
                        CliError::Usage(
                        "neither HOME nor XDG_CACHE_HOME is set: name the snapshot with --snapshot"
                            .into(),
                    )
                    })?;
                if !path.exists() {
                    let script = match disk {
                        GuestDisk::None => "scripts/linux-guest.sh",
                        GuestDisk::Mirrored => "scripts/linux-guest.sh --disk 256",
                    };
                    return Err(CliError::NoSnapshot { path, script });
                }
                let images: Vec<_> = match disk {
                    GuestDisk::None => Vec::new(),
                    GuestDisk::Mirrored => vec![DiskOptions::new(guest::disk_image(&path))],
                };
                if let Some(image) = images.iter().find(|image| !image.path.exists()) {
                    let (path, source) = (image.path.clone(), ImageError::Missing);
                    return Err(DiskError { path, source }.into());
                }
                blueprint::check_snapshot((&path, &images), Access::Owner, self.cpu_model)?;
                Ok(Guest::Linux(path))
            }
        }
    }
}

/// Runs `understudy demo`.
///
/// # Errors
///
/// If the demonstration can't run, or its result is not as it must be.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    let os = |source| CliError::Os { doing: "setting up the demonstration", source };
    if !nix::unistd::geteuid().is_root() {
        return Err(TestbedError::NotRoot.into());
    }
    if args.watch && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(CliError::Usage(
            "--watch needs a terminal as standard input and output".into(),
        ));
    }
    // The VMs would find out, too, but one after the other.
    probe()?.check()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in signals::ending() {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(os)?;
    }
    let program = std::env::current_exe().map_err(os)?;
    if args.standalone {
        let result = standalone::run(&program, &interrupted, |line| stdio::message(line))?;
        return output::print(&result, args.json);
    }
    match (args.chaos, args.vms) {
        (Some(minutes), _) => run_chaos(args, minutes, &program, &interrupted),
        (None, Some(vms)) => run_many(args, vms, &program, &interrupted),
        (None, None) => run_pair(args, &program, &interrupted),
    }
}

fn run_chaos(
    args: &DemoArgs,
    minutes: f64,
    program: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    if !(minutes > 0.0 && minutes <= CHAOS_MINUTES_MAX) {
        return Err(CliError::Usage(format!(
            "--chaos {minutes}: give a positive number of minutes, at most {CHAOS_MINUTES_MAX}"
        )));
    }
    let plan = ChaosPlan {
        vm: args.vm()?,
        time: Duration::from_secs_f64(minutes * 60.0),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        kinds: if args.faults.is_empty() { Kind::ALL.to_vec() } else { args.faults.clone() },
    };
    let mut screen = Screen::new("second", plan.time.as_secs() as u32, args.watched(program));
    let result = chaos::run(program, &plan, interrupted, &mut screen);
    screen.end();
    let summary = result?;
    print(args.json, || summary.json(), || summary.table(), summary.fault())
}

fn run_many(
    args: &DemoArgs,
    vms: u8,
    program: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    let kills = args.kills.unwrap_or(KILLS_DEFAULT);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let plan = ManyPlan { vms, kills, silence_ms: args.silence, seed };
    let mut screen = Screen::new("loss of a host", kills, None);
    let result = many::run(program, &plan, interrupted, &mut screen);
    screen.end();
    let summary = result?;
    print(args.json, || summary.json(), || summary.table(), summary.fault())
}

/// Prints a result, as JSON or as a table. Returns the `fault` that it shows as an error.
fn print(
    json: bool,
    as_json: impl FnOnce() -> Map<String, Value>,
    as_table: impl FnOnce() -> String,
    fault: Option<String>,
) -> Result<(), CliError> {
    let printed = match json {
        true => output::print(&as_json(), true),
        false => output::write(&format!("\n{}", as_table())),
    };
    let fault = fault.map_or(Ok(()), |fault| Err(TestbedError::Wrong(fault).into()));
    output::after_print(printed, fault)
}

fn run_pair(
    args: &DemoArgs,
    program: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    let vm = args.vm()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let handovers = args.handovers;
    let kills = args.kills.unwrap_or(if handovers == 0 { KILLS_DEFAULT } else { 0 });
    if kills + handovers == 0 {
        return Err(CliError::Usage("nothing to do: give --kills or --handovers".into()));
    }
    let death = if args.power_loss { Death::OfHost } else { Death::OfProcess };
    let plan = Plan { vm, kills, handovers, seed, death };
    let mut screen = Screen::new("takeover", kills + handovers, args.watched(program));
    let result = pair::run(program, &plan, interrupted, &mut screen);
    screen.end();
    let summary = result?;
    print(args.json, || summary.json(), || summary.table(), summary.fault())
}

/// Progress on standard error: lines and, on a terminal, a progress bar below them. With `--watch`, the lines wait until
/// the picture is gone.
struct Screen {
    bar: ProgressBar,
    start: Instant,
    watch: Option<Watch>,
}

/// `understudy watch` on this program's terminal.
struct Watch {
    program: PathBuf,
    child: Option<Child>,
    /// Lines that wait for its end.
    lines: VecDeque<String>,
}

impl Watch {
    fn start(&mut self, folder: &Path) {
        match Command::new(&self.program).arg("watch").arg(folder).spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                stdio::warning(format_args!("understudy: watch can't be started: {error}"));
            }
        }
    }

    /// Keeps `line` if the picture is there. Returns the lines to print.
    fn lines_to_print(&mut self, line: String) -> Vec<String> {
        self.lines.push_back(line);
        let is_there =
            self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !is_there {
            return self.lines.drain(..).collect();
        }
        if self.lines.len() > DEMO_LINES_MAX {
            self.lines.pop_front();
        }
        Vec::new()
    }

    /// Ends the picture, which restores the terminal. Returns the lines to print.
    fn end(&mut self) -> Vec<String> {
        if let Some(mut child) = self.child.take()
            && matches!(child.try_wait(), Ok(None))
        {
            // It was not waited for, so that no other process has its number.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let _ = child.wait();
        }
        self.lines.drain(..).collect()
    }
}

impl Screen {
    /// Creates the progress of `steps` steps, of which `step` is the name.
    fn new(step: &'static str, steps: u32, watch: Option<Watch>) -> Screen {
        let style = ProgressStyle::with_template("{spinner} {msg} {pos} of {len}  {elapsed}")
            .expect("the template is well-formed");
        let bar = ProgressBar::new(u64::from(steps)).with_style(style).with_message(step);
        if watch.is_some() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Screen { bar, start: Instant::now(), watch }
    }

    /// Ends the bar or the picture.
    fn end(&mut self) {
        self.bar.finish_and_clear();
        for line in self.watch.iter_mut().flat_map(Watch::end) {
            stdio::message(line);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress for Screen {
    fn message(&mut self, line: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let line = format!("{seconds:7.2} s  {line}");
        let lines = match &mut self.watch {
            None => vec![line],
            Some(watch) => watch.lines_to_print(line),
        };
        for line in lines {
            self.bar.suspend(|| stdio::message(line));
        }
    }

    fn steps_done(&mut self, done: u32) {
        self.bar.set_position(u64::from(done));
    }

    fn sockets_in(&mut self, folder: &Path) {
        if let Some(watch) = &mut self.watch {
            watch.start(folder);
        }
    }
}
