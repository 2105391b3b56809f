//! Load on the cores that this process may use.

use crate::clients::StopOnDrop;
use crate::{TestbedError, cores};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
