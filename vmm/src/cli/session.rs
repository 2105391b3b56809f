//! Runs one VM from start to stop: starts the vCPU thread and supervises it.
//!
//! The main thread waits for a signal, the time limit, or the vCPU thread's result. The vCPU thread does
//! everything else.

use super::capture_file::CaptureFile;
use super::exit_code::{CliError, Code, MachineSource};
use super::options::VmOptions;
use super::signals;
use crate::checkpoint::{SavedDisk, Snapshot};
use crate::devices::DiskConfig;
use crate::disk::{DiskInfo, DiskOptions, Disks, Kick, Writes};
use crate::files::output::{self, Existing};
use crate::kvm::{clock, kick};
use crate::opener::OpenerConfig;
use crate::replay::SourceError;
use crate::replay::console::{Console, ConsoleStyle};
use crate::replay::guest_clock::GuestClock;
use crate::replay::orders::Orders;
use crate::replay::world::WorldConfig;
use crate::reservation::{self, Resource};
use crate::sandbox::{self, Task};
use crate::stdio;
use crate::telemetry::Stages;
use crate::vcpu::{self, Counters, Fixups, Machine, RunError, StateTrace};
use crate::vm_tap::{LanReports, VmTap};
use crossbeam::channel::{self, Receiver};
use logchan::limits::DISKS_MAX;
use netpath::mac::MacAddr;
use netpath::middleware::pcap::Pcap;
use netpath::middleware::send_filter::SendFilter;
use netpath::middleware::trace::Trace;
use netpath::null_port::NullPort;
use netpath::port::FramePort;
use netpath::tap_port::TapConfig;
use netpath::wait::WaitPolicy;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;
use replication::AllowedSources;
use replication::boundary::{Boundary, EndState};
use replication::driver::Order;
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A frame port of any type.
pub type AnyPort = Box<dyn FramePort + Send>;

/// Makes this process write standard output and standard error on threads of their own. A command that runs a
/// live VM calls this first, on the main thread: the vCPU thread must not wait for the readers.
///
/// # Errors
///
/// If a thread can't be started.
pub fn start_writer_threads() -> Result<(), CliError> {
    stdio::start_writer_threads()
        .map_err(|source| CliError::Os { doing: "starting the writer threads", source })
}

/// Opens the network port of the VM whose NIC has the address `mac`, with the middleware that `options` ask for.
///
/// # Errors
///
/// If another VM of this host has the tap or the address, the tap can't be opened or the pcap file can't be created.
pub fn open_port(options: &VmOptions, mac: MacAddr, lan: LanReports) -> Result<AnyPort, CliError> {
    let port: AnyPort = match tap_config(options) {
        None => Box::new(NullPort::new()),
        Some(config) => {
            reservation::reserve(Resource::Tap { name: config.name.clone() })?;
            reservation::reserve_mac(mac, &config.name)?;
            let tap = VmTap::open(&config, lan)?;
            match options.allowed_sources(mac) {
                AllowedSources::Any => Box::new(tap),
                sources => Box::new(SendFilter::new(tap, move |frame| sources.allow(frame))),
            }
        }
    };
    let port: AnyPort = match options.trace_frames {
        false => port,
        true => Box::new(Trace::new(port, "vm")),
    };
    match &options.pcap {
        None => Ok(port),
        Some(path) => {
            let file = CaptureFile::create(path, options.access())
                .map_err(|source| CliError::File { path: path.clone(), source })?;
            Ok(Box::new(Pcap::new(port, file)))
        }
    }
}

/// Opens the disks that `options` name.
///
/// # Errors
///
/// If an image can't be used.
pub fn open_disks(options: &[DiskOptions], writes: Writes) -> Result<Disks, CliError> {
    Ok(Disks::open(options, writes, Kick::default())?)
}

/// Opens the disks of the VM in `snapshot`, whose images `options` name. `writes` says where it will write.
///
/// # Errors
///
/// If an image is missing, can't be used, or has another size; or if the snapshot is damaged.
pub fn open_saved_disks(
    options: &[DiskOptions],
    (path, snapshot): (&Path, &Snapshot),
    writes: Writes,
) -> Result<Disks, CliError> {
    check_disk_count(options, path, snapshot.disks())?;
    let failed = |source| CliError::Snapshot { path: path.to_owned(), source };
    let changes = snapshot.changes().map_err(failed)?;
    let infos = snapshot.disks().iter().map(|disk| disk.info);
    let saved = infos.zip(changes).collect();
    let disks = Disks::open_saved(options, saved, (writes, Kick::default()))?;
    let saved = snapshot.disks().iter().zip(disks.info()).zip(options).enumerate();
    for (index, ((saved, info), options)) in saved {
        check_sectors((index, options), info.sectors, saved.info.sectors, MachineSource::Snapshot)?;
    }
    Ok(disks)
}

/// Checks that `options` name as many images as the VM in the snapshot `path` has disks, which are `saved`.
///
/// # Errors
///
/// If they do not; the message names the images that the VM was saved with.
pub fn check_disk_count(
    options: &[DiskOptions],
    path: &Path,
    saved: &[SavedDisk],
) -> Result<(), CliError> {
    if options.len() == saved.len() {
        return Ok(());
    }
    let images: Vec<_> = saved.iter().map(|disk| disk.image.escape_debug().to_string()).collect();
    let images = match images.is_empty() {
        true => String::from("no disk"),
        false => format!("the disks {}", images.join(", ")),
    };
    Err(CliError::Usage(format!(
        "--disk is given {} times, and the VM in {} has {images}",
        options.len(),
        path.display()
    )))
}

/// Checks that disk `index`, which `options` name, has `theirs` sectors.
///
/// # Errors
///
/// If it has `ours` and these are different.
pub fn check_sectors(
    (index, options): (usize, &DiskOptions),
    ours: u64,
    theirs: u64,
    source_of: MachineSource,
) -> Result<(), CliError> {
    if ours == theirs {
        return Ok(());
    }
    let what = format!("it has {ours} sectors, that one has {theirs}");
    Err(CliError::OtherDisk { source_of, index, path: options.path.clone(), what })
}

/// Checks that disk `index`, which `options` name, has the digest `theirs`.
///
/// # Errors
///
/// If it has `ours` and these are different.
pub fn check_digests(
    (index, options): (usize, &DiskOptions),
    ours: u64,
    theirs: u64,
    source_of: MachineSource,
) -> Result<(), CliError> {
    if ours == theirs {
        return Ok(());
    }
    let whose = source_of.name();
    let what = format!("its digest is {ours:016x}, in the {whose} it is {theirs:016x}");
    Err(CliError::OtherDisk { source_of, index, path: options.path.clone(), what })
}

/// Returns the digest of the image of disk `index`, which `options` name. Reads all of it.
///
/// # Errors
///
/// If the image can't be read.
pub fn image_digest(
    disks: &mut Disks,
    index: usize,
    options: &DiskOptions,
) -> Result<u64, CliError> {
    let digest = disks.digest(index as u8);
    digest.map_err(|source| CliError::DiskImage { path: options.path.clone(), source })
}

/// Returns the digest of what the guest finds on disk `index` at its start. Reads all of it.
///
/// # Errors
///
/// If the image can't be read.
pub fn contents_digest(
    disks: &mut Disks,
    index: usize,
    options: &DiskOptions,
) -> Result<u64, CliError> {
    let digest = disks.contents_digest(index as u8);
    digest.map_err(|source| CliError::DiskImage { path: options.path.clone(), source })
}

/// Returns the disks as the guest sees them.
pub fn disk_configs(disks: &Disks) -> [Option<DiskConfig>; DISKS_MAX] {
    let mut configs = [None; DISKS_MAX];
    for (config, info) in configs.iter_mut().zip(disks.info()) {
        let &DiskInfo { sectors, read_only, serial } = info;
        *config = Some(DiskConfig { sectors, read_only, serial });
    }
    configs
}

/// The outcome of a run, successful or not.
#[derive(Debug)]
pub struct Outcome<R> {
    /// The final state, or the failure that ended the run.
    pub end: Result<EndState, RunError>,
    /// Counts of exits, interrupts and other events.
    pub counters: Counters,
    /// Counts of the instructions that this program executed in place of KVM.
    pub fixups: Fixups,
    /// Time from the start of the process to the first VM entry.
    pub ready: Duration,
    /// Time from the first VM entry to the end.
    pub elapsed: Duration,
    /// The state at the last positions, if the machine traces it.
    pub state: Option<String>,
    /// What the caller's `report` returned.
    pub report: R,
}

/// How [`supervise`] runs a machine.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Core to pin the vCPU thread to.
    pub core: Option<usize>,
    /// Time from the first VM entry to the end.
    pub limit: Option<Duration>,
    /// The task of the vCPU thread in the sandbox.
    pub task: Task,
}

/// Runs `machine` on a thread of its own until the nondeterminism boundary ends the run, the time limit
/// has passed since the first VM entry, or a [signal](signals::ending) arrives. `make_boundary` and `report` run
/// on that thread.
///
/// # Errors
///
/// If threads or signals can't be set up, or `make_boundary` fails. A failed run is part of the outcome.
pub fn supervise<B, R>(
    machine: Machine,
    options: RunOptions,
    make_boundary: impl FnOnce(Arc<Orders>) -> Result<B, CliError> + Send,
    report: impl FnOnce(&B) -> R + Send,
) -> Result<Outcome<R>, CliError>
where
    B: Boundary<Error = SourceError>,
    R: Send,
{
    let (entry, entered) = channel::bounded(1);
    let RunOptions { core, limit, task } = options;
    let limit = limit.map(|length| TimeLimit { length, begins: Begins::At(entered) });
    on_vcpu_thread(core, limit, &Arc::default(), |orders| {
        let mut machine = machine;
        let mut boundary = make_boundary(orders)?;
        sandbox::enter(task);
        // Replaced at the first entry, unless the run ends before it.
        let mut start = Instant::now();
        let end = vcpu::run(&mut machine, &mut boundary, || {
            start = Instant::now();
            let _ = entry.send(start);
        });
        let elapsed = start.elapsed();
        let ready = super::started().map_or(Duration::ZERO, |at| start - at);
        let (counters, fixups) = (machine.counters(), machine.fixups());
        let state = machine.state_trace().map(StateTrace::report);
        Ok(Outcome { end, counters, fixups, ready, elapsed, state, report: report(&boundary) })
    })
}

/// A limit on the duration of a run.
#[derive(Debug)]
pub struct TimeLimit {
    /// Duration.
    pub length: Duration,
    /// From when on it counts.
    pub begins: Begins,
}

/// From when on a [`TimeLimit`] counts.
#[derive(Debug)]
pub enum Begins {
    /// The start of the vCPU thread.
    Now,
    /// The time that is received, such as that of the first VM entry.
    At(Receiver<Instant>),
}

/// Runs `body` on a thread that is set up to run vCPUs, with `orders`. Gives [`Order::Leave`] at a
/// [signal](signals::ending), and [`Order::Stop`] at the time `limit`.
///
/// # Errors
///
/// If threads or signals can't be set up, or `body` fails.
pub fn on_vcpu_thread<T: Send>(
    core: Option<usize>,
    limit: Option<TimeLimit>,
    orders: &Arc<Orders>,
    body: impl FnOnce(Arc<Orders>) -> Result<T, CliError> + Send,
) -> Result<T, CliError> {
    let os = |doing| move |source| CliError::Os { doing, source };
    kick::install()?;
    // Only the vCPU thread unblocks the kick signal, so that a kick sent to the process reaches it.
    mask_kicks(SigmaskHow::SIG_BLOCK)?;
    let mut signals = Signals::new(signals::ending()).map_err(os("installing signals"))?;
    let signals_end = CloseOnDrop(signals.handle());
    let (done_sender, done) = channel::bounded(1);
    let [vcpu_orders, signal_orders] = [Arc::clone(orders), Arc::clone(orders)];

    let vcpu_thread = move || -> Result<T, CliError> {
        mask_kicks(SigmaskHow::SIG_UNBLOCK)?;
        if let Some(core) = core {
            pin(core)?;
        }
        clock::trap_tsc_on_this_thread()?;
        vcpu_orders.attend();
        body(vcpu_orders)
    };

    std::thread::scope(|scope| {
        // Dropped on every path out of the scope, so that the signal thread ends before the scope joins it.
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
                sandbox::enter(Task::Main);
                for signal in signals.forever() {
                    if signal_orders.is_ending() {
                        // A second signal: something does not end, such as a write to a disk that hangs.
                        signal_hook::low_level::exit(128 + signal);
                    }
                    signal_orders.give(Order::Leave);
                }
            })
            .map_err(os("starting the signal thread"))?;
        sandbox::enter(Task::Main);
        wait_for_end(&done, limit, || orders.give(Order::Stop))
            // The vCPU thread sent nothing because it panicked; the scope propagates the panic.
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

/// Waits for the vCPU thread's outcome. Calls `stop` at the time limit. Returns `None` if the thread ended
/// without an outcome.
fn wait_for_end<T>(done: &Receiver<T>, limit: Option<TimeLimit>, stop: impl Fn()) -> Option<T> {
    let end = match limit {
        None => channel::never(),
        Some(TimeLimit { length, begins: Begins::Now }) => channel::after(length),
        Some(TimeLimit { length, begins: Begins::At(begin) }) => crossbeam::select! {
            recv(done) -> outcome => return outcome.ok(),
            recv(begin) -> begin => match begin {
                Ok(begin) => channel::at(begin + length),
                // The run ended before it began.
                Err(_) => channel::never(),
            }
        },
    };
    crossbeam::select! {
        recv(done) -> outcome => return outcome.ok(),
        recv(end) -> _time => {}
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
    result.map_err(|errno| {
        CliError::Usage(format!("--core {core}: can't pin a thread to it: {errno}"))
    })
}

/// Returns the configuration of the live nondeterminism boundary of a VM with the guest clock `clock`. Must
/// be called on the vCPU thread, because standard input kicks the calling thread.
///
/// # Errors
///
/// If the thread of `--stdin` can't be started.
pub fn world_config(
    options: &VmOptions,
    (port, disks): (AnyPort, Disks),
    clock: GuestClock,
    orders: Arc<Orders>,
) -> Result<WorldConfig<AnyPort>, CliError> {
    let console_output: Box<dyn Write + Send> =
        if options.quiet { Box::new(std::io::sink()) } else { Box::new(stdio::Messages) };
    // With --stdin the operator's terminal is the guest's.
    let (console_input, style) = match options.stdin {
        true => (Some(read_stdin()?), ConsoleStyle::Raw),
        false => (None, ConsoleStyle::Text),
    };
    let console = Console::new(console_output, style);
    let stages = Stages::new(!options.no_stages, options.trace());
    let deadline = options.deadline();
    let lan = None;
    let rates = options.rates();
    Ok(WorldConfig {
        port,
        console,
        console_input,
        orders,
        lan,
        deadline,
        disks,
        clock,
        stages,
        rates,
    })
}

/// The file of `--trace-stages`, if it is given. It is created before the VM runs, because no file can be opened later.
#[derive(Debug)]
pub struct TraceFile(Option<(PathBuf, File)>);

impl TraceFile {
    /// Creates the file, or replaces it.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn create(options: &VmOptions) -> Result<TraceFile, CliError> {
        let Some(path) = &options.trace_stages else { return Ok(TraceFile(None)) };
        let file = output::create(path, Existing::Replace, options.access())
            .map_err(|source| CliError::File { path: path.clone(), source })?;
        Ok(TraceFile(Some((path.clone(), file))))
    }

    /// Writes the trace of `stages`.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub fn write(self, stages: &Stages) -> Result<(), CliError> {
        let (Some((path, file)), Some(trace)) = (self.0, stages.trace()) else { return Ok(()) };
        let mut file = std::io::BufWriter::new(file);
        let written = trace.write(&mut file).and_then(|()| file.flush());
        written.map_err(|error| CliError::File { path, source: error.into() })
    }
}

/// Returns what has to be opened again while a VM with these options runs.
pub fn opener_config(options: &VmOptions) -> OpenerConfig {
    OpenerConfig { tap: tap_config(options), ..OpenerConfig::default() }
}

fn tap_config(options: &VmOptions) -> Option<TapConfig> {
    let spin = Duration::from_micros(options.spin_us);
    let wait = WaitPolicy { spin, ..WaitPolicy::default() };
    options.tap.clone().map(|name| TapConfig { wait, ..TapConfig::new(name) })
}

/// Starts a thread that reads standard input. Returns the channel on which it sends what it reads, in pieces.
/// It kicks the calling thread after each piece.
fn read_stdin() -> Result<Receiver<Vec<u8>>, CliError> {
    const PIECE_BYTES: usize = 256;
    let (sender, receiver) = channel::bounded(16);
    let kicker = kick::Kicker::of_this_thread();
    // The thread runs until the process ends, because a blocked read of standard input can't be interrupted.
    let read = move || {
        sandbox::enter(Task::Reader);
        let mut piece = [0; PIECE_BYTES];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                return;
            }
            kicker.kick();
        }
    };
    kick::spawn_unkicked("stdin", read).map_err(|source| CliError::Os {
        doing: "starting the thread of standard input",
        source,
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Waits, with a limit of no time that begins with what `begin` sends, for a run that ends 50 ms later.
    /// Returns whether the run was stopped.
    fn is_stopped(begin: impl FnOnce(channel::Sender<Instant>) + Send) -> bool {
        let (done_sender, done) = channel::bounded(1);
        let (begin_sender, begins) = channel::bounded(1);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                begin(begin_sender);
                std::thread::sleep(Duration::from_millis(50));
                done_sender.send(()).expect("the receiver waits");
            });
            let limit = TimeLimit { length: Duration::ZERO, begins: Begins::At(begins) };
            wait_for_end(&done, Some(limit), || stopped.store(true, Ordering::Relaxed));
        });
        stopped.into_inner()
    }

    #[test]
    fn time_limit_counts_from_its_beginning() {
        assert!(is_stopped(|begin| begin.send(Instant::now()).expect("the receiver waits")));
        assert!(!is_stopped(std::mem::forget), "it counted before the first entry");
        assert!(!is_stopped(drop), "it counted after a run without an entry");
    }
}
