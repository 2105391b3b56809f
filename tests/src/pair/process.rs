//! [`Process`].

use crate::patience::{Waiting, patience};
use crossbeam::channel::{self, Receiver};
use nix::sys::signal::Signal;
use serde_json::{Map, Value};
use testbed::TestbedError;
use testbed::pair::{
    Host, Member, MemberOutput, Message, PairEvent, PairRecord, Part, Setup, State,
};
use vmm::cli::status;

/// A running `understudy primary` or `backup` and its output; killed on drop.
pub struct Process {
    member: Member,
    inbox: Receiver<Message>,
    records: Vec<PairRecord>,
    /// Number of records up to the last one that a test has waited for.
    awaited: usize,
    /// Its output has ended: no record follows.
    is_silent: bool,
}

/// Exit code and output of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Lines on standard error, and lines on standard output that are not event records.
    pub words: Vec<String>,
}

impl Ended {
    /// Checks that the process exited with `code` and one line that contains `text`, ignoring warnings.
    pub fn failure(&self, code: i32, text: &str) {
        let lines = self.words.iter().filter(|line| !line.contains("WARNING"));
        let lines: Vec<&String> = lines.collect();
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(lines.len() == 1 && lines[0].contains(text), "not {text:?}: {self:?}");
        assert!(lines[0].starts_with("understudy: "), "{self:?}");
    }
}

/// Waits until a process reports an event that matches the pattern. Returns its record.
#[macro_export]
macro_rules! wait_for {
    ($process:expr, $event:pat) => {
        $process.next(stringify!($event), |event| matches!(event, $event))
    };
}

impl Process {
    pub(super) fn spawn(
        setup: &Setup,
        part: Part,
        host: Host,
        life: u64,
    ) -> Result<Process, TestbedError> {
        let (sender, inbox) = channel::unbounded();
        let member = Member::spawn(setup, part, (host, life), &sender)?;
        Ok(Process { member, inbox, records: Vec::new(), awaited: 0, is_silent: false })
    }

    /// Returns the host that the process runs on.
    pub fn host(&self) -> Host {
        self.member.host
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.member.pid()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        self.member.signal(signal);
    }

    /// Sends the process a request on its control socket: `stop` or `handover`.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn order(&self, request: &str) {
        self.member.order(request).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Returns the state that follows from the records received so far.
    pub fn state(&mut self) -> &State {
        self.receive_records();
        &self.member.state
    }

    /// Receives the records that the process has written since the last call.
    fn receive_records(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Process { output, .. } => match output {
                    MemberOutput::Record { record, line } => {
                        self.member.handle_record(&record, line);
                        self.records.push(record);
                    }
                    MemberOutput::End => self.is_silent = true,
                },
                Message::Client(_) => unreachable!("no client has this sender"),
            }
        }
    }

    /// Waits for the next event that `matches` accepts, after the last one that was waited for.
    ///
    /// # Panics
    ///
    /// If the process ends before, or does not report it in time.
    pub fn next(&mut self, what: &str, matches: impl Fn(&PairEvent) -> bool) -> PairRecord {
        let waiting = Waiting::default();
        loop {
            self.receive_records();
            let new = self.records[self.awaited..].iter().position(|record| matches(&record.event));
            if let Some(position) = new {
                self.awaited += position + 1;
                return self.records[self.awaited - 1].clone();
            }
            assert!(!self.is_silent, "it ended before {what}: {}", self.transcript());
            waiting.pause(|| format!("{what}: {}", self.transcript()));
        }
    }

    /// Returns how many reported events `matches` accepts.
    pub fn count(&mut self, matches: impl Fn(&PairEvent) -> bool) -> usize {
        self.receive_records();
        self.records.iter().filter(|record| matches(&record.event)).count()
    }

    /// Returns the lines that are not event records.
    pub fn words(&self) -> Vec<String> {
        self.member.text_lines()
    }

    /// Waits until the process has printed a line with `text` that is not an event record.
    ///
    /// # Panics
    ///
    /// If it ends before or does not print one in time.
    pub fn wait_for_words(&mut self, text: &str) {
        let waiting = Waiting::default();
        while !self.words().iter().any(|line| line.contains(text)) {
            assert!(!self.has_ended(), "the process ended: {}", self.transcript());
            waiting.pause(|| format!("{text:?}: {}", self.transcript()));
        }
    }

    /// Returns whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.member.try_reap().is_some()
    }

    /// Waits until the process exits.
    pub fn end(&mut self) -> Ended {
        let status = self.member.reap(patience()).unwrap_or_else(|error| panic!("{error}"));
        self.receive_records();
        Ended { code: status.code(), words: self.words() }
    }

    /// Returns all of the process's output, for failure messages.
    pub fn transcript(&mut self) -> String {
        self.receive_records();
        let records: Vec<_> = self.records.iter().map(|r| format!("{r:?}")).collect();
        format!("{}\n  {}\n  {:?}", self.member, records.join("\n  "), self.words())
    }

    /// Returns the status that `understudy status` reads.
    ///
    /// # Panics
    ///
    /// If it does not answer in time.
    pub fn status(&self) -> Map<String, Value> {
        let waiting = Waiting::default();
        loop {
            match status::ask(&self.member.socket) {
                Ok(answer) => return answer,
                Err(error) => {
                    let process = format!("{}: {error}; {:?}", self.member, self.words());
                    assert!(
                        self.is_running(),
                        "the process has ended and has no status: {process}"
                    );
                    waiting.pause(|| format!("a status: {process}"));
                }
            }
        }
    }

    /// Returns whether the process runs. A process that has ended and was not reaped is a zombie
    /// (proc_pid_stat(5)).
    fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
    }

    /// Returns the path of the control socket for `understudy status`.
    pub fn socket(&self) -> &str {
        self.member.socket.to_str().expect("paths of tests are UTF-8")
    }

    /// Returns a number of its status, named `section.name` or `name`.
    pub fn figure(&self, name: &str) -> f64 {
        let status = Value::Object(self.status());
        let value = name.split('.').fold(&status, |value, part| &value[part]);
        value.as_f64().unwrap_or_else(|| panic!("no {name}: {status}"))
    }

    /// Waits until its status reports `role`.
    pub fn wait_for_role(&self, role: &str) {
        let waiting = Waiting::default();
        while self.status()["role"] != role {
            waiting.pause(|| format!("{role}: {}: {:?}", self.member, self.status()));
        }
    }
}
