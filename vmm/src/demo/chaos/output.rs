//! Faults of what a process writes to.

use super::run::Chaos;
use testbed::TestbedError;
use testbed::pair::Host;

/// Nobody reads standard output and standard error, and their pipes are full.
pub(super) fn stall(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    chaos.hosts().on(host)?.stall_output()?;
    chaos.hold(20..=80)?;
    chaos.hosts().on(host)?.resume_output();
    Ok(())
}

/// A new backup has a full disk, to which it writes a capture and its messages. It becomes the primary, and is
/// replaced.
pub(super) fn fill_disk(chaos: &mut Chaos<'_, '_, '_>, backup: Host) -> Result<(), TestbedError> {
    let on_full_disk = chaos.tools.on_full_disk.clone();
    let hosts = chaos.hosts();
    hosts.terminate(backup)?;
    let program = std::mem::replace(&mut hosts.setup_mut().program, on_full_disk);
    let protected = hosts.protect(|_host, _pid| {});
    hosts.setup_mut().program = program;
    protected?;
    hosts.hand_over(|| {})?;
    chaos.hold(10..=40)?;
    chaos.hosts().protect(|_host, _pid| {})?;
    chaos.hosts().terminate(backup)
}
