//! Load on a VM and on its host: clients that never stop, kicks, and busy cores.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vmm::demo::clients::{self, Counter};
use vmm::demo::{DemoError, cores, lan};

/// Tells every load to end.
pub type Stop = AtomicBool;

fn stopped(stop: &Stop) -> bool {
    stop.load(Ordering::Relaxed)
}

/// Counter requests on one connection until `stop`; how many were answered. Every number must
/// follow the one before.
pub fn counter(address: Ipv4Addr, stop: &Stop) -> Result<u64, DemoError> {
    let mut counter = Counter::connect(address)?;
    let mut last = counter.ask()?;
    let mut answered = 1;
    while !stopped(stop) {
        let number = counter.ask()?;
        if number != last + 1 {
            return Err(DemoError::Wrong(format!("the counter went from {last} to {number}")));
        }
        last = number;
        answered += 1;
    }
    Ok(answered)
}

/// `GET /burn?ms=50` and the page, in turn, until `stop`; how many were fetched.
pub fn burn(address: Ipv4Addr, stop: &Stop) -> Result<u64, DemoError> {
    let mut fetched = 0;
    while !stopped(stop) {
        clients::fetch(address, "/burn?ms=50")?;
        clients::fetch(address, "/status")?;
        fetched += 2;
    }
    Ok(fetched)
}

/// ping(8), 1000 a second, for `seconds`; its summary line.
pub fn ping_flood(address: Ipv4Addr, seconds: u64) -> Result<String, DemoError> {
    let text = lan::command(
        "ping",
        &["-q", "-i", "0.001", "-w", &seconds.to_string(), &address.to_string()],
    )?;
    Ok(text.lines().find(|line| line.contains("transmitted")).unwrap_or_default().to_string())
}

/// Sends the kick signal to process `pid` at random moments, 50 us to 3 ms apart, until `stop`;
/// how many.
pub fn kicks(pid: u32, seed: u64, stop: &Stop) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = 0;
    while !stopped(stop) && !handles_kicks(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
    while !stopped(stop) {
        std::thread::sleep(Duration::from_micros(random.u64(50..3000)));
        if kill(Pid::from_raw(pid.cast_signed()), Signal::SIGUSR1).is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

/// Has the process installed its handler? Before that the signal would end it. (proc_pid_status(5):
/// bit n-1 of `SigCgt` is signal n.)
fn handles_kicks(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (Signal::SIGUSR1 as u32 - 1) & 1 == 1)
}

/// Pins the calling thread to `core` and lets nothing else run there while it can run itself
/// (SCHED_FIFO, by chrt(1) of util-linux): builds and tests beside it are not what is measured. Who is
/// busy for 950 ms of a second is stopped for the other 50, whether anybody else wants to run or not.
pub fn take_core(core: usize) {
    cores::pin(core).expect("the core is one of ours");
    let thread = nix::unistd::gettid().to_string();
    lan::command("chrt", &["--fifo", "--pid", "10", &thread]).expect("root may");
}

/// Runs `work` while each core that we may use is busy half of the time; `work` is given what it sets when it is
/// done.
pub fn on_busy_cores<T>(seed: u64, stop: &Stop, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(stop);
        for core in cores::usable() {
            scope.spawn(move || hog(core, seed ^ core as u64, stop));
        }
        work()
    })
}

/// Ends the load, whatever happens.
struct StopOnDrop<'s>(&'s Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps `core` busy in random bursts, about half of the time, until `stop`.
fn hog(core: usize, seed: u64, stop: &Stop) {
    cores::pin(core).expect("the core is one of ours");
    let mut random = fastrand::Rng::with_seed(seed);
    while !stopped(stop) {
        let burst = Duration::from_micros(random.u64(100..20_000));
        let start = Instant::now();
        while start.elapsed() < burst {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(random.u64(100..20_000)));
    }
}
