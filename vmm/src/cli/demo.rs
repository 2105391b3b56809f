//! `understudy demo`.

use super::exit_code::CliError;
use super::{blueprint, output, signals};
use crate::demo::guest::{self, Guest};
use crate::demo::pair::{self, Audience, Plan};
use crate::demo::{DemoError, standalone};
use crate::link::timing::{SILENCE_MS_MAX, SILENCE_MS_MIN};
use crate::stdio;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Kills that make a demonstration of hours.
const KILLS_MAX: i64 = 10_000;

/// Options of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Needs root. Makes two hosts, a client and a LAN of network namespaces, boots a VM on one host with a
backup on the other, lets ping, curl, TCP and UDP clients talk to it, and kills the host that it runs on
(kill -9 of its process) again and again. Everything is removed again. What happens is told on standard
error, the figures are printed on standard output.

Before that, a VM that nobody protects is asked how fast it answers on this host. How much the clients ask, how
long anybody waits, and the silence timeout follow from that; the figures are told (\"pace\" with --json).

With --guest linux the VM is a Debian kernel with redis and busybox's httpd, from the snapshot that
scripts/linux-guest.sh saves; its clients are redis (INCR on one connection, each answer the next number;
redis-cli and redis-benchmark if they are installed), curl and ping.

Exit codes: 0 if nothing was lost, repeated, reset or different; 1 otherwise, and when the demonstration
can't go on; 6 if there is no snapshot, or none that this version reads; 7 if it is of another CPU model;
16 if this host is too slow to show anything.

Examples:
  understudy demo
  understudy demo --kills 20 --json
  understudy demo --guest linux --kills 10
  understudy demo --standalone")]
pub struct DemoArgs {
    /// How often to kill the primary
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=KILLS_MAX))]
    kills: u32,
    /// What the VM is
    #[arg(long, value_name = "GUEST", default_value = "reference")]
    guest: GuestName,
    /// Snapshot of the Linux guest
    /// [default: ~/.cache/understudy/linux-guest/guest.snap, or the same below $XDG_CACHE_HOME]
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// After how long a silent host is taken for dead, milliseconds
    /// [default: 100, with a Linux guest 500; more on a slow host]
    #[arg(long, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silence: Option<u64>,
    /// Seed of the moments of the kills; a random one unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Show a VM on its own instead, in one namespace
    #[arg(long, conflicts_with_all = ["kills", "silence", "seed", "guest", "snapshot"])]
    standalone: bool,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// A guest on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GuestName {
    /// The one that is built with this program
    Reference,
    /// A Debian kernel with redis and httpd, which goes on from a snapshot
    Linux,
}

impl DemoArgs {
    /// What the VM shall be: a snapshot that can't be used is told of before there is a LAN.
    fn guest(&self) -> Result<Guest, CliError> {
        match (self.guest, &self.snapshot) {
            (GuestName::Reference, None) => Ok(Guest::Reference),
            (GuestName::Reference, Some(_)) => {
                Err(CliError::Usage("--snapshot is of a Linux guest: add --guest linux".into()))
            }
            (GuestName::Linux, named) => {
                let path = named.clone().or_else(guest::default_snapshot).ok_or_else(|| {
                    CliError::Usage("there is no home folder: name a snapshot by --snapshot".into())
                })?;
                if !path.exists() {
                    return Err(CliError::NoSnapshot { path });
                }
                blueprint::check_snapshot(&path)?;
                Ok(Guest::Linux(path))
            }
        }
    }
}

/// Runs the demonstration.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    let os = |source| CliError::Os { doing: "setting up the demonstration", source };
    if !nix::unistd::geteuid().is_root() {
        return Err(DemoError::NotRoot.into());
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in signals::ending() {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(os)?;
    }
    let program = std::env::current_exe().map_err(os)?;
    if args.standalone {
        let result = standalone::run(&program, &interrupted, |line| stdio::message(line))?;
        return output::print(&result, args.json);
    }
    run_pair(args, &program, &interrupted)
}

fn run_pair(
    args: &DemoArgs,
    program: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    let guest = args.guest()?;
    let silence_ms = args.silence;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let plan = Plan { guest, kills: args.kills, silence_ms, seed };
    let mut screen = Screen::new(args.kills);
    let result = pair::run(program, &plan, interrupted, &mut screen);
    screen.bar.finish_and_clear();
    let summary = result?;
    let printed = match args.json {
        true => output::print(&summary.json(), true),
        false => output::write(&format!("\n{}", summary.table())),
    };
    let fault = summary.fault().map_or(Ok(()), |fault| Err(DemoError::Wrong(fault).into()));
    output::after_print(printed, fault)
}

/// Standard error: lines, and, on a terminal, a bar of the kills under them.
struct Screen {
    bar: ProgressBar,
    start: Instant,
}

impl Screen {
    fn new(kills: u32) -> Screen {
        let style = ProgressStyle::with_template("{spinner} kill {pos} of {len}  {elapsed}")
            .expect("the template is well-formed");
        let bar = ProgressBar::new(u64::from(kills)).with_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Screen { bar, start: Instant::now() }
    }
}

impl Audience for Screen {
    fn say(&mut self, line: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.bar.suspend(|| stdio::message(format_args!("{seconds:7.2} s  {line}")));
    }

    fn kills_done(&mut self, done: u32) {
        self.bar.set_position(u64::from(done));
    }
}
