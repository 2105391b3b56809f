//! The log of one ping.

use super::recording::Recording;
use super::screen::Screen;
use logchan::dump::Dump;
use logchan::entry::Entry;
use logchan::entry_codec::encode;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::capture::{Capture, Captured};
use testbed::pace::HANG_MAX;
use testbed::{GUEST_ADDRESS, TAP, TestbedError, command};
use xxhash_rust::xxh3::xxh3_64;

/// What the payload of the ping repeats.
const PATTERN: &[u8] = b"understudy";

/// An entry of the log as it is shown.
struct Line {
    index: u64,
    text: String,
    why: &'static str,
    bytes: usize,
}

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say("A VM is recorded. It is idle; then one client sends one ping.");
    let (recording, reply) = Recording::during(ping)?;
    let (lines, found) = entries(&recording, &reply)?;
    screen.say("The log from the position before the request to the reply:");
    for line in &lines {
        screen.show(format_args!("{:>6} {}  ({} bytes)", line.index, line.text, line.bytes));
        screen.show(format_args!("         {}", line.why));
    }
    screen.say(format_args!(
        "The log has the request ({} bytes) and when it entered the guest. It does not have the reply: a backup makes \
         the reply\nitself, and the log has 8 bytes by which the two are compared.",
        reply.len()
    ));
    screen.check(found, "the output of the log is the reply that a capture on the tap has seen")?;
    let bytes: usize = lines.iter().map(|line| line.bytes).sum();
    screen.figure("entries", lines.len());
    screen.figure("bytes", bytes);
    screen.figure("reply_bytes", reply.len());
    Ok(())
}

/// Sends the ping, and returns the frame of the reply as the VM transmitted it.
fn ping() -> Result<Vec<u8>, TestbedError> {
    let (stop, mut frames) = (AtomicBool::new(false), Vec::new());
    let capture = Capture::open([TAP, "lo"])?;
    std::thread::scope(|scope| {
        let capturing = scope.spawn(|| {
            capture.run(&stop, |frame: Captured| {
                if frame.interface == 0 && !frame.is_outgoing {
                    frames.push(frame.bytes);
                }
            })
        });
        let answered = ask();
        stop.store(true, Ordering::Relaxed);
        capturing.join().expect("no frame is lost").and(answered)
    })?;
    let reply = frames.into_iter().find(|frame| has_payload(frame));
    reply.ok_or_else(|| TestbedError::Wrong("no reply was captured".into()))
}

/// Runs ping(8) once, with [`PATTERN`] as the payload.
fn ask() -> Result<(), TestbedError> {
    let hex: String = PATTERN.iter().map(|byte| format!("{byte:02x}")).collect();
    let deadline = HANG_MAX.as_secs().to_string();
    let address = GUEST_ADDRESS.to_string();
    command("ping", &["-q", "-c", "1", "-w", &deadline, "-p", &hex, &address]).map(drop)
}

fn has_payload(frame: &[u8]) -> bool {
    frame.windows(PATTERN.len()).any(|part| part == PATTERN)
}

/// Returns the entries from the position before the request to the output of `reply`, and whether both are there.
fn entries(recording: &Recording, reply: &[u8]) -> Result<(Vec<Line>, bool), TestbedError> {
    let made = (reply.len() as u32, xxh3_64(reply));
    let (mut lines, mut is_in, mut is_out) = (Vec::new(), false, false);
    recording.visit(|index, entry| {
        if is_out {
            return;
        }
        if !is_in && is_position(entry) {
            lines.clear();
        }
        is_in |= matches!(entry, Entry::Frame(bytes) if has_payload(bytes));
        is_out =
            is_in && matches!(*entry, Entry::Output { length, digest } if (length, digest) == made);
        let mut bytes = Vec::new();
        encode(entry, &mut bytes);
        let text = Dump(entry).to_string();
        lines.push(Line { index, text, why: why(entry), bytes: bytes.len() });
    })?;
    Ok((lines, is_in && is_out))
}

/// Returns whether the entry begins a position.
fn is_position(entry: &Entry<'_>) -> bool {
    match entry {
        Entry::Exit { .. }
        | Entry::Window { .. }
        | Entry::CheckpointBegin { .. }
        | Entry::End { .. } => true,
        Entry::Page { .. }
        | Entry::CheckpointEnd { .. }
        | Entry::Clock { .. }
        | Entry::WallClock { .. }
        | Entry::Entropy(_)
        | Entry::Frame(_)
        | Entry::Console(_)
        | Entry::DiskDone { .. }
        | Entry::Interrupt { .. }
        | Entry::Output { .. }
        | Entry::HandOver
        | Entry::DiskCopy(_) => false,
    }
}

/// Says what an entry is for.
const fn why(entry: &Entry<'_>) -> &'static str {
    match entry {
        Entry::Exit { .. } => {
            "position: the guest's own next exit (an I/O access or HLT); a replay compares the state"
        }
        Entry::Window { .. } => "position: the first interrupt window after the last position",
        Entry::CheckpointBegin { .. } | Entry::Page { .. } | Entry::CheckpointEnd { .. } => {
            "position: the state itself, for the primary stopped where no exit is"
        }
        Entry::Clock { .. } => "guest time advanced: the guest has no other way to learn the time",
        Entry::WallClock { .. } => "the wall clock was read",
        Entry::Entropy(_) => "random bytes were read",
        Entry::Frame(_) => {
            "input: the whole frame enters the guest's receive queue at this position"
        }
        Entry::Console(_) => "input: bytes typed at the console",
        Entry::DiskDone { .. } => "input: a request to a disk is done",
        Entry::Interrupt { .. } => {
            "the interrupt that is injected at this position: now the guest knows"
        }
        Entry::Output { .. } => {
            "the guest transmits: length and digest only, because a replay makes the frame itself"
        }
        Entry::End { .. } => "the end of the recording",
        Entry::HandOver => "the primary hands the VM over",
        Entry::DiskCopy(_) => "a message about the copy of a disk",
    }
}
