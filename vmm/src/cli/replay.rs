//! `understudy replay`.

use super::blueprint::{MadeOn, matching_host};
use super::exit_code::{CliError, Code, MachineSource};
use super::run::result;
use super::sandbox::SandboxArgs;
use super::session::RunOptions;
use super::{output, session};
use crate::checkpoint::{MACHINE_SCHEMA, Snapshot};
use crate::devices::{DeviceConfig, DiskConfig};
use crate::disk::{DiskOptions, Disks, Writes};
use crate::files::{Access, FileError};
use crate::kvm::System;
use crate::opener::{self, OpenerConfig, OutputPath};
use crate::replay::Replayer;
use crate::replay::error::{HostError, LogError, SourceError};
use crate::replay::log_file::LogReader;
use crate::sandbox::Task;
use crate::stdio;
use crate::vcpu::{Machine, MachineConfig, MachineError, RunError};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use logchan::limits::DISKS_MAX;
use logchan::log_header::{LogHeader, LoggedDisk};
use replication::Divergence;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: understudy replay run.ulog --json

Compares the vCPU state at every exit, every sent frame, and all of memory at the end with the recording.
Stops at the first difference, prints it, and writes the last log entries and the registers to a folder
(exit code 8).")]
pub struct ReplayArgs {
    /// Log to replay
    #[arg(value_name = "FILE")]
    log: PathBuf,
    /// Folder for the report of a divergence [default: divergence-FILE]
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// At a divergence, also print the system registers, the events and the exit, field by field, with what they were at
    /// the last equal position
    #[arg(long)]
    trace_state: bool,
    /// Disk of the recorded VM, in the order of the recording; not needed with a log of 'record --log-reads'. What the
    /// guest writes is gone at the end
    #[arg(long, value_name = "FILE[,OPTION]...")]
    disk: Vec<DiskOptions>,
    /// Snapshot that the recorded VM started from ('record --restore'), if it has disks: they begin as they were saved
    #[arg(long, value_name = "FILE", requires = "disk")]
    restore: Option<PathBuf>,
    /// Do not compare the digests of the images with those in the log, which reads them completely
    #[arg(long)]
    no_disk_digest: bool,
    /// Core to pin the vCPU to
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Replay a log that other users can read or change, and let the umask decide who can read the report
    #[arg(long)]
    shared_files: bool,
    /// KVM device node
    #[arg(long, value_name = "PATH", default_value = crate::kvm::system::DEV_KVM, hide = true)]
    kvm: String,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Runs `understudy replay`.
///
/// # Errors
///
/// If the log can't be read or is truncated, this host can't run its machine, or the replay diverges.
pub fn main(args: &ReplayArgs) -> Result<(), CliError> {
    let folder = report_folder(args);
    let opener = OpenerConfig { report: Some(folder.clone()), ..OpenerConfig::default() };
    args.sandbox.start_opener(&opener)?;
    args.sandbox.start()?;
    let log_error = |source| CliError::Log { path: args.log.clone(), source };
    let reader =
        LogReader::open(&args.log, Access::from_flag(args.shared_files)).map_err(log_error)?;
    let header = reader.header().clone();
    let disks = disks_of(args, &header)?;
    let mut machine = machine_of(args, &header)?;
    if args.trace_state {
        machine.trace_state();
    }
    let progress = progress(reader.file_bytes());
    let on_progress = {
        let progress = progress.clone();
        Box::new(move |offset| progress.set_position(offset))
    };
    let outcome = session::supervise(
        machine,
        RunOptions { core: args.core, limit: None, task: Task::VcpuWithFile },
        |orders| Ok(Replayer::new(reader, disks, orders, on_progress)),
        |replayer| replayer.log_bytes(),
    )?;
    progress.finish_and_clear();

    let mut result = result(&outcome);
    result.insert("log_bytes".into(), outcome.report.into());
    let mut ended = |divergences: u64, complete: bool| -> Result<(), CliError> {
        result.insert("divergences".into(), divergences.into());
        result.insert("complete".into(), complete.into());
        output::print(&result, args.json)
    };
    match outcome.end {
        Ok(_end) => ended(0, true),
        Err(RunError::Source(SourceError::Diverged(divergence))) => {
            let printed = ended(1, false);
            output::after_print(printed, Err(report(&folder, &divergence, outcome.state)))
        }
        Err(RunError::Source(SourceError::Host(HostError::Log(error)))) => {
            let is_truncated = matches!(error, LogError::Truncated { .. });
            let printed = if is_truncated { ended(0, false) } else { Ok(()) };
            output::after_print(printed, Err(log_error(error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the disks, and checks that they are those of the recording. Returns `None` if the log has what was read.
fn disks_of(args: &ReplayArgs, header: &LogHeader) -> Result<Option<Disks>, CliError> {
    let logged = &header.disks;
    let needs_none = logged.iter().all(|disk| disk.reads_logged);
    if args.disk.is_empty() && needs_none {
        return Ok(None);
    }
    if args.disk.len() != logged.len() {
        return Err(CliError::Usage(format!(
            "--disk is given {} times, and the recorded VM has {} disks",
            args.disk.len(),
            logged.len()
        )));
    }
    let mut disks = match &args.restore {
        None => session::open_disks(&args.disk, Writes::Overlay)?,
        Some(path) => {
            let access = Access::from_flag(args.shared_files);
            let failed = |source| CliError::Snapshot { path: path.clone(), source };
            let snapshot = Snapshot::open(path, access).map_err(failed)?;
            if snapshot.digest() != header.guest_digest {
                return Err(CliError::Usage(format!(
                    "--restore {}: the recorded VM did not start from this snapshot",
                    path.display()
                )));
            }
            session::open_saved_disks(&args.disk, (path, &snapshot), Writes::Overlay)?
        }
    };
    for (index, (options, logged)) in args.disk.iter().zip(logged).enumerate() {
        let (disk, sectors) = ((index, options), disks.info()[index].sectors);
        session::check_sectors(disk, sectors, logged.sectors, MachineSource::Log)?;
        let Some(theirs) = logged.digest.filter(|_| !args.no_disk_digest) else { continue };
        let ours = session::contents_digest(&mut disks, index, options)?;
        session::check_digests(disk, ours, theirs, MachineSource::Log)?;
    }
    Ok(Some(disks))
}

/// Returns the disks of the recorded VM, as its guest sees them.
fn disk_configs(header: &LogHeader) -> [Option<DiskConfig>; DISKS_MAX] {
    let mut configs = [None; DISKS_MAX];
    for (config, disk) in configs.iter_mut().zip(&header.disks) {
        let &LoggedDisk { sectors, read_only, serial, digest: _, reads_logged: _ } = disk;
        *config = Some(DiskConfig { sectors, read_only, serial });
    }
    configs
}

/// Creates a machine like the one that the log was recorded from, if this host can run it.
fn machine_of(args: &ReplayArgs, header: &LogHeader) -> Result<Machine, CliError> {
    let unfit = |source| CliError::Log { path: args.log.clone(), source };
    if header.machine_schema != MACHINE_SCHEMA {
        return Err(unfit(LogError::Schema { found: header.machine_schema, read: MACHINE_SCHEMA }));
    }
    if header.vcpus != 1 {
        return Err(unfit(LogError::Vcpus { found: header.vcpus }));
    }
    let system = System::open(&args.kvm)?;
    let LogHeader { cpu_digest, cpu_name, host_profile, .. } = header;
    let theirs = MadeOn { cpu_digest: *cpu_digest, cpu_name, host_profile: *host_profile };
    let (cpu_model, host_profile) = matching_host(&system, &theirs, ("log", &args.log))?;
    let config = MachineConfig {
        memory_bytes: header.memory_bytes,
        cpu_model,
        host_profile,
        devices: DeviceConfig { mac: header.nic_mac, disks: disk_configs(header) },
    };
    Machine::new(&system, &config).map_err(|error| match error {
        MachineError::Memory(source) => CliError::LogMemory { path: args.log.clone(), source },
        MachineError::Kvm(error) => error.into(),
    })
}

/// Returns a progress bar over the bytes of the log. It is hidden if standard error is not a terminal.
fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("replay {wide_bar} {bytes}/{total_bytes} {eta}")
        .expect("the template is well-formed");
    ProgressBar::new(bytes).with_style(style)
}

/// Returns the folder for the report of a divergence.
fn report_folder(args: &ReplayArgs) -> OutputPath {
    let path = args.report.clone().unwrap_or_else(|| {
        let name = args.log.file_name().unwrap_or_default().to_string_lossy();
        Path::new(&format!("divergence-{name}")).to_path_buf()
    });
    OutputPath { path, access: Access::from_flag(args.shared_files) }
}

/// Prints the report of a divergence and writes it to the report folder.
fn report(folder: &OutputPath, divergence: &Divergence, state: Option<String>) -> CliError {
    let text = divergence.report() + &state.map(|state| format!("\n{state}")).unwrap_or_default();
    stdio::message(text.trim_end());
    let write = || {
        let mut file = opener::create_report(folder)?;
        Ok::<_, FileError>(file.write_all(text.as_bytes())?)
    };
    let (written, folder) = (write(), folder.path.display());
    let report = match written {
        Ok(()) => format!("report written to {folder}"),
        Err(error) => format!("can't write a report to {folder}: {error}"),
    };
    stdio::message(format_args!("understudy: {divergence}; {report}"));
    CliError::Silent(Code::Diverged)
}
