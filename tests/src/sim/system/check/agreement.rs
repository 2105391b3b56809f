//! Compares the two machines at each common position.

use std::collections::BTreeMap;

use crate::sim::system::pair::Pair;
use crate::sim::system::process::Track;
use crate::sim::{Checked, Violation, require};

/// Digests of the primary's machine, by session and then position.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    sessions: BTreeMap<u64, Vec<u64>>,
}

impl Pair<'_> {
    /// Records position 0 of a session's log: the primary's machine at the closing checkpoint of a sync.
    pub(crate) fn note_sync(&mut self, host: usize) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(session) = process.session() else { return Ok(()) };
        let is_new = self.agreement.sessions.insert(session, vec![process.machine.digest()]);
        require!(is_new.is_none(), "host {host} synchronises twice in session {session:016x}");
        process.track = Some(Track { session, positions: 0 });
        let made = process.outputs_made();
        self.sync_outputs.insert(session, made);
        Ok(())
    }

    /// Records the primary's machine at a position that is in the log.
    pub(crate) fn note_position(&mut self, host: usize) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(track) = &mut process.track else {
            return Err(Violation(format!("host {host} logs positions before a checkpoint")));
        };
        track.positions += 1;
        let Some(digests) = self.agreement.sessions.get_mut(&track.session) else { return Ok(()) };
        require!(
            digests.len() == track.positions,
            "host {host} logs position {} after {}",
            track.positions,
            digests.len()
        );
        digests.push(process.machine.digest());
        Ok(())
    }

    /// Compares a backup's machine with the primary's at its next position, or at position 0 if it `begins`
    /// with a full checkpoint.
    pub(crate) fn check_position(&mut self, host: usize, begins: bool) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        if begins {
            let session = process.session().unwrap_or_default();
            process.track = Some(Track { session, positions: 0 });
            if let Some(&made) = self.sync_outputs.get(&session) {
                self.base_outputs.insert(process.id, made);
            }
        } else if let Some(track) = &mut process.track {
            track.positions += 1;
        }
        let Some(Track { session, positions }) = process.track else {
            return Err(Violation(format!("host {host} follows without a full checkpoint")));
        };
        let digests = self.agreement.sessions.get(&session);
        let primary = digests.and_then(|digests| digests.get(positions)).copied();
        let backup = process.machine.digest();
        require!(
            primary == Some(backup) || process.flipped,
            "host {host} differs from its primary at position {positions} of session {session:016x}"
        );
        Ok(())
    }
}
