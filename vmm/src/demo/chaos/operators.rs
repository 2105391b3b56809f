//! Orders of an operator, and mistakes.

use super::run::Chaos;
use nix::sys::signal::Signal;
use testbed::TestbedError;
use testbed::pair::Host;

/// The tap of a second primary.
const SECOND_TAP: &str = "tap9";
/// Its log interface.
const SECOND_LOG: &str = "log9";

/// Exit codes of a primary whose VM runs already, and of one whose disk the backup uses.
const HALTED: i32 = 14;
const DISK: i32 = 18;

/// `understudy handover`.
pub(super) fn hand_over(chaos: &mut Chaos<'_, '_, '_>, _primary: Host) -> Result<(), TestbedError> {
    chaos.hosts().hand_over(|| {}).map(drop)
}

/// `understudy handover` while the backup is frozen: the primary takes the VM back.
pub(super) fn fail_handover(
    chaos: &mut Chaos<'_, '_, '_>,
    primary: Host,
) -> Result<(), TestbedError> {
    let hosts = chaos.hosts();
    hosts.on(primary.other())?.signal(Signal::SIGSTOP);
    let leader = hosts.on(primary)?;
    let before = leader.state.handing_over_ns;
    leader.order("handover")?;
    hosts.wait("the primary to take the VM back", |hosts| {
        let state = &hosts.on(primary).ok()?.state;
        (state.handing_over_ns > before && state.holds_term).then_some(())
    })?;
    chaos.hold(0..=10)?;
    chaos.hosts().on(primary.other())?.signal(Signal::SIGCONT);
    Ok(())
}

/// SIGTERM: a primary hands the VM over, and the process ends.
pub(super) fn terminate(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    chaos.hosts().terminate(host)
}

/// SIGHUP, which the process's parent ignores.
pub(super) fn hang_up(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    chaos.hosts().on(host)?.signal(Signal::SIGHUP);
    chaos.hold(2..=10)
}

/// `understudy primary` for the VM that runs.
pub(super) fn start_second_primary(
    chaos: &mut Chaos<'_, '_, '_>,
    backup: Host,
) -> Result<(), TestbedError> {
    let namespace = chaos.pair.network.host(backup);
    namespace.add_tap(SECOND_TAP, None)?;
    namespace.ip(&format!("link add {SECOND_LOG} type veth peer name {SECOND_LOG}-peer"))?;
    let status = chaos.hosts().run_second_primary(backup, [SECOND_TAP, SECOND_LOG])?;
    namespace.ip(&format!("link del {SECOND_TAP}"))?;
    namespace.ip(&format!("link del {SECOND_LOG}"))?;
    let due = if chaos.pair.disk.is_some() { DISK } else { HALTED };
    match status.code() == Some(due) {
        true => Ok(()),
        false => {
            Err(TestbedError::Wrong(format!("a second primary of the VM ended with {status}")))
        }
    }
}
