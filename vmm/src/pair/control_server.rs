//! The control socket of a VM of a pair: each connection sends one [`Request`] and receives one line of JSON, or events.

use super::event_feed::{EventFeed, EventHistory};
use super::followers::{Followers, Until};
use super::status::StatusBoard;
use crate::limits::CONTROL_CLIENTS_MAX;
use crate::opener;
use crate::replay::Orders;
use crate::sandbox::{self, Task};
use crate::write_queue::FLUSH_MAX;
use crossbeam::channel::{self, Receiver};
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
    /// The last events, a line each.
    Events,
    /// The last events, and each new one.
    Follow,
}

impl Request {
    /// All requests.
    pub const ALL: [Self; 5] =
        [Self::Status, Self::Stop, Self::HandOver, Self::Events, Self::Follow];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stop => "stop",
            Self::HandOver => "handover",
            Self::Events => "events",
            Self::Follow => "follow",
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

/// The clients whose requests are arriving, the oldest one first, and those that read events. None of them keeps another
/// one waiting.
struct Clients {
    clients: VecDeque<Client>,
    /// Longest time that a request may take to arrive.
    longest: Duration,
    followers: Followers,
    history: EventHistory,
}

impl Clients {
    fn new(longest: Duration, history: EventHistory) -> Clients {
        Clients { clients: VecDeque::new(), longest, followers: Followers::default(), history }
    }

    /// Waits for a client or an event, but not longer than a removed socket may be missing, and serves those whose
    /// requests are there.
    fn serve(&mut self, listener: &UnixListener, mut answer: impl FnMut(UnixStream, Request)) {
        let now = Instant::now();
        let left =
            self.clients.front().map(|client| client.deadline.saturating_duration_since(now));
        // Rounded up, so that the deadline has passed then.
        let wait_ms = left.unwrap_or(MISSING_MAX).min(MISSING_MAX).as_millis() as u16 + 1;
        let streams = self.clients.iter().map(|client| client.stream.as_fd());
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let followers = self.followers.wanted().map(|(fd, flags)| PollFd::new(fd, flags));
        let fixed = [listener.as_fd(), self.history.bell()];
        let mut fds: Vec<_> =
            fixed.into_iter().chain(streams).map(readable).chain(followers).collect();
        if poll(&mut fds, wait_ms).is_err() {
            return;
        }
        let is_ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR;
        let is_gone: Vec<_> = fds[fixed.len() + self.clients.len()..]
            .iter()
            .map(|fd| fd.revents().is_some_and(|flags| flags.intersects(hung_up)))
            .collect();
        self.followers.drop_if(&is_gone);
        let now = Instant::now();
        let waiting = mem::take(&mut self.clients).into_iter();
        for (mut client, is_ready) in waiting.zip(&is_ready[fixed.len()..]) {
            let request = if *is_ready { client.receive() } else { Ok(None) };
            match request {
                Ok(Some(Request::Events)) => self.follow(client.stream, Until::Now),
                Ok(Some(Request::Follow)) => self.follow(client.stream, Until::Disconnected),
                Ok(Some(request @ (Request::Status | Request::Stop | Request::HandOver))) => {
                    answer(client.stream, request);
                }
                Ok(None) if client.deadline > now => self.clients.push_back(client),
                // It is too slow, has disconnected, or asks for something unknown.
                Ok(None) | Err(_) => {}
            }
        }
        if is_ready[0] {
            self.accept(listener, now);
        }
        self.send_events();
    }

    fn follow(&mut self, stream: UnixStream, until: Until) {
        self.history.take();
        self.followers.add(stream, until, &self.history);
    }

    /// Sends the events that there are to those who read them.
    fn send_events(&mut self) {
        self.history.take();
        self.followers.send(&self.history);
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

/// What the control socket serves.
pub struct Served {
    /// The status.
    pub board: StatusBoard,
    /// Where orders go.
    pub orders: Arc<Orders>,
    /// The events.
    pub history: EventHistory,
    /// Their source.
    pub feed: Arc<EventFeed>,
}

/// The control socket. It is removed when this is dropped, after the last events were sent.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    is_ending: Arc<AtomicBool>,
    feed: Arc<EventFeed>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl ControlServer {
    /// Listens at `path` on a thread of its own, which ends with the process. A socket that a dead process
    /// left there is replaced, and one that was removed while the process runs is made again.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a process already listens there, and any error of the kernel.
    pub fn start(path: &Path, served: Served) -> io::Result<ControlServer> {
        ControlServer::with_clients(path, served, CLIENT_MAX)
    }

    /// Listens as [`start`](Self::start) does, for clients whose requests take no longer than `longest`.
    fn with_clients(path: &Path, served: Served, longest: Duration) -> io::Result<ControlServer> {
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
        let Served { board, orders, history, feed } = served;
        let (end, ended) = channel::bounded::<()>(0);
        std::thread::Builder::new().name("control".into()).spawn(move || {
            let _end = end;
            sandbox::enter(Task::Control);
            let mut clients = Clients::new(longest, history);
            loop {
                clients.serve(&listener, |stream, request| {
                    // An error means that the client has disconnected, or does not read.
                    let _ = answer(stream, request, (&board, &orders));
                });
                if ends.load(Ordering::SeqCst) {
                    return clients.send_events();
                }
                if let Ok(Some(new)) = opener::listen(&at) {
                    listener = new;
                    if ends.load(Ordering::SeqCst) {
                        opener::unlink(&at);
                        return clients.send_events();
                    }
                    let path = at.display();
                    tracing::warn!("the control socket {path} was removed: it is made again");
                }
            }
        })?;
        Ok(ControlServer { path: path.to_path_buf(), is_ending, feed, ended })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Before the removal, so that the thread does not make it again.
        self.is_ending.store(true, Ordering::SeqCst);
        opener::unlink(&self.path);
        self.feed.ring();
        let _ = self.ended.recv_timeout(FLUSH_MAX);
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
        Request::Status | Request::Events | Request::Follow => {}
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
    use crate::pair::event::PairRecord;
    use crate::pair::event_feed::{EventLevel, OperatorEvent};
    use logchan::time::Time;
    use replication::replica::RoleName;
    use std::io::{BufRead, BufReader};
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

    /// A process that never has an event.
    fn served() -> Served {
        let (feed, history) = EventFeed::new().unwrap();
        Served { board: StatusBoard::default(), orders: Arc::default(), history, feed }
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
        let server = ControlServer::start(&path, served()).unwrap();
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
        let _server = ControlServer::with_clients(&path, served(), longest).unwrap();
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
        let _server = ControlServer::with_clients(&path, served(), 3 * pause).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        // Ends when the server has hung up. With a time for each byte, 16 bytes would arrive, and be an unknown request.
        let sent = std::iter::repeat_with(|| {
            std::thread::sleep(pause);
            client.write_all(b"s")
        });
        let sent = sent.take_while(Result::is_ok).count();
        assert!(sent < REQUEST_BYTES_MAX, "{sent}");
    }

    /// Connects and asks for events.
    fn follow(path: &Path, request: Request) -> BufReader<UnixStream> {
        let mut client = UnixStream::connect(path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(format!("{}\n", request.name()).as_bytes()).unwrap();
        BufReader::new(client)
    }

    fn event(text: &str) -> OperatorEvent {
        let record = PairRecord::started(Time::from_nanos(7), RoleName::Alone);
        OperatorEvent::now(record, EventLevel::Info, text.into())
    }

    #[test]
    fn follower_receives_past_and_new_events_and_those_of_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        let served = served();
        let feed = Arc::clone(&served.feed);
        let server = ControlServer::with_clients(&path, served, Duration::from_secs(3600)).unwrap();
        feed.put(event("past"));
        let mut past = String::new();
        follow(&path, Request::Events).read_to_string(&mut past).unwrap();
        assert!(past.contains("\"past\"") && past.lines().count() == 1, "{past}");
        let mut followed = follow(&path, Request::Follow);
        let mut line = String::new();
        followed.read_line(&mut line).unwrap();
        assert_eq!(line, past);
        feed.put(event("new"));
        line.clear();
        followed.read_line(&mut line).unwrap();
        assert!(line.contains("\"new\""), "{line}");
        feed.put(event("end"));
        drop(server);
        line.clear();
        followed.read_to_string(&mut line).unwrap();
        assert!(line.contains("\"end\"") && line.lines().count() == 1, "{line}");
    }
}
