//! The output rule, seen from the LAN.

use logchan::ids::Lane;
use vmm::replica::{OnBackupLoss, RoleName};
use xxhash_rust::xxh3::xxh3_64;

use crate::sim::system::packet;
use crate::sim::system::pair::{Pair, other};
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, require};

/// What the VM has said, by number of the frame.
#[derive(Debug, Default)]
pub(crate) struct OutputLedger {
    /// A digest of each frame that is on the LAN; the next one to come has the number that is the
    /// length of this.
    said: Vec<Option<u64>>,
    /// Who said the last one, and its number.
    last: Option<(ProcessId, u64)>,
}

impl OutputLedger {
    /// One more than the number of the newest frame on the LAN.
    pub(crate) fn next(&self) -> u64 {
        self.said.len() as u64
    }
}

/// Whether a process holds the whole VM as a backup.
pub(crate) fn is_whole(role: RoleName) -> bool {
    match role {
        RoleName::Following | RoleName::Finishing | RoleName::Claiming => true,
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::Protected
        | RoleName::Losing
        | RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Leaving
        | RoleName::Halted => false,
    }
}

/// Log that a process has in memory, executed or not.
fn holds(process: &Process) -> u64 {
    let channel = process.replica.channel();
    channel.map_or(0, |channel| {
        channel.consumed(Lane::Latency).0 + channel.received(Lane::Latency).len() as u64
    })
}

impl Pair<'_> {
    /// `host` is about to give a frame of the VM to its port.
    pub(crate) fn check_release(&mut self, host: usize, frame: &[u8]) -> Checked {
        let number = packet::number(frame);
        require!(number.is_some(), "host {host} releases a frame that the VM did not make");
        let number = number.unwrap_or_default();
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let role = process.replica.role();
        let unprotected = matches!(role, RoleName::Alone | RoleName::Copying);
        require!(
            !unprotected || self.options.pair.on_backup_loss == OnBackupLoss::Continue,
            "host {host} releases output as {role}, and must not without a backup"
        );
        let Some((session, position)) = process.logged.remove(&number) else { return Ok(()) };
        if process.session() != Some(session) {
            return Ok(());
        }
        let newest = self.released.entry(session).or_default();
        *newest = (*newest).max(position);
        self.check_holds(other(host))
    }

    /// What `host` could take over with is all that has left so far.
    pub(crate) fn check_holds(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let session = process.session();
        let Some(&released) = session.and_then(|session| self.released.get(&session)) else {
            return Ok(());
        };
        let held = holds(process);
        require!(
            !is_whole(process.replica.role()) || held >= released,
            "host {host} could take over with {held} bytes of a log of which {released} left as output"
        );
        Ok(())
    }

    /// A frame of the VM is on the LAN.
    pub(crate) fn check_said(&mut self, host: usize, speaker: ProcessId, frame: &[u8]) -> Checked {
        let number = packet::number(frame).unwrap_or_default();
        let digest = xxh3_64(frame);
        let next = self.output.next();
        let index = number as usize;
        match self.output.last {
            Some((process, last)) if process == speaker => {
                let own = self.hosts[host].process.as_ref().filter(|own| own.id == speaker);
                let dropped = |number| own.is_none_or(|own| own.dropped.contains(&number));
                require!(
                    number > last && (last + 1..number).all(dropped),
                    "host {host} says frame {number} of the VM after frame {last}"
                );
            }
            _ => {
                // What the first speaker held back when it gave away the VM died with it.
                let before = self.bases.get(&speaker).copied().unwrap_or(0);
                require!(
                    number <= next.max(before),
                    "host {host} begins with frame {number} of the VM: frame {next} is missing"
                );
            }
        }
        if self.output.said.len() <= index {
            self.output.said.resize(index + 1, None);
        }
        let own = self.hosts[host].process.as_ref().filter(|own| own.id == speaker);
        let broken = own.is_none_or(|own| own.broken);
        let said = self.output.said[index].get_or_insert(digest);
        require!(
            *said == digest || broken,
            "host {host} says another frame {number} of the VM than was said before"
        );
        self.output.last = Some((speaker, number));
        Ok(())
    }

    /// The live machine of `host` has learned of the world what no other one has: before, it must have made
    /// all that is on the LAN.
    pub(crate) fn check_takeover(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let (made, said) = (process.outputs_made(), self.output.next());
        require!(
            made >= said || process.broken,
            "host {host} goes on with {made} frames made, and {said} are on the LAN"
        );
        Ok(())
    }
}
