//! The table of all kinds of faults.
//!
//! To add a kind: a variant of [`Kind`], its row in [`TABLE`], and the function that the row names.

use super::bound::Bound;
use super::run::Chaos;
use super::{hosts, load, network, operators, output, witness};
use testbed::pair::Host;
use testbed::{Guest, TestbedError};

/// A kind of fault. The rows of `TABLE` say what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table describes them")]
pub enum Kind {
    KillPrimary,
    KillBackup,
    FreezePrimary,
    FreezeBackup,
    CorruptBackup,
    DeleteTapPrimary,
    DeleteTapBackup,
    CutLogLink,
    CutLogFromPrimary,
    CutLogFromBackup,
    LogNicMadeAgain,
    LogMacChanged,
    LossyLogLink,
    HostileLogFrames,
    TapDownPrimary,
    TapDownBackup,
    UplinkDownPrimary,
    UplinkDownBackup,
    LanSilentPrimary,
    LanSilentBackup,
    WitnessGone,
    WitnessReplaced,
    ClaimsLost,
    ClaimForged,
    Handover,
    HandoverFails,
    TerminatePrimary,
    TerminateBackup,
    Hangup,
    SecondPrimary,
    OutputStalled,
    DiskFull,
    CpuHogs,
    MemoryPressure,
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The host that runs the VM.
    Primary,
    /// The other host.
    Backup,
    /// One of them, drawn by the seed.
    Either,
    /// What both share: the log link, the witness, the machine. The host is the primary.
    Both,
}

/// Injects a fault that hits a host, keeps it for a while, and repairs what does not repair itself. A process that
/// has ended is replaced by the caller.
type Inject = fn(&mut Chaos<'_, '_, '_>, Host) -> Result<(), TestbedError>;

/// All about a kind.
pub(super) struct Row {
    kind: Kind,
    name: &'static str,
    /// Whom it hits.
    pub(super) side: Side,
    /// How long the service may be interrupted.
    pub(super) bound: Bound,
    /// What to do.
    pub(super) inject: Inject,
}

const fn row(kind: Kind, name: &'static str, side: Side, bound: Bound, inject: Inject) -> Row {
    Row { kind, name, side, bound, inject }
}

/// One row for each kind, in the order of [`Kind`].
#[rustfmt::skip]
static TABLE: [Row; 34] = [
    // Hosts.
    row(Kind::KillPrimary, "kill-primary", Side::Primary, Bound::TAKEOVER, hosts::kill),
    row(Kind::KillBackup, "kill-backup", Side::Backup, Bound::TAKEOVER, hosts::kill),
    row(Kind::FreezePrimary, "freeze-primary", Side::Primary, Bound::TAKEOVER, hosts::freeze),
    row(Kind::FreezeBackup, "freeze-backup", Side::Backup, Bound::TAKEOVER, hosts::freeze),
    row(Kind::CorruptBackup, "corrupt-backup", Side::Backup, Bound::NONE, hosts::corrupt_memory),
    row(Kind::DeleteTapPrimary, "delete-tap-primary", Side::Primary, Bound::LAN_AND_TAKEOVER, network::delete_tap),
    row(Kind::DeleteTapBackup, "delete-tap-backup", Side::Backup, Bound::TAKEOVER, network::delete_tap),
    // Networks.
    row(Kind::CutLogLink, "cut-log-link", Side::Both, Bound::TAKEOVER, network::cut_log_link),
    row(Kind::CutLogFromPrimary, "cut-log-from-primary", Side::Primary, Bound::TAKEOVER, network::cut_log_from),
    row(Kind::CutLogFromBackup, "cut-log-from-backup", Side::Backup, Bound::TAKEOVER, network::cut_log_from),
    row(Kind::LogNicMadeAgain, "log-nic-made-again", Side::Either, Bound::TAKEOVER, network::make_log_nic_again),
    row(Kind::LogMacChanged, "log-mac-changed", Side::Either, Bound::TAKEOVER, network::change_log_mac),
    row(Kind::LossyLogLink, "lossy-log-link", Side::Both, Bound::NONE, network::lose_log_frames),
    row(Kind::HostileLogFrames, "hostile-log-frames", Side::Either, Bound::NONE, network::send_hostile_frames),
    row(Kind::TapDownPrimary, "tap-down-primary", Side::Primary, Bound::LAN, network::tap_down),
    row(Kind::TapDownBackup, "tap-down-backup", Side::Backup, Bound::NONE, network::tap_down),
    row(Kind::UplinkDownPrimary, "uplink-down-primary", Side::Primary, Bound::LAN, network::uplink_down),
    row(Kind::UplinkDownBackup, "uplink-down-backup", Side::Backup, Bound::NONE, network::uplink_down),
    row(Kind::LanSilentPrimary, "lan-silent-primary", Side::Primary, Bound::SILENT_LAN, network::lan_silent),
    row(Kind::LanSilentBackup, "lan-silent-backup", Side::Backup, Bound::NONE, network::lan_silent),
    // The witness.
    row(Kind::WitnessGone, "witness-gone", Side::Both, Bound::NONE, witness::unmount),
    row(Kind::WitnessReplaced, "witness-replaced", Side::Both, Bound::NONE, witness::replace),
    row(Kind::ClaimsLost, "claims-lost", Side::Both, Bound::NONE, witness::lose_claims),
    row(Kind::ClaimForged, "claim-forged", Side::Both, Bound::NONE, witness::forge_claim),
    // Operators.
    row(Kind::Handover, "handover", Side::Primary, Bound::NONE, operators::hand_over),
    row(Kind::HandoverFails, "handover-fails", Side::Primary, Bound::TAKEOVER, operators::fail_handover),
    row(Kind::TerminatePrimary, "terminate-primary", Side::Primary, Bound::NONE, operators::terminate),
    row(Kind::TerminateBackup, "terminate-backup", Side::Backup, Bound::NONE, operators::terminate),
    row(Kind::Hangup, "hangup", Side::Either, Bound::NONE, operators::hang_up),
    row(Kind::SecondPrimary, "second-primary", Side::Backup, Bound::NONE, operators::start_second_primary),
    // Terminals, disks and load.
    row(Kind::OutputStalled, "output-stalled", Side::Either, Bound::NONE, output::stall),
    row(Kind::DiskFull, "disk-full", Side::Backup, Bound::NONE, output::fill_disk),
    row(Kind::CpuHogs, "cpu-hogs", Side::Both, Bound::NONE, load::hog_cores),
    row(Kind::MemoryPressure, "memory-pressure", Side::Both, Bound::NONE, load::hog_memory),
];

const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].kind as usize == index, "a row is not at the place of its kind");
        index += 1;
    }
};

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; TABLE.len()] = {
        let mut all = [Kind::KillPrimary; TABLE.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = TABLE[index].kind;
            index += 1;
        }
        all
    };

    /// Returns the name on the command line and in results.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    pub(super) const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Returns whether a VM with this guest can have such a fault.
    pub(super) fn exists_with(self, guest: &Guest) -> bool {
        self != Kind::CorruptBackup || hosts::constant_of(guest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_lower_case() {
        let names: BTreeSet<_> = Kind::ALL.map(Kind::name).into_iter().collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
        }
    }
}
