//! Clients of a guest's services. They use the host kernel's TCP and ICMP, in the network namespace of the
//! calling thread ([`Namespace::enter`](crate::Namespace::enter)).
//!
//! - this file: single requests, mainly to the services of the reference guest
//! - [`redis`], [`redis_tools`]: a redis server's protocol; redis's own programs as clients
//! - [`sqlite`]: statements for the database on a Linux guest's disk
//! - [`counting`], [`traffic`], [`prober`]: clients that run for a long time and record what they see
//! - [`load`]: all of these and the sniffer, each on a thread of its own
//! - [`probe`], [`icmp`]: the prober's kinds of requests

pub mod counting;
pub mod icmp;
pub mod load;
pub mod probe;
pub mod prober;
pub mod redis;
pub mod redis_tools;
pub mod sqlite;
pub mod traffic;

use crate::pace::HANG_MAX;
use crate::{TestbedError, VmProcess, command};
use socket2::SockAddr;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// TCP and UDP port of the echo service.
pub const ECHO_PORT: u16 = 7;
/// A service that counts requests: it answers each with a line that has a prefix and the next number.
#[derive(Debug)]
pub struct CounterService {
    /// TCP port.
    pub port: u16,
    /// Bytes of a request.
    request: &'static [u8],
    /// Text before the number.
    answer_prefix: &'static str,
}

/// The counter service of the reference guest.
pub const REFERENCE_COUNTER: CounterService =
    CounterService { port: 7000, request: b"next\n", answer_prefix: "" };

/// Connects to a server. Connecting, reading and writing time out after `patience`.
pub(crate) fn connect(
    address: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> Result<TcpStream, TestbedError> {
    let target = SocketAddr::V4(SocketAddrV4::new(address, port));
    let doing = || TestbedError::client(format!("connecting to {target}"));
    let until = Instant::now() + patience;
    let stream = loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&target, left) {
            // The kernel gives up after three ARP requests, in as many seconds, whatever the timeout is. A
            // guest on a busy host may be slower.
            Err(error) if error.kind() == ErrorKind::HostUnreachable && Instant::now() < until => {}
            result => break result.map_err(doing())?,
        }
    };
    stream.set_nodelay(true).map_err(doing())?;
    stream.set_read_timeout(Some(patience)).map_err(doing())?;
    stream.set_write_timeout(Some(patience)).map_err(doing())?;
    Ok(stream)
}

/// One connection to a counter service.
#[derive(Debug)]
pub struct Counter {
    service: &'static CounterService,
    stream: BufReader<TcpStream>,
    line: String,
}

impl Counter {
    /// Connects to the counter service of the reference guest.
    ///
    /// # Errors
    ///
    /// If the connection can't be made.
    pub fn connect(address: Ipv4Addr) -> Result<Counter, TestbedError> {
        Counter::connect_to(&REFERENCE_COUNTER, address, HANG_MAX)
    }

    /// Connects to `service`. A request that is not answered within `patience` fails.
    ///
    /// # Errors
    ///
    /// If the connection can't be made.
    pub fn connect_to(
        service: &'static CounterService,
        address: Ipv4Addr,
        patience: Duration,
    ) -> Result<Counter, TestbedError> {
        let stream = BufReader::new(connect(address, service.port, patience)?);
        Ok(Counter { service, stream, line: String::new() })
    }

    /// Returns the connection, with which another thread can end it.
    ///
    /// # Errors
    ///
    /// If the process has too many open files.
    pub fn connection(&self) -> Result<TcpStream, TestbedError> {
        self.stream.get_ref().try_clone().map_err(TestbedError::client("sharing a connection"))
    }

    /// Sends one request and returns the number in the answer.
    ///
    /// # Errors
    ///
    /// If the connection ends or times out, or the answer is malformed.
    pub fn ask(&mut self) -> Result<u64, TestbedError> {
        let mut exchange = || -> io::Result<usize> {
            self.stream.get_mut().write_all(self.service.request)?;
            self.line.clear();
            self.stream.read_line(&mut self.line)
        };
        match exchange().map_err(TestbedError::client("counter request"))? {
            0 => Err(TestbedError::Wrong(String::from("the counter closed the connection"))),
            _bytes => {
                let number = self.line.strip_prefix(self.service.answer_prefix);
                let number = number.and_then(|number| number.trim_end().parse().ok());
                number.ok_or_else(|| {
                    TestbedError::Wrong(format!("the counter answered {:?}", self.line))
                })
            }
        }
    }
}

/// Sends `count` counter requests on one connection and checks that the numbers are consecutive. Returns the
/// first and the last number.
///
/// # Errors
///
/// If a request fails or a number is not the next one.
pub fn count(address: Ipv4Addr, count: u64) -> Result<(u64, u64), TestbedError> {
    let mut counter = Counter::connect(address)?;
    let first = counter.ask()?;
    let mut last = first;
    for _request in 1..count {
        let number = counter.ask()?;
        if number != last + 1 {
            return Err(TestbedError::Wrong(format!("the counter went from {last} to {number}")));
        }
        last = number;
    }
    Ok((first, last))
}

/// Sends `bytes` to the echo service, half-closes the connection, and compares the answer.
///
/// # Errors
///
/// If the transfer fails or the answer differs.
pub fn echo(address: Ipv4Addr, bytes: &[u8]) -> Result<(), TestbedError> {
    echo_within(address, bytes, HANG_MAX)
}

/// Like [`echo`], but times out after `patience` without progress.
///
/// # Errors
///
/// If the transfer fails or the answer differs.
pub fn echo_within(
    address: Ipv4Addr,
    bytes: &[u8],
    patience: Duration,
) -> Result<(), TestbedError> {
    let mut stream = connect(address, ECHO_PORT, patience)?;
    let failed = || TestbedError::client("echo");
    let mut writer = stream.try_clone().map_err(failed())?;
    let mut back = Vec::with_capacity(bytes.len());
    std::thread::scope(|scope| -> Result<(), TestbedError> {
        let sending = scope.spawn(move || {
            writer.write_all(bytes)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        stream.read_to_end(&mut back).map_err(failed())?;
        sending.join().expect("the sending thread does not panic").map_err(failed())
    })?;
    compare_echo(bytes, &back)
}

/// Checks that the answer `back` equals `bytes`.
fn compare_echo(bytes: &[u8], back: &[u8]) -> Result<(), TestbedError> {
    match back.iter().zip(bytes).position(|(got, sent)| got != sent) {
        Some(at) => Err(TestbedError::Wrong(format!("the echo differs at byte {at}"))),
        None if back.len() != bytes.len() => Err(TestbedError::Wrong(format!(
            "the echo returned {} of {} bytes",
            back.len(),
            bytes.len()
        ))),
        None => Ok(()),
    }
}

/// Runs ping(8) with an interval of `interval_s` seconds until `count` pings are answered. Returns how many
/// were answered.
///
/// # Errors
///
/// If ping fails or prints something unexpected.
pub fn ping(address: Ipv4Addr, count: u32, interval_s: &str) -> Result<u32, TestbedError> {
    // Without a deadline, ping waits for the last answer only twice as long as the others took.
    let deadline = HANG_MAX.as_secs().to_string();
    let text = command(
        "ping",
        &["-q", "-c", &count.to_string(), "-i", interval_s, "-w", &deadline, &address.to_string()],
    )?;
    // "20 packets transmitted, 20 received, 0% packet loss, time 3ms"
    let received = text
        .lines()
        .find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" received")))
        .and_then(|number| number.parse().ok());
    received.ok_or_else(|| TestbedError::Wrong(format!("ping printed {text:?}")))
}

/// Fetches a page with curl(1).
///
/// # Errors
///
/// If curl fails.
pub fn fetch(address: Ipv4Addr, path: &str) -> Result<String, TestbedError> {
    fetch_within(address, path, HANG_MAX)
}

/// Fetches a page with curl(1), which gives up after `time`.
///
/// # Errors
///
/// If curl fails.
pub fn fetch_within(address: Ipv4Addr, path: &str, time: Duration) -> Result<String, TestbedError> {
    let (url, seconds) = (format!("http://{address}{path}"), time.as_secs().to_string());
    command("curl", &["--silent", "--show-error", "--fail", "--max-time", &seconds, &url])
}

/// When to give up waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    /// Time after the start of the wait.
    pub time: Duration,
    /// Flag that ends the wait when it is set.
    pub interrupted: Option<&'a AtomicBool>,
}

impl Limit<'_> {
    /// The default limit, which only ends a hang.
    pub const HANG: Limit<'static> = Limit { time: HANG_MAX, interrupted: None };
}

/// Returns [`TestbedError::Interrupted`] if `interrupted` is set.
///
/// # Errors
///
/// Only that one.
pub fn check_interrupted(interrupted: &AtomicBool) -> Result<(), TestbedError> {
    match interrupted.load(Ordering::Relaxed) {
        true => Err(TestbedError::Interrupted),
        false => Ok(()),
    }
}

/// Sets a flag when it is dropped, so that threads that watch the flag end on every path.
pub struct StopOnDrop<'s>(pub &'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Minimum interval between pings.
const PING_EVERY: Duration = Duration::from_millis(1);

/// The pause between pings is the time waited so far, divided by this. So the result is accurate to a few
/// percent, and a slow VM does not have to answer thousands of pings once it is up.
const PING_PAUSE_DIVISOR: u32 = 32;

/// Sends ICMP echo requests until one is answered. Returns the time from `start` to the answer.
///
/// # Errors
///
/// If `vm` ends, `limit` is reached, or the socket fails.
pub fn first_ping_reply(
    vm: &mut VmProcess,
    address: Ipv4Addr,
    start: Instant,
    limit: &Limit<'_>,
) -> Result<Duration, TestbedError> {
    let failed = || TestbedError::client(format!("ping {address}"));
    let socket = icmp::socket().map_err(failed())?;
    let target = SockAddr::from(SocketAddrV4::new(address, 0));
    for sequence in 0.. {
        let passed = start.elapsed();
        if passed > limit.time {
            break;
        }
        limit.interrupted.map_or(Ok(()), check_interrupted)?;
        let pause = PING_EVERY.max(passed / PING_PAUSE_DIVISOR);
        socket.set_read_timeout(Some(pause)).map_err(failed())?;
        if vm.has_ended() {
            return Err(TestbedError::Wrong(String::from(
                "the VM ended before it answered a ping",
            )));
        }
        match socket.send_to(&icmp::CLIENTS.request(sequence, &[]), &target) {
            // The tap exists, but the VM does not answer ARP yet.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            result => drop(result.map_err(failed())?),
        }
        let mut reply = [0; 128];
        match (&socket).read(&mut reply) {
            Ok(length) if icmp::CLIENTS.reply(&reply[..length]).is_some() => {
                return Ok(start.elapsed());
            }
            Ok(_another) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Err(TestbedError::Wrong(format!("{address} did not answer ping within {:?}", limit.time)))
}
