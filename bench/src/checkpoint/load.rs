//! Makes the guest compute without an exit while inputs arrive, the situation that checkpoints exist
//! for.

use crate::error::BenchError;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::GUEST_ADDRESS;
use testbed::clients::ECHO_PORT;

/// Length of one computation, milliseconds. The guest receives no frame meanwhile and has buffers for
/// 32 frames, so inputs would stop in a longer one.
const BURN_MS: u64 = 10;

/// Payload of a datagram that serves as an input.
const DATAGRAM: [u8; 16] = *b"understudy-input";

/// Amount of computation done by the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Burned {
    /// Requested computation time, milliseconds.
    pub(super) ms: u64,
    /// Rounds completed in that time.
    pub(super) rounds: u64,
}

/// Makes the guest compute for about `time`, writing to `kib` KiB of memory, and sends it
/// `inputs_per_s` datagrams per second meanwhile. Must be called in the client's namespace.
pub(super) fn run(time: Duration, kib: u64, inputs_per_s: u32) -> Result<Burned, BenchError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A new thread inherits the namespace of its parent.
        let sending = scope.spawn(|| send(inputs_per_s, &stop));
        let burned = burn(time, kib);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent.and(burned)
    })
}

fn burn(time: Duration, kib: u64) -> Result<Burned, BenchError> {
    let doing = || BenchError::os("requesting a computation from the guest");
    let target = SocketAddr::from((GUEST_ADDRESS, 80));
    let stream = TcpStream::connect_timeout(&target, crate::PATIENCE).map_err(doing())?;
    stream.set_nodelay(true).map_err(doing())?;
    stream.set_read_timeout(Some(crate::PATIENCE)).map_err(doing())?;
    let request = format!("GET /burn?ms={BURN_MS}&kib={kib} HTTP/1.1\r\nHost: guest\r\n\r\n");
    let mut stream = BufReader::new(stream);
    let (begun, mut burned) = (Instant::now(), Burned::default());
    while begun.elapsed() < time {
        stream.get_mut().write_all(request.as_bytes()).map_err(doing())?;
        let page = response(&mut stream).map_err(doing())?;
        let object: Value = serde_json::from_slice(&page).unwrap_or_default();
        let (Some(rounds), true) = (object["rounds"].as_u64(), object["kib"] == kib) else {
            let page = String::from_utf8_lossy(&page);
            return Err(BenchError::Wrong(format!(
                "unexpected answer to a computation request: {page:?}"
            )));
        };
        burned.ms += BURN_MS;
        burned.rounds += rounds;
    }
    Ok(burned)
}

/// Reads the next response and returns its body, whose length is in the `Content-Length` header.
fn response(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Sends datagrams until `stop` is set. The guest's answers are ignored.
fn send(per_s: u32, stop: &AtomicBool) -> Result<(), BenchError> {
    if per_s == 0 {
        return Ok(());
    }
    let doing = || BenchError::os("sending datagrams");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(doing())?;
    let pause = Duration::from_secs(1) / per_s;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        socket.send_to(&DATAGRAM, (GUEST_ADDRESS, ECHO_PORT)).map_err(doing())?;
        // After a delay, continue from the present: no burst of late datagrams.
        due = (due + pause).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
