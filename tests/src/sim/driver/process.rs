//! A process: the engine, its driver, and one machine after the other.

use logchan::handshake::Security;
use replication::driver::{
    Driver, DriverParts, MachineEnd, PairEnd, Wire, WitnessClient, run as drive,
};
use replication::error::BoundaryError;
use replication::replica::{Halt, Replica, Start};
use replication::{DriverMutant, Mutants};

use super::link_port::SimLink;
use super::observer::SimObserver;
use super::sim_host::{SimClock, SimHost, TapFailed};
use super::supervisor::SimSupervisor;
use super::tap::SimTap;
use super::thread::Thread;
use super::vcpu::{Stop, Vcpu};
use super::witness::SimWitness;
use crate::sim::US;
use crate::sim::system::machine::Machine;
use crate::sim::system::process::{ProcessId, config};
use crate::sim::system::sim_disk::DiskOptions;
use logchan::time::Duration;
use replication::driver::Clock;

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// In an orderly way.
    Halted(Halt),
    /// Its tap has failed.
    TapFailed,
}

/// Runs a process to its end.
pub(super) fn run(thread: &Thread<'_>, id: ProcessId, start: Start) -> Ended {
    let (pair, guest, planted, ack_wait_ns, mut entropy) = thread.with(|state| {
        let own = &mut state.hosts[thread.host];
        let options = &state.options;
        let entropy = own.rng.fork();
        (options.pair.clone(), options.guest, state.planted, own.options.ack_wait_ns, entropy)
    });
    let mutants = planted.map_or_else(Mutants::default, Mutants::of_driver);
    let clock = SimClock(thread.clone());
    let entropy = Box::new(move |bytes: &mut [u8]| entropy.fill(bytes));
    let config = config(id, &pair, &DiskOptions::none(), mutants);
    let replica = Replica::new(config, start, Security::Insecure, entropy, clock.now());
    let mut tap = SimTap::new(thread.clone());
    let empty = || Machine::empty(pair.memory_pages, pair.pad_bytes);
    let machine = match start {
        Start::Standalone | Start::Primary | Start::BootAgain => {
            tap.boot();
            Machine::boot(pair.memory_pages, pair.pad_bytes, &guest)
        }
        Start::Backup => empty(),
    };
    let mut driver = Driver::<SimHost<'_>>::new(DriverParts {
        replica: replica.expect("a valid configuration"),
        clock,
        wire: Wire::new(SimLink::new(thread.clone()), mutants),
        world: tap,
        witness: WitnessClient::new(SimWitness(thread.clone()), mutants),
        supervisor: SimSupervisor(thread.clone()),
        observer: SimObserver {
            thread: thread.clone(),
            waits_for_terminal: planted == Some(DriverMutant::BlockingEvents),
        },
        ack_wait: Duration::from_nanos(ack_wait_ns),
        mutants,
    });
    let make_empty = || {
        thread.with(|state| state.counts.count(super::count::Count::Rebuilt));
        thread.sleep(50 * US);
        Ok(empty())
    };
    let end = drive(&mut driver, machine, make_empty, |machine, driver| {
        match Vcpu::new(machine, driver, thread).run() {
            Ok(()) => MachineEnd::Stopped,
            Err(Stop::CannotApply(why)) => MachineEnd::CannotApply { why },
            Err(Stop::Boundary(error)) => match error {
                BoundaryError::Invalidated => MachineEnd::Invalidated,
                BoundaryError::Host(error) => {
                    MachineEnd::Failed { error, is_guests_own_end: false }
                }
                BoundaryError::Diverged(_)
                | BoundaryError::Stopped
                | BoundaryError::NoDisk { .. } => {
                    unreachable!("{error}: a pair's boundary says Invalidated")
                }
            },
        }
    });
    match end {
        PairEnd::Halted(halt) => Ended::Halted(halt),
        PairEnd::Failed(TapFailed) => Ended::TapFailed,
    }
}
