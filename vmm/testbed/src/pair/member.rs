//! One process of the pair, and its event log.

use super::event::{PairEvent, PairRecord, Spread, Why};
use super::network::{Host, LOG_LINK};
use super::scene::Setup;
use crate::{TAP, TestbedError, VmProcess};
use crossbeam::channel::Sender;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Number of lines kept of what a process prints besides its event log.
const TEXT_LINES_MAX: usize = 100;

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

/// What is known about a process from its event log.
#[derive(Debug, Default)]
pub struct State {
    /// It holds its term and has not lost it since.
    pub holds_term: bool,
    /// Term of its last record.
    pub term: u64,
    /// Time since which a backup protects the VM, by CLOCK_BOOTTIME in nanoseconds.
    pub protected: Option<u64>,
    /// When it detected the silence of the primary.
    pub silent_ns: Option<u64>,
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
            PairEvent::TermWon => self.holds_term = true,
            PairEvent::Protected => self.protected = Some(record.t_ns),
            PairEvent::SyncBegun | PairEvent::BackupLeft => self.protected = None,
            PairEvent::BackupSilent { .. } => {
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
            PairEvent::PrimarySilent { .. } => self.silent_ns = Some(record.t_ns),
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
            | PairEvent::Following
            | PairEvent::LogFinished
            | PairEvent::Diverged { .. } => {}
        }
    }
}

/// A running `understudy primary` or `understudy backup`; killed on drop.
#[derive(Debug)]
pub struct Member {
    process: VmProcess,
    readers: Vec<JoinHandle<()>>,
    part: Part,
    /// Host on which it runs.
    pub host: Host,
    /// Number of the process.
    pub instance: u64,
    /// What is known about it.
    pub state: State,
    /// Its status socket.
    pub socket: PathBuf,
    last_line: Option<String>,
    /// Lines that are not records, the newest last.
    text: Arc<Mutex<VecDeque<String>>>,
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
        let socket = setup.scene.path(&format!("{host}-{instance}.sock"));
        let mut command = Command::new(&setup.program);
        command.arg(part.name());
        command.args(["--tap", TAP, "--interface", LOG_LINK, "--peer", host.other().log_mac()]);
        command.args(["--silence-ms", &setup.silence_ms.to_string(), "--json", "--quiet"]);
        match &setup.key {
            Some(key) => command.arg("--key").arg(key),
            None => command.arg("--insecure"),
        };
        command.arg("--witness").arg(setup.scene.witness()).arg("--status").arg(&socket);
        command.args(setup.guest.options()).args(&setup.options[host.index()]);
        // Its own process group, so that Ctrl-C reaches only this process, which then stops the others in
        // order.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let namespace = setup.scene.network.host(host);
        let mut process = namespace.enter(|| VmProcess::start(&mut command))?;
        let (stdout, stderr) = process.take_pipes();
        let all_text = Arc::new(Mutex::new(VecDeque::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = stdout {
            let (sender, text) = (sender.clone(), Arc::clone(&all_text));
            // Sending fails if the receiver is gone, because the pair is over.
            let send = move |output| drop(sender.send(Message::Process { host, instance, output }));
            readers.push(std::thread::spawn(move || {
                read_lines(stdout, |line| match serde_json::from_str(&line) {
                    Ok(record) => send(MemberOutput::Record { record, line }),
                    Err(_) => keep(host, &text, line),
                });
                send(MemberOutput::End);
            }));
        }
        if let Some(stderr) = stderr {
            let text = Arc::clone(&all_text);
            let read = move || read_lines(stderr, |line| keep(host, &text, line));
            readers.push(std::thread::spawn(read));
        }
        Ok(Member {
            process,
            readers,
            part,
            host,
            instance,
            socket,
            state: State::default(),
            last_line: None,
            text: all_text,
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
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(TestbedError::client("asking a VM's process"))
    }

    /// Returns the last hundred lines that the process printed besides its event log.
    ///
    /// # Panics
    ///
    /// If a reader thread panicked.
    pub fn text_lines(&self) -> Vec<String> {
        self.text
            .lock()
            .expect("no thread panics while it holds the lock")
            .iter()
            .cloned()
            .collect()
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
                self.join_readers();
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(TestbedError::Wrong(format!("{self} did not end within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // The reader ends because its pipe has no writer any more. A panic was reported already.
            let _ = reader.join();
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
        match self.text.lock().expect("no thread panics while it holds the lock").back() {
            Some(text) => write!(f, "; last message: {text:?}"),
            None => Ok(()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.kill();
        self.join_readers();
    }
}

fn keep(host: Host, text: &Mutex<VecDeque<String>>, line: String) {
    tracing::info!("{host}: {line}");
    let mut text = text.lock().expect("no thread panics while it holds the lock");
    if text.len() == TEXT_LINES_MAX {
        text.pop_front();
    }
    text.push_back(line);
}

/// Calls `take` with every line until the end of the pipe.
fn read_lines(pipe: impl Read, mut take: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
        take(String::from_utf8_lossy(&line).trim_end().to_string());
        line.clear();
    }
}
