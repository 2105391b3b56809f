//! What a replica is told.

use super::mutant::Mutants;
use super::segment::EARLY_RELEASE_WINDOW;
use logchan::channel::{ConfigError, Timing};
use logchan::endpoint::Settings;
use logchan::ids::{Claimant, Lane, Role as End, Term, VmId, WitnessId};
use logchan::limits::{CHECKPOINT_PAGES_MAX, ENTRY_BYTES_MAX, delta_cache_pages_max};
use logchan::time::Duration;
use netpath::MacAddr;
use netpath::hold::HoldLimits;

/// What a primary does when it has lost its backup, and has won the right to go on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBackupLoss {
    /// The VM runs on, unprotected, and its output leaves at once.
    Continue,
    /// The VM stands still until a new backup has attached: no output is ever unprotected.
    Block,
}

/// Which part a host begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nobody else has anything to do with this VM.
    Standalone,
    /// Boots the VM.
    Primary,
    /// Waits for a primary.
    Backup,
}

/// What a replica is told. But for start and claimant, the two hosts must be told the same.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The VM.
    pub vm: VmId,
    /// xxh3-64 of the CPU model, as the vCPU sees it; for a Linux kernel, with how this host runs it.
    pub cpu_digest: u64,
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// The witness that is asked.
    pub witness: WitnessId,
    /// The name that this process makes its claims under; the one value that must differ.
    pub claimant: Claimant,
    /// The address of the VM's NIC.
    pub mac: MacAddr,
    /// Pages of guest memory.
    pub memory_pages: u64,
    /// Pages of which both hosts keep what the log told last; never 0.
    pub delta_cache_pages_max: usize,
    /// Bytes that a frame on the logging channel may have: the interface's MTU.
    pub frame_bytes_max: usize,
    /// Bytes of log and of pages that may be on their way: [`logchan::channel::Config::window_bytes`].
    pub window_bytes: [usize; Lane::ALL.len()],
    /// Bytes of log that the backup may be behind in executing before the primary waits for it.
    pub lag_bytes_max: u64,
    /// Silence, lease, heartbeat.
    pub timing: Timing,
    /// Output that may wait.
    pub hold: HoldLimits,
    /// How far into a stretch (see `stretch.rs`) outputs leave without an acknowledgement of their own.
    pub early_release_window: Duration,
    /// What to do without a backup.
    pub on_backup_loss: OnBackupLoss,
    /// How long after an answer that was none the witness is asked again.
    pub witness_retry: Duration,
    /// Bugs planted on purpose; none in what ships.
    pub mutants: Mutants,
}

/// Why a replica cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaConfigError {
    /// The channel's part.
    #[error(transparent)]
    Channel(#[from] ConfigError),
    /// No memory, or more than a checkpoint can carry.
    #[error("{0} pages of guest memory, not 1 to {CHECKPOINT_PAGES_MAX}")]
    Memory(u64),
    /// A primary that waits for its backup to execute what does not fill a position.
    #[error(
        "a lag of {0} bytes: at least {ENTRY_BYTES_MAX} are needed, and no more than the log's window"
    )]
    Lag(u64),
}

impl ReplicaConfig {
    /// A configuration with the defaults.
    pub fn new(vm: VmId, mac: MacAddr, memory_pages: u64) -> ReplicaConfig {
        let settings = Settings::new(End::Primary, vm, Term(0));
        ReplicaConfig {
            vm,
            cpu_digest: 0,
            guest_digest: 0,
            witness: WitnessId::default(),
            claimant: Claimant::default(),
            mac,
            memory_pages,
            delta_cache_pages_max: delta_cache_pages_max(memory_pages),
            frame_bytes_max: settings.frame_bytes_max,
            window_bytes: settings.window_bytes,
            lag_bytes_max: 128 << 10,
            timing: settings.timing,
            hold: HoldLimits::default(),
            early_release_window: EARLY_RELEASE_WINDOW,
            on_backup_loss: OnBackupLoss::Continue,
            witness_retry: Duration::from_millis(50),
            mutants: Mutants::default(),
        }
    }

    /// Whether the values are within their bounds and go together.
    ///
    /// # Errors
    ///
    /// The first condition that does not hold.
    pub fn check(&self) -> Result<(), ReplicaConfigError> {
        self.settings(End::Primary, Term(0)).check()?;
        if !(1..=u64::from(CHECKPOINT_PAGES_MAX)).contains(&self.memory_pages) {
            return Err(ReplicaConfigError::Memory(self.memory_pages));
        }
        let lag = ENTRY_BYTES_MAX as u64..=self.window_bytes[Lane::Latency.index()] as u64;
        if !lag.contains(&self.lag_bytes_max) {
            return Err(ReplicaConfigError::Lag(self.lag_bytes_max));
        }
        Ok(())
    }

    /// What the endpoint of this host is told while it is `role` in `term`.
    pub(super) fn settings(&self, role: End, term: Term) -> Settings {
        Settings {
            role,
            vm: self.vm,
            term,
            cpu_digest: self.cpu_digest,
            guest_digest: self.guest_digest,
            witness: self.witness,
            claimant: self.claimant,
            frame_bytes_max: self.frame_bytes_max,
            window_bytes: self.window_bytes,
            timing: self.timing,
            mutants: self.mutants.channel(),
        }
    }
}
