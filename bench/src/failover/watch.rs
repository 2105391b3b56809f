//! A pair without kills: counts how often a living host is declared dead.

use crate::error::BenchError;
use crate::interrupt;
use std::time::{Duration, Instant};
use testbed::Guest;
use testbed::pair::{Host, Hosts, POLL_INTERVAL, Part, Scene};
use testbed::vm_process::understudy;

/// What happened to a pair while it was observed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    /// How long the pair was observed, from its first protection on. Zero if it was never protected.
    pub(super) watched: Duration,
    /// For how much of that time the VM was protected.
    pub(super) protected: Duration,
    /// How often the protection ended.
    pub(super) alarms: u64,
    /// How often the backup went live.
    pub(super) takeovers: u64,
    /// How often the primary gave up its backup.
    pub(super) backups_lost: u64,
    /// The longest scheduling delay of the observing thread, which runs every 20 ms. It shows how many of the
    /// alarms may be due to this machine, on which both hosts run together.
    pub(super) late: Duration,
}

/// Runs a pair without clients. Calls `begin` when the VM is protected for the first time, and observes the
/// pair for `time` from then on. Restarts a missing backup.
pub(super) fn watch(
    silence_ms: u64,
    time: Duration,
    begin: impl FnOnce(),
) -> Result<Watched, BenchError> {
    let (scene, interrupted) = (Scene::new(&understudy()?)?, interrupt::flag()?);
    let pace = scene.pace((&Guest::Reference, &["run"]), Some(silence_ms), &interrupted)?;
    let patience = pace.patience();
    let mut hosts = Hosts::new(scene.setup(silence_ms), patience, &interrupted);
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
fn start_missing(hosts: &mut Hosts) -> Result<(), BenchError> {
    for host in Host::ALL {
        if hosts.is_missing(host) {
            hosts.start(Part::Backup, host)?;
        }
    }
    Ok(())
}
