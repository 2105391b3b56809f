//! `understudy primary` and `understudy backup`: one VM on two hosts.

mod event_log;
mod options;

pub use options::PairArgs;

use super::blueprint::Blueprint;
use super::exit_code::{CliError, Code};
use super::session;
use crate::link::{Wire, now, system_entropy};
use crate::pair::event::PairRecord;
use crate::pair::{PairParts, PairSource, StatusBoard};
use crate::replay::World;
use crate::replay::error::SourceError;
use crate::replay::guest_clock::GuestClock;
use crate::vcpu::{self, RunError};
use crate::witness::WitnessClient;
use netpath::FramePort;
use replication::replica::{Halt, Replica, RoleName, Start};
use std::time::Duration;

/// Runs `understudy primary`.
pub fn primary(args: &PairArgs) -> Result<(), CliError> {
    main(args, Start::Primary)
}

/// Runs `understudy backup`.
pub fn backup(args: &PairArgs) -> Result<(), CliError> {
    main(args, Start::Backup)
}

fn main(args: &PairArgs, start: Start) -> Result<(), CliError> {
    session::start_writer_threads()?;
    args.check()?;
    let security = args.security()?;
    let blueprint = Blueprint::new(&args.vm)?;
    let witness = args.witness()?;
    let wire = Wire::open(&args.link_options())?;
    args.print_info(|| wire.port().describe());
    let port = session::open_port(&args.vm)?;
    let mut config = args.replica_config(&blueprint, &witness);
    config.frame_bytes_max = wire.frame_bytes_max();
    let board = StatusBoard::default();
    let _status = args.serve_status(&board);
    let limit = args.vm.seconds.map(Duration::from_secs_f64);
    let end = session::on_vcpu_thread(args.vm.core, limit, |stop| {
        let clock = GuestClock::starting_at(blueprint.start_ns());
        let world = World::new(session::world_config(&args.vm, port, clock, stop)?)?;
        let replica = Replica::new(config, start, security, Box::new(system_entropy), now())
            .map_err(|error| CliError::Usage(error.to_string()))?;
        let witness = WitnessClient::start(witness)
            .map_err(|source| CliError::Os { doing: "starting the witness's thread", source })?;
        let source = PairSource::new(PairParts {
            replica,
            wire,
            world,
            witness,
            wait: args.wait_policy(),
            ack_wait: args.ack_wait(),
            observer: event_log::observer(args),
            board,
        });
        run(args, &blueprint, source, start)
    })?;
    match end {
        Halt::Stopped | Halt::PrimaryStopped => Ok(()),
        Halt::AlreadyStarted { .. } | Halt::Replaced { .. } | Halt::Diverged => {
            // The event log has reported the reason.
            Err(CliError::Silent(Code::Halted))
        }
    }
}

/// Runs machines until this host's part is over, and returns why it is.
fn run<P: FramePort>(
    args: &PairArgs,
    blueprint: &Blueprint,
    mut source: PairSource<P>,
    start: Start,
) -> Result<Halt, CliError> {
    let mut machine = match start {
        Start::Primary | Start::Standalone => blueprint.booted()?,
        Start::Backup => blueprint.empty()?,
    };
    if args.prints_records() {
        event_log::print_record(&PairRecord::started(now(), source.replica().role()));
    }
    loop {
        let end = vcpu::run(&mut machine, &mut source);
        match end {
            Err(RunError::Source(SourceError::Invalidated)) => {}
            // The machine could not apply a checkpoint from the log.
            Err(RunError::Restore(error)) => {
                tracing::warn!("{error}");
                source.replica_mut().diverged(now(), &error);
            }
            Ok(_) => {
                let halt = source.shut_down()?.unwrap_or(Halt::Stopped);
                if args.prints_records() {
                    let replica = source.replica();
                    let (term, stats) = (replica.term().0, replica.stats());
                    event_log::print_record(&PairRecord::ended(
                        now(),
                        term,
                        stats,
                        source.hold_ns(),
                    ));
                }
                session::write_trace(&args.vm, source.stages())?;
                return Ok(halt);
            }
            Err(error) => return Err(fail(args, source, error.into())),
        }
        // Dropped before the next machine is created: the host may not have memory for two.
        drop(machine);
        machine = match blueprint.empty() {
            Ok(machine) => machine,
            Err(error) => return Err(fail(args, source, error)),
        };
    }
}

/// Ends this host's part after `error`, and returns `error`.
///
/// Sends Bye in two cases: when the guest itself ended the VM, and on a backup, which then never takes over.
/// A primary whose host failed ends without a Bye: the VM is not over, and to the backup this host is dead.
fn fail<P: FramePort>(args: &PairArgs, mut source: PairSource<P>, error: CliError) -> CliError {
    let guest_ended_vm = matches!(&error, CliError::Run(error) if error.is_guests_own_end());
    if guest_ended_vm || source.is_backup() {
        // The first error is the one to report. Without a Bye, the other host takes this one for dead.
        if let Err(second) = source.shut_down() {
            tracing::warn!("could not send Bye to the other host: {second}");
        }
    } else if source.replica().role() == RoleName::Protected {
        args.print_info(|| {
            "understudy: this host failed: it goes silent, and the backup takes over".into()
        });
    }
    error
}
