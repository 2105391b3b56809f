//! `understudy demo`.

use super::exit_code::CliError;
use super::output;
use crate::demo::pair::{self, Audience, Plan};
use crate::demo::{DemoError, standalone};
use crate::link::timing::{SILENCE_MS_DEFAULT, SILENCE_MS_MIN};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Clients have some patience, but not as much as two hosts can be told to have with each other.
const SILENCE_MS_MAX: u64 = 2000;

/// Kills that make a demonstration of hours.
const KILLS_MAX: i64 = 10_000;

/// Options of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Needs root. Makes two hosts, a client and a LAN of network namespaces, boots a VM on one host with a
backup on the other, lets ping, curl, TCP and UDP clients talk to it, and kills the host that it runs on
(kill -9 of its process) again and again. Everything is removed again. What happens is told on standard
error, the figures are printed on standard output.

Examples:
  understudy demo
  understudy demo --kills 20 --json
  understudy demo --standalone")]
pub struct DemoArgs {
    /// How often to kill the primary
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=KILLS_MAX))]
    kills: u32,
    /// After how long a silent host is taken for dead, milliseconds
    #[arg(long, value_name = "MS", default_value_t = SILENCE_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silence: u64,
    /// Seed of the moments of the kills; a random one unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Show a VM on its own instead, in one namespace
    #[arg(long, conflicts_with_all = ["kills", "silence", "seed"])]
    standalone: bool,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    let os = |source| CliError::Os { doing: "setting up the demonstration", source };
    if !nix::unistd::geteuid().is_root() {
        return Err(DemoError::NotRoot.into());
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(os)?;
    }
    let program = std::env::current_exe().map_err(os)?;
    if args.standalone {
        let result = standalone::run(&program, &interrupted, |line| eprintln!("{line}"))?;
        return output::print(&result, args.json);
    }
    run_pair(args, &program, &interrupted)
}

fn run_pair(
    args: &DemoArgs,
    program: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let plan = Plan { kills: args.kills, silence_ms: args.silence, seed };
    let mut screen = Screen::new(args.kills);
    let result = pair::run(program, &plan, interrupted, &mut screen);
    screen.bar.finish_and_clear();
    let summary = result?;
    if args.json {
        output::print(&summary.json(), true)?;
    } else {
        let os = |source| CliError::Os { doing: "writing to standard output", source };
        output::write(&format!("\n{}", summary.table())).map_err(os)?;
    }
    summary.fault().map_or(Ok(()), |fault| Err(DemoError::Wrong(fault).into()))
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
        // A terminal that has gone must not keep us from cleaning up.
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{seconds:7.2} s  {line}")));
    }

    fn kills_done(&mut self, done: u32) {
        self.bar.set_position(u64::from(done));
    }
}
