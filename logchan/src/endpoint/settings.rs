//! What an endpoint must be told.

use crate::channel::{Config, ConfigError, Mutants, Timing};
use crate::handshake::{Identity, PROTOCOL_VERSION, Peer};
use crate::ids::{Claimant, Lane, Role, SessionId, Term, VmId, WitnessId};
use crate::seal::SEAL_OVERHEAD_BYTES;

/// What one host is told of the channel. The VM, the digests and the times must be those of the other
/// host, the role must not; a difference is noticed when the two meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which end this is.
    pub role: Role,
    /// The VM.
    pub vm: VmId,
    /// The term that this host is in; of a backup, the newest that it knows of, 0 for none.
    pub term: Term,
    /// xxh3-64 of the CPU model, as the vCPU sees it.
    pub cpu_digest: u64,
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// The witness of the VM; 0 where there is none.
    pub witness: WitnessId,
    /// The name that this process makes its claims under; 0 where it makes none.
    pub claimant: Claimant,
    /// Bytes that a frame may have, its seal included: the interface's MTU.
    pub frame_bytes_max: usize,
    /// See [`Config::window_bytes`].
    pub window_bytes: [usize; Lane::ALL.len()],
    /// When to send, and when to give up.
    pub timing: Timing,
    /// Bugs planted on purpose; none in what ships.
    pub mutants: Mutants,
}

impl Settings {
    /// Settings with the defaults of [`Config::new`]; the digests are zero, and there is no witness.
    pub fn new(role: Role, vm: VmId, term: Term) -> Settings {
        let Config { frame_bytes_max, window_bytes, timing, mutants, .. } =
            Config::new(vm, SessionId(0), term);
        Settings {
            role,
            vm,
            term,
            cpu_digest: 0,
            guest_digest: 0,
            witness: WitnessId::default(),
            claimant: Claimant::default(),
            frame_bytes_max: frame_bytes_max + SEAL_OVERHEAD_BYTES,
            window_bytes,
            timing,
            mutants,
        }
    }

    /// Whether the values are within their bounds and go together.
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

    /// What the peer is told. The settings are sound.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            protocol_version: PROTOCOL_VERSION,
            role: self.role,
            vm_id: self.vm,
            cpu_digest: self.cpu_digest,
            guest_digest: self.guest_digest,
            term: self.term,
            witness: self.witness,
            claimant: self.claimant,
            timing: self.timing.fingerprint(),
            frame_bytes_max: u16::try_from(self.frame_bytes_max).expect("checked"),
        }
    }

    /// The configuration of a channel with a peer that fits.
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
