//! The command line: parses it and runs the command. Every failure is reported in one line and has a
//! documented exit code.

pub mod blueprint;
mod capture_file;
pub mod config_file;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod exit_code;
pub mod inspect;
pub mod key;
pub mod link;
pub mod list;
pub mod log;
pub mod options;
pub mod output;
pub mod pair;
pub mod record;
pub mod replay;
pub mod run;
pub mod sandbox;
pub mod save;
pub mod session;
pub mod signals;
pub mod status;
pub mod supervise;
pub mod watch;
pub mod witness;

use crate::stdio;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use exit_code::{CliError, Code};
use nix::sys::prctl::set_dumpable;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

/// Log filter used unless `UNDERSTUDY_LOG` is set: warnings, and the frames of `--trace-frames`.
const DEFAULT_LOG: &str = "warn,netpath::frame=debug";

/// Which memory of this process is in a core (core(5)), of the kernel and of gdb's gcore.
const CORE_FILTER_FILE: &str = "/proc/self/coredump_filter";

/// The first pages of programs and libraries, which name the build. Neither stacks nor heap: with a pair, they have copies
/// of guest pages that are on their way, and keys of sessions.
const CORE_FILTER: &str = "0x10";

const AFTER_HELP: &str = "\
Examples:
  understudy doctor
  ip tuntap add dev tap0 mode tap && ip addr add 10.77.0.1/24 dev tap0 && ip link set tap0 up
  understudy run --tap tap0
  understudy record --tap tap0 --log run.ulog --for 30
  understudy replay run.ulog
  understudy link --help

Exit codes:
  0  success                          8  replay diverged from the recording
  1  unexpected failure, or standard  9  the guest stopped by itself
     output can't be written         10  log is truncated; replayed up to its end
  2  wrong usage                     11  replay was stopped before the end
  3  KVM or the host can't run a VM  12  logging channel: bad key or no matching peer
  4  network port or interface       13  logging channel: the peer fell silent
  5  guest image or kernel           14  the VM continues on the other host, or can't
  6  log or snapshot can't be read,      continue
     is damaged or in use, or was    15  status, events: no answer
     changed under a running VM      16  demo: this host is too slow
  7  CPU model or kind of host is    17  stop, handover: can't be carried out
     not that of the log, snapshot   18  a disk can't be used, or is not
     or option                           the recorded one";

/// A virtual machine that can be recorded, replayed and protected.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, about, after_help = AFTER_HELP, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Allow core dumps of this program, and debuggers of the same user. A dump has the registers of all threads and no
    /// memory, unless /proc/PID/coredump_filter is changed; a debugger sees everything
    #[arg(long, global = true)]
    dumpable: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a VM, unprotected and unrecorded
    Run(run::RunArgs),
    /// Run a VM and record all its nondeterministic inputs in a log
    Record(record::RecordArgs),
    /// Replay a VM from its log and compare it with the recording at every exit
    Replay(replay::ReplayArgs),
    /// Run a VM up to a point and save a snapshot, from which --restore starts
    Save(save::SaveArgs),
    /// List the rewritten, hooked and doubtful instructions of a kernel or image
    Inspect(inspect::InspectArgs),
    /// Show the contents of a log
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Demonstrate failover: kill the primary of a VM repeatedly while real clients use it
    Demo(demo::DemoArgs),
    /// Check whether this host can run VMs, and say what to fix
    Doctor(doctor::DoctorArgs),
    /// Run a VM that a backup on another host protects against the failure of this host
    Primary(pair::PrimaryArgs),
    /// Follow the VM of a primary on another host, and take over when that host fails
    Backup(pair::PairArgs),
    /// Ask the witness for this host's part in a VM, and do it: what the service of a VM runs
    Up(pair::UpArgs),
    /// Show the status of a primary or backup on this host
    Status(status::StatusArgs),
    /// List the VMs of this host, and how each gets on
    List(list::ListArgs),
    /// Show what has happened to a primary or backup on this host, and what happens
    Events(events::EventsArgs),
    /// Show the VMs of this host on the terminal
    Watch(watch::WatchArgs),
    /// End the VM on both hosts
    Stop(control::OrderArgs),
    /// Tell the witness that no host runs a VM any more, so that it can be booted
    Forget(witness::ForgetArgs),
    /// Hand the VM over to the backup, and become the backup
    Handover(control::OrderArgs),
    /// Check the folder that decides which host of a pair continues
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// Create the key that protects the logging channel between two hosts
    Key(key::KeyArgs),
    /// Connect to the other host over the logging channel and measure round trips
    Link(link::LinkArgs),
    /// Tell the other host when the process of a VM is gone
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
}

/// When the program started.
static STARTED: OnceLock<Instant> = OnceLock::new();

/// Returns when the program started. `None` if it was not started by [`main`].
fn started() -> Option<Instant> {
    STARTED.get().copied()
}

/// Returns the command line, from which the man pages and the completions are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the process's arguments, and returns its exit code.
pub fn main() -> ExitCode {
    let code = run_command();
    stdio::flush();
    code
}

fn run_command() -> ExitCode {
    STARTED.get_or_init(Instant::now);
    signals::survive_file_size_limit();
    stdio::detect_journal();
    let expanded = match config_file::expand(std::env::args_os().collect()) {
        Ok(expanded) => expanded,
        Err(error) => return fail(&error),
    };
    let cli = match Cli::try_parse_from(&expanded.arguments) {
        Ok(cli) => cli,
        Err(error) => return print_clap_error(&error, expanded.place_of(&error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("UNDERSTUDY_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG)),
        )
        .with_writer(stdio::LogLines)
        .with_ansi(uses_colors())
        .with_target(false)
        .without_time()
        .init();
    leave_memory_out_of_cores();
    // The key of the logging channel and a guest's memory belong neither in a core dump nor in the hands of another
    // process of the same user.
    if !cli.dumpable
        && let Err(errno) = set_dumpable(false)
    {
        let doing = "forbidding core dumps";
        return fail(&CliError::Os { doing, source: errno.into() });
    }
    let result = match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Record(args) => record::main(&args),
        Command::Replay(args) => replay::main(&args),
        Command::Save(args) => save::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Log(command) => log::main(&command),
        Command::Demo(args) => demo::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Primary(args) => pair::primary(&args),
        Command::Backup(args) => pair::backup(&args),
        Command::Up(args) => pair::up(&args),
        Command::Status(args) => status::main(&args),
        Command::List(args) => list::main(&args),
        Command::Events(args) => events::main(&args),
        Command::Watch(args) => watch::main(&args),
        Command::Stop(args) => control::stop(&args),
        Command::Forget(args) => witness::forget(&args),
        Command::Handover(args) => control::hand_over(&args),
        Command::Witness(command) => witness::main(&command),
        Command::Key(args) => key::main(&args),
        Command::Link(args) => link::main(&args),
        Command::Supervise(args) => supervise::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Silent(code)) => code.into(),
        Err(error) => fail(&error),
    }
}

/// Makes a core of this process, and of those that it starts, have no memory that was written. To be called before the
/// process is made not dumpable: then the file is root's.
fn leave_memory_out_of_cores() {
    if let Err(error) = std::fs::write(CORE_FILTER_FILE, CORE_FILTER) {
        tracing::warn!(
            "a core of this process would have its memory: can't write {CORE_FILTER_FILE}: {error}"
        );
    }
}

/// Returns whether log lines are colored: on a terminal, unless NO_COLOR is set (<https://no-color.org>).
fn uses_colors() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !no_color
}

fn fail(error: &CliError) -> ExitCode {
    stdio::failure(format_args!("understudy: {error}"));
    error.code().into()
}

/// Prints what clap returned instead of a command: the help, the version, or an error. An invalid value, and what is wrong
/// at a `place` in a file of options, is reported in one line.
fn print_clap_error(error: &clap::Error, place: Option<String>) -> ExitCode {
    match (error.kind(), place) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, place) | (_, place @ Some(_)) => {
            // The text after the empty line only refers to --help.
            let text = error.to_string();
            let lines: Vec<_> = text.lines().map(str::trim).take_while(|l| !l.is_empty()).collect();
            let line = lines.join(" ");
            let (place, what) = (place.unwrap_or_default(), line.trim_start_matches("error: "));
            stdio::failure(format_args!("understudy: {place}{what}"));
            Code::Usage.into()
        }
        (_other, None) => {
            let printed = error.print().and_then(|()| io::stdout().flush());
            if error.use_stderr() {
                return Code::Usage.into();
            }
            match printed {
                Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                    fail(&CliError::Output(source))
                }
                Ok(()) | Err(_) => ExitCode::SUCCESS,
            }
        }
    }
}
