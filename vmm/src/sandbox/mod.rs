//! What the threads of a VM's process may do once it runs: very little. A guest that has taken the process over, through
//! an error in a device, then has the VM, its logging channel and its files, and nothing else of the host.
//!
//! Everything is opened at the start, with the user's permissions. After that each thread [enters](enter) the sandbox:
//!
//! | step | then the thread |
//! |---|---|
//! | capabilities | has none, and no program that it could start would get any |
//! | user | is a user and a group of its own, to whom no file belongs |
//! | `no_new_privs` | gets no permission by starting a program |
//! | landlock | opens no file, and connects and binds no TCP socket ([`landlock(7)`]) |
//! | seccomp | makes only the system calls of its [task](Task), or the process is killed (`filter`) |
//!
//! All of this belongs to the thread, and threads that it starts inherit it. A thread that only works on what is open
//! enters at its beginning; `vcpu0` and main enter when the machine is built. What may have to be opened later is opened
//! by another process ([`opener`](crate::opener)), and the witness is asked by one
//! ([`WitnessThreads`](crate::witness::WitnessThreads)).
//!
//! While `vcpu0` runs, the filter costs it some time for each system call (decision 27 has what was measured); the rest is
//! looked at by the kernel when a file is opened.
//!
//! [`landlock(7)`]: https://docs.kernel.org/userspace-api/landlock.html

mod filter;
mod helper;
mod user;

pub use filter::Task;
pub use helper::{Helper, enter_helper};
pub use user::{SandboxUser, UserError};

use crate::kvm::credentials;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetError, RulesetStatus, Scope,
};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use seccompiler::{BpfProgram, apply_filter};
use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

/// The newest version of landlock whose restrictions are asked for. An older kernel gives those that it has.
const LANDLOCK: ABI = ABI::V6;

/// Exit code of a process whose thread can't enter the sandbox.
const CANNOT_ENTER: i32 = 1;

/// The sandbox of this process, if it has one.
static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// Whom the process becomes, and whether it may be looked at.
#[derive(Clone, Copy, Debug)]
pub struct SandboxConfig {
    /// The user. If there is none, root becomes one of its own, and any other user stays.
    pub user: Option<SandboxUser>,
    /// Whether debuggers may attach to the process, and its core may be dumped.
    pub core_dumps: CoreDumps,
}

/// Whether memory of the process may be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreDumps {
    /// It may not.
    Forbidden,
    /// It may (`--dumpable`).
    Allowed,
}

/// Why a thread can't enter the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The user.
    #[error("can't become user {user}: {source}: give another one with --user")]
    User {
        /// Whom.
        user: SandboxUser,
        /// Error of the system call.
        source: io::Error,
    },
    /// A step that every kernel has failed.
    #[error("the sandbox can't be entered, {step}: {source} (--no-sandbox runs without it)")]
    Step {
        /// Which step.
        step: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// Landlock.
    #[error("the sandbox can't be entered, landlock: {0} (--no-sandbox runs without it)")]
    Landlock(#[from] RulesetError),
    /// The filters of system calls.
    #[error("the sandbox can't be entered, seccomp: {0} (--no-sandbox runs without it)")]
    Seccomp(#[from] seccompiler::Error),
    /// A filter is not valid.
    #[error("the sandbox can't be entered, seccomp: {0} (--no-sandbox runs without it)")]
    Filter(#[from] seccompiler::BackendError),
}

/// How much of landlock the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// Everything that is asked for.
    Full,
    /// An older version: files are closed to the process, but not all else.
    Partial,
    /// Nothing.
    Missing,
}

#[derive(Debug)]
struct Sandbox {
    config: SandboxConfig,
    files: RulesetCreated,
    refusals: BpfProgram,
    filters: BTreeMap<Task, BpfProgram>,
}

/// Makes a sandbox for the threads of this process, and tries on a thread whether it can be entered. Returns how much
/// of landlock there is.
///
/// # Errors
///
/// It can't be entered.
pub fn start(config: SandboxConfig) -> Result<Landlock, SandboxError> {
    let user = config.user.or_else(SandboxUser::of_this_process);
    let sandbox = Sandbox::new(SandboxConfig { user, ..config })?;
    let landlock = sandbox.trial()?;
    assert!(SANDBOX.set(sandbox).is_ok(), "a process has one sandbox");
    Ok(landlock)
}

/// Enters the sandbox of this process, if it has one: from here on the calling thread does only what its task needs.
pub fn enter(task: Task) {
    let Some(sandbox) = SANDBOX.get() else { return };
    if let Err(error) = sandbox.enter(task) {
        // A thread of the same kind could at the start.
        tracing::error!("{error}");
        std::process::exit(CANNOT_ENTER);
    }
}

/// Returns how much of landlock the kernel has. Tries it on a thread.
pub fn landlock() -> Landlock {
    let tried = std::thread::spawn(|| restrict(files()?)).join();
    tried.map_or(Landlock::Missing, |result| result.unwrap_or(Landlock::Missing))
}

/// Makes the rules about files, TCP and abstract sockets: nothing is allowed.
fn files() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        // Not signals: before Linux 6.15, one between two threads of this process would be stopped, too.
        .scope(Scope::AbstractUnixSocket)?
        .create()
}

/// Applies `ruleset` to the calling thread.
fn restrict(ruleset: RulesetCreated) -> Result<Landlock, RulesetError> {
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::Missing,
    })
}

impl Sandbox {
    fn new(config: SandboxConfig) -> Result<Sandbox, SandboxError> {
        let filters = Task::ALL.into_iter().map(|task| Ok((task, filter::of(task)?)));
        let filters = filters.collect::<Result<_, SandboxError>>()?;
        Ok(Sandbox { config, files: files()?, refusals: filter::refusals()?, filters })
    }

    /// Enters the sandbox on a thread that does nothing else.
    fn trial(&self) -> Result<Landlock, SandboxError> {
        let os = |source| SandboxError::Step { step: "starting a thread", source };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("sandbox".into());
            let thread = thread.spawn_scoped(scope, || self.enter(Task::Waiter)).map_err(os)?;
            thread.join().expect("a thread that enters the sandbox does not panic")
        })
    }

    fn enter(&self, task: Task) -> Result<Landlock, SandboxError> {
        let landlock = self.give_up_permissions()?;
        // First, because the other one does not allow to install a filter.
        apply_filter(&self.refusals)?;
        apply_filter(&self.filters[&task])?;
        Ok(landlock)
    }

    /// All steps but the filters.
    fn give_up_permissions(&self) -> Result<Landlock, SandboxError> {
        let step = |step| move |source| SandboxError::Step { step, source };
        credentials::limit_capabilities(&[]);
        if let Some(user) = self.config.user {
            credentials::become_user(user.uid, user.gid)
                .map_err(|source| SandboxError::User { user, source })?;
        }
        credentials::keep_capabilities(&[]).map_err(step("dropping the capabilities"))?;
        let core_dumps = self.config.core_dumps == CoreDumps::Allowed;
        // The kernel forbids them when the user changes.
        set_dumpable(core_dumps).map_err(|errno| step("core dumps")(errno.into()))?;
        set_no_new_privs().map_err(|errno| step("no_new_privs")(errno.into()))?;
        let ruleset = self.files.try_clone().map_err(step("landlock"))?;
        Ok(restrict(ruleset)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType};
    use std::ffi::CString;
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Tells a copy of this test program what to attempt.
    const ATTEMPT: &str = "UNDERSTUDY_TEST_ATTEMPT";

    /// Exit code of a copy whose attempt was refused.
    const REFUSED: i32 = 77;

    /// Makes a socket, without using it. Returns whether that has failed.
    fn socket(family: AddressFamily, kind: SockType) -> bool {
        nix::sys::socket::socket(family, kind, SockFlag::empty(), None).is_err()
    }

    /// Enters the sandbox as `task` and makes the attempt of `name`. Returns whether it has failed.
    fn attempt(task: Task, name: &str) -> bool {
        start(SandboxConfig { user: None, core_dumps: CoreDumps::Forbidden }).unwrap();
        enter(task);
        match name {
            "nothing" => true,
            "read" => File::open("/etc/shadow").is_err() && File::open("/proc/self/maps").is_err(),
            "create" => File::create("/tmp/understudy-sandbox-test").is_err(),
            "look" => std::fs::metadata("/").is_err(),
            "udp" => socket(AddressFamily::Inet, SockType::Datagram),
            "tcp" => socket(AddressFamily::Inet6, SockType::Stream),
            "unix" => socket(AddressFamily::Unix, SockType::Stream),
            "exec" => nix::unistd::execv(c"/bin/true", &[CString::default()]).is_err(),
            "spawn" => Command::new("/bin/true").status().is_err(),
            "thread" => std::thread::Builder::new().spawn(|| {}).is_err(),
            "kill" => nix::sys::signal::kill(nix::unistd::getppid(), None).is_err(),
            "user" => nix::unistd::setuid(0.into()).is_err(),
            "debugger" => set_dumpable(true).is_err(),
            "unlink" => std::fs::remove_file("/tmp/understudy-sandbox-test").is_err(),
            unknown => panic!("{unknown}"),
        }
    }

    /// The copy's part; in the test program itself it does nothing.
    #[test]
    fn attempt_in_a_copy_of_this_program() {
        let Ok(text) = std::env::var(ATTEMPT) else { return };
        let (task, name) = text.split_once(' ').unwrap();
        let task = Task::ALL[task.parse::<usize>().unwrap()];
        std::process::exit(if attempt(task, name) { REFUSED } else { 0 });
    }

    #[test]
    fn thread_in_the_sandbox_opens_nothing_and_other_calls_end_the_process() {
        for (number, task) in Task::ALL.into_iter().enumerate() {
            let end = |name: &str| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "sandbox::tests::attempt_in_a_copy_of_this_program"])
                    .env(ATTEMPT, format!("{number} {name}"))
                    .output()
                    .unwrap()
                    .status
            };
            for refused in ["nothing", "read", "create", "look"] {
                let end = end(refused);
                assert_eq!(end.code(), Some(REFUSED), "{task:?}, {refused}: {end}");
            }
            for fatal in [
                "udp", "tcp", "unix", "exec", "spawn", "thread", "kill", "user", "debugger",
                "unlink",
            ] {
                let end = end(fatal);
                let signal = end.signal();
                assert_eq!(signal, Some(Signal::SIGSYS as i32), "{task:?}, {fatal}: {end}");
            }
        }
    }

    /// The filters hide whether landlock works.
    #[test]
    fn thread_without_permissions_opens_no_file_also_without_a_filter() {
        let config = SandboxConfig { user: None, core_dumps: CoreDumps::Allowed };
        let sandbox = Sandbox::new(config).unwrap();
        let opens = move || {
            let landlock = sandbox.give_up_permissions().unwrap();
            (landlock, File::open("/proc/self/status").is_ok())
        };
        let (landlock, is_open) = std::thread::spawn(opens).join().unwrap();
        assert_eq!(is_open, landlock == Landlock::Missing);
        assert_eq!(landlock, super::landlock());
    }

    #[test]
    fn filters_are_valid_and_not_too_long_for_the_kernel() {
        assert!(filter::refusals().is_ok());
        for task in Task::ALL {
            // BPF_MAXINSNS of the kernel.
            assert!(filter::of(task).unwrap().len() <= 4096, "{task:?}");
        }
    }
}
