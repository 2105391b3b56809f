//! Clients of a guest's services, those of the reference guest above all. They use the kernel's own TCP
//! and ICMP, from inside the namespace they are called in ([`super::lan::Namespace::enter`]).

use super::pace::HANG_MAX;
use super::vm_process::VmProcess;
use super::{DemoError, icmp, lan};
use socket2::SockAddr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// TCP and UDP port of the echo service.
pub const ECHO_PORT: u16 = 7;
/// A service that answers each request on a line of its own: with the next number, after a prefix.
#[derive(Debug)]
pub struct CounterService {
    /// Its TCP port.
    pub port: u16,
    /// What it is asked with.
    pub(super) request: &'static [u8],
    /// What stands before the number.
    pub(super) answer_prefix: &'static str,
}

/// That of the reference guest.
pub const REFERENCE_COUNTER: CounterService =
    CounterService { port: 7000, request: b"next\n", answer_prefix: "" };

/// A connection to a server that is given up when it does not answer for `patience`.
pub(super) fn connect(
    address: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> Result<TcpStream, DemoError> {
    let target = SocketAddr::V4(SocketAddrV4::new(address, port));
    let doing = || DemoError::client(format!("connecting to {target}"));
    let stream = TcpStream::connect_timeout(&target, patience).map_err(doing())?;
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
    /// Connects to that of the reference guest.
    pub fn connect(address: Ipv4Addr) -> Result<Counter, DemoError> {
        Counter::connect_to(&REFERENCE_COUNTER, address, HANG_MAX)
    }

    /// Connects. A service that does not answer for `patience` is taken for dead.
    pub fn connect_to(
        service: &'static CounterService,
        address: Ipv4Addr,
        patience: Duration,
    ) -> Result<Counter, DemoError> {
        let stream = BufReader::new(connect(address, service.port, patience)?);
        Ok(Counter { service, stream, line: String::new() })
    }

    /// One request; the number in the answer.
    pub fn ask(&mut self) -> Result<u64, DemoError> {
        let mut exchange = || -> io::Result<usize> {
            self.stream.get_mut().write_all(self.service.request)?;
            self.line.clear();
            self.stream.read_line(&mut self.line)
        };
        match exchange().map_err(DemoError::client("counter request"))? {
            0 => Err(DemoError::Wrong(String::from("the counter closed the connection"))),
            _bytes => {
                let number = self.line.strip_prefix(self.service.answer_prefix);
                let number = number.and_then(|number| number.trim_end().parse().ok());
                number.ok_or_else(|| {
                    DemoError::Wrong(format!("the counter answered {:?}", self.line))
                })
            }
        }
    }
}

/// Makes `count` counter requests on one connection and checks that the numbers follow each other.
/// Returns the first and the last.
pub fn count(address: Ipv4Addr, count: u64) -> Result<(u64, u64), DemoError> {
    let mut counter = Counter::connect(address)?;
    let first = counter.ask()?;
    let mut last = first;
    for _request in 1..count {
        let number = counter.ask()?;
        if number != last + 1 {
            return Err(DemoError::Wrong(format!("the counter went from {last} to {number}")));
        }
        last = number;
    }
    Ok((first, last))
}

/// Sends `bytes` to the echo service, half-closes, and compares what comes back.
pub fn echo(address: Ipv4Addr, bytes: &[u8]) -> Result<(), DemoError> {
    echo_within(address, bytes, HANG_MAX)
}

/// The same; a service that does not answer for `patience` is given up.
pub fn echo_within(address: Ipv4Addr, bytes: &[u8], patience: Duration) -> Result<(), DemoError> {
    let mut stream = connect(address, ECHO_PORT, patience)?;
    let failed = || DemoError::client("echo");
    let mut writer = stream.try_clone().map_err(failed())?;
    let mut back = Vec::with_capacity(bytes.len());
    std::thread::scope(|scope| -> Result<(), DemoError> {
        let sending = scope.spawn(move || {
            writer.write_all(bytes)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        stream.read_to_end(&mut back).map_err(failed())?;
        sending.join().expect("the sending thread does not panic").map_err(failed())
    })?;
    compare_echo(bytes, &back)
}

/// Whether `back`, which was to be the same as `bytes`, is.
pub(super) fn compare_echo(bytes: &[u8], back: &[u8]) -> Result<(), DemoError> {
    match back.iter().zip(bytes).position(|(got, sent)| got != sent) {
        Some(at) => Err(DemoError::Wrong(format!("the echo differs at byte {at}"))),
        None if back.len() != bytes.len() => Err(DemoError::Wrong(format!(
            "the echo returned {} of {} bytes",
            back.len(),
            bytes.len()
        ))),
        None => Ok(()),
    }
}

/// Pings by ping(8), one every `interval_s`, until `count` are answered; how many were.
pub fn ping(address: Ipv4Addr, count: u32, interval_s: &str) -> Result<u32, DemoError> {
    // Without a deadline it would wait for the last answer no longer than twice the others took.
    let deadline = HANG_MAX.as_secs().to_string();
    let text = lan::command(
        "ping",
        &["-q", "-c", &count.to_string(), "-i", interval_s, "-w", &deadline, &address.to_string()],
    )?;
    // "20 packets transmitted, 20 received, 0% packet loss, time 3ms"
    let received = text
        .lines()
        .find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" received")))
        .and_then(|number| number.parse().ok());
    received.ok_or_else(|| DemoError::Wrong(format!("ping printed {text:?}")))
}

/// Fetches a page by curl(1).
pub fn fetch(address: Ipv4Addr, path: &str) -> Result<String, DemoError> {
    fetch_within(address, path, HANG_MAX)
}

/// Fetches a page by curl(1), which gives up after `time`.
pub fn fetch_within(address: Ipv4Addr, path: &str, time: Duration) -> Result<String, DemoError> {
    let (url, seconds) = (format!("http://{address}{path}"), time.as_secs().to_string());
    lan::command("curl", &["--silent", "--show-error", "--fail", "--max-time", &seconds, &url])
}

/// When somebody who waits gives up.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    /// After this long, counted from the beginning.
    pub time: Duration,
    /// When this is set.
    pub interrupted: Option<&'a AtomicBool>,
}

impl Limit<'_> {
    /// That of somebody who is not told otherwise: it ends a hang.
    pub const HANG: Limit<'static> = Limit { time: HANG_MAX, interrupted: None };
}

/// Fails if `interrupted` is set.
pub(super) fn go_on(interrupted: &AtomicBool) -> Result<(), DemoError> {
    match interrupted.load(Ordering::Relaxed) {
        true => Err(DemoError::Interrupted),
        false => Ok(()),
    }
}

/// From one ping to the next, at least.
const PING_EVERY: Duration = Duration::from_millis(1);

/// Pings in the time that they have taken until now: enough to know that time to some percent. A slow VM must not
/// find thousands of them.
const PINGS_AGAIN: u32 = 32;

/// Sends ICMP echo requests until one is answered, `vm` ends, or `limit`; the time that took, counted from
/// `start`.
pub fn first_ping_reply(
    vm: &mut VmProcess,
    address: Ipv4Addr,
    start: Instant,
    limit: &Limit<'_>,
) -> Result<Duration, DemoError> {
    let failed = || DemoError::client(format!("ping {address}"));
    let socket = icmp::socket().map_err(failed())?;
    let target = SockAddr::from(SocketAddrV4::new(address, 0));
    for sequence in 0.. {
        let passed = start.elapsed();
        if passed > limit.time {
            break;
        }
        limit.interrupted.map_or(Ok(()), go_on)?;
        let pause = PING_EVERY.max(passed / PINGS_AGAIN);
        socket.set_read_timeout(Some(pause)).map_err(failed())?;
        if vm.has_ended() {
            return Err(DemoError::Wrong(String::from("the VM ended before it answered a ping")));
        }
        match socket.send_to(&icmp::CLIENTS.request(sequence, &[]), &target) {
            // The tap exists but its VM does not answer ARP yet.
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
    Err(DemoError::Wrong(format!("{address} did not answer ping within {:?}", limit.time)))
}
