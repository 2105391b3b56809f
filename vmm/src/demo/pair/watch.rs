//! A pair that nobody kills: how often it takes a living host for dead.

use super::hosts::{Hosts, LOOK_EVERY};
use super::member::Part;
use super::network::Host;
use super::scene::Scene;
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What happened to a pair while it was watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    /// How long it was watched, from its first protection on. Zero: it was never protected.
    pub watched: Duration,
    /// For how much of that the VM was protected.
    pub protected: Duration,
    /// Times the protection ended.
    pub alarms: u64,
    /// Times the backup went live.
    pub takeovers: u64,
    /// Times the primary gave its backup up.
    pub backups_lost: u64,
    /// The longest that the watching thread, which wants to run every 20 ms, did not: what of the alarms
    /// may be this machine's, on which everybody runs together.
    pub late: Duration,
}

/// Runs a pair made of `program`, with no client, for `time` after the VM is protected first, and calls
/// `begin` then. A backup that is missing is started again. `interrupted` ends it early. Leaves nothing
/// behind.
pub fn watch(
    program: &Path,
    silence_ms: u64,
    time: Duration,
    interrupted: &Arc<AtomicBool>,
    begin: impl FnOnce(),
) -> Result<Watched, DemoError> {
    let scene = Scene::new()?;
    let guest = Guest::Reference;
    let pace = scene.pace(program, (&guest, Some(silence_ms)), interrupted)?;
    let setup = scene.setup(program, &guest, silence_ms);
    let patience = pace.patience();
    let mut hosts = Hosts::new(&setup, patience, interrupted);
    hosts.start(Part::Primary, Host::A)?;
    // A pair that has not met by then will hardly ever.
    let limit = Instant::now() + patience;
    while hosts.protected().is_none() {
        start_missing(&mut hosts)?;
        hosts.wait("the first protection", |hosts| {
            let is_over = Instant::now() >= limit;
            (is_over || hosts.is_alone() || hosts.protected().is_some()).then_some(())
        })?;
        if Instant::now() >= limit {
            return Ok(Watched::default());
        }
    }
    // What it took until here is of the start.
    let before = (hosts.counts.went_live, hosts.counts.backups_lost);
    begin();
    let begun = Instant::now();
    let mut watched = Watched { watched: time, ..Watched::default() };
    let mut seen = Instant::now();
    while begun.elapsed() < time {
        start_missing(&mut hosts)?;
        let (since, was_protected) = (Instant::now(), hosts.protected().is_some());
        hosts.wait_for("nothing", time + patience, |hosts| {
            let is_over = begun.elapsed() >= time;
            let changed = hosts.protected().is_some() != was_protected;
            watched.late = watched.late.max(seen.elapsed().saturating_sub(LOOK_EVERY));
            seen = Instant::now();
            (is_over || changed || hosts.is_alone()).then_some(())
        })?;
        if was_protected {
            watched.protected += since.elapsed();
            watched.alarms += u64::from(hosts.protected().is_none());
        }
    }
    watched.takeovers = hosts.counts.went_live - before.0;
    watched.backups_lost = hosts.counts.backups_lost - before.1;
    Ok(watched)
}

/// Starts a backup where there is no process.
fn start_missing(hosts: &mut Hosts<'_>) -> Result<(), DemoError> {
    for host in Host::ALL {
        if hosts.is_missing(host) {
            hosts.start(Part::Backup, host)?;
        }
    }
    Ok(())
}
