//! Two hosts and the wire of the logging channel: namespaces `a` and `b`, joined by a veth pair, with
//! `understudy link` in either.

use crate::patience::Waiting;
use crate::program::{json, understudy};
use logchan::ids::Role;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testbed::{Namespace, TestbedError, VmProcess, command};
use vmm::link::key_file;

/// One end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The primary's end, by convention.
    A,
    /// The backup's end, by convention.
    B,
}

impl Side {
    /// Returns the other end.
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// Returns the name of this end's interface.
    pub fn interface(self) -> &'static str {
        match self {
            Side::A => "va",
            Side::B => "vb",
        }
    }

    /// Returns the interface's MAC address.
    pub fn mac(self) -> &'static str {
        match self {
            Side::A => "02:00:00:00:00:0a",
            Side::B => "02:00:00:00:00:0b",
        }
    }
}

/// Both hosts, with a shared key.
pub struct Wire {
    a: Namespace,
    b: Namespace,
    folder: tempfile::TempDir,
}

impl Wire {
    /// Creates both hosts, with both interfaces up and a carrier.
    pub fn up() -> Wire {
        let made = || {
            let (a, b) = (Namespace::new("a")?, Namespace::new("b")?);
            let wire = Wire { a, b, folder: tempfile::tempdir().expect("a folder") };
            key_file::create(&wire.path("key")).expect("a key");
            wire.join()?;
            Ok::<_, TestbedError>(wire)
        };
        made().unwrap_or_else(|error| panic!("no wire (run this as root): {error}"))
    }

    /// Connects the hosts.
    fn join(&self) -> Result<(), TestbedError> {
        self.a.add_cable(Side::A.interface(), &self.b, Side::B.interface())?;
        for side in [Side::A, Side::B] {
            self.namespace(side).set_up(side.interface(), &format!("address {}", side.mac()))?;
        }
        [Side::A, Side::B]
            .into_iter()
            .try_for_each(|side| self.namespace(side).wait_for_carrier(side.interface()))
    }

    /// Waits until side B's interface has received `frames` more frames.
    pub fn wait_for_frames(&self, frames: u64) {
        let waiting = Waiting::default();
        let received = || {
            let text = self.ip(Side::B, &format!("-j -s link show {}", Side::B.interface()));
            let interfaces: Value = serde_json::from_str(&text).expect("ip speaks JSON");
            interfaces[0]["stats64"]["rx"]["packets"].as_u64().expect("ip counts")
        };
        let until = received() + frames;
        while received() < until {
            waiting.pause(|| format!("{frames} frames on the wire"));
        }
    }

    /// Returns the namespace of one end.
    pub fn namespace(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Runs `ip` at one end.
    pub fn ip(&self, side: Side, arguments: &str) -> String {
        self.namespace(side).ip(arguments).expect("ip works")
    }

    /// Runs `work` on a thread in the namespace of one end.
    pub fn enter<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        self.namespace(side)
            .enter(|| Ok::<T, TestbedError>(work()))
            .expect("the namespace can be entered")
    }

    /// Returns the path of a file in the folder that both hosts share.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the path of the key file.
    pub fn key(&self) -> String {
        utf8(&self.path("key")).to_string()
    }

    /// Returns the `link` options of one end: its interface, its peer and its role.
    pub fn options(&self, side: Side, role: Role) -> Vec<String> {
        let role = match role {
            Role::Primary => "primary",
            Role::Backup => "backup",
        };
        let (name, peer) = (side.interface(), side.other().mac());
        ["link", "--interface", name, "--peer", peer, "--role", role].map(String::from).to_vec()
    }

    /// Starts `understudy link` at one end, sealed, quiet, with JSON output and `extra` options.
    pub fn start(&self, side: Side, role: Role, extra: &[&str]) -> LinkProcess {
        let key = self.key();
        let common = ["--key", &key, "--json", "--quiet"];
        self.start_with(side, role, &[&common, extra].concat())
    }

    /// Like [`Wire::start`], with `options` only.
    pub fn start_with(&self, side: Side, role: Role, options: &[&str]) -> LinkProcess {
        let mut args = self.options(side, role);
        args.extend(options.iter().map(|option| option.to_string()));
        self.enter(side, || LinkProcess::start(&args))
    }

    /// Runs a measurement with both ends and returns their results. Both must succeed.
    pub fn measure(&self, primary: &[&str], both: &[&str]) -> [Value; 2] {
        let backup = self.start(Side::B, Role::Backup, both);
        let primary = self.start(Side::A, Role::Primary, &[primary, both].concat());
        [primary.finish().success(), backup.finish().success()]
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A running `understudy link`; killed on drop.
pub struct LinkProcess(VmProcess);

impl LinkProcess {
    fn start(args: &[String]) -> LinkProcess {
        let mut command = Command::new(understudy());
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        LinkProcess(VmProcess::start(&mut command).expect("understudy starts"))
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits until the process exits.
    pub fn finish(self) -> Finished {
        let output = self.0.wait().expect("it ends");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// Exit code and output of a process.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Checks that the process succeeded without a message, and returns its JSON result.
    pub fn success(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        json(&self.stdout)
    }

    /// Checks that the process failed with `code` and one line that contains `text`. Returns its JSON
    /// result, if any.
    pub fn failure(&self, code: i32, text: &str) -> Option<Value> {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("understudy: ") && self.stderr.contains(text), "{self:?}");
        (!self.stdout.is_empty()).then(|| json(&self.stdout))
    }
}

/// Returns a number in a result.
pub fn number(result: &Value, section: &str, name: &str) -> u64 {
    result[section][name].as_u64().unwrap_or_else(|| panic!("no {section}.{name}: {result}"))
}

/// Runs a host command and returns its output.
pub fn run_command(program: &str, args: &[&str]) -> String {
    command(program, args).unwrap_or_else(|error| panic!("{error}"))
}
