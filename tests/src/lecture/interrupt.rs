//! Interrupts at the same instruction in recording and replay.

use super::recording::{self, RIP, Recording, Registers};
use super::screen::Screen;
use super::watch::{self, Seen};
use crate::surgery::rewrite;
use logchan::entry::{Entry, RegisterDelta};
use replication::boundary::Position;
use std::path::Path;
use testbed::clients::{fetch, ping};
use testbed::{GUEST_ADDRESS, TestbedError};

/// Exit code of a replay that differs from its log.
const DIVERGED: i32 = 8;

/// How many interrupts are printed.
const SHOWN: usize = 8;

/// Where an interrupt was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At a natural exit, after which the guest continues at `rip`; the log may lack it.
    Exit { digest: u64, rip: Option<u64> },
    /// At the first interrupt window after a position. The log has the digest of the state only.
    Window { digest: u64 },
    /// At a checkpoint, which has the whole state.
    Checkpoint,
}

/// An interrupt of the log.
#[derive(Clone, Copy, Debug)]
struct Logged {
    index: u64,
    vector: u8,
    place: Place,
}

/// An interrupt of a replay: the position that the machine was at, if it has reached it by running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    vector: u8,
    reached: Option<(Position, u64, u64)>,
}

/// An interrupt that can be moved by one position: its index, its vector, and the position behind it.
type Movable = (u64, u8, u64, Option<RegisterDelta>);

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say("A VM is recorded while clients ping it and let it compute; the timer and the network interrupt it.");
    let (recording, ()) = Recording::during(use_the_vm)?;
    let (logged, movable) = interrupts(&recording)?;
    screen.say("The log is replayed twice. The replay shows where its machine is when it takes an interrupt:");
    let replays = [taken(&recording.log())?, taken(&recording.log())?];
    screen.show(
        "   entry  vector  where          RIP in the log      RIP, replay 1       RIP, replay 2",
    );
    for at in chosen(&logged) {
        let (kind, rip) = match logged[at].place {
            Place::Exit { rip: Some(rip), .. } => ("exit", format!("{rip:#018x}")),
            Place::Exit { rip: None, .. } => ("exit", String::from("(in the digest)")),
            Place::Window { .. } => ("window", String::from("(in the digest)")),
            Place::Checkpoint => ("checkpoint", String::from("(in the state)")),
        };
        let [one, two] = [0, 1].map(|n| {
            let reached = replays[n].get(at).and_then(|taken| taken.reached);
            reached.map_or(String::from("(in the state)"), |(_, _, rip)| format!("{rip:#018x}"))
        });
        let Logged { index, vector, .. } = logged[at];
        screen.show(format_args!(
            "{index:>8}  {vector:#04x}    {kind:<13}  {rip:<18}  {one:<18}  {two}"
        ));
    }
    let count = logged.len();
    screen.check(
        replays.iter().all(|taken| taken.len() == count && logged.iter().zip(taken).all(agree)),
        format_args!("all {count} interrupts: same vector, same state digest, and same RIP where the log has it"),
    )?;
    screen.check(
        replays[0] == replays[1],
        "both replays took every interrupt at the same instruction",
    )?;
    screen.say("Now one interrupt of the log is moved by one exit, as if the backup had injected it a little later:");
    let movable = movable.ok_or_else(|| TestbedError::Wrong("no interrupt can be moved".into()))?;
    move_interrupt(&recording, movable);
    let moved = recording::replay(&recording.copy())?;
    screen.show(&moved.message);
    screen.check(
        moved.code == Some(DIVERGED),
        "the replay stops at the first position that differs",
    )?;
    screen.figure("interrupts", count);
    Ok(())
}

/// Pings the VM, and lets it compute without exits.
fn use_the_vm() -> Result<(), TestbedError> {
    ping(GUEST_ADDRESS, 20, "0.002")?;
    fetch(GUEST_ADDRESS, "/burn?ms=60")?;
    ping(GUEST_ADDRESS, 20, "0.002").map(drop)
}

/// Returns the interrupts of the log, and the last one that can be moved.
fn interrupts(recording: &Recording) -> Result<(Vec<Logged>, Option<Movable>), TestbedError> {
    let (mut logged, mut movable) = (Vec::new(), None);
    let (mut registers, mut place) = (Registers::default(), Place::Checkpoint);
    let mut before = None;
    recording.visit(|index, entry| {
        let rip = registers.rip_at(entry);
        match *entry {
            Entry::Exit { digest, registers } => {
                place = Place::Exit { digest, rip };
                movable = before.map(|vector| (index - 1, vector, digest, registers)).or(movable);
            }
            Entry::Window { digest } => place = Place::Window { digest },
            Entry::CheckpointEnd { .. } => place = Place::Checkpoint,
            Entry::Interrupt { vector } => logged.push(Logged { index, vector, place }),
            Entry::CheckpointBegin { .. }
            | Entry::Page { .. }
            | Entry::Clock { .. }
            | Entry::WallClock { .. }
            | Entry::Entropy(_)
            | Entry::Frame(_)
            | Entry::Console(_)
            | Entry::DiskDone { .. }
            | Entry::Output { .. }
            | Entry::End { .. }
            | Entry::HandOver
            | Entry::DiskCopy(_) => {}
        }
        before = if let Entry::Interrupt { vector } = *entry { Some(vector) } else { None };
    })?;
    Ok((logged, movable))
}

/// Replays `log` and returns the interrupts that the machine took.
fn taken(log: &Path) -> Result<Vec<Taken>, TestbedError> {
    let (mut taken, mut reached) = (Vec::new(), None);
    for seen in watch::replay(log)? {
        match seen {
            Seen::Reached { position, vcpu } => {
                reached = Some((position, vcpu.digest, vcpu.registers[RIP]));
            }
            Seen::Applied => reached = None,
            Seen::Interrupt(vector) => taken.push(Taken { vector, reached }),
            Seen::Output(_) => {}
        }
    }
    Ok(taken)
}

/// Returns whether an interrupt of a replay is the logged one.
fn agree((logged, taken): (&Logged, &Taken)) -> bool {
    let same_place = match (logged.place, taken.reached) {
        (Place::Exit { digest, rip }, Some((Position::Exit, found, found_rip))) => {
            digest == found && rip.is_none_or(|rip| rip == found_rip)
        }
        (Place::Window { digest }, Some((Position::Window, found, _))) => digest == found,
        (Place::Checkpoint, None) => true,
        (Place::Exit { .. } | Place::Window { .. }, Some(_) | None)
        | (Place::Checkpoint, Some(_)) => false,
    };
    same_place && logged.vector == taken.vector
}

/// Chooses interrupts to show: at first those at different places.
fn chosen(logged: &[Logged]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let what = |at: usize| {
        let rip = match logged[at].place {
            Place::Exit { rip, .. } => rip,
            Place::Window { .. } => Some(1),
            Place::Checkpoint => Some(2),
        };
        (rip, logged[at].vector)
    };
    for at in 0..logged.len() {
        if chosen.len() < SHOWN && chosen.iter().all(|&other| what(other) != what(at)) {
            chosen.push(at);
        }
    }
    chosen
}

/// Copies the log with an interrupt exchanged for the exit behind it.
fn move_interrupt(recording: &Recording, (at, vector, digest, registers): Movable) {
    rewrite(&recording.log(), &recording.copy(), |index, entry, _buffer| {
        if index == at {
            Entry::Exit { digest, registers }
        } else if index == at + 1 {
            Entry::Interrupt { vector }
        } else {
            entry
        }
    });
}
