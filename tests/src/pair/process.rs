//! [`Process`].

use crate::patience::{Waiting, patience};
use crossbeam::channel::{self, Receiver};
use nix::sys::signal::Signal;
use serde_json::{Map, Value};
use std::path::PathBuf;
use vmm::cli::status;
use vmm::demo::DemoError;
use vmm::demo::pair::member::{Member, MemberOutput, Message, Part, Setup};
use vmm::demo::pair::network::Host;
use vmm::pair::event::{PairEvent, PairRecord};

/// A running `understudy primary` or `backup`, and all that it said; killed on drop.
pub struct Process {
    member: Member,
    inbox: Receiver<Message>,
    records: Vec<PairRecord>,
    /// Records that a test has waited for, and those before them.
    awaited: usize,
    socket: PathBuf,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it said on standard error, and on standard output beside its account.
    pub words: Vec<String>,
}

impl Ended {
    /// Checks that it ended with `code` and one line that contains `text`, after as many warnings as
    /// there may be.
    pub fn failure(&self, code: i32, text: &str) {
        let lines = self.words.iter().filter(|line| !line.contains("WARNING"));
        let lines: Vec<&String> = lines.collect();
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(lines.len() == 1 && lines[0].contains(text), "not {text:?}: {self:?}");
        assert!(lines[0].starts_with("understudy: "), "{self:?}");
    }
}

/// Waits until a process tells an event that matches; its record.
#[macro_export]
macro_rules! wait_for {
    ($process:expr, $event:pat) => {
        $process.next(stringify!($event), |event| matches!(event, $event))
    };
}

impl Process {
    pub(super) fn spawn(
        setup: &Setup<'_>,
        part: Part,
        host: Host,
        life: u64,
        options: &[&str],
    ) -> Result<Process, DemoError> {
        let (sender, inbox) = channel::unbounded();
        let member = Member::spawn(setup, part, host, life, &sender, options)?;
        let socket = setup.socket(host, life);
        Ok(Process { member, inbox, records: Vec::new(), awaited: 0, socket })
    }

    /// Where it runs.
    pub fn host(&self) -> Host {
        self.member.host
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.member.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.member.signal(signal);
    }

    /// What is known of it now.
    pub fn state(&mut self) -> &vmm::demo::pair::member::State {
        self.listen();
        &self.member.state
    }

    /// Takes in what it said since the last time.
    fn listen(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Process { output, .. } => match output {
                    MemberOutput::Record(record) => {
                        self.member.handle_record(record.clone());
                        self.records.push(record);
                    }
                    MemberOutput::End => {}
                },
                Message::Client(_) => unreachable!("no client has this sender"),
            }
        }
    }

    /// Waits for the next event that `is_it`, after those waited for before.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn next(&mut self, what: &str, is_it: impl Fn(&PairEvent) -> bool) -> PairRecord {
        let waiting = Waiting::default();
        loop {
            self.listen();
            let new = self.records[self.awaited..].iter().position(|record| is_it(&record.event));
            if let Some(position) = new {
                self.awaited += position + 1;
                return self.records[self.awaited - 1].clone();
            }
            waiting.goes_on(|| format!("{what}: {}", self.story()));
        }
    }

    /// How often it has told an event that `is_it`.
    pub fn count(&mut self, is_it: impl Fn(&PairEvent) -> bool) -> usize {
        self.listen();
        self.records.iter().filter(|record| is_it(&record.event)).count()
    }

    /// What it said in words.
    pub fn words(&self) -> Vec<String> {
        self.member.text_lines()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.member.try_reap().is_some()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> Ended {
        let status = self.member.reap(patience()).unwrap_or_else(|error| panic!("{error}"));
        self.listen();
        Ended { code: status.code(), words: self.words() }
    }

    /// Everything it said, for a failure's text.
    pub fn story(&mut self) -> String {
        self.listen();
        let records: Vec<_> = self.records.iter().map(|r| format!("{r:?}")).collect();
        format!("{}\n  {}\n  {:?}", self.member, records.join("\n  "), self.words())
    }

    /// What `understudy status` reads of it.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub fn status(&self) -> Map<String, Value> {
        let waiting = Waiting::default();
        loop {
            match status::ask(&self.socket) {
                Ok(answer) => return answer,
                Err(error) => {
                    let process = format!("{}: {error}; {:?}", self.member, self.words());
                    assert!(self.is_running(), "ended, so it has no status: {process}");
                    waiting.goes_on(|| format!("a status: {process}"));
                }
            }
        }
    }

    /// Whether it has not ended; one that has, and was not waited for, is a zombie (proc_pid_stat(5)).
    fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
    }

    /// Where it answers `understudy status`.
    pub fn socket(&self) -> &str {
        self.socket.to_str().expect("paths of tests are UTF-8")
    }

    /// A number of its status: `section.name`, or a name alone.
    pub fn figure(&self, name: &str) -> f64 {
        let status = Value::Object(self.status());
        let value = name.split('.').fold(&status, |value, part| &value[part]);
        value.as_f64().unwrap_or_else(|| panic!("no {name}: {status}"))
    }

    /// Waits until it is `role`, by its status.
    pub fn wait_for_role(&self, role: &str) {
        let waiting = Waiting::default();
        while self.status()["role"] != role {
            waiting.goes_on(|| format!("{role}: {}: {:?}", self.member, self.status()));
        }
    }
}
