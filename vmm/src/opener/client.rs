//! The VM's process: its opener, if it has one.

use super::message::{ANSWER_BYTES_MAX, Answer, Request};
use super::{OpenerConfig, OutputPath, child};
use crate::files::FileError;
use crate::files::output::Draft;
use crate::kvm::kick::spawn_unkicked;
use crate::kvm::{pass_fd, process};
use crate::sandbox::{self, Task};
use netpath::{
    BridgeSocket, PacketConfig, PacketFiles, PacketPort, PortError, TapConfig, TapFiles, TapPort,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The opener of this process.
static OPENER: OnceLock<Opener> = OnceLock::new();

struct Opener {
    child: Pid,
    /// Locked for a request and its answer.
    socket: Mutex<OwnedFd>,
}

/// Starts the opener of this process, which must have one thread and have opened nothing that it is to keep.
///
/// # Errors
///
/// A system call fails, or this process has more than one thread.
pub fn start(config: &OpenerConfig) -> io::Result<()> {
    let inherited = child::open_descriptors()?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let vm_end = ours.as_raw_fd();
    let child = process::start_child(|| {
        let closed: Vec<_> = inherited.iter().copied().chain([vm_end]).collect();
        child::become_child(c"opener", &closed)?;
        child::run(config, &theirs)
    })?;
    let opener = Opener { child, socket: Mutex::new(ours) };
    assert!(OPENER.set(opener).is_ok(), "a process starts one opener");
    Ok(())
}

/// Starts a thread that waits for the end of the opener, if there is one, and reports it.
///
/// # Errors
///
/// The thread can't be started.
pub fn watch() -> io::Result<()> {
    let Some(opener) = OPENER.get() else { return Ok(()) };
    let lost = "a tap, log interface or control socket that is lost is not opened again, and no file is created";
    watch_child(opener.child, "opener", lost)
}

/// Starts a thread that waits for the end of `child`, named `name`, and reports it: what is `lost` then.
///
/// # Errors
///
/// The thread can't be started.
pub fn watch_child(child: Pid, name: &'static str, lost: &'static str) -> io::Result<()> {
    let wait = move || {
        sandbox::enter(Task::Waiter);
        let ended = loop {
            match waitpid(child, None) {
                Err(nix::Error::EINTR) => {}
                ended => break ended,
            }
        };
        let how = match ended {
            // This process has closed its end of the socket.
            Ok(WaitStatus::Exited(_, 0)) => return,
            Ok(WaitStatus::Exited(_, code)) => format!("exit status: {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal: {signal}"),
            other => format!("{other:?}"),
        };
        tracing::warn!("the process '{name}' of this VM has ended ({how}): {lost}");
    };
    spawn_unkicked(&format!("{name}-end"), wait).map(drop)
}

impl Opener {
    fn ask(&self, request: Request) -> Result<(Answer, Vec<OwnedFd>), PortError> {
        let gone = || PortError::NotOpened { reason: "the process 'opener' is gone".into() };
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; ANSWER_BYTES_MAX];
        let received = pass_fd::send(socket.as_fd(), &[request.code()], &[])
            .and_then(|()| pass_fd::receive(socket.as_fd(), &mut buffer));
        let (length, files) = received.map_err(|_| gone())?;
        Ok((Answer::decode(&buffer[..length]).ok_or_else(gone)?, files))
    }

    /// Returns the files and the number in the answer to `request`.
    fn open<const N: usize>(
        &self,
        request: Request,
        missing: impl FnOnce() -> PortError,
    ) -> Result<([OwnedFd; N], u32), PortError> {
        match self.ask(request)? {
            (Answer::Opened(number), files) => match files.try_into() {
                Ok(files) => Ok((files, number)),
                Err(_) => Err(PortError::NotOpened { reason: "no descriptor is left".into() }),
            },
            (Answer::Absent, _) => Err(missing()),
            (Answer::Failed(reason), _) => Err(PortError::NotOpened { reason }),
        }
    }
}

/// An output while it is written. It is removed when it is dropped unfinished.
#[derive(Debug)]
pub struct OutputDraft(DraftPlace);

#[derive(Debug)]
enum DraftPlace {
    Here(Draft),
    Opener(OpenerDraft),
}

/// The opener has the draft, and this process its file.
struct OpenerDraft {
    opener: &'static Opener,
    file: File,
}

impl Opener {
    /// Returns the files in the answer to `request`, which is about an output.
    fn output<const N: usize>(&self, request: Request) -> Result<[OwnedFd; N], FileError> {
        let missing = || PortError::NotOpened { reason: "it was not asked for".into() };
        match self.open(request, missing) {
            Ok((files, _)) => Ok(files),
            Err(PortError::NotOpened { reason }) => Err(FileError::Io(io::Error::other(reason))),
            Err(error) => Err(FileError::Io(io::Error::other(error))),
        }
    }
}

impl std::fmt::Debug for OpenerDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenerDraft").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Drop for OpenerDraft {
    /// Once it has its name, there is no draft.
    fn drop(&mut self) {
        let _ = self.opener.ask(Request::Discard);
    }
}

impl OutputDraft {
    /// Returns the file, to write it.
    pub fn file(&mut self) -> &mut File {
        match &mut self.0 {
            DraftPlace::Here(draft) => draft.file(),
            DraftPlace::Opener(draft) => &mut draft.file,
        }
    }

    /// Renames the file to its final path. What was there is replaced, also a symbolic link.
    ///
    /// # Errors
    ///
    /// It can't be renamed.
    pub fn finish(self) -> Result<(), FileError> {
        match self.0 {
            DraftPlace::Here(draft) => draft.finish().map(drop),
            DraftPlace::Opener(draft) => draft.opener.output::<0>(Request::Keep).map(drop),
        }
    }
}

/// Creates the draft of `output`, which must be the one of the opener's configuration.
///
/// # Errors
///
/// As those of [`Draft::create`]; or the opener is gone.
pub fn create_draft(output: &OutputPath) -> Result<OutputDraft, FileError> {
    let Some(opener) = OPENER.get() else {
        return Ok(OutputDraft(DraftPlace::Here(Draft::create(&output.path, output.access)?)));
    };
    let [file] = opener.output(Request::Draft)?;
    Ok(OutputDraft(DraftPlace::Opener(OpenerDraft { opener, file: file.into() })))
}

/// Creates the report in the folder `output`, which must be the one of the opener's configuration. Makes the folder.
///
/// # Errors
///
/// The folder or the file can't be created; or the opener is gone.
pub fn create_report(output: &OutputPath) -> Result<File, FileError> {
    let Some(opener) = OPENER.get() else {
        return child::create_report(&output.path, output.access);
    };
    let [file] = opener.output(Request::Report)?;
    Ok(file.into())
}

/// Opens the VM's tap.
///
/// # Errors
///
/// As those of [`TapPort::open`], and [`PortError::NotOpened`].
pub fn open_tap(config: &TapConfig) -> Result<TapPort, PortError> {
    let Some(opener) = OPENER.get() else { return TapPort::open(config) };
    let missing = || PortError::TapMissing { name: config.name.clone() };
    let ([tun, control], _) = opener.open(Request::Tap, missing)?;
    TapPort::with_files(config, TapFiles { tun, control })
}

/// Opens a port on the interface of the log link.
///
/// # Errors
///
/// As those of [`PacketPort::open`], and [`PortError::NotOpened`].
pub fn open_link(config: &PacketConfig) -> Result<PacketPort, PortError> {
    let Some(opener) = OPENER.get() else { return PacketPort::open(config) };
    let missing = || PortError::InterfaceMissing { name: config.interface.clone() };
    let ([socket, control], _) = opener.open(Request::Link, missing)?;
    PacketPort::with_files(config, PacketFiles { socket, control })
}

/// Opens a socket on the bridge of the VM's tap.
///
/// # Errors
///
/// As those of [`BridgeSocket::open`], and [`PortError::NotOpened`].
pub fn open_bridge(tap: &str) -> Result<BridgeSocket, PortError> {
    let Some(opener) = OPENER.get() else { return BridgeSocket::open(tap) };
    let missing = || PortError::InterfaceMissing { name: tap.into() };
    let ([socket], bridge) = opener.open(Request::Bridge, missing)?;
    Ok(BridgeSocket { bridge, socket })
}

/// Listens at `path`, the control socket, and makes its folder. Returns `None` if something is there.
///
/// # Errors
///
/// The socket can't be made.
pub fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    let Some(opener) = OPENER.get() else { return child::listen(path) };
    match opener.ask(Request::Listen).map_err(io::Error::other)? {
        (Answer::Opened(_), files) => Ok(files.into_iter().next().map(UnixListener::from)),
        (Answer::Absent, _) => Ok(None),
        (Answer::Failed(reason), _) => Err(io::Error::other(reason)),
    }
}

/// Removes the control socket at `path`.
pub fn unlink(path: &Path) {
    remove(path, Request::Unlink);
}

/// Removes the socket of the metrics at `path`.
pub fn unlink_metrics(path: &Path) {
    remove(path, Request::UnlinkMetrics);
}

fn remove(path: &Path, request: Request) {
    match OPENER.get() {
        Some(opener) => drop(opener.ask(request)),
        None => child::unlink(path),
    }
}
