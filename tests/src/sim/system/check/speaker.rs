//! Checks who may send for the VM.

use replication::replica::RoleName;

use crate::sim::system::pair::{Pair, other};
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, MS, require};

/// Whether a process in this role runs the VM as its primary.
pub(crate) fn is_primary(role: RoleName) -> bool {
    match role {
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::Protected
        | RoleName::HandingOver
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
        | RoleName::HandingOver
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
        if self.witness.is_released() {
            return self.check_forgotten(host, speaker);
        }
        let newest = self.witness.newest();
        require!(
            newest == Some((term, speaker)),
            "host {host} sends as {speaker:?} in term {term}, and the newest term is {newest:?}"
        );
        Ok(())
    }

    /// An operator has said that no host runs the VM, and `host` does: it must learn that from the witness, once it
    /// can reach it.
    fn check_forgotten(&self, host: usize, speaker: ProcessId) -> Checked {
        let owner = self.witness.last_owner();
        require!(owner == Some(speaker), "host {host} sends as {speaker:?} after {owner:?}");
        let (pair, own) = (&self.options.pair, &self.hosts[host]);
        let since = self.witness.granted_at().max(self.healed_at).max(own.disturbed_at);
        // A question may be on its way when the VM is forgotten; the next one is asked after the interval, by a clock
        // that may be slow.
        let learns_ns = 2 * pair.witness_check_ns + 8 * self.options.witness.timeout_ns + 50 * MS;
        let now = self.queue.now();
        require!(
            self.is_faulty() || now < since + learns_ns,
            "host {host} sends {} ms after the VM was forgotten",
            (now - since) / MS
        );
        Ok(())
    }

    /// `host` has taken over. If its VM can't reach the LAN, it must have left the term to a living primary that can.
    pub(crate) fn check_gives_way(&self, host: usize) -> Checked {
        let (own, peer) = (&self.hosts[host], &self.hosts[other(host)]);
        let is_unfit = own.process.as_ref().is_some_and(|process| !process.lan_is_up);
        let Some(rival) = peer.process.as_ref().filter(|_| is_unfit) else { return Ok(()) };
        let silence_ns = self.options.pair.timing.silence.as_nanos();
        let is_undisturbed = self.queue.now() > peer.disturbed_at + 6 * silence_ns
            && !peer.frozen
            && !peer.witness_cut
            && !self.lan.is_cut(other(host));
        require!(
            !is_undisturbed || rival.replica.role() != RoleName::Losing,
            "host {host} takes over without a LAN, and host {} could go on",
            other(host)
        );
        Ok(())
    }

    /// Checks that `speaker` still owns the newest term when a frame that it released leaves the host.
    pub(crate) fn check_speaker(&self, host: usize, speaker: ProcessId) -> Checked {
        // The last frames of a VM that was stopped may leave after the witness was told.
        let owner = self.witness.last_owner();
        require!(
            owner == Some(speaker),
            "a frame of {speaker:?} leaves host {host} when {owner:?} has the newest term"
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
