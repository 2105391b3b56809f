//! The opener's own part: it waits for requests, and answers them one after the other.

use super::message::{Answer, Request};
use super::{OpenerConfig, OutputPath};
use crate::files::output::{self, Draft, Existing};
use crate::files::{Access, FileError};
use crate::kvm::credentials::{self, Capability};
use crate::kvm::pass_fd;
use crate::sandbox::{self, Helper};
use netpath::{BridgeSocket, PacketFiles, PacketPort, PortError, TapFiles, TapPort};
use nix::sys::prctl::{set_name, set_no_new_privs};
use nix::unistd::{close, dup2_stdin, dup2_stdout, setsid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

/// The file of a report in its folder.
const REPORT: &str = "report.txt";

/// What the opener needs: taps of other users, packet sockets, and folders of other users.
const CAPABILITIES: [Capability; 3] =
    [Capability::NetAdmin, Capability::NetRaw, Capability::DacOverride];

/// Makes a child of a VM's process independent of the terminal and of the files of its parent: closes the descriptors
/// `inherited`, which it does not use, so that nobody waits for their end. Takes no notice of signals: a stop request
/// (Ctrl-C, or systemd's SIGTERM to the whole service) is meant for the VM's process, and this one ends after it. They
/// are neither blocked nor ignored, because a command that the child starts would inherit that. Standard error stays.
///
/// # Errors
///
/// A system call fails.
pub(crate) fn become_child(name: &CStr, inherited: &[RawFd]) -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        // The handler only sets a flag.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    set_name(name)?;
    setsid()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    for &number in inherited {
        let _ = close(number);
    }
    Ok(())
}

/// Answers the requests that arrive at `socket`, until its other end is closed.
pub(super) fn run(config: &OpenerConfig, socket: &OwnedFd) -> io::Result<()> {
    credentials::limit_capabilities(&CAPABILITIES);
    credentials::keep_capabilities(&CAPABILITIES)?;
    set_no_new_privs()?;
    sandbox::enter_helper(Helper::Opener).map_err(io::Error::other)?;
    // Removed, if it is not kept, when the VM's process is gone.
    let mut draft = None;
    loop {
        let mut buffer = [0; 2];
        let (length, _no_descriptors) = pass_fd::receive(socket.as_fd(), &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let (answer, files) = match Request::decode(&buffer[..length]) {
            Some(request) => handle(config, &mut draft, request),
            None => (Answer::Failed("an unknown request".into()), Vec::new()),
        };
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        pass_fd::send(socket.as_fd(), &answer.encode(), &borrowed)?;
    }
}

type Handled = (Answer, Vec<OwnedFd>);

fn handle(config: &OpenerConfig, draft: &mut Option<Draft>, request: Request) -> Handled {
    match (request, config) {
        (Request::Tap, OpenerConfig { tap: Some(tap), .. }) => {
            let opened = TapPort::open_files(tap);
            answer(opened.map(|TapFiles { tun, control }| (0, vec![tun, control])))
        }
        (Request::Link, OpenerConfig { link: Some(link), .. }) => {
            let opened = PacketPort::open_files(link);
            answer(opened.map(|PacketFiles { socket, control }| (0, vec![socket, control])))
        }
        (Request::Bridge, OpenerConfig { tap: Some(tap), .. }) => {
            let opened = BridgeSocket::open(&tap.name);
            answer(opened.map(|BridgeSocket { bridge, socket }| (bridge, vec![socket])))
        }
        (Request::Listen, OpenerConfig { control: Some(path), .. }) => match listen(path) {
            Ok(Some(listener)) => (Answer::Opened(0), vec![listener.into()]),
            Ok(None) => (Answer::Absent, Vec::new()),
            Err(error) => (Answer::Failed(error.to_string()), Vec::new()),
        },
        (Request::Unlink, OpenerConfig { control: Some(path), .. }) => {
            unlink(path);
            (Answer::Opened(0), Vec::new())
        }
        (Request::UnlinkMetrics, OpenerConfig { metrics: Some(path), .. }) => {
            unlink(path);
            (Answer::Opened(0), Vec::new())
        }
        (Request::Draft, OpenerConfig { draft: Some(OutputPath { path, access }), .. }) => {
            output(Draft::create(path, *access).and_then(|new| {
                let file = draft.insert(new).file().try_clone()?;
                Ok(vec![file.into()])
            }))
        }
        (Request::Keep, _) => match draft.take() {
            Some(draft) => output(draft.finish().map(|_file| Vec::new())),
            None => (Answer::Absent, Vec::new()),
        },
        (Request::Discard, _) => {
            *draft = None;
            (Answer::Opened(0), Vec::new())
        }
        (Request::Report, OpenerConfig { report: Some(OutputPath { path, access }), .. }) => {
            output(create_report(path, *access).map(|file| vec![file.into()]))
        }
        (
            Request::Tap
            | Request::Link
            | Request::Bridge
            | Request::Listen
            | Request::Unlink
            | Request::UnlinkMetrics
            | Request::Draft
            | Request::Report,
            _not_configured,
        ) => (Answer::Absent, Vec::new()),
    }
}

fn answer(opened: Result<(u32, Vec<OwnedFd>), PortError>) -> Handled {
    match opened {
        Ok((bridge, files)) => (Answer::Opened(bridge), files),
        Err(PortError::InterfaceMissing { .. } | PortError::TapMissing { .. }) => {
            (Answer::Absent, Vec::new())
        }
        Err(error) => (Answer::Failed(error.to_string()), Vec::new()),
    }
}

fn output(files: Result<Vec<OwnedFd>, FileError>) -> Handled {
    match files {
        Ok(files) => (Answer::Opened(0), files),
        Err(error) => (Answer::Failed(error.to_string()), Vec::new()),
    }
}

/// Creates the report in `folder`, which is made if it does not exist.
pub(super) fn create_report(folder: &Path, access: Access) -> Result<File, FileError> {
    fs::create_dir_all(folder)?;
    output::create(&folder.join(REPORT), Existing::Replace, access)
}

/// Listens at `path`, and makes its folder. Returns `None` if something is there.
pub(super) fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    let found = fs::symlink_metadata(path);
    if !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Removes a socket.
pub(super) fn unlink(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = fs::remove_file(path);
    }
}

/// Returns the numbers of the open descriptors of this process beyond the standard streams.
///
/// # Errors
///
/// `/proc` can't be read.
pub fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    // Without the descriptor of the folder, which is closed by now.
    numbers.retain(|n| *n > 2 && fs::read_link(format!("/proc/self/fd/{n}")).is_ok());
    Ok(numbers)
}
