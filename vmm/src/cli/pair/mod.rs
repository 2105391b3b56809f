//! `understudy primary`, `understudy backup` and `understudy up`: one VM on two hosts.

mod event_log;
mod metrics;
mod options;
mod up;

pub use options::{PairArgs, PrimaryArgs};
pub use up::UpArgs;

use self::metrics::ServedMetrics;
use super::blueprint::Blueprint;
use super::exit_code::{CliError, Code};
use super::session::{self, Begins, TimeLimit, TraceFile};
use crate::link::{BootClock, EthernetLink, now, system_entropy};
use crate::notify::ServiceManager;
use crate::pair::control_server::Served;
use crate::pair::event::PairRecord;
use crate::pair::event_feed::EventFeed;
use crate::pair::{PairDriver, PairObserver, StatusBoard};
use crate::replay::error::SourceError;
use crate::replay::guest_clock::GuestClock;
use crate::replay::{Orders, World};
use crate::sandbox::{self, Task};
use crate::vcpu::{self, Machine, RunError};
use crate::vm_tap::LanReports;
use netpath::FramePort;
use replication::Mutants;
use replication::driver::{self, DriverParts, MachineEnd, PairEnd, WitnessClient};
use replication::replica::{Halt, Replica, Start};
use std::sync::Arc;
use std::time::Duration;

/// Runs `understudy primary`.
pub fn primary(args: &PrimaryArgs) -> Result<(), CliError> {
    let start = if args.boot_again { Start::BootAgain } else { Start::Primary };
    main(&args.pair, start, service_manager()?)
}

/// Runs `understudy backup`.
pub fn backup(args: &PairArgs) -> Result<(), CliError> {
    main(args, Start::Backup, service_manager()?)
}

/// Runs `understudy up`.
pub fn up(args: &UpArgs) -> Result<(), CliError> {
    args.check()?;
    let mut service = service_manager()?;
    let start = args.decide(&mut service);
    main(&args.pair, start, service)
}

fn service_manager() -> Result<ServiceManager, CliError> {
    ServiceManager::of_environment()
        .map_err(|source| CliError::Os { doing: "connecting to NOTIFY_SOCKET", source })
}

fn main(args: &PairArgs, start: Start, service: ServiceManager) -> Result<(), CliError> {
    args.check()?;
    args.reserve()?;
    args.sandbox.start_opener(&args.opener_config())?;
    let security = args.security()?;
    let (witness, seen) = args.asked_witness(&security)?;
    args.sandbox.start()?;
    session::start_writer_threads()?;
    let metrics = args.metrics_listener()?;
    let mut blueprint = Blueprint::new(&args.vm)?;
    let link = EthernetLink::open(&args.link_options())?;
    let supervisor = args.supervisor();
    args.print_info(|| link.port().describe());
    let port = session::open_port(&args.vm, blueprint.mac(), LanReports::ByDriver)?;
    let trace = TraceFile::create(&args.vm)?;
    let disks = args.open_disks(&mut blueprint, start, (witness.claimant(), seen))?;
    let mut config = args.replica_config((&blueprint, &disks), (&witness, seen));
    config.frame_bytes_max = link.frame_bytes_max();
    let witness = witness.start()?;
    let metrics = metrics
        .map(|listener| ServedMetrics::start(listener, args.vm_id(), witness.times()))
        .transpose()?;
    let samples = metrics.as_ref().map(|metrics| Arc::clone(&metrics.board));
    let board = StatusBoard::default();
    let orders = Arc::new(Orders::default());
    let (feed, history) = EventFeed::new()
        .map_err(|source| CliError::Os { doing: "setting up the events", source })?;
    let feed = &feed;
    let _control = args.serve_control(Served {
        board: board.clone(),
        orders: Arc::clone(&orders),
        history,
        feed: Arc::clone(feed),
    });
    let limit = args.vm.seconds.map(Duration::from_secs_f64);
    let limit = limit.map(|length| TimeLimit { length, begins: Begins::Now });
    let end = session::on_vcpu_thread(args.vm.core, limit, &orders, |orders| {
        supervisor.watch_this_thread();
        let clock = GuestClock::starting_at(blueprint.start_ns());
        let lan = args.watch_tap(blueprint.mac());
        let mut world = session::world_config(&args.vm, (port, disks), clock, orders)?;
        world.lan = lan.clone();
        let world = World::new(world)?;
        let replica = Replica::new(config, start, security, Box::new(system_entropy), now())
            .map_err(|error| CliError::Usage(error.to_string()))?;
        let mutants = Mutants::default();
        let mut observer = PairObserver::new(
            event_log::on_notice(args, lan.clone(), Arc::clone(feed)),
            board,
            lan,
            supervisor.state(),
        )
        .reporting_to(service);
        if let Some(samples) = samples {
            observer = observer.publish_samples(samples);
        }
        let driver = PairDriver::new(DriverParts {
            replica,
            clock: BootClock,
            wire: link.watch(args.other_addresses())?.into_wire(),
            world,
            witness: WitnessClient::new(witness, mutants),
            observer,
            supervisor,
            ack_wait: args.ack_wait(),
            mutants,
        });
        run((args, trace, feed), &blueprint, driver, start)
    })?;
    match end {
        Halt::Stopped | Halt::PrimaryStopped | Halt::HandedOver { .. } => Ok(()),
        Halt::AlreadyStarted { .. } | Halt::Replaced { .. } | Halt::Diverged => {
            // The event log has reported the reason.
            Err(CliError::Silent(Code::Halted))
        }
    }
}

/// Runs machines until this host's part is over, and returns why it is.
fn run<P: FramePort>(
    (args, trace, feed): (&PairArgs, TraceFile, &EventFeed),
    blueprint: &Blueprint,
    mut driver: PairDriver<P>,
    start: Start,
) -> Result<Halt, CliError> {
    let machine = match start {
        Start::Primary | Start::BootAgain | Start::Standalone => blueprint.booted()?,
        Start::Backup => blueprint.empty()?,
    };
    let started = PairRecord::started(now(), driver.parts().replica.role());
    event_log::tell(args, feed, (started, "the process has started"));
    sandbox::enter(Task::Vcpu);
    let end = driver::run(&mut driver, machine, || blueprint.empty(), run_machine);
    driver.parts_mut().observer.stopping();
    let DriverParts { replica, observer, world, .. } = driver.parts_mut();
    // The disks learn that they differ from the primary's, if that is why it halted.
    replica.copy_disks(now(), world);
    let halt = match end {
        PairEnd::Halted(halt) => halt,
        PairEnd::Failed(error) => return Err(error),
    };
    let ended = PairRecord::ended(now(), replica.term().0, replica.stats(), observer.hold_ns());
    event_log::tell(args, feed, (ended, "the process ends"));
    trace.write(world.stages())?;
    Ok(halt)
}

/// Runs one machine.
fn run_machine<P: FramePort>(
    machine: &mut Machine,
    driver: &mut PairDriver<P>,
) -> MachineEnd<CliError> {
    match vcpu::run(machine, driver, || ()) {
        Ok(_) => MachineEnd::Stopped,
        Err(RunError::Source(SourceError::Invalidated)) => MachineEnd::Invalidated,
        Err(RunError::Restore(error)) => {
            tracing::warn!("{error}");
            MachineEnd::CannotApply { why: error.to_string() }
        }
        Err(error) => {
            MachineEnd::Failed { is_guests_own_end: error.is_guests_own_end(), error: error.into() }
        }
    }
}
