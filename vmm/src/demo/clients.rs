//! Clients of the reference guest's services. They use the kernel's own TCP and ICMP, from inside
//! the namespace they are called in ([`super::lan::Namespace::enter`]).

use super::vm_process::VmProcess;
use super::{DemoError, lan};
use pnet::packet::Packet;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum};
use pnet::packet::ipv4::Ipv4Packet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// TCP and UDP port of the echo service.
pub const ECHO_PORT: u16 = 7;
/// TCP port of the counter service.
pub const COUNTER_PORT: u16 = 7000;

/// A server that does not answer for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(address: Ipv4Addr, port: u16) -> Result<TcpStream, DemoError> {
    let target = SocketAddr::V4(SocketAddrV4::new(address, port));
    let doing = || DemoError::client(format!("connecting to {target}"));
    let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(doing())?;
    stream.set_nodelay(true).map_err(doing())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(doing())?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(doing())?;
    Ok(stream)
}

/// One connection to the counter service, which answers every request with the next number.
#[derive(Debug)]
pub struct Counter {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Counter {
    /// Connects.
    pub fn connect(address: Ipv4Addr) -> Result<Counter, DemoError> {
        let stream = BufReader::new(connect(address, COUNTER_PORT)?);
        Ok(Counter { stream, line: String::new() })
    }

    /// One request; the number in the answer.
    pub fn ask(&mut self) -> Result<u64, DemoError> {
        let mut exchange = || -> io::Result<usize> {
            self.stream.get_mut().write_all(b"next\n")?;
            self.line.clear();
            self.stream.read_line(&mut self.line)
        };
        match exchange().map_err(DemoError::client("counter request"))? {
            0 => Err(DemoError::Wrong(String::from("the counter closed the connection"))),
            _bytes => self.line.trim_end().parse().map_err(|_not_a_number| {
                DemoError::Wrong(format!("the counter answered {:?}", self.line))
            }),
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
    let mut stream = connect(address, ECHO_PORT)?;
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

/// `count` pings by ping(8), one every `interval_s`; how many were answered.
pub fn ping(address: Ipv4Addr, count: u32, interval_s: &str) -> Result<u32, DemoError> {
    let text = lan::command(
        "ping",
        &["-q", "-c", &count.to_string(), "-i", interval_s, "-W", "2", &address.to_string()],
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
    fetch_within(address, path, 30)
}

/// Fetches a page by curl(1), which gives up after `seconds`.
pub fn fetch_within(address: Ipv4Addr, path: &str, seconds: u32) -> Result<String, DemoError> {
    let (url, seconds) = (format!("http://{address}{path}"), seconds.to_string());
    lan::command("curl", &["--silent", "--show-error", "--fail", "--max-time", &seconds, &url])
}

/// Sends an ICMP echo request every millisecond until one is answered, `vm` ends, or `give_up` has
/// passed; the time that took, counted from `start`.
pub fn first_ping_reply(
    vm: &mut VmProcess,
    address: Ipv4Addr,
    start: Instant,
    give_up: Duration,
) -> Result<Duration, DemoError> {
    const IDENTIFIER: u16 = 0x5553;
    let failed = || DemoError::client(format!("ping {address}"));
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map_err(failed())?;
    socket.set_read_timeout(Some(Duration::from_millis(1))).map_err(failed())?;
    let target = SockAddr::from(SocketAddrV4::new(address, 0));
    for sequence in 0.. {
        if start.elapsed() > give_up {
            break;
        }
        if vm.has_ended() {
            return Err(DemoError::Wrong(String::from("the VM ended before it answered a ping")));
        }
        let mut bytes = [0; 8];
        let mut request = MutableEchoRequestPacket::new(&mut bytes).expect("8 bytes are enough");
        request.set_icmp_type(IcmpTypes::EchoRequest);
        request.set_identifier(IDENTIFIER);
        request.set_sequence_number(sequence);
        let sum = checksum(&IcmpPacket::new(request.packet()).expect("8 bytes are enough"));
        request.set_checksum(sum);
        match socket.send_to(&bytes, &target) {
            // The tap exists but its VM does not answer ARP yet.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            result => drop(result.map_err(failed())?),
        }
        let mut reply = [0; 128];
        match (&socket).read(&mut reply) {
            Ok(length) if is_reply(&reply[..length]) => return Ok(start.elapsed()),
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
    Err(DemoError::Wrong(format!("{address} did not answer ping within {give_up:?}")))
}

/// Is this an IPv4 packet with an echo reply?
fn is_reply(bytes: &[u8]) -> bool {
    Ipv4Packet::new(bytes)
        .and_then(|ip| IcmpPacket::new(ip.payload()).map(|icmp| icmp.get_icmp_type()))
        .is_some_and(|kind| kind == IcmpTypes::EchoReply)
}
