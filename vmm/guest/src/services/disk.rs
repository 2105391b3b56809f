//! The disk service on port 7001: each line is a command, and is answered with a line.
//!
//! | command | answer |
//! |---|---|
//! | `info` | `sectors N read-write` or `read-only` |
//! | `append TEXT` | `N HASH`: link `N` of the chain is on the disk, and stable |
//! | `chain` | `N HASH` after all links were read and compared, or `broken N` |
//! | `write SECTOR BYTE` | `ok`: the sector has this byte everywhere; volatile until a flush |
//! | `read SECTOR` | `HASH` of the sector |
//! | `flush` | `ok` |
//! | `io read\|write\|flush sequential\|random DEPTH COUNT SEED` | `done COUNT`, or `error N` if `N` requests have failed: requests of 4 KiB, up to DEPTH (1 to 16) in flight; with `flush`, a write and a flush one after the other, and DEPTH is 1 |
//!
//! `error` is the answer to a request that the disk has refused, `what?` to anything else.
//!
//! The chain: sector 0 has the number of links and the hash of the last one, sector `N` has link `N`: the hash of the
//! link before, and the text. A link is stable before sector 0 counts it, so a chain is whole whenever the machine
//! stops. The hash is FNV-1a, 64 bits, over the eight bytes of the hash before (little-endian) and the text.

use core::fmt::Write as _;

use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;

use super::disk_io::Io;
use super::{Service, send_room};
use crate::disk::{BLOCK_SECTORS, Disk, Operation, SECTOR_BYTES};

/// Longest line, with its newline.
const LINE_BYTES_MAX: usize = 128;
const ANSWER_BYTES_MAX: usize = 64;
/// First bytes of sector 0 of a disk with a chain.
const MAGIC: [u8; 8] = *b"USTDYCHN";
/// Where a link has its text: behind the hash before and the length.
const TEXT: usize = 16;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The chain's end.
#[derive(Clone, Copy, Default)]
struct Tail {
    links: u64,
    hash: u64,
}

/// What a command waits for.
#[derive(Clone, Copy)]
enum Step {
    /// An append reads sector 0.
    ReadTail,
    /// It writes the link behind this end.
    WriteLink(Tail),
    /// It makes the link stable, which makes this the end.
    FlushLink(Tail),
    /// It writes sector 0.
    WriteTail(Tail),
    /// It makes sector 0 stable.
    FlushTail(Tail),
    /// `chain` reads sector 0.
    ReadEnd,
    /// `chain` reads the link behind `so_far`, of a chain that ends in `end`.
    ReadLink { so_far: Tail, end: Tail },
    /// `read`
    Read,
    /// `write` and `flush`
    Plain,
}

/// A command in progress.
struct Job {
    /// Which connection's: its number.
    owner: u64,
    work: Work,
}

/// What a command does.
enum Work {
    /// One request after the other, in slot 0.
    Steps(Steps),
    /// Many at once.
    Io(Io),
}

/// A command that makes one request after the other.
struct Steps {
    step: Step,
    text: [u8; LINE_BYTES_MAX],
    text_bytes: usize,
}

/// The answer to a command.
struct Answer {
    owner: u64,
    text: Text,
    /// Another connection has met it: its owner has had its turn by the next time, or is gone.
    was_met: bool,
}

pub(super) struct DiskService {
    disk: Option<Disk>,
    job: Option<Job>,
    answer: Option<Answer>,
    connections: u64,
}

/// A connection: its number, once it has asked for something, and whether it waits for an answer.
#[derive(Default)]
pub(super) struct Connection {
    number: Option<u64>,
    waits: bool,
}

impl DiskService {
    pub(super) fn new(disk: Option<Disk>) -> Self {
        Self { disk, job: None, answer: None, connections: 0 }
    }

    /// Moves the command in progress on. Returns whether it is done.
    fn advance(&mut self) -> bool {
        let (Some(disk), Some(job)) = (&mut self.disk, &mut self.job) else { return false };
        let mut text = Text::default();
        let is_done = match &mut job.work {
            Work::Steps(steps) => steps.advance(disk, &mut text),
            Work::Io(io) => advance_io(io, disk, &mut text),
        };
        if is_done {
            self.answer = Some(Answer { owner: job.owner, text, was_met: false });
            self.job = None;
        }
        is_done
    }

    /// Begins a command, or answers it.
    fn command(&mut self, owner: u64, line: &[u8]) -> Option<Text> {
        let mut text = Text::default();
        let (name, rest) = split(line);
        let Some(disk) = &mut self.disk else {
            let _ = write!(text, "no disk");
            return Some(text);
        };
        if name == b"io"
            && disk.sectors() >= BLOCK_SECTORS
            && let Some(mut io) = Io::parse(rest)
        {
            io.begin(disk);
            self.job = Some(Job { owner, work: Work::Io(io) });
            return None;
        }
        let (sector, value) = split(rest);
        let begins = match name {
            b"info" => {
                let access = if disk.is_read_only() { "read-only" } else { "read-write" };
                let _ = write!(text, "sectors {} {access}", disk.sectors());
                None
            }
            b"append" => Some((Step::ReadTail, Operation::Read { sector: 0 })),
            b"chain" => Some((Step::ReadEnd, Operation::Read { sector: 0 })),
            b"flush" => Some((Step::Plain, Operation::Flush)),
            b"read" => number(sector).map(|sector| (Step::Read, Operation::Read { sector })),
            b"write" => number(sector).zip(number(value)).map(|(sector, value)| {
                disk.data().fill(value as u8);
                (Step::Plain, Operation::Write { sector })
            }),
            _ => None,
        };
        let Some((step, operation)) = begins else {
            if text.bytes == 0 {
                let _ = write!(text, "what?");
            }
            return Some(text);
        };
        let mut steps = Steps { step, text: [0; LINE_BYTES_MAX], text_bytes: rest.len() };
        steps.text[..rest.len()].copy_from_slice(rest);
        self.job = Some(Job { owner, work: Work::Steps(steps) });
        disk.begin(0, operation);
        disk.notify();
        None
    }
}

/// Moves the command `io` on. Returns whether it is done, with its answer in `answer`.
fn advance_io(io: &mut Io, disk: &mut Disk, answer: &mut Text) -> bool {
    while let Some(ended) = disk.poll() {
        io.ended(disk, ended);
    }
    io.begin(disk);
    let Some(failed) = io.outcome() else { return false };
    let _ = match failed {
        0 => write!(answer, "done {}", io.count()),
        _ => write!(answer, "error {failed}"),
    };
    true
}

impl Steps {
    /// Moves the command on. Returns whether it is done, with its answer in `answer`.
    fn advance(&mut self, disk: &mut Disk, answer: &mut Text) -> bool {
        let Some((_slot, is_well)) = disk.poll() else { return false };
        let next = if is_well { self.next(disk, answer) } else { None };
        if let Some((step, operation)) = next {
            self.step = step;
            disk.begin(0, operation);
            disk.notify();
            return false;
        }
        if !is_well {
            let _ = write!(answer, "error");
        }
        true
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.text_bytes]
    }

    /// Returns the next step after a request that was done well; `None` with the answer in `answer` if there is none.
    fn next(&self, disk: &mut Disk, answer: &mut Text) -> Option<(Step, Operation)> {
        match self.step {
            Step::ReadTail => {
                let tail = tail(disk.data());
                put_link(disk.data(), tail.hash, self.text());
                Some((Step::WriteLink(tail), Operation::Write { sector: tail.links + 1 }))
            }
            Step::WriteLink(before) => {
                let hash = hash(before.hash, self.text());
                let tail = Tail { links: before.links + 1, hash };
                Some((Step::FlushLink(tail), Operation::Flush))
            }
            Step::FlushLink(tail) => {
                put_tail(disk.data(), tail);
                Some((Step::WriteTail(tail), Operation::Write { sector: 0 }))
            }
            Step::WriteTail(tail) => Some((Step::FlushTail(tail), Operation::Flush)),
            Step::FlushTail(tail) => {
                let _ = write!(answer, "{} {:016x}", tail.links, tail.hash);
                None
            }
            Step::ReadEnd => next_link(Tail::default(), tail(disk.data()), answer),
            Step::ReadLink { so_far, end } => {
                let link = so_far.links + 1;
                let Some(hash) = checked_link(disk.data(), so_far.hash) else {
                    let _ = write!(answer, "broken {link}");
                    return None;
                };
                next_link(Tail { links: link, hash }, end, answer)
            }
            Step::Read => {
                let _ = write!(answer, "{:016x}", hash(0, disk.data()));
                None
            }
            Step::Plain => {
                let _ = write!(answer, "ok");
                None
            }
        }
    }
}

/// Reads on in a chain that ends in `end`, or answers.
fn next_link(so_far: Tail, end: Tail, answer: &mut Text) -> Option<(Step, Operation)> {
    if so_far.links < end.links {
        let sector = so_far.links + 1;
        return Some((Step::ReadLink { so_far, end }, Operation::Read { sector }));
    }
    if so_far.hash == end.hash {
        let _ = write!(answer, "{} {:016x}", end.links, end.hash);
    } else {
        let _ = write!(answer, "broken {}", end.links);
    }
    None
}

impl Service for DiskService {
    const PORT: u16 = 7001;
    type Connection = Connection;

    fn serve(&mut self, socket: &mut Socket<'_>, connection: &mut Connection, _: Instant) -> bool {
        let mut progressed = self.advance();
        let number = *connection.number.get_or_insert_with(|| {
            self.connections += 1;
            self.connections
        });
        if connection.waits {
            let Some(answer) = self.answer.take_if(|answer| answer.owner == number) else {
                return progressed;
            };
            connection.waits = false;
            progressed |= send(socket, &answer.text);
        }
        // One command at a time, of all connections.
        if self.job.is_some() || send_room(socket) < ANSWER_BYTES_MAX {
            return progressed;
        }
        if let Some(answer) = &mut self.answer
            && !answer.was_met
        {
            answer.was_met = true;
            return true;
        }
        self.answer = None;
        let mut line = [0; LINE_BYTES_MAX];
        let seen = socket.peek_slice(&mut line).unwrap_or(0);
        let Some(length) = line[..seen].iter().position(|&byte| byte == b'\n') else {
            if seen == LINE_BYTES_MAX || socket.state() == State::CloseWait {
                socket.close();
                return true;
            }
            return progressed;
        };
        let mut taken = [0; LINE_BYTES_MAX];
        socket.recv_slice(&mut taken[..=length]).expect("these bytes were just seen");
        match self.command(number, &line[..length]) {
            Some(answer) => {
                send(socket, &answer);
            }
            None => connection.waits = true,
        }
        true
    }
}

fn send(socket: &mut Socket<'_>, text: &Text) -> bool {
    socket.send_slice(text.line()).expect("room was checked");
    true
}

/// A line that is being written; what is too long is dropped.
struct Text {
    text: [u8; ANSWER_BYTES_MAX],
    bytes: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { text: [b'\n'; ANSWER_BYTES_MAX], bytes: 0 }
    }
}

impl Text {
    /// The line with its newline.
    fn line(&self) -> &[u8] {
        &self.text[..=self.bytes]
    }
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = ANSWER_BYTES_MAX - 1 - self.bytes;
        let taken = room.min(text.len());
        self.text[self.bytes..][..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.bytes += taken;
        Ok(())
    }
}

/// Splits at the first space.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|&byte| byte == b' ') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[]),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn hash(before: u64, text: &[u8]) -> u64 {
    before
        .to_le_bytes()
        .iter()
        .chain(text)
        .fold(FNV_OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

fn word(sector: &[u8; SECTOR_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|i| sector[at + i]))
}

fn tail(sector: &[u8; SECTOR_BYTES]) -> Tail {
    match sector[..8] == MAGIC {
        true => Tail { links: word(sector, 8), hash: word(sector, 16) },
        false => Tail::default(),
    }
}

fn put_tail(sector: &mut [u8; SECTOR_BYTES], tail: Tail) {
    sector.fill(0);
    sector[..8].copy_from_slice(&MAGIC);
    sector[8..16].copy_from_slice(&tail.links.to_le_bytes());
    sector[16..24].copy_from_slice(&tail.hash.to_le_bytes());
}

fn put_link(sector: &mut [u8; SECTOR_BYTES], before: u64, text: &[u8]) {
    sector.fill(0);
    sector[..8].copy_from_slice(&before.to_le_bytes());
    sector[8..16].copy_from_slice(&(text.len() as u64).to_le_bytes());
    sector[TEXT..TEXT + text.len()].copy_from_slice(text);
}

/// Returns the hash of the link in `sector`, if it belongs behind the one with the hash `before`.
fn checked_link(sector: &[u8; SECTOR_BYTES], before: u64) -> Option<u64> {
    let length = usize::try_from(word(sector, 8)).ok()?;
    let text = sector[TEXT..].get(..length)?;
    (word(sector, 0) == before).then(|| hash(before, text))
}
