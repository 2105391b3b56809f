//! Measures one-way throughput: pages through the channel's bulk lane, and the same number of bytes
//! through TCP.
//!
//! The time runs from handing over the first byte until the sender knows that the last one arrived.

use super::channel::{self, channel};
use crate::PATIENCE;
use crate::error::BenchError;
use crate::interleave::Round;
use crate::lan::{Host, Lan};
use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use logchan::seal::Protection;
use netpath::WaitPolicy;
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use vmm::link::{LogLink, now};

/// TCP port of the receiver.
const PORT: u16 = 7002;
/// Bytes per write to TCP.
const TCP_CHUNK_BYTES: usize = 64 << 10;

/// A compared transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Channel(Protection),
    Tcp,
}

impl Way {
    const ALL: [Way; 3] =
        [Way::Channel(Protection::Sealed), Way::Channel(Protection::Insecure), Way::Tcp];

    const fn name(self) -> &'static str {
        match self {
            Way::Channel(protection) => channel::name(protection),
            Way::Tcp => "tcp",
        }
    }
}

/// A transport and its measurements.
pub(super) struct Subject {
    way: Way,
    bytes: u64,
    ns: u64,
    /// Frames that the channel retransmitted.
    resent: u64,
}

/// Returns one subject per transport.
pub(super) fn subjects() -> Vec<Subject> {
    Way::ALL.into_iter().map(|way| Subject { way, bytes: 0, ns: 0, resent: 0 }).collect()
}

impl Subject {
    /// Runs one round: transfers this round's share of `pages`.
    pub(super) fn run_round(
        &mut self,
        lan: &Lan,
        round: Round,
        pages: u64,
    ) -> Result<(), BenchError> {
        let bytes = round.share(pages) * PAGE_BYTES as u64;
        let failed =
            |error| BenchError::Wrong(format!("bulk through {}: {error}", self.way.name()));
        let (ns, resent) = match self.way {
            Way::Channel(protection) => {
                let send = || send(protection, bytes);
                lan.run(send, |ready| receive(protection, bytes, ready)).map_err(failed)?.0
            }
            Way::Tcp => {
                let ns = lan.run(|| send_tcp(bytes), |ready| receive_tcp(bytes, ready));
                (ns.map_err(failed)?.0, 0)
            }
        };
        self.bytes += bytes;
        self.ns += ns;
        self.resent += resent;
        Ok(())
    }

    fn bytes_per_second(&self) -> f64 {
        (self.bytes as f64 * 1e9 / self.ns.max(1) as f64).round()
    }
}

/// Returns the figures by transport.
pub(super) fn json(subjects: &[Subject]) -> Value {
    let tcp = subjects.iter().find(|subject| subject.way == Way::Tcp);
    let mut ways = Map::new();
    for subject in subjects {
        let speed = subject.bytes_per_second();
        let ratio = tcp.map(|tcp| (speed / tcp.bytes_per_second() * 1000.0).round() / 1000.0);
        let result = json!({
            "bytes": subject.bytes,
            "bytes_per_second": speed as u64,
            "ratio_to_tcp": ratio,
            "frames_resent": subject.resent,
        });
        ways.insert(subject.way.name().into(), result);
    }
    ways.into()
}

/// The primary's side. Returns the duration in nanoseconds and the number of retransmitted frames.
fn send(protection: Protection, bytes: u64) -> Result<(u64, u64), BenchError> {
    let mut link = channel::open(Host::Client, protection, WaitPolicy::default())?;
    channel::connect(&mut link)?;
    let page = [0x5a; PAGE_BYTES];
    let start = now();
    let mut left = bytes;
    loop {
        let begun = now();
        while left > 0 && channel(&mut link).room(Lane::Bulk) >= PAGE_BYTES {
            channel::append(&mut link, begun, Lane::Bulk, &page)?;
            left -= PAGE_BYTES as u64;
        }
        if channel(&mut link).lane_acked(Lane::Bulk).0 == bytes {
            return Ok((begun.since(start).as_nanos(), channel(&mut link).stats().resent));
        }
        if !link.transmit_at(begun)? {
            link.wait(None)?;
        }
        link.receive()?;
        while channel::next_event(&mut link)?.is_some() {}
    }
}

/// The backup's side.
fn receive(protection: Protection, bytes: u64, ready: &dyn Fn()) -> Result<(), BenchError> {
    let mut link = channel::open(Host::Server, protection, WaitPolicy::default())?;
    ready();
    channel::connect(&mut link)?;
    while channel(&mut link).consumed(Lane::Bulk).0 < bytes {
        channel::drive(&mut link, now(), None)?;
        while channel::next_event(&mut link)?.is_some() {}
        read_pages(&mut link);
    }
    link.transmit()?;
    Ok(())
}

/// Consumes whole pages from the bulk lane.
pub(super) fn read_pages(link: &mut LogLink) {
    let channel = channel(link);
    let length = channel.received(Lane::Bulk).len() / PAGE_BYTES * PAGE_BYTES;
    channel.consume(Lane::Bulk, length);
}

fn send_tcp(bytes: u64) -> Result<u64, BenchError> {
    let failed = || BenchError::os("sending through TCP");
    let mut stream = TcpStream::connect((Host::Server.ip(), PORT)).map_err(failed())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed())?;
    let chunk = [0x5a; TCP_CHUNK_BYTES];
    let start = now();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(TCP_CHUNK_BYTES as u64);
        stream.write_all(&chunk[..length as usize]).map_err(failed())?;
        left -= length;
    }
    stream.read_exact(&mut [0]).map_err(failed())?;
    Ok(now().since(start).as_nanos())
}

fn receive_tcp(bytes: u64, ready: &dyn Fn()) -> Result<(), BenchError> {
    let failed = || BenchError::os("receiving through TCP");
    let listener = TcpListener::bind((Host::Server.ip(), PORT)).map_err(failed())?;
    ready();
    let (mut stream, _client) = listener.accept().map_err(failed())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed())?;
    let mut chunk = vec![0; TCP_CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let length = stream.read(&mut chunk).map_err(failed())?;
        if length == 0 {
            return Err(BenchError::Wrong(format!(
                "the sender closed the connection {left} bytes too early"
            )));
        }
        left -= length as u64;
    }
    stream.write_all(&[1]).map_err(failed())
}
