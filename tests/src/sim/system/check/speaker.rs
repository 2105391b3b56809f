//! Checks who may send for the VM.

use replication::replica::RoleName;

use crate::sim::system::pair::{Pair, other};
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, require};

/// Whether a process in this role runs the VM as its primary.
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

/// Whether a process would release output, if it had any, when its clock shows `now`.
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
    /// Checks that `speaker` on `host`, which releases a frame with the VM's address in `term`, owns the newest
    /// term.
    pub(crate) fn check_right(&self, host: usize, speaker: ProcessId, term: u64) -> Checked {
        let newest = self.witness.newest();
        require!(
            newest == Some((term, speaker)),
            "host {host} sends as {speaker:?} in term {term}, and the newest term is {newest:?}"
        );
        Ok(())
    }

    /// Checks that `speaker` still owns the newest term when a frame that it released leaves the host.
    pub(crate) fn check_speaker(&self, host: usize, speaker: ProcessId) -> Checked {
        let newest = self.witness.newest();
        require!(
            newest.is_some_and(|(_, owner)| owner == speaker),
            "a frame of {speaker:?} leaves host {host} when the newest term is {newest:?}"
        );
        Ok(())
    }

    /// `host` has just become live alone. Checks that the other host may not send any more, even if it is frozen
    /// now.
    pub(crate) fn check_authority(&self, host: usize) -> Checked {
        let peer = &self.hosts[other(host)];
        let now = peer.clock.shows(self.queue.now());
        if let Some(process) = &peer.process {
            require!(
                !may_speak(process, now),
                "host {host} is live, and host {} may still send as {}",
                other(host),
                process.replica.role()
            );
        }
        Ok(())
    }
}
