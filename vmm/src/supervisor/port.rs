//! [`Supervisor`]: the supervisor as the VM's process knows it.

use super::message::{MESSAGE_BYTES_MAX, Message};
use crate::kvm::{kick, pidfd};
use crate::limits::SUPERVISOR_TEXT_BYTES_MAX;
use crate::sandbox::{self, Task};
use logchan::ids::VmId;
use logchan::seal::DeathNotice;
use netpath::MacAddr;
use replication::driver::SupervisorPort;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

/// The program of this process, even if its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Whether a supervisor watches this process. A copy refers to the same supervisor.
#[derive(Clone, Debug, Default)]
pub struct SupervisorState {
    /// Why the supervisor is gone, from then on. `None`: this process has no supervisor.
    lost: Option<Arc<OnceLock<String>>>,
}

impl SupervisorState {
    /// Returns the state as the status shows it.
    pub fn as_str(&self) -> &'static str {
        match &self.lost {
            None => "off",
            Some(lost) if lost.get().is_some() => "gone",
            Some(_) => "watching",
        }
    }

    fn lost(&self) -> Option<&str> {
        self.lost.as_ref()?.get().map(String::as_str)
    }
}

/// The supervisor of this process, or none. One thread owns it.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    state: SupervisorState,
    /// The driver knows that the supervisor is gone.
    is_loss_reported: bool,
}

impl Supervisor {
    /// Returns no supervisor: the peer notices this process's death by silence only.
    pub fn none() -> Supervisor {
        Supervisor { socket: None, state: SupervisorState::default(), is_loss_reported: false }
    }

    /// Starts a supervisor of `vm` that sends to `peer` on `interface`, and does not wait for it to be ready. If it
    /// can't be started, it counts as one that is gone: the VM runs all the same.
    pub fn start(interface: &str, (peer, vm): (MacAddr, VmId)) -> Supervisor {
        let lost = Arc::new(OnceLock::new());
        let socket = match spawn(interface, (peer, vm), &lost) {
            Ok(socket) => Some(socket),
            Err(error) => {
                lost.get_or_init(|| format!("it can't be started: {error}"));
                None
            }
        };
        let state = SupervisorState { lost: Some(lost) };
        Supervisor { socket, state, is_loss_reported: false }
    }

    /// Tells the supervisor that the calling thread is the only one that sends for the VM and to the peer: when it
    /// has ended, the notice is true, long before the kernel has freed the memory of the process.
    pub fn watch_this_thread(&self) {
        // Without it, the notice comes at the end of the process.
        let _ = self.send(Message::Watch(pidfd::this_thread()));
    }

    /// Returns the state, for the status.
    pub fn state(&self) -> SupervisorState {
        self.state.clone()
    }

    fn send(&self, message: Message) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        socket.send(message.encode(&mut [0; MESSAGE_BYTES_MAX])).map(drop)
    }
}

impl SupervisorPort for Supervisor {
    fn try_hold(&mut self, notice: &DeathNotice) -> bool {
        match self.send(Message::from(notice)) {
            // Any other error means that the supervisor is gone, and then nobody can hold the notice.
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(()) => true,
        }
    }

    /// If the message can't be passed on, the peer is sent a notice after this host's Bye, and ignores it.
    fn stand_down(&mut self) {
        let _ = self.send(Message::StandDown);
    }

    fn poll_lost(&mut self) -> Option<String> {
        if self.is_loss_reported {
            return None;
        }
        let why = self.state.lost()?.to_owned();
        self.is_loss_reported = true;
        Some(why)
    }
}

/// Starts the supervisor, and a thread that waits for its end. Returns the socket to it.
fn spawn(
    interface: &str,
    (peer, vm): (MacAddr, VmId),
    lost: &Arc<OnceLock<String>>,
) -> io::Result<UnixDatagram> {
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    // The child gets these three descriptors: see `watch`. Those that this process has opened are closed when
    // its program starts, and the child closes those that this process was itself started with.
    let mut child = Command::new(OWN_PROGRAM)
        .arg0("understudy")
        .args(["supervise", "--interface", interface, "--peer", &peer.to_string()])
        .args(["--vm-id", &vm.0.to_string()])
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(pidfd::of_this_process()?)
        .stderr(Stdio::piped())
        .spawn()?;
    let lost = Arc::clone(lost);
    let wait = move || {
        sandbox::enter(Task::Waiter);
        let why = wait_for_end(&mut child);
        lost.get_or_init(|| why);
    };
    kick::spawn_unkicked("supervisor", wait)?;
    Ok(ours)
}

/// Waits until the supervisor ends, and returns how it did: its message, or its exit status.
fn wait_for_end(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        // The pipe ends with the supervisor. An error here only costs its message.
        let _ = stderr.take(SUPERVISOR_TEXT_BYTES_MAX).read_to_end(&mut text);
    }
    let status = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    match String::from_utf8_lossy(&text).lines().next_back() {
        Some(line) => line.trim_start_matches("understudy: ").into(),
        None => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_without_supervisor_is_off_and_loses_none() {
        let mut none = Supervisor::none();
        assert_eq!(none.state().as_str(), "off");
        assert_eq!(none.poll_lost(), None);
        none.stand_down();
    }

    #[test]
    fn supervisor_that_is_gone_is_reported_once() {
        let lost = Arc::new(OnceLock::new());
        let state = SupervisorState { lost: Some(Arc::clone(&lost)) };
        let mut supervisor = Supervisor { socket: None, state, is_loss_reported: false };
        assert_eq!((supervisor.state().as_str(), supervisor.poll_lost()), ("watching", None));
        lost.set(String::from("signal: 9")).unwrap();
        assert_eq!(supervisor.poll_lost().as_deref(), Some("signal: 9"));
        assert_eq!((supervisor.state().as_str(), supervisor.poll_lost()), ("gone", None));
    }

    #[test]
    fn end_of_a_child_is_described_by_its_last_line_or_its_status() {
        let end_of = |script: &str| {
            let mut shell = Command::new("sh");
            wait_for_end(&mut shell.args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap())
        };
        assert_eq!(end_of("echo 'understudy: eth9 is missing' >&2; exit 4"), "eth9 is missing");
        assert!(end_of("kill -9 $$").starts_with("signal: 9"));
    }
}
