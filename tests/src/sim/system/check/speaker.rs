//! Who may speak for the VM.

use vmm::replica::RoleName;

use crate::sim::system::pair::{Pair, other};
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, require};

/// Whether a process runs the VM.
pub(crate) fn is_primary(role: RoleName) -> bool {
    match role {
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::Protected
        | RoleName::Losing => true,
        RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Following
        | RoleName::Finishing
        | RoleName::Claiming
        | RoleName::Leaving
        | RoleName::Halted => false,
    }
}

/// Whether a process would let output go, if it had any, at true time `now`.
fn may_speak(process: &Process, now: logchan::time::Time) -> bool {
    match process.replica.role() {
        RoleName::Standalone | RoleName::Alone | RoleName::Copying => true,
        RoleName::Closing | RoleName::Protected => {
            process.replica.channel().is_some_and(|channel| channel.lease_held(now))
        }
        RoleName::Starting
        | RoleName::Losing
        | RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Following
        | RoleName::Finishing
        | RoleName::Claiming
        | RoleName::Leaving
        | RoleName::Halted => false,
    }
}

impl Pair<'_> {
    /// `speaker` on `host`, which says that it is in `term`, lets go of a frame with the VM's address.
    pub(crate) fn check_right(&self, host: usize, speaker: ProcessId, term: u64) -> Checked {
        let newest = self.witness.newest();
        require!(
            newest == Some((term, speaker)),
            "host {host} speaks as {speaker:?} in term {term}, and the witness knows {newest:?}"
        );
        Ok(())
    }

    /// A frame with the VM's address, which `speaker` let go of before, is on its way to the LAN.
    pub(crate) fn check_speaker(&self, host: usize, speaker: ProcessId) -> Checked {
        let newest = self.witness.newest();
        require!(
            newest.is_some_and(|(_, owner)| owner == speaker),
            "a frame of {speaker:?} leaves host {host} when the witness knows {newest:?}"
        );
        Ok(())
    }

    /// `host` has just got the right to go on alone: nobody else has one, frozen or not.
    pub(crate) fn check_authority(&self, host: usize) -> Checked {
        let rival = &self.hosts[other(host)];
        let now = rival.clock.shows(self.queue.now());
        if let Some(process) = &rival.process {
            require!(
                !may_speak(process, now),
                "host {host} is live, and host {} may still speak as {}",
                other(host),
                process.replica.role()
            );
        }
        Ok(())
    }
}
