//! VMs under test: standalone VMs, each in its own namespace, and a protected pair with a client on its
//! LAN.
//!
//! Both run the `understudy` program from the folder of this executable.

use crate::PATIENCE;
use crate::error::BenchError;
use crossbeam::channel::{self, Receiver};
use nix::sys::signal::Signal;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmm::cli::status;
use vmm::demo::DemoError;
use vmm::demo::clients::{Limit, first_ping_reply};
use vmm::demo::cores;
use vmm::demo::guest::Guest;
use vmm::demo::lan::Namespace;
use vmm::demo::pair::member::{Member, MemberOutput, Message, Part};
use vmm::demo::pair::network::Host;
use vmm::demo::pair::scene::Scene;
use vmm::demo::standalone::{GUEST_ADDRESS, HOST_CIDR, TAP};
use vmm::demo::vm_process::VmProcess;

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

/// Returns the path of the `understudy` program, next to this executable.
pub(crate) fn understudy() -> PathBuf {
    std::env::current_exe().expect("a process has an executable").with_file_name("understudy")
}

/// Pins the calling thread to `core`.
pub(crate) fn pin(core: usize) -> Result<(), BenchError> {
    cores::pin(core).map_err(BenchError::os(format!("running on core {core}")))
}

/// An unprotected VM, with its client in the same namespace.
pub(crate) struct Standalone {
    namespace: Namespace,
    vm: VmProcess,
}

impl Standalone {
    /// Starts `understudy COMMAND` with the reference guest and waits for its first answer.
    pub(crate) fn start(
        name: &str,
        core: usize,
        command: &[&str],
    ) -> Result<Standalone, BenchError> {
        Standalone::start_guest(name, core, &Guest::Reference, command)
    }

    /// Like [`Standalone::start`], with any guest.
    pub(crate) fn start_guest(
        name: &str,
        core: usize,
        guest: &Guest,
        command: &[&str],
    ) -> Result<Standalone, BenchError> {
        let namespace = Namespace::new(name)?;
        namespace.add_tap(TAP, Some(HOST_CIDR))?;
        let core = core.to_string();
        let common = ["--tap", TAP, "--quiet", "--json", "--core", &core];
        let args = command.iter().chain(&common).map(OsString::from).chain(guest.options());
        let args: Vec<OsString> = args.collect();
        let vm = namespace.enter(|| {
            let start = Instant::now();
            let mut vm = VmProcess::spawn(&understudy(), &args)?;
            first_ping_reply(&mut vm, GUEST_ADDRESS, start, &Limit::HANG)?;
            Ok(vm)
        })?;
        Ok(Standalone { namespace, vm })
    }

    /// Runs `work` on a thread in the client's namespace.
    pub(crate) fn client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        enter(&self.namespace, work)
    }

    /// Returns the VM's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.vm.pid()
    }

    /// Stops the VM and returns the JSON object that it printed when it exited.
    pub(crate) fn stop(self) -> Result<Map<String, Value>, BenchError> {
        let (status, output) = self.vm.stop()?;
        if !status.success() {
            return Err(BenchError::Wrong(format!("the VM exited with {status}")));
        }
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .map_err(|error| BenchError::Wrong(format!("the VM printed {last:?}: {error}")))
    }
}

/// Options of a pair.
#[derive(Clone, Debug)]
pub(crate) struct PairOptions {
    /// The guest.
    pub(crate) guest: Guest,
    /// Whether the log link is sealed.
    pub(crate) sealed: bool,
    /// Silence timeout, milliseconds.
    pub(crate) silence_ms: u64,
    /// Additional options of both hosts.
    pub(crate) options: Vec<String>,
    /// Additional options of the primary and of the backup.
    pub(crate) of_each: [Vec<String>; 2],
    /// Cores of the primary and of the backup.
    pub(crate) cores: [usize; 2],
}

impl Default for PairOptions {
    fn default() -> PairOptions {
        PairOptions {
            guest: Guest::Reference,
            sealed: true,
            // Long enough that a busy host does not lose its backup during a measurement.
            silence_ms: 10_000,
            options: Vec::new(),
            of_each: [Vec::new(), Vec::new()],
            cores: [core_a(), core_b()],
        }
    }
}

/// A protected VM: host A is the primary, host B the backup.
pub(crate) struct Pair {
    // Dropped first: the processes must end before the namespaces they run in.
    members: Vec<Member>,
    messages: Receiver<Message>,
    /// Control sockets, for status requests.
    sockets: [PathBuf; 2],
    scene: Scene,
}

impl Pair {
    /// Starts both hosts and waits until the VM is protected.
    pub(crate) fn start(options: &PairOptions) -> Result<Pair, BenchError> {
        let scene = Scene::new()?;
        let (sender, messages) = channel::unbounded();
        let program = understudy();
        let mut setup = scene.setup(&program, &options.guest, options.silence_ms);
        if !options.sealed {
            setup.key = None;
        }
        let sockets = Host::ALL.map(|host| setup.socket(host, 0));
        let mut members = Vec::new();
        for (part, host) in [(Part::Primary, Host::A), (Part::Backup, Host::B)] {
            let index = host.index();
            let core = options.cores[index].to_string();
            let mut args = vec!["--core", &core];
            args.extend(options.options.iter().chain(&options.of_each[index]).map(String::as_str));
            members.push(Member::spawn(&setup, part, host, 0, &sender, &args)?);
        }
        let mut pair = Pair { members, messages, sockets, scene };
        pair.wait_until("a protected VM", |pair| {
            pair.members[0].state.protected.is_some().then_some(())
        })?;
        Ok(pair)
    }

    /// Runs `work` on a thread in the client's namespace.
    pub(crate) fn client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        enter(self.scene.network.client(), work)
    }

    /// Returns the status of both hosts, the primary first. Waits long enough that the status includes
    /// everything that happened before the call. Fails as [`check`](Self::check) does.
    pub(crate) fn statuses(&mut self) -> Result<[Map<String, Value>; 2], BenchError> {
        std::thread::sleep(STATUS_AGE_MAX);
        self.check()?;
        let ask = |host: Host| {
            status::ask(&self.sockets[host.index()])
                .map_err(BenchError::os(format!("asking host {host} for its status")))
        };
        Ok([ask(Host::A)?, ask(Host::B)?])
    }

    /// Returns the process id of a host.
    pub(crate) fn pid(&self, host: Host) -> u32 {
        self.members[host.index()].pid()
    }

    /// Returns an error unless the VM is still protected by the same pair. Figures of any other state
    /// are invalid.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        while let Ok(message) = self.messages.try_recv() {
            self.handle(message)?;
        }
        match self.members[0].state.protected {
            Some(_) => Ok(()),
            None => Err(BenchError::Wrong(format!(
                "the VM lost its protection while it was measured: {}; {}",
                self.members[0], self.members[1]
            ))),
        }
    }

    /// Stops both hosts in an orderly way.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.check()?;
        self.members[0].signal(Signal::SIGTERM);
        for member in &mut self.members {
            let status = member.reap(PATIENCE)?;
            if !status.success() {
                return Err(BenchError::Wrong(format!("{member} exited with {status}")));
            }
        }
        Ok(())
    }

    fn wait_until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Pair) -> Option<T>,
    ) -> Result<T, BenchError> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = done(self) {
                return Ok(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => self.handle(message)?,
                Err(_nothing_came) => {
                    let who: Vec<_> = self.members.iter().map(Member::to_string).collect();
                    let who = who.join("; ");
                    return Err(BenchError::Wrong(format!("timed out waiting for {what}: {who}")));
                }
            }
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), BenchError> {
        match message {
            Message::Process { host, instance: _, output: MemberOutput::Record(record) } => {
                self.members[host.index()].handle_record(record);
                Ok(())
            }
            Message::Process { host, instance: _, output: MemberOutput::End } => {
                Err(BenchError::Wrong(format!("a process ended: {}", self.members[host.index()])))
            }
            Message::Client(error) => Err(error.into()),
        }
    }
}

/// Runs `work` on a thread inside `namespace`.
pub(crate) fn enter<T: Send>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    // `work` fails with a BenchError, `Namespace::enter` with a DemoError: nest the results.
    namespace.enter(|| Ok::<_, DemoError>(work()))?
}
