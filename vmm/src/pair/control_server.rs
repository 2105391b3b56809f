//! The control socket of a VM of a pair: each connection sends one [`Request`] and receives one line of JSON.

use super::status::StatusBoard;
use crate::limits::CONTROL_CLIENTS_MAX;
use crate::opener;
use crate::replay::Orders;
use crate::sandbox::{self, Task};
use nix::poll::{PollFd, PollFlags, poll};
use replication::driver::Order;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time that a client's request may take to arrive, and that a write to it may take.
const CLIENT_MAX: Duration = Duration::from_secs(1);

/// Longest time for which a socket that was removed is missing, if no client has to be served meanwhile.
const MISSING_MAX: Duration = Duration::from_secs(1);

/// Most bytes of a request: names are short, and a longer line is none.
const REQUEST_BYTES_MAX: usize = 16;

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

    fn of_line(line: &[u8]) -> Option<Request> {
        Self::ALL.into_iter().find(|request| request.name().as_bytes() == line)
    }
}

/// A client whose request is arriving.
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    /// When it is given up.
    deadline: Instant,
}

impl Client {
    /// Reads what has arrived, if anything has. Returns the request once all of it has.
    fn receive(&mut self) -> io::Result<Option<Request>> {
        let mut bytes = [0; REQUEST_BYTES_MAX];
        let room = REQUEST_BYTES_MAX - self.received.len();
        let count = self.stream.read(&mut bytes[..room])?;
        self.received.extend(&bytes[..count]);
        let end = self.received.iter().position(|byte| *byte == b'\n');
        if end.is_none() && count > 0 && self.received.len() < REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let line = &self.received[..end.unwrap_or(self.received.len())];
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "an unknown request");
        Request::of_line(line).map(Some).ok_or_else(unknown)
    }
}

/// The clients whose requests are arriving, the oldest one first. None of them keeps another one waiting.
struct Clients {
    clients: VecDeque<Client>,
    /// Longest time that a request may take to arrive.
    longest: Duration,
}

impl Clients {
    /// Waits for a client, but not longer than a removed socket may be missing, and serves those whose requests are
    /// there.
    fn serve(&mut self, listener: &UnixListener, mut answer: impl FnMut(UnixStream, Request)) {
        let now = Instant::now();
        let left =
            self.clients.front().map(|client| client.deadline.saturating_duration_since(now));
        // Rounded up, so that the deadline has passed then.
        let wait_ms = left.unwrap_or(MISSING_MAX).min(MISSING_MAX).as_millis() as u16 + 1;
        let streams = self.clients.iter().map(|client| client.stream.as_fd());
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<_> = [listener.as_fd()].into_iter().chain(streams).map(readable).collect();
        if poll(&mut fds, wait_ms).is_err() {
            return;
        }
        let is_ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let now = Instant::now();
        for (mut client, is_ready) in mem::take(&mut self.clients).into_iter().zip(&is_ready[1..]) {
            let request = if *is_ready { client.receive() } else { Ok(None) };
            match request {
                Ok(Some(request)) => answer(client.stream, request),
                Ok(None) if client.deadline > now => self.clients.push_back(client),
                // It is too slow, has disconnected, or asks for something unknown.
                Ok(None) | Err(_) => {}
            }
        }
        if is_ready[0] {
            self.accept(listener, now);
        }
    }

    fn accept(&mut self, listener: &UnixListener, now: Instant) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(RETRY_INTERVAL);
            return;
        };
        // Whoever has sent nothing for longest gives way.
        if self.clients.len() == CONTROL_CLIENTS_MAX {
            self.clients.pop_front();
        }
        let deadline = now + self.longest;
        self.clients.push_back(Client { stream, received: Vec::new(), deadline });
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
        ControlServer::with_clients(path, board, orders, CLIENT_MAX)
    }

    /// Listens as [`start`](Self::start) does, for clients whose requests take no longer than `longest`.
    fn with_clients(
        path: &Path,
        board: StatusBoard,
        orders: Arc<Orders>,
        longest: Duration,
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
            let mut clients = Clients { clients: VecDeque::new(), longest };
            loop {
                clients.serve(&listener, |stream, request| {
                    // An error means that the client has disconnected, or does not read.
                    let _ = answer(stream, request, (&board, &orders));
                });
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

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Before the removal, so that the thread does not make it again.
        self.is_ending.store(true, Ordering::SeqCst);
        opener::unlink(&self.path);
    }
}

fn answer(
    mut stream: UnixStream,
    request: Request,
    (board, orders): (&StatusBoard, &Orders),
) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_MAX))?;
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

    /// Ends a test that hangs.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A client of `longest` at the other end of the stream that is returned.
    fn client(longest: Duration) -> (UnixStream, Client) {
        let (ours, stream) = UnixStream::pair().unwrap();
        (ours, Client { stream, received: Vec::new(), deadline: Instant::now() + longest })
    }

    #[test]
    fn request_is_a_line_with_its_name_however_it_arrives() {
        for request in Request::ALL {
            let (mut ours, mut theirs) = client(CLIENT_MAX);
            let (first, rest) = request.name().split_at(2);
            ours.write_all(first.as_bytes()).unwrap();
            assert_eq!(theirs.receive().unwrap(), None);
            ours.write_all(format!("{rest}\n").as_bytes()).unwrap();
            assert_eq!(theirs.receive().unwrap(), Some(request));
        }
        for wrong in ["aaaaaaaaaaaaaaaaaaaaaaaa", "\n", "status", ""] {
            let (mut ours, mut theirs) = client(CLIENT_MAX);
            ours.write_all(wrong.as_bytes()).unwrap();
            drop(ours);
            let whole =
                std::iter::repeat_with(|| theirs.receive()).find(|got| !matches!(got, Ok(None)));
            let is_name = wrong == "status";
            assert_eq!(
                whole.unwrap().is_ok(),
                is_name,
                "{wrong:?}: the end of the stream ends a line"
            );
        }
    }

    /// Asks for the status and gets it.
    fn asks(mut client: UnixStream) {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"status\n").unwrap();
        let mut line = String::new();
        client.read_to_string(&mut line).unwrap();
        assert!(line.contains("\"role\""), "{line}");
    }

    #[test]
    fn removed_socket_is_made_again_and_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/vm.sock");
        let server = ControlServer::start(&path, StatusBoard::default(), Arc::default()).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let client = loop {
            match UnixStream::connect(&path) {
                Ok(client) => break client,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        asks(client);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(server);
    }

    /// None of the idle clients would be given up in the time of this test.
    #[test]
    fn clients_that_ask_nothing_keep_nobody_out_and_the_oldest_ones_give_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, longest) = (folder.path().join("vm.sock"), Duration::from_secs(3600));
        let (board, orders) = (StatusBoard::default(), Arc::default());
        let _server = ControlServer::with_clients(&path, board, orders, longest).unwrap();
        let connect = || UnixStream::connect(&path).unwrap();
        let mut idle: Vec<_> = (0..200).map(|_| connect()).collect();
        asks(connect());
        // Until the server hangs up.
        idle[0].set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(idle[0].read(&mut [0]).unwrap(), 0);
        asks(idle.pop().expect("200"));
    }

    /// A client that sends a byte now and then is given up at the same time as one that sends none.
    #[test]
    fn slow_client_is_given_up_after_one_time_for_the_whole_request() {
        let folder = tempfile::tempdir().unwrap();
        let (path, pause) = (folder.path().join("vm.sock"), Duration::from_millis(50));
        let (board, orders) = (StatusBoard::default(), Arc::default());
        let _server = ControlServer::with_clients(&path, board, orders, 3 * pause).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        // Ends when the server has hung up. With a time for each byte, 16 bytes would arrive, and be an unknown request.
        let sent = std::iter::repeat_with(|| {
            std::thread::sleep(pause);
            client.write_all(b"s")
        });
        let sent = sent.take_while(Result::is_ok).count();
        assert!(sent < REQUEST_BYTES_MAX, "{sent}");
    }
}
