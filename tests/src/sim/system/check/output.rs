//! Checks the output rule, from the frames on the LAN.

use logchan::ids::Lane;
use replication::replica::{OnBackupLoss, RoleName};
use xxhash_rust::xxh3::xxh3_64;

use crate::sim::system::count::Count;
use crate::sim::system::host::Host;
use crate::sim::system::packet;
use crate::sim::system::pair::{Pair, other};
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::system::sim_disk::SimDisk;
use crate::sim::system::steps::is_logging;
use crate::sim::{Checked, require};

/// The frames of the VM that are on the LAN, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct OutputLedger {
    /// A digest of each frame on the LAN. The length is the number of the next frame.
    digests: Vec<Option<u64>>,
    /// The sender of the last frame, how often it had gone live, and the frame's number.
    last: Option<((ProcessId, u64), u64)>,
}

impl OutputLedger {
    /// One more than the number of the newest frame on the LAN.
    pub(crate) fn next(&self) -> u64 {
        self.digests.len() as u64
    }
}

/// Whether a process in this role is a backup that holds the complete VM and could take over.
pub(crate) fn is_synced_backup(role: RoleName) -> bool {
    match role {
        RoleName::Following | RoleName::Finishing | RoleName::Claiming => true,
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::Protected
        | RoleName::HandingOver
        | RoleName::Losing
        | RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Leaving
        | RoleName::Halted => false,
    }
}

/// Number of bytes of log that a process has received, executed or not.
fn holds(process: &Process) -> u64 {
    let channel = process.replica.channel();
    channel.map_or(0, |channel| {
        channel.consumed(Lane::Latency).0 + channel.received(Lane::Latency).len() as u64
    })
}

impl Pair<'_> {
    /// Checks a frame of the VM that `host` is about to release to its tap.
    pub(crate) fn check_release(&mut self, host: usize, frame: &[u8]) -> Checked {
        let number = packet::number(frame);
        require!(number.is_some(), "host {host} releases a frame that the VM did not send");
        let number = number.unwrap_or_default();
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let role = process.replica.role();
        let unprotected = matches!(role, RoleName::Alone | RoleName::Copying);
        require!(
            !unprotected || self.options.pair.on_backup_loss == OnBackupLoss::Continue,
            "host {host} releases output as {role}, although it must block without a backup"
        );
        let Some((session, position)) = process.required_positions.remove(&number) else {
            return Ok(());
        };
        if process.session() != Some(session) {
            return Ok(());
        }
        if role == RoleName::Protected && !self.options.disk.is_shared {
            self.check_flushed(host, number)?;
        }
        let newest = self.released.entry(session).or_default();
        *newest = (*newest).max(position);
        self.check_holds(other(host))
    }

    /// Checks that the other host has every write that was flushed before the output `number` of `host`.
    fn check_flushed(&mut self, host: usize, number: u64) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let required = process.required_writes.remove(&number).unwrap_or_default();
        let Host { process, disk, .. } = &self.hosts[other(host)];
        let disk = process.as_ref().map(|process| &process.world.disk).or(disk.as_ref());
        let durable = disk.map(SimDisk::durable_writes).unwrap_or_default();
        require!(
            durable.iter().zip(required).all(|(&durable, required)| durable >= required),
            "host {host} releases output {number} after a flush of the writes {required:?}, and the other host's disk has \
             {durable:?}"
        );
        Ok(())
    }

    /// Checks what `host` has begun on the shared disk: the other host must have the log up to each change, if it could take
    /// over, and no request of it may be in flight.
    pub(crate) fn check_shared(&mut self, host: usize) -> Checked {
        loop {
            let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
            let Some(shared) = process.world.disk.shared.clone() else { return Ok(()) };
            let wrong = shared.wrong();
            require!(wrong.is_none(), "host {host}: {}", wrong.unwrap_or_default());
            let Some(number) = shared.begun_change(process.id) else { return Ok(()) };
            let Some((session, position)) = process.required_changes.remove(&number) else {
                continue;
            };
            if process.session() == Some(session) && is_logging(process.replica.role()) {
                self.counts.count(Count::SharedChanges);
                let newest = self.released.entry(session).or_default();
                *newest = (*newest).max(position);
                self.check_holds(other(host))?;
            }
        }
    }

    /// Checks that the guest of `host` has read what it had written.
    pub(crate) fn check_disk(&mut self, host: usize) -> Checked {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let wrong = process.machine.devices.disk.wrong.take();
        let is_flipped = process.flipped || process.broken;
        require!(wrong.is_none() || is_flipped, "host {host}: {}", wrong.unwrap_or_default());
        Ok(())
    }

    /// Checks that `host`, if it could take over, has all log that the released output depends on.
    pub(crate) fn check_holds(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let session = process.session();
        let Some(&released) = session.and_then(|session| self.released.get(&session)) else {
            return Ok(());
        };
        let held = holds(process);
        require!(
            !is_synced_backup(process.replica.role()) || held >= released,
            "host {host} could take over with {held} bytes of log, and released output needs {released}"
        );
        Ok(())
    }

    /// Checks a frame of the VM that `speaker` has put on the LAN.
    pub(crate) fn check_vm_frame(
        &mut self,
        host: usize,
        speaker: ProcessId,
        frame: &[u8],
    ) -> Checked {
        let number = packet::number(frame).unwrap_or_default();
        let digest = xxh3_64(frame);
        let next = self.output.next();
        let index = number as usize;
        let own = self.hosts[host].process.as_ref().filter(|own| own.id == speaker);
        // The process may have died since.
        let of_dead = self.output.last.map_or(0, |((_, takeovers), _)| takeovers);
        let life = (speaker, own.map_or(of_dead, |own| own.takeovers));
        match self.output.last {
            Some((before, last)) if before == life => {
                let own = self.hosts[host].process.as_ref().filter(|own| own.id == speaker);
                let dropped = |number| own.is_none_or(|own| own.dropped.contains(&number));
                require!(
                    number > last && (last + 1..number).all(dropped),
                    "host {host} sends frame {number} of the VM after frame {last}"
                );
            }
            _ => {
                // Frames that the old primary had not released when the VM was handed over may be
                // missing: they died with it.
                let before = self.base_outputs.get(&speaker).copied().unwrap_or(0);
                require!(
                    number <= next.max(before),
                    "host {host} begins with frame {number} of the VM; frame {next} is missing"
                );
            }
        }
        if self.output.digests.len() <= index {
            self.output.digests.resize(index + 1, None);
        }
        let own = self.hosts[host].process.as_ref().filter(|own| own.id == speaker);
        let broken = own.is_none_or(|own| own.broken);
        let said = self.output.digests[index].get_or_insert(digest);
        require!(
            *said == digest || broken,
            "host {host} sends a frame {number} of the VM that differs from the one sent before"
        );
        self.output.last = Some((life, number));
        Ok(())
    }

    /// The live machine of `host` has taken its first nondeterministic input after a takeover. Checks that it
    /// had reproduced all output on the LAN before.
    pub(crate) fn check_takeover(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let (made, sent) = (process.outputs_made(), self.output.next());
        require!(
            made >= sent || process.broken,
            "host {host} takes an input after {made} frames, and {sent} are on the LAN"
        );
        Ok(())
    }
}
