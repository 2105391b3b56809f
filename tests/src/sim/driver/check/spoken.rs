//! Checks who sends for the VM, and that no takeover contradicts what is on the LAN.

use replication::replica::RoleName;
use xxhash_rust::xxh3::xxh3_64;

use crate::sim::driver::state::State;
use crate::sim::system::check::is_primary;
use crate::sim::system::process::ProcessId;
use crate::sim::{Checked, require};

/// The frames of the VM that are on the LAN, by their numbers.
#[derive(Debug, Default)]
pub(in crate::sim::driver) struct Spoken {
    /// A digest of each frame on the LAN. The length is the number of the next frame.
    digests: Vec<Option<u64>>,
    /// The sender of the last frame, and its number.
    last: Option<(ProcessId, u64)>,
}

impl State {
    /// Checks that the process of `host`, a frame of which is on the LAN now, may send for the VM.
    pub(in crate::sim::driver) fn check_speaker(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let (id, term, role) = (process.id, process.term.0, process.role);
        let newest = self.witness.newest();
        require!(
            newest == Some((term, id)),
            "{id:?} on host {host} sends in term {term}, and the newest term is {newest:?}"
        );
        require!(is_primary(role), "host {host} sends for the VM as {role}");
        Ok(())
    }

    /// Checks a frame of the VM that is on the LAN now.
    pub(in crate::sim::driver) fn check_vm_frame(
        &mut self,
        host: usize,
        number: u64,
        frame: &[u8],
    ) -> Checked {
        self.check_required_log(host, number)?;
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let speaker = process.id;
        let next = self.spoken.digests.len() as u64;
        match self.spoken.last {
            Some((last_speaker, last)) if last_speaker == speaker => require!(
                number == last + 1,
                "host {host} sends frame {number} of the VM after frame {last}"
            ),
            // Frames that the old primary had not released when the VM was handed over died with it.
            _ => require!(
                number <= next.max(process.base_outputs),
                "host {host} begins with frame {number} of the VM; frame {next} is missing"
            ),
        }
        let index = number as usize;
        if self.spoken.digests.len() <= index {
            self.spoken.digests.resize(index + 1, None);
        }
        let digest = xxh3_64(frame);
        let said = *self.spoken.digests[index].get_or_insert(digest);
        require!(
            said == digest,
            "host {host} sends a frame {number} of the VM that differs from the one sent before"
        );
        self.spoken.last = Some((speaker, number));
        Ok(())
    }

    /// The machine of `host` goes live.
    pub(in crate::sim::driver) fn goes_live(&mut self, host: usize) {
        if let Some(process) = &mut self.hosts[host].process {
            process.must_reproduce = true;
        }
    }

    /// Records the number of outputs that the VM had made when the process of `host` received it.
    pub(in crate::sim::driver) fn note_base(&mut self, host: usize, made: u64) {
        if let Some(process) = &mut self.hosts[host].process {
            process.base_outputs = made;
        }
    }

    /// The machine of `host` has taken a nondeterministic input, after it made `made` outputs. If it is the first
    /// one after a takeover, the machine must have reproduced all output on the LAN before.
    pub(in crate::sim::driver) fn check_takeover(&mut self, host: usize, made: u64) -> Checked {
        let newest = self.witness.newest().map(|(_, owner)| owner);
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        if !std::mem::take(&mut process.must_reproduce) || newest != Some(process.id) {
            return Ok(());
        }
        let sent = self.spoken.digests.len() as u64;
        require!(
            made >= sent || process.role == RoleName::Halted,
            "host {host} takes an input after {made} frames, and {sent} are on the LAN"
        );
        Ok(())
    }
}
