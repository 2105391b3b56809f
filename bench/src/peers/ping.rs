//! ICMP echo with times: a raw socket of our own, because ping(8) prints microseconds and paces itself.

use crate::error::BenchError;
use crate::series::Series;
use socket2::{SockAddr, Socket};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use vmm::demo::icmp::{self, Echo};

/// What ping(8) sends unless told otherwise.
const PAYLOAD: [u8; 56] = [0; 56];

/// IPv4 header, which has no options here, but may; ICMP header; what was sent.
const REPLY_BYTES_MAX: usize = 60 + 8 + PAYLOAD.len();

/// Other requests than those that waited for the VM's boot.
const ECHO: Echo = Echo(0x7065);

/// Somebody who pings one address, blocking until each answer.
pub(super) struct Pinger {
    socket: Socket,
    target: SockAddr,
    sequence: u16,
}

impl Pinger {
    /// Opens the socket in the namespace of the calling thread; sends `warm_up` requests that are not
    /// measured.
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

    /// `count` requests, one after the other, each `gap` after the answer before; nanoseconds from the
    /// request to its answer.
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

    /// One request; how long its answer took.
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
                // Some other ICMP message.
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

/// Is this IPv4 packet the answer to our request `sequence`?
fn is_reply(packet: &[u8], sequence: u16) -> bool {
    ECHO.reply(packet).is_some_and(|reply| reply.sequence == sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would give us for an ICMP message of `kind` with our identifier.
    fn packet(kind: u8, sequence: u16) -> Vec<u8> {
        let mut message = ECHO.request(sequence, &PAYLOAD);
        message[0] = kind;
        let length = (20 + message.len()) as u8;
        let header = [0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
        [&header, &message[..]].concat()
    }

    #[test]
    fn only_the_answer_to_this_request_is_a_reply() {
        assert!(is_reply(&packet(0, 7), 7));
        assert!(!is_reply(&packet(0, 6), 7), "the answer to another one");
        assert!(!is_reply(&packet(8, 7), 7), "a request");
        assert!(!is_reply(&packet(3, 7), 7), "unreachable");
        assert!(!is_reply(&packet(0, 7)[..24], 7), "cut short");
    }
}
