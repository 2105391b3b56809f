//! Load on the cores that this process may use, and on the memory.

use crate::clients::StopOnDrop;
use crate::{TestbedError, cores};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The load on the memory takes this fraction of the available memory, but at most this much. It is taken in
/// pieces.
const MEMORY_DIVISOR: u64 = 4;
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const PIECE_BYTES: usize = 4 << 20;

/// Range of the lengths of the alternating busy and idle intervals of a core, in microseconds.
const BURST_US: std::ops::Range<u64> = 100..20_000;

/// Runs `work` while each core is busy about half of the time, in random bursts, from when `begin` is set
/// until `stop` is set or `work` returns, which sets `stop`.
///
/// # Errors
///
/// If a thread can't be pinned to its core: the load was incomplete.
pub fn on_busy_cores<T>(
    seed: u64,
    begin: &AtomicBool,
    stop: &AtomicBool,
    work: impl FnOnce() -> T,
) -> Result<T, TestbedError> {
    std::thread::scope(|scope| {
        let cores = cores::usable().into_iter();
        let hogs =
            cores.map(|core| scope.spawn(move || hog(core, seed ^ core as u64, begin, stop)));
        let hogs: Vec<_> = hogs.collect();
        let stopper = StopOnDrop(stop);
        let result = work();
        drop(stopper);
        for hog in hogs {
            hog.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(result)
    })
}

fn hog(core: usize, seed: u64, begin: &AtomicBool, stop: &AtomicBool) -> Result<(), TestbedError> {
    cores::pin(core).map_err(|errno| TestbedError::Client {
        doing: format!("running on core {core}"),
        source: errno.into(),
    })?;
    let mut random = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        if begin.load(Ordering::Relaxed) {
            let burst = Duration::from_micros(random.u64(BURST_US));
            let start = Instant::now();
            while start.elapsed() < burst {
                std::hint::spin_loop();
            }
        }
        std::thread::sleep(Duration::from_micros(random.u64(BURST_US)));
    }
    Ok(())
}

/// Runs `work` while a thread takes a part of the available memory, writes to every page of it and gives it
/// back, again and again, until `work` returns.
///
/// # Errors
///
/// If the kernel does not say how much memory is available.
pub fn on_busy_memory<T>(work: impl FnOnce() -> T) -> Result<T, TestbedError> {
    let bytes = (available_bytes()? / MEMORY_DIVISOR).min(MEMORY_BYTES_MAX);
    let pieces = (bytes / PIECE_BYTES as u64).max(1) as usize;
    let stop = AtomicBool::new(false);
    Ok(std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                take_memory(pieces, &stop);
            }
        });
        let _stop = StopOnDrop(&stop);
        work()
    }))
}

/// Takes `pieces` of memory and gives them back. Ends early when `stop` is set, or no memory is left.
fn take_memory(pieces: usize, stop: &AtomicBool) {
    let mut taken: Vec<Vec<u8>> = Vec::with_capacity(pieces);
    while taken.len() < pieces && !stop.load(Ordering::Relaxed) {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(PIECE_BYTES).is_err() {
            break;
        }
        piece.resize(PIECE_BYTES, 1);
        taken.push(std::hint::black_box(piece));
    }
}

/// Returns how much memory is available (proc_meminfo(5)).
fn available_bytes() -> Result<u64, TestbedError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")
        .map_err(TestbedError::client("reading /proc/meminfo"))?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| TestbedError::Wrong("/proc/meminfo has no MemAvailable".into()))?;
    Ok(kib * 1024)
}
