//! The control socket of a VM of a pair: each connection sends one [`Request`] and receives one line of JSON.

use super::status::StatusBoard;
use crate::opener;
use crate::replay::Orders;
use crate::sandbox::{self, Task};
use nix::poll::{PollFd, PollFlags, poll};
use replication::driver::Order;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time that a client's request may take to arrive, and that a write to it may take. Clients are served
/// one after another.
const CLIENT_MAX: Duration = Duration::from_secs(1);

/// Longest time for which a socket that was removed is missing, if no client has to be served meanwhile, milliseconds.
const MISSING_MS_MAX: u16 = 1000;

/// How long to wait after a client could not be accepted: the process has too many files open.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What a client asks for. On the socket, a line with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The status.
    Status,
    /// End the VM on both hosts. The answer is the status before that.
    Stop,
    /// Hand the VM over to the backup. The answer is the status before that.
    HandOver,
}

impl Request {
    /// All requests.
    pub const ALL: [Self; 3] = [Self::Status, Self::Stop, Self::HandOver];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stop => "stop",
            Self::HandOver => "handover",
        }
    }

    /// Reads a request from a client that has sent all of it after `longest`.
    fn read(stream: &mut UnixStream, longest: Duration) -> io::Result<Request> {
        let deadline = Instant::now() + longest;
        let mut line = Vec::with_capacity(16);
        let mut byte = [0];
        // Names are short: a longer line is none.
        while line.len() < 16 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            if stream.read(&mut byte)? == 0 || byte == *b"\n" {
                break;
            }
            line.push(byte[0]);
        }
        let found = Self::ALL.into_iter().find(|request| request.name().as_bytes() == line);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unknown request"))
    }
}

/// The control socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    is_ending: Arc<AtomicBool>,
}

impl ControlServer {
    /// Listens at `path` on a thread of its own, which ends with the process. A socket that a dead process
    /// left there is replaced, and one that was removed while the process runs is made again.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a process already listens there, and any error of the kernel.
    pub fn start(
        path: &Path,
        board: StatusBoard,
        orders: Arc<Orders>,
    ) -> io::Result<ControlServer> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if is_socket {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            fs::remove_file(path)?;
        }
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut listener = opener::listen(path)?.ok_or_else(in_use)?;
        let (at, is_ending) = (path.to_path_buf(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_ending);
        std::thread::Builder::new().name("control".into()).spawn(move || {
            sandbox::enter(Task::Control);
            loop {
                if is_ready(&listener) {
                    // An error means that the client has disconnected, is too slow, or asks for something unknown.
                    let accepted = listener.accept();
                    if accepted.is_err() {
                        std::thread::sleep(RETRY_INTERVAL);
                    }
                    let _ = accepted.and_then(|(stream, _)| answer(stream, &board, &orders));
                }
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(Some(new)) = opener::listen(&at) {
                    listener = new;
                    if ends.load(Ordering::SeqCst) {
                        opener::unlink(&at);
                        return;
                    }
                    let path = at.display();
                    tracing::warn!("the control socket {path} was removed: it is made again");
                }
            }
        })?;
        Ok(ControlServer { path: path.to_path_buf(), is_ending })
    }
}

/// Waits for a client, but not longer than a removed socket may be missing.
fn is_ready(listener: &UnixListener) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, MISSING_MS_MAX).is_ok_and(|ready| ready > 0)
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Before the removal, so that the thread does not make it again.
        self.is_ending.store(true, Ordering::SeqCst);
        opener::unlink(&self.path);
    }
}

fn answer(mut stream: UnixStream, board: &StatusBoard, orders: &Orders) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_MAX))?;
    let request = Request::read(&mut stream, CLIENT_MAX)?;
    let status = board.lock().map_err(|_| io::Error::other("the vCPU thread panicked"))?.clone();
    match request {
        Request::Status => {}
        Request::Stop => orders.give(Order::Stop),
        Request::HandOver => orders.give(Order::HandOver),
    }
    let mut line = serde_json::to_vec(&status)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn request_is_a_line_with_its_name() {
        for request in Request::ALL {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            client.write_all(format!("{}\n", request.name()).as_bytes()).unwrap();
            assert_eq!(Request::read(&mut server, CLIENT_MAX).unwrap(), request);
        }
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&[b'a'; 64]).unwrap();
        assert!(Request::read(&mut server, CLIENT_MAX).is_err());
    }

    #[test]
    fn removed_socket_is_made_again_and_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/vm.sock");
        let server = ControlServer::start(&path, StatusBoard::default(), Arc::default()).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let mut client = loop {
            match UnixStream::connect(&path) {
                Ok(client) => break client,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        client.write_all(b"status\n").unwrap();
        let mut line = String::new();
        client.read_to_string(&mut line).unwrap();
        assert!(line.contains("\"role\""), "{line}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(server);
    }

    /// A client that sends a byte now and then keeps the others waiting no longer than one that sends none.
    #[test]
    fn slow_client_is_given_up_after_one_time_for_the_whole_request() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let pause = Duration::from_millis(20);
        let sender = std::thread::spawn(move || {
            // Ends when the server has hung up.
            while client.write_all(b"s").is_ok() {
                std::thread::sleep(pause);
            }
        });
        // With a time for each byte, 16 bytes would arrive, and be an unknown request.
        let kind = Request::read(&mut server, 3 * pause).unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind:?}");
        drop(server);
        sender.join().unwrap();
    }
}
