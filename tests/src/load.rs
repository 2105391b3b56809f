//! Load on a VM and its host: continuous clients, kicks, and busy cores.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::clients::{self, Counter};
use testbed::{TestbedError, command, cores};

/// Flag that ends all load.
pub type Stop = AtomicBool;

fn stopped(stop: &Stop) -> bool {
    stop.load(Ordering::Relaxed)
}

/// Sends counter requests on one connection until `stop` is set. Returns the number of answers. Each
/// number must follow the previous one.
pub fn counter(address: Ipv4Addr, stop: &Stop) -> Result<u64, TestbedError> {
    let mut counter = Counter::connect(address)?;
    let mut last = counter.ask()?;
    let mut answered = 1;
    while !stopped(stop) {
        let number = counter.ask()?;
        if number != last + 1 {
            return Err(TestbedError::Wrong(format!("the counter went from {last} to {number}")));
        }
        last = number;
        answered += 1;
    }
    Ok(answered)
}

/// Alternately fetches `/burn?ms=50` and `/status` until `stop` is set. Returns the number of pages
/// fetched.
pub fn burn(address: Ipv4Addr, stop: &Stop) -> Result<u64, TestbedError> {
    let mut fetched = 0;
    while !stopped(stop) {
        clients::fetch(address, "/burn?ms=50")?;
        clients::fetch(address, "/status")?;
        fetched += 2;
    }
    Ok(fetched)
}

/// Runs ping(8) with 1000 requests per second for `seconds` and returns its summary line.
pub fn ping_flood(address: Ipv4Addr, seconds: u64) -> Result<String, TestbedError> {
    let text =
        command("ping", &["-q", "-i", "0.001", "-w", &seconds.to_string(), &address.to_string()])?;
    Ok(text.lines().find(|line| line.contains("transmitted")).unwrap_or_default().to_string())
}

/// Sends the kick signal to process `pid` at random intervals of 50 us to 3 ms until `stop` is set.
/// Returns the number of signals sent.
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

/// Returns whether the process has installed its signal handler; before that, the signal would end it.
/// (proc_pid_status(5): bit n-1 of `SigCgt` is signal n.)
fn handles_kicks(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (Signal::SIGUSR1 as u32 - 1) & 1 == 1)
}

/// Pins the calling thread to `core` and gives it real-time priority there (SCHED_FIFO, with chrt(1) of
/// util-linux), so that builds and other tests do not disturb a measurement. The kernel stops a
/// real-time thread that was busy for 950 ms of a second for the remaining 50 ms, even if no other
/// thread wants to run.
pub fn take_core(core: usize) {
    cores::pin(core).expect("the core is one of ours");
    let thread = nix::unistd::gettid().to_string();
    command("chrt", &["--fifo", "--pid", "10", &thread]).expect("root may set real-time priority");
}
