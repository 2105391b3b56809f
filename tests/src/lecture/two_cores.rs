//! Two threads on two cores, which no log of inputs can reproduce, and a VM with one vCPU, which a log of its inputs
//! can.

use super::recording::{self, Recording};
use super::screen::Screen;
use crate::recording::difference;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use testbed::clients::{fetch, ping};
use testbed::{GUEST_ADDRESS, TestbedError, cores};

/// Increments of each thread.
const INCREMENTS: u64 = 1_000_000;

/// Runs that are shown, and the most that are tried until two of them differ.
const RUNS: usize = 5;
const RUNS_MAX: usize = 200;

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say(format_args!(
        "Two threads add 1 to the same counter {INCREMENTS} times each, without a lock: load, add, store. No input \
         differs\nbetween the runs: there is none."
    ));
    let cores = cores::usable().len();
    let mut sums = Vec::new();
    let runs_max = if cores > 1 { RUNS_MAX } else { RUNS };
    while sums.len() < RUNS || (sums.len() < runs_max && is_one(&sums)) {
        sums.push(count()?);
    }
    for (run, sum) in sums.iter().take(RUNS).enumerate() {
        screen.show(format_args!("run {}: {sum}", run + 1));
    }
    screen.show(format_args!(
        "with a lock it would be {} each time ({cores} cores here)",
        2 * INCREMENTS
    ));
    if cores > 1 {
        let what = "the same program with the same (empty) input has different results";
        screen.check(!is_one(&sums), what)?;
    } else {
        screen.say("NOT CHECKED: this host has one core, on which the threads seldom interleave.");
    }
    screen.say(
        "Which thread comes first at each access is decided by the hardware, millions of times a second. To replay \
         this, each\nsuch decision would have to be in the log. With one vCPU, threads change places only where an \
         interrupt comes in, and\nthe log has those. So a VM with one vCPU, under load, is recorded and replayed twice:",
    );
    let (recording, ()) = Recording::during(|| {
        ping(GUEST_ADDRESS, 20, "0.002")?;
        fetch(GUEST_ADDRESS, "/burn?ms=50&kib=512")?;
        fetch(GUEST_ADDRESS, "/status").map(drop)
    })?;
    let log = recording.log();
    let replays = [recording::replay(&log)?.result, recording::replay(&log)?.result];
    let rows =
        [("recorded", &recording.result), ("replay 1", &replays[0]), ("replay 2", &replays[1])];
    for (name, result) in rows {
        let [memory, state] = ["memory_digest", "state_digest"].map(|of| result[of].as_str());
        let interrupts = &result["interrupts"];
        screen.show(format_args!(
            "{name}: {interrupts} interrupts, digest of all memory {}, of vCPU and devices {}",
            memory.unwrap_or("?"),
            state.unwrap_or("?"),
        ));
    }
    let differs = replays.iter().find_map(|replayed| difference(&recording.result, replayed));
    screen.check(
        differs.is_none(),
        format_args!(
            "all memory and the whole state are equal at the end{}",
            differs.map_or(String::new(), |what| format!(": {what}"))
        ),
    )?;
    screen.figure("cores", cores);
    screen.figure("runs", sums.len());
    screen.figure("different_sums", sums.iter().collect::<BTreeSet<_>>().len());
    Ok(())
}

fn is_one(sums: &[u64]) -> bool {
    sums.iter().all(|sum| *sum == sums[0])
}

/// Lets two threads, on different cores if there are two, increment a counter. Returns its value at the end.
fn count() -> Result<u64, TestbedError> {
    let (counter, start) = (AtomicU64::new(0), Barrier::new(2));
    let increment = |core: usize| {
        // Where a thread can't be pinned, the kernel places it.
        let _ = cores::pin(core);
        start.wait();
        for _ in 0..INCREMENTS {
            // Not one atomic addition, as in a program without locks.
            let value = counter.load(Ordering::Relaxed);
            counter.store(value + 1, Ordering::Relaxed);
        }
    };
    let [first, second] = [cores::nth(0), cores::nth(1)];
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| increment(first)), scope.spawn(|| increment(second))];
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| TestbedError::Wrong("a counting thread panicked".into()))?;
        }
        Ok(counter.load(Ordering::Relaxed))
    })
}
