//! Measures ICMP echo times through a raw socket, because ping(8) prints microseconds and paces itself.

use crate::error::BenchError;
use crate::series::Series;
use socket2::{SockAddr, Socket};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use testbed::clients::icmp::{self, Echo};

/// Payload of the same size as the default of ping(8).
const PAYLOAD: [u8; 56] = [0; 56];

/// Largest reply: an IPv4 header with options, the ICMP header and the payload. The header has no
/// options here, but could have.
const REPLY_BYTES_MAX: usize = 60 + 8 + PAYLOAD.len();

/// Identifier of these requests, different from that of the requests that wait for the VM to boot.
const ECHO: Echo = Echo(0x7065);

/// Sends pings to one address and blocks until each reply.
pub(super) struct Pinger {
    socket: Socket,
    target: SockAddr,
    sequence: u16,
}

impl Pinger {
    /// Opens the socket in the namespace of the calling thread and sends `warm_up` requests that are
    /// not measured.
    pub(super) fn new(address: Ipv4Addr, warm_up: u64) -> Result<Pinger, BenchError> {
        let doing = || BenchError::os("opening a raw ICMP socket");
        let socket = icmp::socket().map_err(doing())?;
        socket.set_read_timeout(Some(crate::PATIENCE)).map_err(doing())?;
        let target = SockAddr::from(SocketAddrV4::new(address, 0));
        let mut pinger = Pinger { socket, target, sequence: 0 };
        for _request in 0..warm_up {
            pinger.ask()?;
        }
        Ok(pinger)
    }

    /// Sends `count` requests, each `gap` after the previous reply, and returns their round-trip times.
    pub(super) fn run(&mut self, count: u64, gap: Duration) -> Result<Series, BenchError> {
        let mut series = Series::new();
        for _request in 0..count {
            if !gap.is_zero() {
                std::thread::sleep(gap);
            }
            series.record(self.ask()?.as_nanos() as u64);
        }
        Ok(series)
    }

    /// Sends one request and returns its round-trip time.
    fn ask(&mut self) -> Result<Duration, BenchError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = ECHO.request(self.sequence, &PAYLOAD);
        let sent = Instant::now();
        self.socket.send_to(&request, &self.target).map_err(BenchError::os("sending a ping"))?;
        let mut reply = [0; REPLY_BYTES_MAX];
        loop {
            match (&self.socket).read(&mut reply) {
                Ok(length) if is_reply(&reply[..length], self.sequence) => {
                    return Ok(sent.elapsed());
                }
                // Not the expected reply.
                Ok(_length) if sent.elapsed() < crate::PATIENCE => {}
                Ok(_length) => return Err(BenchError::no_answer("the VM")),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(BenchError::no_answer("the VM"));
                    }
                    _ => return Err(BenchError::os("receiving a ping")(error)),
                },
            }
        }
    }
}

/// Returns whether this IPv4 packet is the reply to request `sequence`.
fn is_reply(packet: &[u8], sequence: u16) -> bool {
    ECHO.reply(packet).is_some_and(|reply| reply.sequence == sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an IPv4 packet, as the kernel delivers it, with an ICMP message of type `kind` and our
    /// identifier.
    fn packet(kind: u8, sequence: u16) -> Vec<u8> {
        let mut message = ECHO.request(sequence, &PAYLOAD);
        message[0] = kind;
        let length = (20 + message.len()) as u8;
        let header = [0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
        [&header, &message[..]].concat()
    }

    #[test]
    fn is_reply_accepts_only_the_reply_to_this_request() {
        assert!(is_reply(&packet(0, 7), 7));
        assert!(!is_reply(&packet(0, 6), 7), "the reply to another request");
        assert!(!is_reply(&packet(8, 7), 7), "a request");
        assert!(!is_reply(&packet(3, 7), 7), "destination unreachable");
        assert!(!is_reply(&packet(0, 7)[..24], 7), "truncated");
    }
}
