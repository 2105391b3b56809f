//! A pair without kills: counts how often a living host is declared dead.

use super::hosts::{Hosts, POLL_INTERVAL};
use super::member::Part;
use super::network::Host;
use super::scene::Scene;
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What happened to a pair while it was observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    /// How long the pair was observed, from its first protection on. Zero if it was never protected.
    pub watched: Duration,
    /// For how much of that time the VM was protected.
    pub protected: Duration,
    /// How often the protection ended.
    pub alarms: u64,
    /// How often the backup went live.
    pub takeovers: u64,
    /// How often the primary gave up its backup.
    pub backups_lost: u64,
    /// The longest scheduling delay of the observing thread, which runs every 20 ms. It shows how many of the
    /// alarms may be due to this machine, on which both hosts run together.
    pub late: Duration,
}

/// Runs a pair of the executable `program` without clients. Calls `begin` when the VM is protected for the
/// first time, and observes the pair for `time` from then on. Restarts a missing backup. `interrupted` ends
/// it early. Removes everything that it created.
///
/// # Errors
///
/// If a process fails, the host is too slow, or `interrupted` is set.
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
    // A pair that is not protected by then is unlikely to be protected later.
    let limit = Instant::now() + patience;
    while hosts.protected().is_none() {
        start_missing(&mut hosts)?;
        hosts.wait("the first protection", |hosts| {
            let is_over = Instant::now() >= limit;
            (is_over || hosts.lacks_member() || hosts.protected().is_some()).then_some(())
        })?;
        if Instant::now() >= limit {
            return Ok(Watched::default());
        }
    }
    // Takeovers and losses before this point belong to the start-up.
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
            watched.late = watched.late.max(seen.elapsed().saturating_sub(POLL_INTERVAL));
            seen = Instant::now();
            (is_over || changed || hosts.lacks_member()).then_some(())
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

/// Starts a backup on each host without a process.
fn start_missing(hosts: &mut Hosts<'_>) -> Result<(), DemoError> {
    for host in Host::ALL {
        if hosts.is_missing(host) {
            hosts.start(Part::Backup, host)?;
        }
    }
    Ok(())
}
