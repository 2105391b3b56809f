//! Faults of one host.

use super::run::Chaos;
use nix::sys::signal::Signal;
use testbed::guest_memory::{DEFAULT_BYTES, flip_bits};
use testbed::pair::{Host, Hosts};
use testbed::{Guest, TestbedError};

/// A constant of the reference guest: part of every web page's header.
const REFERENCE_CONSTANT: &[u8] = b"Cache-Control";

/// Returns bytes in the memory of `guest` that it copies into what it sends, and that stand for nothing else.
/// `None` if none are known.
pub(super) fn constant_of(guest: &Guest) -> Option<&'static [u8]> {
    match guest {
        Guest::Reference => Some(REFERENCE_CONSTANT),
        Guest::Linux(_) => None,
    }
}

/// Kills the process with SIGKILL. Its supervisor starts it again, perhaps before the other host has noticed.
pub(super) fn kill(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    chaos.hosts().destroy(host)?;
    chaos.hold(0..=20)
}

/// Freezes the process for less or more than the silence timeout.
pub(super) fn freeze(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    chaos.hosts().on(host)?.signal(Signal::SIGSTOP);
    chaos.hold(3..=30)?;
    chaos.hosts().on(host)?.signal(Signal::SIGCONT);
    Ok(())
}

/// Changes the memory of the backup's VM: it diverges when it sends the changed bytes.
pub(super) fn corrupt_memory(
    chaos: &mut Chaos<'_, '_, '_>,
    host: Host,
) -> Result<(), TestbedError> {
    let guest = chaos.pair.guest;
    let before = chaos.hosts().counts.divergences;
    let pid = chaos.hosts().on(host)?.pid();
    let constant = constant_of(guest).unwrap_or_default();
    if constant.is_empty() || flip_bits(pid, DEFAULT_BYTES, constant)? == 0 {
        let text = format!("the {} guest does not contain {constant:?}", guest.name());
        return Err(TestbedError::Wrong(text));
    }
    let more = |hosts: &Hosts| (hosts.counts.divergences > before).then_some(());
    chaos.hosts().wait("the backup to diverge", more)?;
    chaos.corrupted += chaos.hosts().counts.divergences - before;
    Ok(())
}
