//! `understudy stop` and `understudy handover`, and the client of the control socket.

use super::exit_code::{CliError, Code};
use crate::limits::STATUS_BYTES_MAX;
use crate::pair::Request;
use crate::stdio;
use clap::Args;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use serde_json::{Map, Value};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for data of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The status is at most this old, on a host that is not overloaded.
const STATUS_AGE_MAX: Duration = Duration::from_millis(300);

/// Interval at which the outcome of an order is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Which process to ask.
#[derive(Args, Clone, Debug)]
pub struct ControlArgs {
    /// Number of the VM
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// Control socket of the process, as given with its --status option
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl ControlArgs {
    /// Sends `request` and returns the status of the process at that time.
    ///
    /// # Errors
    ///
    /// If no process answers.
    pub(super) fn ask(&self, request: Request) -> Result<Map<String, Value>, CliError> {
        let path = self.path();
        ask(&path, request).map_err(|error| no_answer(&path, &error))
    }

    /// Sends `request`, and returns the connection, to read lines until the process ends it.
    ///
    /// # Errors
    ///
    /// If no process is there.
    pub(super) fn open(&self, request: Request) -> Result<UnixStream, CliError> {
        let path = self.path();
        open(&path, request).map_err(|error| no_answer(&path, &error))
    }

    /// Returns the path of the control socket.
    pub(super) fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| default_socket(self.vm_id))
    }
}

/// Returns what the host of the process at `path` is to its VM. A backup that has just gone live may still show its old
/// role, so a backup is asked for longer than the status can be old.
fn settled_part(path: &Path) -> Result<Part, OrderFailure> {
    let end = Instant::now() + STATUS_AGE_MAX;
    loop {
        let status = ask(path, Request::Status)?;
        let part = part_of_role(status.get("role").and_then(Value::as_str).unwrap_or_default());
        if part == Part::Primary || Instant::now() > end {
            return Ok(part);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Options of `stop` and of `handover`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Run it on the primary's host. Exits with code 15 if no process answers, and with code 17 \
                  if the order can't be carried out."
)]
pub struct OrderArgs {
    #[command(flatten)]
    process: ControlArgs,
    /// Longest time to wait for the outcome, seconds
    #[arg(long, value_name = "N", default_value_t = 30)]
    timeout: u64,
}

/// The folder of the control sockets without `--status`.
pub const SOCKET_FOLDER: &str = "/run/understudy";

/// Returns the default path of the control socket of VM `vm`.
pub fn default_socket(vm: u64) -> PathBuf {
    Path::new(SOCKET_FOLDER).join(format!("vm-{vm}.sock"))
}

/// Sends `request` to the control socket `path`, and returns the answer: the status.
///
/// # Errors
///
/// If the socket can't be connected or read, or the answer is not a JSON object.
pub fn ask(path: &Path, request: Request) -> io::Result<Map<String, Value>> {
    ask_within(path, request, ANSWER_TIMEOUT)
}

/// As [`ask`], but waits at most `limit` for each step.
///
/// # Errors
///
/// As `ask`; `WouldBlock` or `TimedOut` if a step takes longer.
pub fn ask_within(
    path: &Path,
    request: Request,
    limit: Duration,
) -> io::Result<Map<String, Value>> {
    let stream = open_within(path, request, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.take(STATUS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Connects to the control socket `path` and sends `request`. Reads of the connection wait.
///
/// # Errors
///
/// If the socket can't be connected or written.
pub fn open(path: &Path, request: Request) -> io::Result<UnixStream> {
    open_within(path, request, ANSWER_TIMEOUT)
}

fn open_within(path: &Path, request: Request, limit: Duration) -> io::Result<UnixStream> {
    let mut stream = connect(path, limit)?;
    stream.write_all(format!("{}\n", request.name()).as_bytes())?;
    Ok(stream)
}

/// Connects to a Unix socket. A process that stands still accepts nobody, and once enough clients wait for it, the next one
/// waits in this call: for `limit`, which is also the time limit of each write.
fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let (flags, none) = (SockFlag::SOCK_CLOEXEC, None);
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, none)?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(limit))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

/// Reports that the process at `path` does not answer, and what to check.
fn no_answer(path: &Path, error: &io::Error) -> CliError {
    let path = path.display();
    match error.kind() {
        // There is a process, or it would be another error.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            stdio::message(format_args!(
                "understudy: {path}: no answer within {seconds} s; check whether the process is stopped or \
                 overloaded, or has too many clients"
            ));
        }
        _other => stdio::message(format_args!(
            "understudy: {path}: {error}; check that 'understudy primary' or 'backup' of this VM runs here"
        )),
    }
    CliError::Silent(Code::NoAnswer)
}

/// What a host is to its VM, by the role in its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It runs the VM.
    Primary,
    /// It follows the VM.
    Backup,
}

/// Returns what a host is to its VM, by the `role` in its status.
pub(super) fn part_of_role(role: &str) -> Part {
    match role {
        "seeking" | "syncing" | "following" | "finishing" | "claiming" | "leaving" => Part::Backup,
        _other => Part::Primary,
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderFailure {
    /// The process does not answer.
    #[error(transparent)]
    NoAnswer(#[from] io::Error),
    /// It can't be carried out, or was not in time.
    #[error("{0}")]
    Refused(&'static str),
}

impl OrderFailure {
    /// Reports the failure, and returns the error of the command.
    fn report(self, path: &Path) -> CliError {
        match self {
            OrderFailure::NoAnswer(error) => no_answer(path, &error),
            OrderFailure::Refused(why) => {
                stdio::message(format_args!("understudy: {why}"));
                CliError::Silent(Code::Refused)
            }
        }
    }
}

/// Runs `understudy stop`: ends the VM on both hosts.
///
/// # Errors
///
/// If no process answers, this host is a backup, or the process does not end in time.
pub fn stop(args: &OrderArgs) -> Result<(), CliError> {
    let path = args.process.path();
    stop_at(&path, Duration::from_secs(args.timeout)).map_err(|failure| failure.report(&path))
}

fn stop_at(path: &Path, timeout: Duration) -> Result<(), OrderFailure> {
    if settled_part(path)? == Part::Backup {
        return Err(OrderFailure::Refused(
            "this host is the backup: run 'understudy stop' on the primary's host; to end the backup only, \
             send it SIGTERM",
        ));
    }
    ask(path, Request::Stop)?;
    let end = Instant::now() + timeout;
    while ask(path, Request::Status).is_ok() {
        if Instant::now() > end {
            return Err(OrderFailure::Refused("the process does not end: see its messages"));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Runs `understudy handover`: the backup becomes the primary, and this host the backup.
///
/// # Errors
///
/// If no process answers, no backup holds the whole VM, or the handover fails.
pub fn hand_over(args: &OrderArgs) -> Result<(), CliError> {
    let path = args.process.path();
    hand_over_at(&path, Duration::from_secs(args.timeout)).map_err(|failure| failure.report(&path))
}

/// Hands the VM of the process at `path` over, and waits until that is done.
pub(super) fn hand_over_at(path: &Path, timeout: Duration) -> Result<(), OrderFailure> {
    if settled_part(path)? == Part::Backup {
        return Err(OrderFailure::Refused("this host is the backup: run it on the primary's host"));
    }
    let before = ask(path, Request::HandOver)?;
    let more = |status: &Map<String, Value>, name| count(status, name) > count(&before, name);
    let end = Instant::now() + timeout;
    loop {
        let status = ask(path, Request::Status)?;
        if more(&status, "handovers_refused") {
            return Err(OrderFailure::Refused(
                "not handed over: no backup holds the whole VM, or it is unfit (see 'understudy status')",
            ));
        }
        if more(&status, "handovers_failed") {
            return Err(OrderFailure::Refused(
                "the backup did not take over: this host continues the VM",
            ));
        }
        let role = status.get("role").and_then(Value::as_str).unwrap_or_default();
        if part_of_role(role) == Part::Backup {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(OrderFailure::Refused(
                "the backup has not taken over yet: see the messages of both hosts",
            ));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Returns a counter in the status.
fn count(status: &Map<String, Value>, name: &str) -> u64 {
    status.get(name).and_then(Value::as_u64).unwrap_or_default()
}
