//! `understudy record`.

use super::blueprint::{self, Prepared};
use super::exit_code::CliError;
use super::options::VmOptions;
use super::run::result;
use super::sandbox::SandboxArgs;
use super::session::TraceFile;
use super::{output, session};
use crate::checkpoint::MACHINE_SCHEMA;
use crate::disk::{DiskInfo, Disks, Writes};
use crate::files::output::Existing;
use crate::kvm::clock::{self, realtime_ns};
use crate::limits::LOG_BYTES_MAX;
use crate::replay::error::{HostError, SourceError};
use crate::replay::guest_clock::GuestClock;
use crate::replay::log_file::LogFile;
use crate::replay::{Recorder, World};
use crate::sandbox::Task;
use crate::vcpu::RunError;
use crate::vm_tap::LanReports;
use clap::Args;
use logchan::limits::{NAME_BYTES_MAX, PAGE_BYTES, delta_cache_pages_max};
use logchan::log_header::{LogHeader, LoggedDisk};
use replication::log_writer::LoggedReads;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Options of `record`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: understudy record --tap tap0 --log run.ulog --for 30

The log is written continuously: if the recorder is killed, what it has written so far can be replayed. A
recording is complete or it fails: if the disk is too slow for the log, the guest waits for it.

What the guest writes to its disks is gone at the end: the images stay as they are, and a replay begins with
them.")]
pub struct RecordArgs {
    #[command(flatten)]
    vm: VmOptions,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Log file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    /// End the recording when the log has this many bytes; the guest decides how fast it grows
    #[arg(long, value_name = "BYTES", default_value_t = LOG_BYTES_MAX)]
    log_max_bytes: u64,
    /// Write what the guest reads from its disks into the log, so that a replay needs no images
    #[arg(long)]
    log_reads: bool,
    /// Do not trap RDTSC at CPL3, so that a replay diverges
    #[arg(long, hide = true)]
    leave_rdtsc: bool,
}

/// Runs `understudy record`: runs a VM and records it in a log.
///
/// # Errors
///
/// If the VM can't be prepared or run, or the log or the result can't be written.
pub fn main(args: &RecordArgs) -> Result<(), CliError> {
    let options = &args.vm;
    args.sandbox.start_opener(&session::opener_config(options))?;
    args.sandbox.start()?;
    session::start_writer_threads()?;
    options.check()?;
    let Prepared { machine, blueprint, mut disks } = blueprint::prepare(options, Writes::Overlay)?;
    let guest_clock = GuestClock::starting_at(blueprint.start_ns());
    let port = session::open_port(options, blueprint.mac(), LanReports::ByPort)?;
    let trace = TraceFile::create(options)?;
    let header = LogHeader {
        recorded_at_unix_s: realtime_ns() / 1_000_000_000,
        memory_bytes: blueprint.memory_bytes(),
        vcpus: 1,
        machine_schema: MACHINE_SCHEMA,
        nic_mac: blueprint.mac().octets(),
        guest_digest: blueprint.image_digest(),
        cpu_digest: blueprint.cpu_model().digest(),
        host_profile: blueprint.host_profile(),
        disks: args.logged_disks(&mut disks)?,
        guest_name: shortened(blueprint.guest_name().to_owned()),
        cpu_name: blueprint.cpu_model().name(),
    };
    let existing = if args.force { Existing::Replace } else { Existing::Refuse };
    let log = LogFile::create(&args.log, &header, existing, options.access())
        .map_err(|source| CliError::Log { path: args.log.clone(), source })?;
    let outcome = session::supervise(
        machine,
        options.running(Task::Vcpu),
        |orders| {
            if args.leave_rdtsc {
                clock::free_tsc_on_this_thread()?;
            }
            let log = log.stopping_at(args.log_max_bytes, Arc::clone(&orders));
            let world =
                World::new(session::world_config(options, (port, disks), guest_clock, orders)?)?;
            let memory_pages = blueprint.memory_bytes() / PAGE_BYTES as u64;
            let recorder = Recorder::new(world, log, delta_cache_pages_max(memory_pages));
            Ok(recorder.with_reads(args.logged_reads()))
        },
        |recorder| {
            let stages = recorder.boundary().stages();
            let traced = trace.write(stages);
            let log = recorder.log();
            let over_limit = recorder.boundary().over_limit();
            (log.bytes(), log.is_full(), (stages.status(), over_limit), traced)
        },
    )?;
    let mut result = result(&outcome);
    let (log_bytes, is_full, (stages, over_limit), traced) = outcome.report;
    result.insert("log_bytes".into(), log_bytes.into());
    result.insert("log_full".into(), is_full.into());
    result.insert("stages".into(), json!(stages));
    result.insert("over_limit".into(), json!(over_limit));
    match outcome.end {
        Err(RunError::Source(SourceError::Host(HostError::Log(source)))) => {
            return Err(CliError::Log { path: args.log.clone(), source });
        }
        end => {
            end?;
        }
    }
    if is_full {
        tracing::warn!(
            "the recording ended because {} has {log_bytes} bytes (see --log-max-bytes)",
            args.log.display()
        );
    }
    if outcome.counters.natural_exits == 0 {
        tracing::warn!(
            "the guest made no exit while it was recorded, so a replay compares nothing: record for longer"
        );
    }
    traced?;
    output::print(&result, options.json)
}

impl RecordArgs {
    fn logged_reads(&self) -> LoggedReads {
        if self.log_reads { LoggedReads::Data } else { LoggedReads::Digest }
    }

    /// Returns what the header of the log says about the disks.
    fn logged_disks(&self, disks: &mut Disks) -> Result<Vec<LoggedDisk>, CliError> {
        let mut logged = Vec::new();
        for (index, options) in self.vm.disk.iter().enumerate() {
            let digest = match self.vm.no_disk_digest {
                true => None,
                false => Some(session::contents_digest(disks, index, options)?),
            };
            let DiskInfo { sectors, read_only, serial } = disks.info()[index];
            let reads_logged = self.log_reads;
            logged.push(LoggedDisk { sectors, read_only, serial, digest, reads_logged });
        }
        Ok(logged)
    }
}

/// Shortens `name` to the length that the header of a log or snapshot allows, at a character boundary.
pub(super) fn shortened(mut name: String) -> String {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    name.truncate(end.unwrap_or(0));
    name
}
