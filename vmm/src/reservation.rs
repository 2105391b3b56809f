//! What only one VM of a host may have: its number on a log interface, its tap, its MAC address on a bridge, its control
//! socket.
//!
//! A VM reserves each of them at its start, and has it until its process ends. A reservation is a Unix socket with an
//! abstract name (unix(7)) on which the process listens: the kernel gives a name to one socket of a network namespace, to
//! which the interfaces belong, too, and removes it when the process is gone, however it ended. Nothing is left that
//! would have to be cleaned up. Whoever connects to the socket learns from the kernel which process listens
//! (`SO_PEERCRED`).
//!
//! Everybody on the host can take such a name, and so keep a VM from starting; the message then names the process. A VM
//! that runs is not affected.

use logchan::ids::VmId;
use netpath::{MacAddr, NicProbe, PortError};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::fmt;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for a process that ends: the kernel frees its memory before it closes its sockets.
const ENDING_WAIT: Duration = Duration::from_secs(10);
/// How long to wait for any other process: it may have been killed a moment ago.
const LIVING_WAIT: Duration = Duration::from_millis(300);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// `PF_EXITING` of the flags in `/proc/PID/stat` (include/linux/sched.h).
const EXITING: u64 = 0x4;
/// Most characters of a command line in a message.
const COMMAND_CHARS_MAX: usize = 120;

/// The reservations of this process.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// What one VM has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The number of a VM on a log interface.
    Vm {
        /// The interface.
        interface: String,
        /// The number.
        vm: VmId,
    },
    /// A tap.
    Tap {
        /// Its name.
        name: String,
    },
    /// A MAC address on the bridge that a tap is a port of.
    Mac {
        /// The address.
        mac: MacAddr,
        /// The index of the bridge.
        bridge: u32,
    },
    /// A control socket. It has a path, and is its own reservation.
    Control {
        /// The path.
        path: PathBuf,
    },
}

impl Resource {
    /// Returns the address of the socket.
    fn address(&self) -> io::Result<SocketAddr> {
        let name = match self {
            Resource::Vm { interface, vm } => format!("understudy/vm/{interface}/{}", vm.0),
            Resource::Tap { name } => format!("understudy/tap/{name}"),
            Resource::Mac { mac, bridge } => format!("understudy/mac/{bridge}/{mac}"),
            Resource::Control { path } => return SocketAddr::from_pathname(path),
        };
        SocketAddr::from_abstract_name(name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Vm { interface, vm } => {
                write!(f, "VM {} (--vm-id) on the log interface {interface}", vm.0)
            }
            Resource::Tap { name } => write!(f, "tap {name}"),
            Resource::Mac { mac, bridge: _ } => {
                write!(f, "the MAC address {mac} (--mac) on the bridge of this VM's tap")
            }
            Resource::Control { path } => {
                write!(f, "the control socket {} (--status)", path.display())
            }
        }
    }
}

/// Why a resource can't be reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReservationError {
    /// Another process has it.
    #[error("{resource} is in use by {holder}: each VM of a host needs its own")]
    Taken {
        /// What it has.
        resource: Resource,
        /// Who.
        holder: Holder,
    },
    /// The bridge of the tap can't be found.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A system call failed.
    #[error("reserving {resource}: {source}")]
    Os {
        /// What was to be reserved.
        resource: Resource,
        /// Error of the system call.
        source: io::Error,
    },
}

/// The process that has a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID; 0 if it is in another PID namespace.
    pid: i32,
    /// What it runs: the name of its VM, if its command line says so.
    runs: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("a process of another PID namespace"),
            pid => write!(f, "process {pid} ({})", self.runs),
        }
    }
}

/// Reserves `resource` until this process ends.
///
/// # Errors
///
/// Another process has it, or a system call fails.
pub fn reserve(resource: Resource) -> Result<(), ReservationError> {
    let listener = bind(resource)?;
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    Ok(())
}

/// Reserves `mac` on the bridge that `tap` is a port of, if it is one, until this process ends. A tap that does not exist
/// is left to whoever opens it.
///
/// # Errors
///
/// As [`reserve`]; or the kernel can't be asked for the bridge.
pub fn reserve_mac(mac: MacAddr, tap: &str) -> Result<(), ReservationError> {
    let nic = NicProbe::open(tap)?.by_name()?;
    match nic.and_then(|nic| nic.bridge) {
        Some(bridge) => reserve(Resource::Mac { mac, bridge }),
        None => Ok(()),
    }
}

/// Requires that no process listens on the control socket `path`. What a dead process has left there is no hindrance.
///
/// # Errors
///
/// A process listens there.
pub fn require_free(path: &Path) -> Result<(), ReservationError> {
    let resource = Resource::Control { path: path.to_path_buf() };
    // A path that is no address is one that nobody listens at.
    let Ok(address) = resource.address() else { return Ok(()) };
    let start = Instant::now();
    while let Ok(pid) = listener_of(&address) {
        if start.elapsed() > wait_for(pid) {
            return Err(ReservationError::Taken { resource, holder: Holder::of(pid) });
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    Ok(())
}

/// Binds the socket of `resource`. Waits while a process that has it may be ending.
fn bind(resource: Resource) -> Result<UnixListener, ReservationError> {
    let failed = |resource, source| ReservationError::Os { resource, source };
    let address = match resource.address() {
        Ok(address) => address,
        Err(source) => return Err(failed(resource, source)),
    };
    let start = Instant::now();
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(failed(resource, source)),
        }
        match listener_of(&address) {
            Ok(pid) if start.elapsed() > wait_for(pid) => {
                return Err(ReservationError::Taken { resource, holder: Holder::of(pid) });
            }
            // Nobody listens any more, or not yet.
            Err(_) if start.elapsed() > ENDING_WAIT => {
                return Err(failed(resource, io::ErrorKind::AddrInUse.into()));
            }
            Ok(_) | Err(_) => std::thread::sleep(RETRY_INTERVAL),
        }
    }
}

/// Returns how long to wait for the end of process `pid`.
fn wait_for(pid: i32) -> Duration {
    if is_ending(pid) { ENDING_WAIT } else { LIVING_WAIT }
}

/// Returns the process that listens at `address`.
fn listener_of(address: &SocketAddr) -> io::Result<i32> {
    let stream = UnixStream::connect_addr(address)?;
    Ok(getsockopt(&stream, PeerCredentials)?.pid())
}

/// Returns whether a process has begun to end, or has ended.
fn is_ending(pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return pid != 0 };
    // The name is in parentheses, and may have some itself: the state follows the last one (proc_pid_stat(5)).
    let Some((_, fields)) = text.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    let state = fields.next();
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & EXITING != 0)
}

impl Holder {
    /// Describes process `pid`.
    pub fn of(pid: i32) -> Holder {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let arguments: Vec<_> = text.split('\0').filter(|text| !text.is_empty()).collect();
        Holder { pid, runs: describe(&arguments) }
    }
}

/// Returns the VM that a process with this command line runs, or the command line.
fn describe(arguments: &[&str]) -> String {
    let value_of = |option: &str| {
        let mut rest = arguments.iter().skip_while(|text| !text.starts_with(option));
        let found = rest.next()?;
        match found.strip_prefix(option)? {
            "" => rest.next().copied(),
            value => value.strip_prefix('='),
        }
    };
    let of_file = value_of("--config").map(|file| format!("the VM of {file}"));
    let of_number = || value_of("--vm-id").map(|number| format!("VM {number}"));
    let text = match arguments {
        [_, "up", name, ..] if !name.starts_with('-') => format!("the VM {name}"),
        [_, "up" | "primary" | "backup", ..] => {
            of_file.or_else(of_number).unwrap_or_else(|| "VM 0".into())
        }
        [] => "it has ended".into(),
        _other_command => arguments.join(" "),
    };
    // The command line is the process's own choice.
    text.chars().filter(|c| !c.is_control()).take(COMMAND_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn tap(name: &str) -> Resource {
        Resource::Tap { name: format!("{name} of test process {}", std::process::id()) }
    }

    #[test]
    fn resource_is_one_processes_and_the_holder_is_named() {
        let first = bind(tap("first")).unwrap();
        let error = bind(tap("first")).unwrap_err();
        let text = error.to_string();
        let pid = std::process::id();
        assert!(text.contains(&format!("is in use by process {pid} (")), "{text}");
        assert!(text.starts_with("tap first of test") && !text.contains('\n'), "{text}");
        let _other = bind(tap("other")).unwrap();
        drop(first);
        bind(tap("first")).unwrap();
    }

    #[test]
    fn names_of_resources_differ() {
        let vm = |interface: &str, vm| Resource::Vm { interface: interface.into(), vm: VmId(vm) };
        let mac = |last, bridge| Resource::Mac { mac: MacAddr(2, 0, 0, 0, 0, last), bridge };
        let all = [
            vm("eth1", 1),
            vm("eth1", 2),
            vm("eth2", 1),
            tap("eth1"),
            mac(1, 3),
            mac(1, 4),
            mac(2, 3),
        ];
        let name =
            |resource: &Resource| resource.address().unwrap().as_abstract_name().unwrap().to_vec();
        let names: std::collections::BTreeSet<_> = all.iter().map(name).collect();
        assert_eq!(names.len(), all.len());
        assert!(vm("fifteen-bytes-x", u64::MAX).address().is_ok());
        assert!(vm("eth1", 7).to_string().contains("VM 7 (--vm-id) on the log interface eth1"));
    }

    #[test]
    fn control_socket_is_free_unless_a_process_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        require_free(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let text = require_free(&path).unwrap_err().to_string();
        assert!(text.contains("vm.sock (--status) is in use by process"), "{text}");
        // What it leaves.
        drop(listener);
        require_free(&path).unwrap();
        require_free(&folder.path().join("x".repeat(200))).unwrap();
    }

    /// A process that was killed keeps its sockets until somebody has waited for it, or the kernel has closed them.
    #[test]
    fn process_that_has_ended_is_ending_and_a_living_one_is_not() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(!is_ending(pid));
        assert!(!is_ending(std::process::id().cast_signed()));
        child.kill().unwrap();
        // Not waited for yet, it is a zombie.
        while !is_ending(pid) {
            std::thread::sleep(RETRY_INTERVAL);
        }
        child.wait().unwrap();
        assert!(is_ending(pid) && !is_ending(0));
    }

    #[test]
    fn holder_is_described_by_its_vm() {
        for (line, expected) in [
            ("understudy up web --quiet", "the VM web"),
            ("/usr/bin/understudy up --config=/x.toml", "the VM of /x.toml"),
            ("understudy primary --config /etc/a.toml --vm-id 3", "the VM of /etc/a.toml"),
            ("understudy backup --tap tap0 --vm-id 3", "VM 3"),
            ("understudy backup --tap tap0", "VM 0"),
            ("understudy run --tap tap0", "understudy run --tap tap0"),
            ("", "it has ended"),
        ] {
            let arguments: Vec<_> = line.split_whitespace().collect();
            assert_eq!(describe(&arguments), expected, "{line}");
        }
        assert_eq!(describe(&["a\u{1b}[2J", "b\n"]), "a[2J b");
        assert_eq!(describe(&["x"; 400]).chars().count(), COMMAND_CHARS_MAX);
        let of = |pid| Holder { pid, runs: "the VM web".into() }.to_string();
        assert_eq!(
            (of(7).as_str(), of(0).contains("PID namespace")),
            ("process 7 (the VM web)", true)
        );
    }
}
