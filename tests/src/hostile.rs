//! The hostile guest (`tests/guests/hostile`): recorded and replayed, and protected by a pair.
//!
//! Whatever the guest does, nothing panics, hangs, diverges or takes memory without bound, and the machine stops
//! when it is asked to. A guest that ends itself (by a triple fault, a reset, an instruction that KVM does not
//! know) is no failure: it is counted, if every machine that follows it ends at the same place.

use crate::guests;
use crate::load::{self, Stop};
use crate::pair::{Process, Rig};
use crate::patience::{Waiting, patience};
use crate::program::{json, understudy};
use crate::recording::{difference, replay_output, replay_with};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use testbed::pair::{Host, PairEvent, Part, Why};
use testbed::{Namespace, TAP, TestbedError, VmProcess};

/// Size of the guest's disk.
const DISK_BYTES: usize = 1 << 20;
/// Exit code of a VM whose guest ended by itself.
const GUEST_ENDED: i32 = 9;
/// Exit code of a replay whose log has no end, because the recorded guest ended by itself.
const TRUNCATED: i32 = 10;
/// Exit code of a host of a pair that does not run the VM any more.
const HALTED: i32 = 14;

/// Most resident memory of a process: the guest's 64 MiB, as much for the page deltas of a log, and what the
/// program needs for itself.
const RESIDENT_KIB_MAX: u64 = (64 + 64 + 96) << 10;

/// What some runs of the hostile guest amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Runs that were stopped in the end.
    pub stopped: u64,
    /// Runs in which the guest ended by itself.
    pub ended_by_themselves: u64,
    /// Natural exits of the recordings that were stopped.
    pub exits: u64,
    /// Interrupts of the recordings that were stopped.
    pub interrupts: u64,
    /// Longest time from the request to stop until the process that ran the VM has ended.
    pub slowest_stop: Duration,
    /// Most resident memory of a process, KiB.
    pub resident_kib_max: u64,
}

impl Account {
    fn note_memory(&mut self, pid: u32) -> Result<(), TestbedError> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
        self.resident_kib_max = self.resident_kib_max.max(peak);
        require(peak < RESIDENT_KIB_MAX, || format!("a process takes {peak} KiB"))
    }

    fn note_stop(&mut self, took: Duration) -> Result<(), TestbedError> {
        self.slowest_stop = self.slowest_stop.max(took);
        require(took < patience(), || format!("a VM stopped {took:?} after it was asked to"))
    }
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), TestbedError> {
    if holds { Ok(()) } else { Err(TestbedError::Wrong(what())) }
}

/// Writes the guest's image to `path`, and returns the options that start it with `seed`.
fn options(path: &Path, seed: u64) -> Result<[String; 4], TestbedError> {
    std::fs::write(path, guests::HOSTILE)
        .map_err(TestbedError::client("writing the hostile guest"))?;
    let image = path.display().to_string();
    Ok(["--guest".into(), image, "--command-line".into(), format!("seed={seed}")])
}

/// Records the guest for `seconds` under kicks and replays the log under others.
///
/// # Errors
///
/// If anything but the guest fails. The log stays in `folder`.
pub fn record_and_replay(
    account: &mut Account,
    folder: &Path,
    seconds: f64,
    seed: u64,
) -> Result<(), TestbedError> {
    let log = folder.join(format!("hostile-{seed}.ulog"));
    let guest = options(&folder.join("hostile.elf"), seed)?;
    let disk = folder.join(format!("hostile-{seed}.img"));
    std::fs::write(&disk, vec![0; DISK_BYTES]).map_err(TestbedError::client("making the disk"))?;
    let disk = ["--disk", disk.to_str().expect("paths of tests are UTF-8")];
    let namespace = Namespace::with_tap("hostile")?;
    let stop = Stop::new(false);
    let Output { status, stdout, stderr } = namespace.enter(|| {
        let mut command = Command::new(understudy());
        command.args(["record", "--quiet", "--json", "--tap", TAP, "--log"]).arg(&log).args(&guest);
        command.args(disk);
        let mut vm = VmProcess::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let pid = vm.pid();
        std::thread::scope(|scope| {
            scope.spawn(|| load::kicks(pid, seed, &stop));
            let begin = Instant::now();
            let mut result = Ok(());
            while result.is_ok() && begin.elapsed().as_secs_f64() < seconds && !vm.has_ended() {
                std::thread::sleep(Duration::from_millis(20));
                result = account.note_memory(pid);
            }
            stop.store(true, Ordering::Relaxed);
            result?;
            let asked = Instant::now();
            vm.signal(Signal::SIGTERM);
            let output = vm.wait()?;
            account.note_stop(asked.elapsed())?;
            Ok(output)
        })
    })?;
    let error = String::from_utf8_lossy(&stderr).into_owned();
    match status.code() {
        Some(0) => {
            let recorded = json(&String::from_utf8_lossy(&stdout));
            account.stopped += 1;
            account.exits += number(&recorded, "natural_exits");
            account.interrupts += number(&recorded, "interrupts");
            let (replay, replayed) = replay_with(&log, seed ^ 1, &disk)?;
            let differs = difference(&recorded, &replayed);
            require(differs.is_none() && replay.success(), || {
                format!("the replay ended with {replay} and differs: {differs:?}")
            })?;
        }
        Some(GUEST_ENDED) => {
            account.ended_by_themselves += 1;
            replay_to_the_guests_end(&log, (seed ^ 1, &disk), &error)?;
        }
        _ => {
            return Err(TestbedError::Wrong(format!("the recording ended with {status}: {error}")));
        }
    }
    for file in [log.as_path(), Path::new(disk[1])] {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// Replays `log`, whose guest ended by itself, which the recording reported as `recorded`.
///
/// A reset, or a HLT with interrupts off, is a natural exit, which the log contains: the replay ends there as the
/// recording did. A triple fault is none: the log ends before it, which the replay reports.
fn replay_to_the_guests_end(
    log: &Path,
    (seed, disk): (u64, &[&str]),
    recorded: &str,
) -> Result<(), TestbedError> {
    let Output { status, stdout, stderr } = replay_output(log, seed, disk)?;
    let (result, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let is_the_same = match status.code() {
        Some(GUEST_ENDED) => error.lines().last() == recorded.lines().last(),
        Some(TRUNCATED) => json(&result)["divergences"] == 0,
        _ => false,
    };
    require(is_the_same, || {
        format!("the replay ended with {status}: {result}{error}, the recording with: {recorded}")
    })
}

fn number(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or(0)
}

/// How a wait for the hosts of a pair ended.
enum Hosts {
    /// As awaited.
    Reached,
    /// The guest ended by itself on this host.
    Ended(Host),
}

/// Runs the guest on a pair for `seconds`, kills the primary in the middle, and stops the VM on the other
/// host under protection.
///
/// # Errors
///
/// If anything but the guest fails.
///
/// # Panics
///
/// If an awaited event does not come.
pub fn protect(
    account: &mut Account,
    rig: &Rig,
    seconds: f64,
    seed: u64,
) -> Result<(), TestbedError> {
    let guest = options(&rig.path("hostile.elf"), seed)?;
    let guest: Vec<&str> = guest.iter().map(String::as_str).collect();
    let mut pair = [
        Some(rig.start(Part::Primary, Host::A, &guest)),
        Some(rig.start(Part::Backup, Host::B, &guest)),
    ];
    for kills_follow in [true, false] {
        if let Hosts::Ended(host) = wait_for_protection(&mut pair) {
            return ended(account, &mut pair, host);
        }
        if let Hosts::Ended(host) = run_for(account, &mut pair, seconds / 2.0)? {
            return ended(account, &mut pair, host);
        }
        if kills_follow {
            let killed = pair[Host::A.index()].take().expect("it was started");
            killed.signal(Signal::SIGKILL);
            drop(killed);
            let survivor = pair[Host::B.index()].as_mut().expect("it was started");
            let waiting = Waiting::default();
            while !survivor.state().holds_term && !survivor.has_ended() {
                waiting.pause(|| format!("a takeover: {}", survivor.transcript()));
            }
            if survivor.has_ended() {
                return ended(account, &mut pair, Host::B);
            }
            pair[Host::A.index()] = Some(rig.start(Part::Backup, Host::A, &guest));
        }
    }
    let [backup, speaker] = &mut pair;
    let (backup, speaker) = (backup.as_mut().expect(BOTH), speaker.as_mut().expect(BOTH));
    let asked = Instant::now();
    speaker.order("stop");
    let spoke = speaker.end().code;
    account.note_stop(asked.elapsed())?;
    // The backup's process stays for a silence timeout: the other one may repeat its Bye, to have it confirmed.
    let codes = [spoke, backup.end().code];
    if codes[0] == Some(GUEST_ENDED) {
        return ended(account, &mut pair, Host::B);
    }
    require(codes == [Some(0); 2], || {
        format!("{}\n{}", speaker.transcript(), backup.transcript())
    })?;
    account.stopped += 1;
    check_divergences(&mut pair)
}

const BOTH: &str = "both hosts have a process";

fn check_divergences(pair: &mut [Option<Process>; 2]) -> Result<(), TestbedError> {
    for process in pair.iter_mut().flatten() {
        let divergences = process.count(|event| matches!(event, PairEvent::Diverged { .. }));
        require(divergences == 0, || format!("a divergence: {}", process.transcript()))?;
    }
    Ok(())
}

/// Returns the host whose process has ended, if there is one.
fn ended_host(pair: &mut [Option<Process>; 2]) -> Option<Host> {
    Host::ALL.into_iter().find(|host| pair[host.index()].as_mut().is_some_and(Process::has_ended))
}

/// Waits until the VM is protected.
fn wait_for_protection(pair: &mut [Option<Process>; 2]) -> Hosts {
    let waiting = Waiting::default();
    loop {
        if let Some(host) = ended_host(pair) {
            return Hosts::Ended(host);
        }
        if pair.iter_mut().flatten().any(|process| process.state().protected.is_some()) {
            return Hosts::Reached;
        }
        waiting.pause(|| {
            let stories = pair.iter_mut().flatten().map(Process::transcript);
            format!("a protected VM:\n{}", stories.collect::<Vec<_>>().join("\n"))
        });
    }
}

/// Lets the VM run.
fn run_for(
    account: &mut Account,
    pair: &mut [Option<Process>; 2],
    seconds: f64,
) -> Result<Hosts, TestbedError> {
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_millis(20));
        for process in pair.iter().flatten() {
            account.note_memory(process.pid())?;
        }
        if let Some(host) = ended_host(pair) {
            return Ok(Hosts::Ended(host));
        }
    }
    check_divergences(pair)?;
    Ok(Hosts::Reached)
}

/// The guest has ended on `host` by itself: it must not run on, on the other one, as if nothing had happened.
/// If KVM could not explain the end, the other host takes over and meets the same end.
fn ended(
    account: &mut Account,
    pair: &mut [Option<Process>; 2],
    host: Host,
) -> Result<(), TestbedError> {
    check_divergences(pair)?;
    for of in [host, host.other()] {
        let Some(process) = pair[of.index()].as_mut() else { continue };
        // A backup that did not have the VM yet waits for another primary; it is killed on drop.
        if of != host && process.count(|event| matches!(event, PairEvent::Following)) == 0 {
            continue;
        }
        let ended = process.end();
        let is_expected = match ended.code {
            Some(GUEST_ENDED) => true,
            Some(HALTED | 0) => process.state().halted == Some(Why::PrimaryStopped),
            _ => false,
        };
        require(is_expected, || format!("{ended:?}: {}", process.transcript()))?;
    }
    account.ended_by_themselves += 1;
    Ok(())
}
