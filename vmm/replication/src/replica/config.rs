//! Configuration of a replica.

use super::disk::{DISK_WAIT_MAX, FlushPolicy};
use super::resync::ResyncPace;
use super::segment::EARLY_RELEASE_WINDOW;
use crate::MacAddr;
use crate::announce::AllowedSources;
use crate::boundary::DiskSet;
use crate::hold::HoldLimits;
use crate::mutant::Mutants;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use logchan::channel::{ConfigError, Timing};
use logchan::endpoint::Settings;
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Lane, Role as End, Term, VmId, WitnessId};
use logchan::limits::{CHECKPOINT_PAGES_MAX, ENTRY_BYTES_MAX, delta_cache_pages_max};
use logchan::time::Duration;

/// Frames of a tap are in the network stack of their host when they were flushed; from there to the switch of the
/// LAN they take a few microseconds.
const TAP_DELAY: Duration = Duration::from_micros(500);

/// What a primary does after it has lost its backup and won the claim to continue alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBackupLoss {
    /// The VM continues unprotected, and its output leaves at once.
    Continue,
    /// The VM is paused until a new backup has attached: no output is ever unprotected.
    Block,
}

/// Which log the backup must have acknowledged before an output of a primary leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPolicy {
    /// The log up to the beginning of the output's deterministic segment, if the output is made within the
    /// [early-release window](ReplicaConfig::early_release_window); otherwise as with
    /// [`Strict`](CommitPolicy::Strict).
    Early,
    /// The log up to the output's own entry.
    Strict,
}

/// The role that a host starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No other host takes part.
    Standalone,
    /// Boots the VM, unless a host may be running it.
    Primary,
    /// Boots the VM: the operator says that no host runs it.
    BootAgain,
    /// Waits for a primary.
    Backup,
}

/// Configuration of a replica. All values except `claimant`, `output_commit`, `flush` and
/// `disk_wait_max` must be equal on the two hosts.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The VM.
    pub vm: VmId,
    /// xxh3-64 of the CPU model that the vCPU sees.
    pub cpu_digest: u64,
    /// Level of the CPU model in its name.
    pub cpu_level: u8,
    /// How this host runs a guest. Only the fields that are [compared](logchan::host_profile::Compared) must be equal.
    pub host_profile: HostProfile,
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// Identity of the witness.
    pub witness: WitnessId,
    /// Name under which this process makes its claims; the one value that must differ.
    pub claimant: Claimant,
    /// MAC address of the VM's NIC.
    pub mac: MacAddr,
    /// Source addresses of the guest's frames from which this host learns what to announce.
    pub sources: AllowedSources,
    /// Number of the VM's disks.
    pub disks: usize,
    /// Those that both hosts share: all of them, or none.
    pub shared_disks: DiskSet,
    /// xxh3-64 of size, access and serial number of each disk; 0 if there is none.
    pub disks_digest: u64,
    /// Which flush of a disk an output waits for. The two hosts may differ.
    pub flush: FlushPolicy,
    /// How long a backup waits for its own disk when the log says that a request is done, before it leaves.
    pub disk_wait_max: Duration,
    /// Most bytes a second that this primary sends of its disks to a new backup; `None`: no limit.
    pub disk_copy_per_s: Option<NonZeroU64>,
    /// The newest term that this host had seen at the witness when it judged its disks: it boots the VM only if there is
    /// no newer one. `None` if the VM has no disks.
    pub boot_after: Option<Term>,
    /// Pages of guest memory.
    pub memory_pages: u64,
    /// Capacity of the delta cache, pages; never 0.
    pub delta_cache_pages_max: usize,
    /// Largest frame on the logging channel, bytes: the interface's MTU.
    pub frame_bytes_max: usize,
    /// Send window of each lane, bytes: [`logchan::channel::Config::window_bytes`].
    pub window_bytes: [usize; Lane::ALL.len()],
    /// Bytes of log that the backup may have left to execute before the primary waits for it.
    pub lag_bytes_max: u64,
    /// Silence timeout, lease and heartbeat of the channel.
    pub timing: Timing,
    /// Limits of the hold queue.
    pub hold: HoldLimits,
    /// How long after the start of a deterministic segment (see `segment.rs`) its outputs leave without an
    /// acknowledgement of their own entries.
    pub early_release_window: Duration,
    /// Which log this host waits for, as a primary, before an output leaves. The two hosts may differ: the
    /// replay-out of a host that goes live does not depend on it, because the other host may have released
    /// outputs early.
    pub output_commit: CommitPolicy,
    /// How long after it was given to the tap a frame is on the LAN at the latest. A primary waits for that
    /// before it tells its backup that the VM is handed over.
    pub tap_delay: Duration,
    /// How soon a primary syncs a backup again whose protection did not last.
    pub resync: ResyncPace,
    /// What a primary does without a backup.
    pub on_backup_loss: OnBackupLoss,
    /// Delay before a claim that got no answer is repeated.
    pub witness_retry: Duration,
    /// Interval at which a host asks whether its term is still the newest.
    pub witness_check: Duration,
    /// Planted bugs for tests; none in a release build.
    pub mutants: Mutants,
}

/// Why a configuration was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaConfigError {
    /// The values for the channel.
    #[error(transparent)]
    Channel(#[from] ConfigError),
    /// No memory, or more pages than a checkpoint can carry.
    #[error("guest memory of {0} pages: use 1 to {CHECKPOINT_PAGES_MAX} pages")]
    Memory(u64),
    /// Some disks are shared, and others are not.
    #[error("some disks are shared by the hosts and others are mirrored: use one of the two")]
    MixedDisks,
    /// A lag limit above the log's window, or below one entry. With the latter, the primary could wait for
    /// the backup to execute log that does not reach a position.
    #[error(
        "lag limit of {0} bytes: use at least {ENTRY_BYTES_MAX} bytes and at most the log's window"
    )]
    Lag(u64),
}

impl ReplicaConfig {
    /// Returns a configuration with the defaults.
    pub fn new(vm: VmId, mac: MacAddr, memory_pages: u64) -> ReplicaConfig {
        let settings = Settings::new(End::Primary, vm, Term(0));
        ReplicaConfig {
            vm,
            cpu_digest: 0,
            cpu_level: 0,
            host_profile: HostProfile::UNKNOWN,
            guest_digest: 0,
            witness: WitnessId::default(),
            claimant: Claimant::default(),
            mac,
            sources: AllowedSources::Vm { card: mac, ips: Vec::new() },
            disks: 0,
            shared_disks: DiskSet::NONE,
            disks_digest: 0,
            flush: FlushPolicy::Both,
            disk_copy_per_s: None,
            boot_after: None,
            disk_wait_max: DISK_WAIT_MAX,
            memory_pages,
            delta_cache_pages_max: delta_cache_pages_max(memory_pages),
            frame_bytes_max: settings.frame_bytes_max,
            window_bytes: settings.window_bytes,
            lag_bytes_max: 128 << 10,
            timing: settings.timing,
            hold: HoldLimits::default(),
            early_release_window: EARLY_RELEASE_WINDOW,
            output_commit: CommitPolicy::Early,
            tap_delay: TAP_DELAY,
            resync: ResyncPace::default(),
            on_backup_loss: OnBackupLoss::Continue,
            witness_retry: Duration::from_millis(50),
            witness_check: Duration::from_millis(1000),
            mutants: Mutants::default(),
        }
    }

    /// Checks the values against their bounds and against each other.
    ///
    /// # Errors
    ///
    /// The first condition that does not hold.
    pub fn check(&self) -> Result<(), ReplicaConfigError> {
        self.settings(End::Primary, Term(0)).check()?;
        if !(1..=u64::from(CHECKPOINT_PAGES_MAX)).contains(&self.memory_pages) {
            return Err(ReplicaConfigError::Memory(self.memory_pages));
        }
        if !self.shared_disks.is_empty() && self.shared_disks.len() != self.disks {
            return Err(ReplicaConfigError::MixedDisks);
        }
        let lag = ENTRY_BYTES_MAX as u64..=self.window_bytes[Lane::Latency.index()] as u64;
        if !lag.contains(&self.lag_bytes_max) {
            return Err(ReplicaConfigError::Lag(self.lag_bytes_max));
        }
        Ok(())
    }

    /// Returns the number of disks of which each host has an image of its own.
    pub(super) fn mirrored_disks(&self) -> usize {
        self.disks - self.shared_disks.len()
    }

    /// Returns how long after the start of a segment this host, as a primary, releases outputs early.
    pub(super) fn own_early_release_window(&self) -> Duration {
        match self.output_commit {
            CommitPolicy::Early => self.early_release_window,
            CommitPolicy::Strict => Duration::ZERO,
        }
    }

    /// Returns the endpoint's settings for a host that is `role` in `term`.
    pub(super) fn settings(&self, role: End, term: Term) -> Settings {
        Settings {
            role,
            vm: self.vm,
            term,
            cpu_digest: self.cpu_digest,
            cpu_level: self.cpu_level,
            host_profile: self.host_profile,
            guest_digest: self.guest_digest,
            disks_digest: self.disks_digest,
            witness: self.witness,
            claimant: self.claimant,
            frame_bytes_max: self.frame_bytes_max,
            window_bytes: self.window_bytes,
            timing: self.timing,
            mutants: self.mutants.channel(),
        }
    }
}
