//! One process of the pair, and what it says of itself.

use super::network::{Host, LOG_LINK, Network};
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use crate::demo::standalone::TAP;
use crate::demo::vm_process::VmProcess;
use crate::pair::event::{PairEvent, PairRecord, Spread, Why};
use crossbeam::channel::Sender;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that are kept of what a process says in words.
const WORDS_MAX: usize = 100;

/// What is the same for every process of a pair.
#[derive(Debug)]
pub struct Setup<'a> {
    /// This program.
    pub program: &'a Path,
    /// What the VM is.
    pub guest: &'a Guest,
    /// Where it runs.
    pub network: &'a Network,
    /// The key of the log link; without one the log is in the clear.
    pub key: Option<&'a Path>,
    /// The witness's folder.
    pub witness: &'a Path,
    /// Where the sockets are at which 'understudy status' is answered.
    pub sockets: &'a Path,
    /// After how long a silent peer is taken for dead.
    pub silence_ms: u64,
}

impl Setup<'_> {
    /// Where the `life`th process, which runs on `host`, answers 'understudy status'.
    pub fn socket(&self, host: Host, life: u64) -> PathBuf {
        self.sockets.join(format!("{host}-{life}.sock"))
    }
}

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Boots the VM.
    Primary,
    /// Follows it.
    Backup,
}

/// Something that one of the processes, or a client, wants to be known.
pub enum Message {
    /// A process.
    Process {
        /// Where it runs.
        host: Host,
        /// Which of the processes on that host.
        life: u64,
        /// What it said.
        said: Said,
    },
    /// A client that cannot go on.
    Client(DemoError),
}

/// What a process said.
pub enum Said {
    /// A line of its account.
    Record(PairRecord),
    /// Nothing will follow.
    End,
}

/// What is known of a process from its account.
#[derive(Debug, Default)]
pub struct State {
    /// Holds its term, and has not lost it since.
    pub speaks: bool,
    /// Of its last record.
    pub term: u64,
    /// A backup holds the whole VM.
    pub protected: Option<u64>,
    /// When it found the primary silent.
    pub silent_ns: Option<u64>,
    /// When it went live.
    pub live_ns: Option<u64>,
    /// It is over.
    pub over: Option<Why>,
    /// How long it held outputs, which it says last.
    pub hold: Option<Spread>,
}

impl State {
    /// Draws the consequences of a record.
    fn hear(&mut self, record: &PairRecord) {
        self.term = record.term;
        match &record.event {
            PairEvent::TermWon => self.speaks = true,
            PairEvent::Protected { .. } => self.protected = Some(record.t_ns),
            PairEvent::SyncBegun | PairEvent::BackupLeft => self.protected = None,
            PairEvent::BackupSilent { .. } => {
                self.speaks = false;
                self.protected = None;
            }
            PairEvent::PrimarySilent { .. } => self.silent_ns = Some(record.t_ns),
            PairEvent::WentLive { .. } => {
                self.speaks = true;
                self.live_ns = Some(record.t_ns);
            }
            PairEvent::Halted { why, spoke_ns: _ } => {
                self.speaks = false;
                self.protected = None;
                self.over = Some(*why);
            }
            PairEvent::Ended { hold, .. } => self.hold = Some(*hold),
            PairEvent::Started { .. }
            | PairEvent::PeerMet { .. }
            | PairEvent::NobodyMet { .. }
            | PairEvent::PeerRefused { .. }
            | PairEvent::WitnessUnreachable
            | PairEvent::SyncClosed { .. }
            | PairEvent::Following
            | PairEvent::LogFinished
            | PairEvent::Diverged => {}
        }
    }
}

/// A running `understudy primary` or `understudy backup`; killed on drop.
#[derive(Debug)]
pub struct Member {
    process: VmProcess,
    readers: Vec<JoinHandle<()>>,
    part: Part,
    /// Where it runs.
    pub host: Host,
    /// Which of the processes it is.
    pub life: u64,
    /// What is known of it.
    pub state: State,
    last_record: Option<PairRecord>,
    /// Lines that are no records, the newest last.
    words: Arc<Mutex<VecDeque<String>>>,
}

impl Member {
    /// Starts it on `host`, with more `options`; what it says goes to `sender`.
    pub fn spawn(
        setup: &Setup<'_>,
        part: Part,
        host: Host,
        life: u64,
        sender: &Sender<Message>,
        options: &[&str],
    ) -> Result<Member, DemoError> {
        let mut command = Command::new(setup.program);
        command.arg(match part {
            Part::Primary => "primary",
            Part::Backup => "backup",
        });
        command.args(["--tap", TAP, "--interface", LOG_LINK, "--peer", host.other().log_mac()]);
        command.args(["--silence-ms", &setup.silence_ms.to_string(), "--json", "--quiet"]);
        match setup.key {
            Some(key) => command.arg("--key").arg(key),
            None => command.arg("--insecure"),
        };
        command.arg("--witness").arg(setup.witness);
        command.arg("--status").arg(setup.socket(host, life));
        command.args(setup.guest.options()).args(options);
        // Ctrl-C is for us: we end the others in order.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let namespace = setup.network.host(host);
        let mut process = namespace.enter(|| VmProcess::start(&mut command))?;
        let (stdout, stderr) = process.take_pipes();
        let all_words = Arc::new(Mutex::new(VecDeque::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = stdout {
            let (sender, words) = (sender.clone(), Arc::clone(&all_words));
            // Nobody listens any more when the demonstration is over.
            let tell = move |said| drop(sender.send(Message::Process { host, life, said }));
            readers.push(std::thread::spawn(move || {
                read_lines(stdout, |line| match serde_json::from_str(&line) {
                    Ok(record) => tell(Said::Record(record)),
                    Err(_) => keep(host, &words, line),
                });
                tell(Said::End);
            }));
        }
        if let Some(stderr) = stderr {
            let words = Arc::clone(&all_words);
            let read = move || read_lines(stderr, |line| keep(host, &words, line));
            readers.push(std::thread::spawn(read));
        }
        let state = State::default();
        Ok(Member {
            process,
            readers,
            part,
            host,
            life,
            state,
            last_record: None,
            words: all_words,
        })
    }

    /// Takes in a record of this process.
    pub fn hear(&mut self, record: PairRecord) {
        self.state.hear(&record);
        self.last_record = Some(record);
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it has said in words, the last hundred lines.
    pub fn words(&self) -> Vec<String> {
        self.words.lock().expect("nobody panics with it").iter().cloned().collect()
    }

    /// How it ended, if it has.
    pub fn try_reap(&mut self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// Waits for its end, for `limit` at most, and until all that it said was read.
    pub fn reap(&mut self, limit: Duration) -> Result<ExitStatus, DemoError> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.status() {
                self.join_readers();
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(DemoError::Wrong(format!("{self} did not end within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // Its pipe has no writer any more. That it panicked was said already.
            let _ = reader.join();
        }
    }
}

impl std::fmt::Display for Member {
    /// Who it is, and what it said last, in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = match self.part {
            Part::Primary => "primary",
            Part::Backup => "backup",
        };
        write!(f, "host {} (started as {part}, process {})", self.host, self.pid())?;
        match &self.last_record {
            Some(record) => match serde_json::to_string(record) {
                Ok(line) => write!(f, ", which said last {line}")?,
                Err(_) => write!(f, ", which said last {record:?}")?,
            },
            None => write!(f, ", which said nothing")?,
        }
        match self.words.lock().expect("nobody panics with it").back() {
            Some(words) => write!(f, ", and {words:?}"),
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

fn keep(host: Host, words: &Mutex<VecDeque<String>>, line: String) {
    tracing::info!("{host}: {line}");
    let mut words = words.lock().expect("nobody panics with it");
    if words.len() == WORDS_MAX {
        words.pop_front();
    }
    words.push_back(line);
}

/// Calls `take` with every line, until there are no more.
fn read_lines(pipe: impl Read, mut take: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
        take(String::from_utf8_lossy(&line).trim_end().to_string());
        line.clear();
    }
}
