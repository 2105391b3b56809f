//! One process of the pair, and its event log.

use super::event::{PairEvent, PairRecord, Spread, Why};
use super::network::{Host, LOG_LINK};
use super::output::Output;
use super::scene::Setup;
use crate::{TestbedError, VmProcess, supervisor};
use crossbeam::channel::Sender;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to answer on its control socket. It does so at once, except when it stands still.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The command with which a process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `understudy primary`: boots the VM.
    Primary,
    /// `understudy backup`: follows the VM.
    Backup,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Part::Primary => "primary",
            Part::Backup => "backup",
        }
    }
}

/// A message from the reader of a process's output, or from a client.
pub enum Message {
    /// Output of a process.
    Process {
        /// Host of the process.
        host: Host,
        /// Number of the process.
        instance: u64,
        /// The output.
        output: MemberOutput,
    },
    /// A client can't continue.
    Client(TestbedError),
}

/// Output of a process.
pub enum MemberOutput {
    /// A record of its event log.
    Record {
        /// The record.
        record: PairRecord,
        /// Its line.
        line: String,
    },
    /// The end of its output.
    End,
}

/// How a backup learned that it must take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticedBy {
    /// By the silence of the primary.
    Silence,
    /// By the notice of the primary's supervisor.
    Supervisor,
    /// By the end of the primary's log: a handover.
    HandOver,
}

/// What is known about a process from its event log.
#[derive(Debug, Default)]
pub struct State {
    /// It holds its term and has not lost it since.
    pub holds_term: bool,
    /// Term of its last record.
    pub term: u64,
    /// When it won its last term, by CLOCK_BOOTTIME in nanoseconds.
    pub term_won_ns: Option<u64>,
    /// Time since which a backup protects the VM, by CLOCK_BOOTTIME in nanoseconds.
    pub protected: Option<u64>,
    /// When and how it noticed the death of the primary.
    pub lost: Option<(u64, NoticedBy)>,
    /// When it began to hand the VM over.
    pub handing_over_ns: Option<u64>,
    /// When it went live.
    pub live_ns: Option<u64>,
    /// Why it halted, if it has.
    pub halted: Option<Why>,
    /// How long it held outputs; part of its last record.
    pub hold: Option<Spread>,
}

impl State {
    /// Updates the state from a record.
    fn handle_record(&mut self, record: &PairRecord) {
        self.term = record.term;
        match &record.event {
            PairEvent::TermWon => {
                self.holds_term = true;
                self.term_won_ns = Some(record.t_ns);
            }
            PairEvent::Protected => self.protected = Some(record.t_ns),
            PairEvent::SyncBegun | PairEvent::BackupLeft => self.protected = None,
            PairEvent::BackupSilent { .. }
            | PairEvent::BackupStalled { .. }
            | PairEvent::BackupGone { .. } => {
                self.holds_term = false;
                self.protected = None;
            }
            PairEvent::HandingOver { .. } => {
                self.holds_term = false;
                self.protected = None;
                self.live_ns = None;
                self.handing_over_ns = Some(record.t_ns);
            }
            PairEvent::HandoverFailed => self.holds_term = true,
            PairEvent::PrimarySilent { .. } => {
                self.lost = Some((record.t_ns, NoticedBy::Silence));
            }
            PairEvent::PrimaryGone { .. } => {
                self.lost = Some((record.t_ns, NoticedBy::Supervisor));
            }
            PairEvent::WentLive => {
                self.holds_term = true;
                self.live_ns = Some(record.t_ns);
            }
            PairEvent::Halted { why, spoke_ns: _ } => {
                self.holds_term = false;
                self.protected = None;
                self.halted = Some(*why);
            }
            PairEvent::Ended { hold } => self.hold = Some(*hold),
            PairEvent::Started
            | PairEvent::PeerMet
            | PairEvent::NobodyMet
            | PairEvent::PeerRefused { .. }
            | PairEvent::WitnessUnreachable
            | PairEvent::LanLost
            | PairEvent::LanBack
            | PairEvent::BackupHealth { .. }
            | PairEvent::WitnessLost
            | PairEvent::WitnessBack
            | PairEvent::ReleaseFailed
            | PairEvent::SyncClosed { .. }
            | PairEvent::SyncDelayed
            | PairEvent::SyncStalled
            | PairEvent::GuestSlowed
            | PairEvent::GuestSlowedForDisks
            | PairEvent::GuestNotSlowed
            | PairEvent::DisksCopied { .. }
            | PairEvent::SyncGivenUp { .. }
            | PairEvent::Following
            | PairEvent::WitnessFailed
            | PairEvent::HandoverRefused
            | PairEvent::StopRefused
            | PairEvent::GoesSilent
            | PairEvent::LogFinished
            | PairEvent::SupervisorLost { .. }
            | PairEvent::DiskFault { .. }
            | PairEvent::Diverged { .. } => {}
        }
    }
}

/// A running `understudy primary` or `understudy backup`; killed on drop.
#[derive(Debug)]
pub struct Member {
    process: VmProcess,
    output: Output,
    part: Part,
    /// Host on which it runs.
    pub host: Host,
    /// Number of the process.
    pub instance: u64,
    /// What is known about it.
    pub state: State,
    /// Its status socket.
    pub socket: PathBuf,
    /// It may end without having said why.
    pub(super) may_end: bool,
    last_line: Option<String>,
}

impl Member {
    /// Starts a process on `host`, the pair's number `instance`. Its output is sent to `sender`.
    ///
    /// # Errors
    ///
    /// If the process can't be started.
    pub fn spawn(
        setup: &Setup,
        part: Part,
        (host, instance): (Host, u64),
        sender: &Sender<Message>,
    ) -> Result<Member, TestbedError> {
        let name = format!("{}-{host}-{instance}", setup.vm.tap());
        let socket = setup.scene.path(&format!("{name}.sock"));
        let mut command = command(setup, part, host, &socket);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let namespace = setup.scene.network.host(host);
        let mut process = namespace.enter(|| VmProcess::start(&mut command))?;
        let log = setup.logs.as_ref().map(|logs| logs.join(format!("{host}-{instance}.log")));
        let sender = sender.clone();
        let output = Output::read(&mut process, host, log.as_deref(), move |output| {
            // Sending fails if the receiver is gone, because the pair is over.
            let _ = sender.send(Message::Process { host, instance, output });
        })?;
        Ok(Member {
            process,
            output,
            part,
            host,
            instance,
            socket,
            state: State::default(),
            may_end: false,
            last_line: None,
        })
    }

    /// Handles a record of this process's event log and its line.
    pub fn handle_record(&mut self, record: &PairRecord, line: String) {
        self.state.handle_record(record);
        self.last_line = Some(line);
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends a request (`stop`, `handover`) to the process's control socket, which returns its status.
    ///
    /// # Errors
    ///
    /// If the process does not answer.
    pub fn order(&self, request: &str) -> Result<String, TestbedError> {
        let ask = || {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.set_write_timeout(Some(ANSWER_MAX))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(TestbedError::client("asking a VM's process"))
    }

    /// Returns the process's status, as `understudy status` shows it.
    ///
    /// # Errors
    ///
    /// If the process does not answer with a JSON object.
    pub fn status(&self) -> Result<Value, TestbedError> {
        let answer = self.order("status")?;
        serde_json::from_str(&answer)
            .map_err(|error| TestbedError::Wrong(format!("the status is {answer:?}: {error}")))
    }

    /// Kills the process's supervisor, if it has one.
    pub fn kill_supervisor(&self) {
        if let Some(supervisor) = supervisor::of(self.pid()) {
            let _ = kill(supervisor, Signal::SIGKILL);
        }
    }

    /// Returns the last hundred lines that the process printed besides its event log.
    ///
    /// # Panics
    ///
    /// If a reader thread panicked.
    pub fn text_lines(&self) -> Vec<String> {
        self.output.text_lines()
    }

    /// Makes the process unable to write to its standard output and standard error, as if nobody read them. Its
    /// records arrive after [`resume_output`](Self::resume_output).
    ///
    /// # Errors
    ///
    /// If its pipes can't be filled.
    pub fn stall_output(&self) -> Result<(), TestbedError> {
        self.output.stall(self.pid())
    }

    /// Reads the process's output again.
    pub fn resume_output(&self) {
        self.output.resume();
    }

    /// Returns the exit status, if the process has ended.
    pub fn try_reap(&mut self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// Waits at most `limit` for the process to end, and until all its output is read. Returns the exit
    /// status.
    ///
    /// # Errors
    ///
    /// If the process does not end in time.
    pub fn reap(&mut self, limit: Duration) -> Result<ExitStatus, TestbedError> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.status() {
                self.output.finish();
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(TestbedError::Wrong(format!("{self} did not end within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl std::fmt::Display for Member {
    /// Describes the process, its last record and its last message in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = self.part.name();
        write!(f, "host {} (started as {part}, process {})", self.host, self.pid())?;
        match &self.last_line {
            Some(line) => write!(f, ", last record: {line}")?,
            None => write!(f, ", no record")?,
        }
        match self.output.last_text() {
            Some(text) => write!(f, "; last message: {text:?}"),
            None => Ok(()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.kill();
        self.output.finish();
    }
}

/// Returns the command of a process on `host`, whose control socket will be `socket`.
pub(super) fn command(setup: &Setup, part: Part, host: Host, socket: &Path) -> Command {
    let mut command = Command::new(&setup.program);
    command.arg(part.name());
    command.args(["--tap", &setup.vm.tap(), "--interface", LOG_LINK]);
    command.args(["--peer", host.other().log_mac()]).args(setup.vm.options());
    command.args(["--silence-ms", &setup.silence_ms.to_string(), "--json", "--quiet"]);
    match &setup.key {
        Some(key) => command.arg("--key").arg(key),
        None => command.arg("--insecure"),
    };
    command.arg("--witness").arg(setup.scene.witness()).arg("--status").arg(socket);
    command.args(setup.guest.options()).args(&setup.options[host.index()]);
    // Its own process group, so that Ctrl-C reaches only this process, which then stops the others in order.
    command.process_group(0);
    command
}
