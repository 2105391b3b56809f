//! `understudy run`.

use super::blueprint::{self, Prepared};
use super::exit_code::CliError;
use super::options::VmOptions;
use super::output;
use super::sandbox::SandboxArgs;
use super::session::{self, Outcome, TraceFile};
use crate::disk::Writes;
use crate::replay::World;
use crate::replay::guest_clock::GuestClock;
use crate::sandbox::Task;
use crate::vm_tap::LanReports;
use clap::Args;
use serde_json::{Map, Value, json};

/// Options of `run`.
#[derive(Args, Debug)]
#[command(after_help = "Example: understudy run --tap tap0 --memory 64 --for 60")]
pub struct RunArgs {
    #[command(flatten)]
    vm: VmOptions,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Runs `understudy run`: runs a VM until the time limit or a signal.
///
/// # Errors
///
/// If the VM can't be prepared or run, or the result can't be written.
pub fn main(args: &RunArgs) -> Result<(), CliError> {
    let options = &args.vm;
    args.sandbox.start_opener(&session::opener_config(options))?;
    args.sandbox.start()?;
    session::start_writer_threads()?;
    options.check()?;
    let Prepared { machine, blueprint, disks } = blueprint::prepare(options, Writes::InPlace)?;
    let clock = GuestClock::starting_at(blueprint.start_ns());
    let port = session::open_port(options, blueprint.mac(), LanReports::ByPort)?;
    let trace = TraceFile::create(options)?;
    let outcome = session::supervise(
        machine,
        options.running(Task::Vcpu),
        |orders| Ok(World::new(session::world_config(options, (port, disks), clock, orders)?)?),
        |world| {
            let traced = trace.write(world.stages());
            (world.stages().status(), world.over_limit(), world.disks().status(), traced)
        },
    )?;
    let mut result = result(&outcome);
    outcome.end?;
    let (stages, over_limit, disks, traced) = outcome.report;
    traced?;
    result.insert("disks".into(), json!(disks));
    result.insert("over_limit".into(), json!(over_limit));
    result.insert("stages".into(), json!(stages));
    output::print(&result, options.json)
}

/// Returns the part of the result that `run`, `record`, `save` and `replay` have in common.
pub(super) fn result<R>(outcome: &Outcome<R>) -> Map<String, Value> {
    let counters = &outcome.counters;
    let mut result = Map::new();
    result.insert("seconds".into(), json!(outcome.elapsed.as_secs_f64()));
    result.insert("interrupts".into(), counters.interrupts.into());
    result.insert("natural_exits".into(), counters.natural_exits.into());
    result.insert("windows".into(), counters.windows.into());
    result.insert("checkpoints".into(), counters.checkpoints.into());
    result.insert("mid_region_stops".into(), counters.mid_region_stops.into());
    result.insert("ready_ms".into(), json!(outcome.ready.as_secs_f64() * 1e3));
    result.insert("fixups".into(), json!(outcome.fixups));
    if let Ok(end) = &outcome.end {
        result.insert("memory_digest".into(), output::hex(end.memory_digest));
        result.insert("state_digest".into(), output::hex(end.state_digest));
    }
    result
}
