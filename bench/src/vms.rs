//! VMs under test: standalone VMs, each in its own namespace, and a protected pair with a client on its
//! LAN.
//!
//! Both run the `understudy` program from the folder of this executable.

use crate::error::BenchError;
use crate::{PATIENCE, interrupt};
use serde_json::{Map, Value};
use std::time::Duration;
use testbed::clients::Limit;
use testbed::pair::{Host, Hosts, Part, Scene, Setup};
use testbed::standalone::Launch;
use testbed::vm_process::understudy;
use testbed::{Guest, Namespace, Standalone, cores};
use vmm::cli::status;

/// Longer than the age that a host's status can have.
const STATUS_AGE_MAX: Duration = Duration::from_millis(300);

/// Core of the client and of a primary. The two seldom run at the same time, because each waits for the
/// other.
pub(crate) fn core_a() -> usize {
    cores::nth(0)
}

/// Core of a backup and of a standalone VM. Equal to [`core_a`] on a machine with one core.
pub(crate) fn core_b() -> usize {
    cores::nth(1)
}

/// Pins the calling thread to `core`.
pub(crate) fn pin(core: usize) -> Result<(), BenchError> {
    cores::pin(core).map_err(BenchError::os(format!("running on core {core}")))
}

/// Starts an unprotected VM on `core` with `command` (`run` or `record` and its options), in a namespace
/// for `role`, and waits for its first answer.
pub(crate) fn standalone(
    role: &str,
    core: usize,
    guest: &Guest,
    command: &[&str],
) -> Result<Standalone, BenchError> {
    let core = core.to_string();
    let command = &[command, &["--core", &core]].concat();
    let launch = Launch { program: &understudy()?, guest, command };
    Ok(Standalone::start(Namespace::with_tap(role)?, &launch, &Limit::HANG)?)
}

/// How a VM is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Without a backup.
    Standalone,
    /// By a backup, on a sealed log link.
    Sealed,
    /// By a backup, on an insecure log link.
    Insecure,
}

/// Options of a VM.
#[derive(Clone, Debug)]
pub(crate) struct VmOptions {
    /// The guest.
    pub(crate) guest: Guest,
    /// Options of every process.
    pub(crate) options: Vec<String>,
    /// Additional options of a standalone VM or of the primary.
    pub(crate) of_first: Vec<String>,
}

impl VmOptions {
    /// Returns the options of VMs with the reference guest.
    pub(crate) fn new(options: &[&str]) -> VmOptions {
        let options = options.iter().copied().map(String::from).collect();
        VmOptions { guest: Guest::Reference, options, of_first: Vec::new() }
    }
}

/// A VM, on the core of the client, and its backup, if it has one, on the other core.
pub(crate) enum Vm {
    Standalone(Standalone),
    Pair(Box<Pair>),
}

impl Vm {
    /// Starts the VM and waits for its first answer, or until it is protected.
    pub(crate) fn start(protection: Protection, options: &VmOptions) -> Result<Vm, BenchError> {
        if protection != Protection::Standalone {
            return Pair::start(protection, options).map(|pair| Vm::Pair(Box::new(pair)));
        }
        let words = options.options.iter().chain(&options.of_first).map(String::as_str);
        let command: Vec<&str> = std::iter::once("run").chain(words).collect();
        standalone("vm", core_a(), &options.guest, &command).map(Vm::Standalone)
    }

    /// Runs `work` on a thread in the client's namespace.
    pub(crate) fn client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        match self {
            Vm::Standalone(vm) => vm.namespace.enter(work),
            Vm::Pair(pair) => pair.client(work),
        }
    }

    /// Returns the process id of the VM, or of primary and backup.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Vm::Standalone(vm) => vec![vm.vm.pid()],
            Vm::Pair(pair) => pair.hosts.members().map(|member| member.pid()).collect(),
        }
    }

    /// Returns the status of the primary (see [`Pair::statuses`]); `None` without a backup.
    pub(crate) fn status(&mut self) -> Result<Option<Map<String, Value>>, BenchError> {
        match self {
            Vm::Standalone(_) => Ok(None),
            Vm::Pair(pair) => pair.statuses().map(|[primary, _backup]| Some(primary)),
        }
    }

    /// Stops all processes in an orderly way.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        match self {
            Vm::Standalone(vm) => Ok(vm.stop().map(drop)?),
            Vm::Pair(pair) => pair.stop(),
        }
    }
}

/// Silence timeout in milliseconds, long enough that a busy host does not lose its backup during a
/// measurement.
const SILENCE_MS: u64 = 10_000;

/// A protected VM: host A is the primary, host B the backup.
pub(crate) struct Pair {
    hosts: Hosts,
}

impl Pair {
    /// Starts both hosts and waits until the VM is protected.
    pub(crate) fn start(protection: Protection, options: &VmOptions) -> Result<Pair, BenchError> {
        let setup = Scene::new(&understudy()?)?.setup(SILENCE_MS);
        let options_of = |core: usize, additional: &[String]| {
            let core = ["--core".into(), core.to_string()];
            [&core[..], &options.options, additional].concat()
        };
        let setup = Setup {
            guest: options.guest.clone(),
            key: setup.key.filter(|_| protection == Protection::Sealed),
            options: [options_of(core_a(), &options.of_first), options_of(core_b(), &[])],
            ..setup
        };
        let mut hosts = Hosts::new(setup, PATIENCE, &interrupt::flag()?);
        hosts.start(Part::Primary, Host::A)?;
        hosts.start(Part::Backup, Host::B)?;
        hosts.wait("a protected VM", |hosts| {
            (hosts.lacks_member() || hosts.protected().is_some()).then_some(())
        })?;
        let mut pair = Pair { hosts };
        pair.check()?;
        Ok(pair)
    }

    /// Runs `work` on a thread in the client's namespace.
    pub(crate) fn client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        self.hosts.network().client().enter(work)
    }

    /// Returns the status of both hosts, the primary first. Waits long enough that the status includes
    /// everything that happened before the call. Fails as [`check`](Self::check) does.
    pub(crate) fn statuses(&mut self) -> Result<[Map<String, Value>; 2], BenchError> {
        std::thread::sleep(STATUS_AGE_MAX);
        self.check()?;
        let mut statuses = Vec::new();
        for member in self.hosts.members() {
            let doing = format!("asking host {} for its status", member.host);
            statuses.push(status::ask(&member.socket).map_err(BenchError::os(doing))?);
        }
        Ok(statuses.try_into().expect("the check found both"))
    }

    /// Returns an error unless the VM is still protected by the same pair. Figures of any other state
    /// are invalid.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        self.hosts.poll()?;
        match self.hosts.protected() {
            Some((Host::A, _since)) if !self.hosts.lacks_member() => Ok(()),
            Some(_) | None => Err(BenchError::Wrong(format!(
                "the VM lost its protection while it was measured: {}",
                self.hosts.describe_members()
            ))),
        }
    }

    /// Stops both hosts in an orderly way.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.check()?;
        self.hosts.stop()?;
        Ok(())
    }
}
