//! Runs one machine after the other, until this host's part is over.

use super::Notice;
use super::drive::Driver;
use super::host::{Host, Observer};
use crate::mutant::DriverMutant;
use crate::replica::{Halt, LocalDisks as _, RoleName};
use alloc::string::String;

/// How the run of one machine ended.
#[derive(Debug)]
pub enum MachineEnd<E> {
    /// The machine stopped because the engine said so.
    Stopped,
    /// Its state was invalidated: another machine takes its place.
    Invalidated,
    /// It could not apply a checkpoint of the log.
    CannotApply {
        /// Why.
        why: String,
    },
    /// The guest or this host has failed.
    Failed {
        /// The error.
        error: E,
        /// The guest itself has ended the VM, so that it would end the same way on any other host.
        is_guests_own_end: bool,
    },
}

/// How this host's part ended.
#[derive(Debug)]
pub enum PairEnd<E> {
    /// In an orderly way.
    Halted(Halt),
    /// The guest or this host has failed.
    Failed(E),
}

/// Runs `machine` and its successors. `run` runs a machine with the driver as its boundary; `make_empty` makes
/// the machine of a backup. A machine is dropped before its successor is made: the host may not have memory
/// for two.
pub fn run<H: Host, M, E: From<H::Error>>(
    driver: &mut Driver<H>,
    machine: M,
    mut make_empty: impl FnMut() -> Result<M, E>,
    mut run: impl FnMut(&mut M, &mut Driver<H>) -> MachineEnd<E>,
) -> PairEnd<E> {
    let mut machine = machine;
    loop {
        match run(&mut machine, driver) {
            MachineEnd::Stopped => {
                return match driver.shut_down() {
                    Ok(halt) => PairEnd::Halted(halt.unwrap_or(Halt::Stopped)),
                    Err(error) => PairEnd::Failed(error.into()),
                };
            }
            MachineEnd::Invalidated => {}
            MachineEnd::CannotApply { why } => {
                let now = driver.now();
                driver.parts.replica.diverged(now, &why);
            }
            MachineEnd::Failed { error, is_guests_own_end } => {
                return fail(driver, error, is_guests_own_end);
            }
        }
        drop(machine);
        driver.parts.world.forget_requests();
        if driver.has(DriverMutant::RebuildForgetsSession) {
            driver.has_forgotten_session = true;
        }
        machine = match make_empty() {
            Ok(machine) => machine,
            Err(error) => return fail(driver, error, false),
        };
    }
}

/// Ends this host's part after `error`.
///
/// Sends Bye in two cases: when the guest itself ended the VM, and on a backup, which then never takes over.
/// A primary whose host failed ends without a Bye: the VM is not over, and to the backup this host is dead.
fn fail<H: Host, E>(driver: &mut Driver<H>, error: E, is_guests_own_end: bool) -> PairEnd<E> {
    if is_guests_own_end || driver.is_backup() {
        // The first error is the one to report. Without a Bye, the other host takes this one for dead.
        let _second = driver.shut_down();
    } else if driver.parts.replica.role() == RoleName::Protected {
        let parts = &mut driver.parts;
        parts.observer.notice(&parts.replica, Notice::GoesSilent);
    }
    PairEnd::Failed(error)
}
