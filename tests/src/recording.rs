//! Records VMs under load and replays the recordings.

use crate::guests;
use crate::load::{self, Stop};
use crate::program::{json, run, understudy};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::busy::on_busy_cores;
use testbed::clients::Limit;
use testbed::pace::HANG_MAX;
use testbed::standalone::Launch;
use testbed::{GUEST_ADDRESS, Guest, Namespace, Standalone, TestbedError, VmProcess};

/// Interval between looks at a log that is being written.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts a VM with the reference guest in its own namespace, with `command` (`run` or `record`) and its
/// options, and waits for its first answer.
pub fn start_vm(command: &[&str]) -> Result<Standalone, TestbedError> {
    let launch = Launch { program: &understudy(), guest: &Guest::Reference, command };
    Standalone::start(Namespace::with_tap("test")?, &launch, &Limit::HANG)
}

/// Results of the load during a recording.
#[derive(Debug, Default)]
pub struct Load {
    /// Answered counter requests.
    pub counter: u64,
    /// Fetched pages and burns.
    pub fetched: u64,
    /// Summary line of ping.
    pub ping: String,
    /// Kicks sent to the recording process.
    pub kicks: u64,
}

/// Records the reference guest for `seconds` under all loads at once: 1000 pings per second, the
/// counter, burns, random kicks, and bursts of load on every core. Returns the recording's result and
/// the clients'.
pub fn record_under_load(
    log: &Path,
    seconds: u64,
    seed: u64,
    extra: &[&str],
) -> Result<(Value, Load), TestbedError> {
    let vm = start_vm(&[&["record", "--log", utf8(log)], extra].concat())?;
    let pid = vm.vm.pid();
    let load = vm.namespace.enter(|| {
        on_a_busy_host(pid, seed, |stop| {
            std::thread::scope(|scope| {
                let counter = scope.spawn(|| load::counter(GUEST_ADDRESS, stop));
                let fetched = scope.spawn(|| load::burn(GUEST_ADDRESS, stop));
                let ping = load::ping_flood(GUEST_ADDRESS, seconds);
                stop.store(true, Ordering::Relaxed);
                Ok(Load {
                    counter: counter.join().expect(JOIN)?,
                    fetched: fetched.join().expect(JOIN)?,
                    ping: ping?,
                    kicks: 0,
                })
            })
        })
    })?;
    Ok((vm.stop()?, load))
}

/// Records the hard guest under random kicks and bursts of load on every core, for `seconds` from its first interrupt
/// on: a slow or busy host needs long to get that far. The hard guest has no network and generates its own load. It
/// executes INT n where this host does.
pub fn record_hard_guest(
    log: &Path,
    seconds: u64,
    seed: u64,
    extra: &[&str],
) -> Result<(Value, Load), TestbedError> {
    let image = log.with_extension("elf");
    std::fs::write(&image, guests::HARD).map_err(TestbedError::client("writing the hard guest"))?;
    let options = ["record", "--guest", utf8(&image), "--log", utf8(log), "--quiet", "--json"];
    let int: &[&str] =
        if executes_int() { &["--command-line", "software-interrupts"] } else { &[] };
    let mut vm = VmProcess::spawn(&understudy(), &[&options, int, extra].concat())?;
    let load = on_a_busy_host(vm.pid(), seed, |_stop| {
        wait_for_first_interrupt(&mut vm, log)?;
        std::thread::sleep(Duration::from_secs(seconds));
        Ok(Load::default())
    })?;
    Ok((json(&vm.finish()?), load))
}

/// Waits until the log that `vm` writes has an interrupt.
fn wait_for_first_interrupt(vm: &mut VmProcess, log: &Path) -> Result<(), TestbedError> {
    let begin = Instant::now();
    while count_in_log(log, "interrupt") == 0 {
        if vm.has_ended() || begin.elapsed() > HANG_MAX {
            let time = begin.elapsed();
            return Err(TestbedError::Wrong(format!("no interrupt was recorded in {time:.1?}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Returns the number of entries of `kind` in a log that is being written; 0 if it has no header yet.
pub fn count_in_log(log: &Path, kind: &str) -> u64 {
    let stat = run(&["log", "stat", utf8(log), "--json"]);
    let text = String::from_utf8_lossy(&stat.stdout);
    if text.is_empty() { 0 } else { json(&text)["kinds"][kind]["count"].as_u64().unwrap_or(0) }
}

/// Returns whether this host's KVM executes INT n, as its profile says.
fn executes_int() -> bool {
    let doctor = json(&String::from_utf8_lossy(&run(&["doctor", "--json"]).stdout));
    let gaps = doctor["host_profile"]["emulator_gaps"].as_str();
    gaps.is_some_and(|gaps| !gaps.contains("INT n"))
}

const JOIN: &str = "load threads do not panic";

/// Runs `work` while process `pid` is kicked at random and every core is busy half of the time. Adds
/// the number of kicks to the result.
fn on_a_busy_host(
    pid: u32,
    seed: u64,
    work: impl FnOnce(&Stop) -> Result<Load, TestbedError>,
) -> Result<Load, TestbedError> {
    let stop = Stop::new(false);
    let stop = &stop;
    on_busy_cores(seed, &AtomicBool::new(true), stop, || {
        std::thread::scope(|scope| {
            let kicks = scope.spawn(move || load::kicks(pid, seed, stop));
            let load = work(stop);
            stop.store(true, Ordering::Relaxed);
            let kicks = kicks.join().expect(JOIN);
            Ok(Load { kicks, ..load? })
        })
    })?
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Replays `log` under random kicks. Returns the exit status and the JSON result.
pub fn replay_under_kicks(log: &Path, seed: u64) -> Result<(ExitStatus, Value), TestbedError> {
    replay_with(log, seed, &[])
}

/// As [`replay_under_kicks`], with the options `extra`.
pub fn replay_with(
    log: &Path,
    seed: u64,
    extra: &[&str],
) -> Result<(ExitStatus, Value), TestbedError> {
    let Output { status, stdout, .. } = replay(log, (seed, extra), Stdio::inherit())?;
    if stdout.is_empty() {
        return Err(TestbedError::Wrong(format!(
            "the replay exited with {status} and without a result"
        )));
    }
    Ok((status, json(&String::from_utf8_lossy(&stdout))))
}

/// As [`replay_with`]. Returns what the program printed, also to standard error, and its exit status.
pub fn replay_output(log: &Path, seed: u64, extra: &[&str]) -> Result<Output, TestbedError> {
    replay(log, (seed, extra), Stdio::piped())
}

fn replay(
    log: &Path,
    (seed, extra): (u64, &[&str]),
    stderr: Stdio,
) -> Result<Output, TestbedError> {
    let log = utf8(log);
    let mut command = Command::new(understudy());
    command.args(["replay", log, "--json", "--report", &format!("{log}.divergence")]).args(extra);
    let vm = VmProcess::start(command.stdout(Stdio::piped()).stderr(stderr))?;
    let pid = vm.pid();
    let stop = Stop::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load::kicks(pid, seed, &stop));
        let output = vm.wait();
        stop.store(true, Ordering::Relaxed);
        output
    })
}

/// Compares the results of recording and replay. Returns a description of the first difference.
pub fn difference(recorded: &Value, replayed: &Value) -> Option<String> {
    const EQUAL: [&str; 6] =
        ["interrupts", "natural_exits", "windows", "checkpoints", "memory_digest", "state_digest"];
    if replayed["divergences"] != 0 {
        return Some(format!("divergences {}", replayed["divergences"]));
    }
    EQUAL
        .iter()
        .find(|&&key| recorded[key].is_null() || recorded[key] != replayed[key])
        .map(|key| format!("{key}: recorded {}, replayed {}", recorded[key], replayed[key]))
}

/// Kills a process with SIGKILL.
pub fn kill_hard(vm: VmProcess) -> Result<(), TestbedError> {
    vm.signal(Signal::SIGKILL);
    vm.wait().map(|_ended| ())
}
