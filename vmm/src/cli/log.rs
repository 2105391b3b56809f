//! `understudy log stat|dump`.

use super::doctor::profile_json;
use super::exit_code::CliError;
use super::output;
use crate::files::Access;
use crate::replay::error::LogError;
use crate::replay::log_file::LogReader;
use crate::stdio;
use clap::{Args, Subcommand};
use logchan::dump::Dump;
use logchan::entry_stats::EntryStatsTable;
use logchan::log_header::{LogHeader, LoggedDisk};
use serde_json::{Map, Value, json};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Subcommands of `log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show the header of a log, and its entries and bytes by kind
    #[command(after_help = "Example: understudy log stat run.ulog --json")]
    Stat(StatArgs),
    /// Print each entry on one line
    #[command(after_help = "Example: understudy log dump run.ulog --skip 1000 --count 20")]
    Dump(DumpArgs),
}

/// Options of `log stat`.
#[derive(Args, Debug)]
pub struct StatArgs {
    /// Log to read
    #[arg(value_name = "FILE")]
    log: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `log dump`.
#[derive(Args, Debug)]
pub struct DumpArgs {
    /// Log to read
    #[arg(value_name = "FILE")]
    log: PathBuf,
    /// Number of entries to skip at the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Maximum number of entries to print
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
}

/// Runs a subcommand of `understudy log`.
///
/// # Errors
///
/// If the log can't be read or is truncated, or standard output can't be written.
pub fn main(command: &LogCommand) -> Result<(), CliError> {
    match command {
        LogCommand::Stat(args) => stat(args),
        LogCommand::Dump(args) => dump(args),
    }
}

/// Returns a function that adds the log's `path` to an error.
fn of(path: &Path) -> impl Fn(LogError) -> CliError {
    move |source| CliError::Log { path: path.to_path_buf(), source }
}

fn stat(args: &StatArgs) -> Result<(), CliError> {
    let of = of(&args.log);
    let mut reader = LogReader::open(&args.log, Access::Shared).map_err(&of)?;
    let mut table = EntryStatsTable::default();
    let mut natural_exits = 0;
    let mut ended = false;
    while let Some(entry) = reader.consume_entry().map_err(&of)? {
        natural_exits += u64::from(matches!(entry, logchan::entry::Entry::Exit { .. }));
        ended = matches!(entry, logchan::entry::Entry::End { .. });
        table.record(&entry);
    }
    let mut result = describe(reader.header());
    result.insert("log_bytes".into(), reader.file_bytes().into());
    result.insert("complete".into(), ended.into());
    if args.json {
        let kinds = table.iter().map(|(kind, stats)| {
            (kind.name().to_string(), json!({ "count": stats.count, "bytes": stats.bytes }))
        });
        result.insert("kinds".into(), Value::Object(kinds.collect()));
    }
    let mut text = output::text(&result, args.json);
    if !args.json {
        text.push_str(&format!("\n{table}\n"));
    }
    let outcome = match ended {
        true => Ok(()),
        false => Err(of(LogError::Truncated { offset: reader.offset(), natural_exits })),
    };
    output::after_print(output::write(&text), outcome)
}

fn describe(header: &LogHeader) -> Map<String, Value> {
    let mac = header.nic_mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut result = Map::new();
    let disks: Vec<_> = header.disks.iter().map(disk_json).collect();
    result.insert("disks".into(), disks.into());
    result.insert("guest".into(), header.guest_name.clone().into());
    result.insert("guest_digest".into(), output::hex(header.guest_digest));
    result.insert("memory_mib".into(), (header.memory_bytes >> 20).into());
    result.insert("mac".into(), mac.into());
    result.insert("cpu_model".into(), header.cpu_name.clone().into());
    result.insert("cpu_model_digest".into(), output::hex(header.cpu_digest));
    result.insert("host_profile".into(), profile_json(header.host_profile));
    result.insert("recorded_at_unix_s".into(), header.recorded_at_unix_s.into());
    result
}

fn dump(args: &DumpArgs) -> Result<(), CliError> {
    let of = of(&args.log);
    let mut reader = LogReader::open(&args.log, Access::Shared).map_err(&of)?;
    let mut out = BufWriter::new(stdio::Results);
    let last = args.skip.saturating_add(args.count);
    let mut index = 0;
    let mut ended = false;
    let mut natural_exits = 0;
    while index < last
        && let Some(entry) = reader.consume_entry().map_err(&of)?
    {
        ended = matches!(entry, logchan::entry::Entry::End { .. });
        natural_exits += u64::from(matches!(entry, logchan::entry::Entry::Exit { .. }));
        if index >= args.skip {
            match writeln!(out, "{index:>10} {}", Dump(&entry)) {
                // The reader has closed the pipe and needs no more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(CliError::Output)?,
            }
        }
        index += 1;
    }
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
        result => result.map_err(CliError::Output)?,
    }
    if ended || index == last {
        Ok(())
    } else {
        Err(of(LogError::Truncated { offset: reader.offset(), natural_exits }))
    }
}

/// Returns what the header of a log says about a disk.
fn disk_json(disk: &LoggedDisk) -> Value {
    let LoggedDisk { sectors, read_only, serial: _, digest, reads_logged } = disk;
    json!({
        "sectors": sectors,
        "read_only": read_only,
        "digest": digest.map(output::hex),
        "reads_logged": reads_logged,
    })
}
