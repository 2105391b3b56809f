//! [`MetricsServer`].

use super::listener::MetricsListener;
use super::request::Verdict;
use crate::kvm::kick;
use crate::limits::{METRICS_CLIENTS_MAX, METRICS_REQUEST_BYTES_MAX};
use crate::sandbox::{self, Task};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time that a client may take, from its connection to the end of its answer.
const CLIENT_MAX: Duration = Duration::from_secs(5);

/// How long to wait after a client could not be accepted: the process has too many files open.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait without a client.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent the metrics.
    Served,
    /// Its request was not one for the metrics, and was answered with an error.
    Refused,
    /// It disconnected before it had its answer.
    Gone,
    /// It took too long.
    Slow,
    /// There were too many clients, and it was the oldest one.
    Displaced,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] =
        [Self::Served, Self::Refused, Self::Gone, Self::Slow, Self::Displaced];

    /// Returns the name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::Displaced => "displaced",
        }
    }
}

/// How many clients had each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedCounts([u64; Outcome::ALL.len()]);

impl ServedCounts {
    /// Returns how many clients had `outcome`.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    fn add(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }
}

/// How far a client is.
enum State {
    /// These bytes of its request have arrived.
    Asks(Vec<u8>),
    /// It is sent this answer, of which `sent` bytes are on their way.
    Reads { answer: Vec<u8>, sent: usize, outcome: Outcome },
}

struct Client {
    socket: OwnedFd,
    state: State,
    /// When it is given up.
    deadline: Instant,
}

impl Client {
    fn awaits(&self) -> PollFlags {
        match self.state {
            State::Asks(_) => PollFlags::POLLIN,
            State::Reads { .. } => PollFlags::POLLOUT,
        }
    }

    /// Receives and sends what is possible without waiting. Returns the outcome once there is one. `metrics` makes the
    /// text of the metrics.
    fn advance(&mut self, metrics: impl FnOnce() -> String) -> Option<Outcome> {
        if let State::Asks(received) = &mut self.state {
            let mut bytes = [0; METRICS_REQUEST_BYTES_MAX];
            let room = METRICS_REQUEST_BYTES_MAX - received.len();
            match recv(self.socket.as_raw_fd(), &mut bytes[..room], MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Some(Outcome::Gone),
                Ok(count) => received.extend(&bytes[..count]),
                Err(errno) => return gone(errno),
            }
            let verdict = Verdict::of(received)?;
            let outcome = match verdict {
                Verdict::Metrics => Outcome::Served,
                Verdict::BadRequest
                | Verdict::NotFound
                | Verdict::MethodNotAllowed
                | Verdict::TooLong => Outcome::Refused,
            };
            self.state = State::Reads { answer: verdict.answer(metrics), sent: 0, outcome };
        }
        let State::Reads { answer, sent, outcome } = &mut self.state else { return None };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), &answer[*sent..], flags) {
            Ok(count) => *sent += count,
            Err(errno) => return gone(errno),
        }
        (*sent == answer.len()).then_some(*outcome)
    }
}

/// Returns what an error of a client's socket means.
fn gone(errno: Errno) -> Option<Outcome> {
    match errno {
        Errno::EAGAIN | Errno::EINTR => None,
        _other => Some(Outcome::Gone),
    }
}

/// The clients that are served, the oldest one first. None of them keeps another one waiting.
struct Clients {
    clients: VecDeque<Client>,
    /// Longest time that a client may take.
    longest: Duration,
    counts: ServedCounts,
}

impl Clients {
    /// Waits until there is something to do, and does it.
    fn serve(
        &mut self,
        listener: &MetricsListener,
        mut metrics: impl FnMut(&ServedCounts) -> String,
    ) {
        let now = Instant::now();
        let left =
            self.clients.front().map(|client| client.deadline.saturating_duration_since(now));
        // Rounded up, so that the deadline has passed then.
        let wait_ms = left.unwrap_or(IDLE_MAX).min(IDLE_MAX).as_millis() as u16 + 1;
        let clients = self.clients.iter().map(|client| (client.socket.as_fd(), client.awaits()));
        let fds = [(listener.as_fd(), PollFlags::POLLIN)].into_iter().chain(clients);
        let mut fds: Vec<_> = fds.map(|(fd, events)| PollFd::new(fd, events)).collect();
        if poll(&mut fds, wait_ms).is_err() {
            return;
        }
        let is_ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let now = Instant::now();
        for (mut client, is_ready) in mem::take(&mut self.clients).into_iter().zip(&is_ready[1..]) {
            let counts = self.counts;
            let outcome = if *is_ready { client.advance(|| metrics(&counts)) } else { None };
            match outcome {
                Some(outcome) => self.counts.add(outcome),
                None if client.deadline > now => self.clients.push_back(client),
                None => self.counts.add(Outcome::Slow),
            }
        }
        if is_ready[0] {
            self.accept(listener, now);
        }
    }

    fn accept(&mut self, listener: &MetricsListener, now: Instant) {
        let socket = match listener.accept() {
            Ok(socket) => socket,
            // It has disconnected.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return std::thread::sleep(RETRY_INTERVAL),
        };
        if self.clients.len() == METRICS_CLIENTS_MAX {
            self.clients.pop_front();
            self.counts.add(Outcome::Displaced);
        }
        let (state, deadline) = (State::Asks(Vec::new()), now + self.longest);
        self.clients.push_back(Client { socket, state, deadline });
    }
}

/// The thread `metrics`, which serves clients until the process ends. When this is dropped, a socket with a path is
/// removed.
#[derive(Debug)]
pub struct MetricsServer {
    listener: Arc<MetricsListener>,
}

impl MetricsServer {
    /// Starts the thread. `metrics` makes the text that is served, and must not take long: all clients wait for it.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(
        listener: MetricsListener,
        metrics: impl FnMut(&ServedCounts) -> String + Send + 'static,
    ) -> io::Result<MetricsServer> {
        MetricsServer::with_clients(listener, metrics, CLIENT_MAX)
    }

    /// Starts the thread for clients that take no longer than `longest`.
    fn with_clients(
        listener: MetricsListener,
        mut metrics: impl FnMut(&ServedCounts) -> String + Send + 'static,
        longest: Duration,
    ) -> io::Result<MetricsServer> {
        let listener = Arc::new(listener);
        let served = Arc::clone(&listener);
        kick::spawn_unkicked("metrics", move || {
            sandbox::enter(Task::Metrics);
            let counts = ServedCounts::default();
            let mut clients = Clients { clients: VecDeque::new(), longest, counts };
            loop {
                clients.serve(&served, &mut metrics);
            }
        })?;
        Ok(MetricsServer { listener })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.listener.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricsAddress;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// Ends a test that hangs.
    const PATIENCE: Duration = Duration::from_secs(60);

    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

    /// An answer that fits into no socket's buffers.
    const LONG: usize = 16 << 20;

    /// Starts a server whose metrics are its counters, and `filler` bytes.
    fn server(longest: Duration, filler: usize) -> (MetricsServer, SocketAddr) {
        // Closed before the server listens there.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = MetricsListener::open(&MetricsAddress::Loopback(free)).unwrap();
        let metrics = move |counts: &ServedCounts| format!("{counts:?}{}", "x".repeat(filler));
        (MetricsServer::with_clients(listener, metrics, longest).unwrap(), free)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn answer(mut client: TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut client = connect(address);
        client.write_all(request).unwrap();
        answer(client)
    }

    /// Asks until a client had `outcome`.
    fn wait_for(address: SocketAddr, outcome: Outcome) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut client = connect(address);
            client.write_all(REQUEST).unwrap();
            let mut text = Vec::new();
            // This client may be too slow itself.
            let _ = client.read_to_end(&mut text);
            let text = String::from_utf8(text).unwrap();
            let counts =
                text.split_once("ServedCounts([").and_then(|(_, rest)| rest.split_once("])"));
            let count = counts.and_then(|(counts, _)| counts.split(", ").nth(outcome as usize));
            if count.is_some_and(|count| count != "0") {
                return;
            }
            assert!(Instant::now() < end, "{outcome:?}: {count:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn each_client_gets_its_answer_and_is_counted() {
        let (_server, address) = server(PATIENCE, 0);
        assert!(ask(address, REQUEST).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(ask(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        // One byte after the other.
        let mut slow = connect(address);
        slow.set_nodelay(true).unwrap();
        for byte in REQUEST {
            slow.write_all(&[*byte]).unwrap();
        }
        assert!(answer(slow).starts_with("HTTP/1.1 200 OK\r\n"));
        drop(connect(address));
        for outcome in [Outcome::Served, Outcome::Refused, Outcome::Gone] {
            wait_for(address, outcome);
        }
    }

    /// None of these clients is given up in the time of this test.
    #[test]
    fn clients_that_ask_or_read_nothing_keep_nobody_out_and_the_oldest_ones_give_way() {
        let (_server, address) = server(Duration::from_secs(3600), LONG);
        let mut idle: Vec<_> = (0..100).map(|_| connect(address)).collect();
        let deaf: Vec<_> = (0..METRICS_CLIENTS_MAX / 4)
            .map(|_| {
                let mut client = connect(address);
                client.write_all(REQUEST).unwrap();
                client
            })
            .collect();
        assert!(ask(address, REQUEST).len() > LONG);
        assert_eq!(idle[0].read(&mut [0]).unwrap(), 0, "the server has hung up");
        drop(deaf);
    }

    #[test]
    fn client_that_takes_too_long_is_given_up() {
        for (request, filler) in [(&b""[..], 0), (&REQUEST[..10], 0), (REQUEST, LONG)] {
            let (_server, address) = server(Duration::from_millis(200), filler);
            let mut client = connect(address);
            client.write_all(request).unwrap();
            wait_for(address, Outcome::Slow);
        }
    }

    #[test]
    fn request_without_an_end_is_answered_when_it_is_too_long() {
        let (_server, address) = server(PATIENCE, 0);
        let mut request = b"GET /".to_vec();
        request.resize(METRICS_REQUEST_BYTES_MAX, b'a');
        assert!(ask(address, &request).starts_with("HTTP/1.1 431 "));
    }
}
