//! Settings of an endpoint.

use crate::channel::{Config, ConfigError, Mutants, Timing};
use crate::handshake::{Identity, PROTOCOL_VERSION, Peer};
use crate::host_profile::HostProfile;
use crate::ids::{Claimant, Lane, Role, SessionId, Term, VmId, WitnessId};
use crate::seal::SEAL_OVERHEAD_BYTES;

/// Settings of one host's endpoint. The VM, the digests and the times must equal those of the other
/// host, and the role must differ; the handshake compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Role of this end.
    pub role: Role,
    /// The VM.
    pub vm: VmId,
    /// Term of this host; of a backup, the newest term that it knows, or 0 if it knows none.
    pub term: Term,
    /// xxh3-64 of the CPU model, as the vCPU sees it.
    pub cpu_digest: u64,
    /// Level of the CPU model: see [`Identity::cpu_level`].
    pub cpu_level: u8,
    /// How this host runs a guest.
    pub host_profile: HostProfile,
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// See [`Identity::disks_digest`].
    pub disks_digest: u64,
    /// The witness of the VM, or 0 if there is none.
    pub witness: WitnessId,
    /// Name under which this process makes its claims, or 0 if it makes none.
    pub claimant: Claimant,
    /// Longest frame in bytes, its seal included: the MTU of the interface.
    pub frame_bytes_max: usize,
    /// See [`Config::window_bytes`].
    pub window_bytes: [usize; Lane::ALL.len()],
    /// The times of the channel.
    pub timing: Timing,
    /// Planted bugs, for tests of the simulator; none in production.
    pub mutants: Mutants,
}

impl Settings {
    /// Returns settings with the defaults of [`Config::new`], digests of zero, no host profile, and no witness.
    pub fn new(role: Role, vm: VmId, term: Term) -> Settings {
        let Config { frame_bytes_max, window_bytes, timing, mutants, .. } =
            Config::new(vm, SessionId(0), term);
        Settings {
            role,
            vm,
            term,
            cpu_digest: 0,
            cpu_level: 0,
            host_profile: HostProfile::default(),
            guest_digest: 0,
            disks_digest: 0,
            witness: WitnessId::default(),
            claimant: Claimant::default(),
            frame_bytes_max: frame_bytes_max + SEAL_OVERHEAD_BYTES,
            window_bytes,
            timing,
            mutants,
        }
    }

    /// Checks that the values are within their limits and compatible.
    ///
    /// # Errors
    ///
    /// The first condition that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Settings { vm, term, frame_bytes_max, window_bytes, timing, mutants, .. } = *self;
        let frame_bytes_max = frame_bytes_max.saturating_sub(SEAL_OVERHEAD_BYTES);
        let session = SessionId(0);
        Config { vm, session, term, frame_bytes_max, window_bytes, timing, mutants }.check()
    }

    /// Returns the identity for the handshake. The settings must have been checked.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            protocol_version: PROTOCOL_VERSION,
            role: self.role,
            vm_id: self.vm,
            cpu_digest: self.cpu_digest,
            cpu_level: self.cpu_level,
            host_profile: self.host_profile,
            guest_digest: self.guest_digest,
            disks_digest: self.disks_digest,
            term: self.term,
            witness: self.witness,
            claimant: self.claimant,
            timing: self.timing.fingerprint(),
            frame_bytes_max: u16::try_from(self.frame_bytes_max)
                .expect("the settings were checked"),
        }
    }

    /// Returns the configuration of a channel with a compatible peer.
    pub(super) fn config(&self, peer: &Peer) -> Config {
        let frame_bytes = self.frame_bytes_max.min(peer.identity.frame_bytes_max.into());
        Config {
            vm: self.vm,
            session: peer.session,
            term: self.identity().session_term(&peer.identity),
            frame_bytes_max: frame_bytes - SEAL_OVERHEAD_BYTES,
            window_bytes: self.window_bytes,
            timing: self.timing,
            mutants: self.mutants,
        }
    }
}
