//! One VM from start to stop: the vCPU's thread, and the supervision around it.
//!
//! The main thread sleeps on a channel: signals, the time limit, the vCPU thread's result. The
//! vCPU thread does everything else.

use super::exit_code::{CliError, Code};
use super::options::VmOptions;
use super::signals;
use crate::kvm::{clock, kick};
use crate::replay::boundary::{Boundary, EndState};
use crate::replay::guest_clock::GuestClock;
use crate::replay::world::WorldConfig;
use crate::stdio;
use crate::telemetry::Stages;
use crate::vcpu::{self, Counters, Fixups, Machine, RunError};
use crossbeam::channel::{self, Receiver};
use netpath::middleware::pcap::Pcap;
use netpath::middleware::trace::Trace;
use netpath::null_port::NullPort;
use netpath::port::FramePort;
use netpath::tap_port::{TapConfig, TapPort};
use netpath::wait::WaitPolicy;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A port of any make.
pub type AnyPort = Box<dyn FramePort + Send>;

/// Opens the VM's network.
pub fn open_port(options: &VmOptions) -> Result<AnyPort, CliError> {
    let port: AnyPort = match &options.tap {
        None => Box::new(NullPort::new()),
        Some(name) => {
            let spin = Duration::from_micros(options.spin_us);
            let wait = WaitPolicy { spin, ..WaitPolicy::default() };
            let tap = TapPort::open(&TapConfig { wait, ..TapConfig::new(name.clone()) })?;
            if !tap.is_up()? {
                tracing::warn!("{}", tap.down_hint());
            }
            Box::new(tap)
        }
    };
    let port: AnyPort = match options.trace_frames {
        false => port,
        true => Box::new(Trace::new(port, "vm")),
    };
    match &options.pcap {
        None => Ok(port),
        Some(path) => {
            let file = std::fs::File::create(path)
                .map_err(|source| CliError::File { path: path.clone(), source })?;
            Ok(Box::new(Pcap::new(port, file)))
        }
    }
}

/// How a run went, whatever its end.
#[derive(Debug)]
pub struct Outcome<R> {
    /// The final state, or why there is none.
    pub end: Result<EndState, RunError>,
    /// How often what happened.
    pub counters: Counters,
    /// What was done in KVM's place.
    pub fixups: Fixups,
    /// From the process's start to the first entry.
    pub ready: Duration,
    /// From the first entry to the end.
    pub elapsed: Duration,
    /// What the caller wanted to know of the event source.
    pub report: R,
}

/// Runs `machine` on a thread of its own until its source ends it, or until `limit` or a [signal](signals::ending)
/// does. `make_source` and `report` run on that thread.
pub fn supervise<S, R>(
    machine: Machine,
    core: Option<usize>,
    limit: Option<Duration>,
    make_source: impl FnOnce(Arc<AtomicBool>) -> Result<S, CliError> + Send,
    report: impl FnOnce(&S) -> R + Send,
) -> Result<Outcome<R>, CliError>
where
    S: Boundary,
    R: Send,
{
    on_vcpu_thread(core, limit, |stop| {
        let mut machine = machine;
        let mut source = make_source(stop)?;
        let start = Instant::now();
        let ready = super::started().map_or(Duration::ZERO, |at| start - at);
        let end = vcpu::run(&mut machine, &mut source);
        let elapsed = start.elapsed();
        let (counters, fixups) = (machine.counters(), machine.fixups());
        Ok(Outcome { end, counters, fixups, ready, elapsed, report: report(&source) })
    })
}

/// Runs `body` on a thread that may run vCPUs, and sets the flag that it is given at `limit` or at a
/// [signal](signals::ending). The thread is kicked when that happens.
pub fn on_vcpu_thread<T: Send>(
    core: Option<usize>,
    limit: Option<Duration>,
    body: impl FnOnce(Arc<AtomicBool>) -> Result<T, CliError> + Send,
) -> Result<T, CliError> {
    let os = |doing| move |source| CliError::Os { doing, source };
    kick::install()?;
    // A kick sent to the process shall reach the vCPU: only its thread takes the signal.
    mask_kicks(SigmaskHow::SIG_BLOCK)?;
    let mut signals = Signals::new(signals::ending()).map_err(os("installing signals"))?;
    let signals_end = CloseOnDrop(signals.handle());
    let (asked_sender, asked) = channel::bounded(1);
    let (kicker_sender, kicker) = channel::bounded(1);
    let (done_sender, done) = channel::bounded(1);
    let stop = Arc::new(AtomicBool::new(false));
    let stop_seen = Arc::clone(&stop);

    let vcpu_thread = move || -> Result<T, CliError> {
        mask_kicks(SigmaskHow::SIG_UNBLOCK)?;
        if let Some(core) = core {
            pin(core)?;
        }
        clock::trap_tsc_on_this_thread()?;
        let _ = kicker_sender.send(kick::Kicker::of_this_thread());
        body(stop_seen)
    };

    std::thread::scope(|scope| {
        // Whatever comes, the signal thread ends before the scope waits for it.
        let _signals_end = signals_end;
        std::thread::Builder::new()
            .name(String::from("vcpu0"))
            .spawn_scoped(scope, move || {
                let outcome = vcpu_thread();
                let _ = done_sender.send(outcome);
            })
            .map_err(os("starting the vCPU thread"))?;
        std::thread::Builder::new()
            .name(String::from("signals"))
            .spawn_scoped(scope, move || {
                for (count, signal) in signals.forever().enumerate() {
                    let _ = asked_sender.try_send(());
                    if count > 0 {
                        // Asked twice: something does not end, such as a write to a stalled pipe.
                        signal_hook::low_level::exit(128 + signal);
                    }
                }
            })
            .map_err(os("starting the signal thread"))?;
        wait_for_end(&done, &asked, limit, || {
            stop.store(true, Ordering::Relaxed);
            if let Ok(kicker) = kicker.try_recv() {
                kicker.kick();
            }
        })
        // Nothing was sent: the vCPU thread panicked, and the scope passes the panic on.
        .unwrap_or(Err(CliError::Silent(Code::Unexpected)))
    })
}

/// Ends the thread that iterates over signals.
struct CloseOnDrop(signal_hook::iterator::Handle);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Waits for the vCPU thread's outcome, telling it to stop when asked or at the limit. `None` if
/// it ended without one.
fn wait_for_end<T>(
    done: &Receiver<T>,
    asked: &Receiver<()>,
    limit: Option<Duration>,
    stop: impl Fn(),
) -> Option<T> {
    let limit = limit.map_or_else(channel::never, channel::after);
    crossbeam::select! {
        recv(done) -> outcome => return outcome.ok(),
        recv(asked) -> _signal => {}
        recv(limit) -> _time => {}
    }
    stop();
    done.recv().ok()
}

fn mask_kicks(how: SigmaskHow) -> Result<(), CliError> {
    let mut set = SigSet::empty();
    set.add(kick::KICK_SIGNAL);
    pthread_sigmask(how, Some(&set), None)
        .map_err(|errno| CliError::Os { doing: "setting the signal mask", source: errno.into() })
}

/// Pins the calling thread to `core`.
pub(super) fn pin(core: usize) -> Result<(), CliError> {
    let mut set = CpuSet::new();
    let result = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    result.map_err(|errno| CliError::Usage(format!("--core {core}: can't pin to it ({errno})")))
}

/// The world of a VM run from the command line, its guest's clock being `clock`. Called on the vCPU's
/// thread.
pub fn world_config(
    options: &VmOptions,
    port: AnyPort,
    clock: GuestClock,
    stop: Arc<AtomicBool>,
) -> Result<WorldConfig<AnyPort>, CliError> {
    let console_output: Box<dyn Write + Send> =
        if options.quiet { Box::new(std::io::sink()) } else { Box::new(stdio::Messages) };
    let console_input = if options.stdin { Some(read_stdin()?) } else { None };
    let stages = Stages::new(!options.no_stages, options.trace());
    let deadline = options.deadline();
    Ok(WorldConfig { port, console_output, console_input, stop, deadline, clock, stages })
}

/// Writes what was followed of `stages` to the file that `options` name, if they do.
pub fn write_trace(options: &VmOptions, stages: &Stages) -> Result<(), CliError> {
    let (Some(path), Some(trace)) = (&options.trace_stages, stages.trace()) else { return Ok(()) };
    let write = || {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        trace.write(&mut file)?;
        file.flush()
    };
    write().map_err(|source| CliError::File { path: path.clone(), source })
}

/// What is typed on standard input, in pieces, each followed by a kick of the calling thread.
fn read_stdin() -> Result<Receiver<Vec<u8>>, CliError> {
    const PIECE_BYTES: usize = 256;
    let (sender, receiver) = channel::bounded(16);
    let kicker = kick::Kicker::of_this_thread();
    // A thread inherits the mask: kicks of the process are for the vCPU's thread alone.
    mask_kicks(SigmaskHow::SIG_BLOCK)?;
    // Ends with the process: a blocked read of standard input can't be interrupted.
    std::thread::spawn(move || {
        let mut piece = [0; PIECE_BYTES];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                return;
            }
            kicker.kick();
        }
    });
    mask_kicks(SigmaskHow::SIG_UNBLOCK)?;
    Ok(receiver)
}
