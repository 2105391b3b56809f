//! Options of `primary` and `backup`.

use crate::checkpoint::MACHINE_SCHEMA;
use crate::cli::blueprint::Blueprint;
use crate::cli::control::default_socket;
use crate::cli::exit_code::CliError;
use crate::cli::options::VmOptions;
use crate::cli::sandbox::SandboxArgs;
use crate::cli::session;
use crate::cli::witness::WitnessArgs;
use crate::disk::{DiskAccess, DiskInfo, DiskMode, DiskOptions, Disks, KeepState, Writes};
use crate::health::WatchedTap;
use crate::limits::FENCE_SECONDS_MAX;
use crate::link::timing::{SILENCE_MS_DEFAULT, SILENCE_MS_MAX, SILENCE_MS_MIN, timing};
use crate::link::{LinkOptions, OtherAddresses};
use crate::metrics::{MetricsAddress, MetricsListener};
use crate::opener::{self, OpenerConfig};
use crate::pair::ControlServer;
use crate::pair::control_server::Served;
use crate::reservation::{self, Resource};
use crate::stdio;
use crate::supervisor::Supervisor;
use crate::witness::{
    Fence, FenceConfig, KeyFiles, Witness, WitnessProcess, WitnessSetup, WitnessThreads,
};
use clap::{ArgGroup, Args, ValueEnum};
use logchan::claim::ClaimKey;
use logchan::handshake::Security;
use logchan::ids::{Claimant, VmId, WitnessId};
use logchan::limits::DISKS_MAX;
use logchan::time::Duration;
use netpath::{MacAddr, ReceivePath, Uplink, WaitPolicy};
use replication::boundary::DiskSet;
use replication::replica::{
    CommitPolicy, FlushPolicy, OnBackupLoss, ReplicaConfig, SharedUse, Start,
};
use replication::witness::Seen;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use xxhash_rust::xxh3::Xxh3;

/// Time between two looks at whether superblocks are stored.
const KEEP_CHECK: std::time::Duration = std::time::Duration::from_millis(1);

const AFTER_HELP: &str = "\
Run one of each on two hosts, with the same key, VM options and witness:
  understudy key /etc/understudy.key           # once; copy it to the other host
  understudy primary --tap tap0 --interface eth1 --peer 52:54:00:00:00:0b \\
      --key /etc/understudy.key --witness /mnt/shared/understudy
  understudy backup --tap tap0 --interface eth1 --peer 52:54:00:00:00:0a \\
      --key /etc/understudy.key --witness /mnt/shared/understudy

The primary boots the VM. The backup executes the primary's log, and takes over when the primary's
process dies or the primary falls silent. A new backup can be started at any time. SIGTERM or Ctrl-C
ends one side: a primary hands the VM over to its backup if that holds the whole VM, and ends the VM
otherwise. 'understudy stop' ends the VM on both hosts.

Exit codes:
  0   stopped in an orderly way
  2   wrong usage
  3   KVM or the host can't run the VM
  4   the tap or the interface can't be used
  12  key file
  14  the VM runs on the other host, or cannot continue
  18  the image of a disk can't be used, or is not the newest one";

const JSON_HELP: &str = "Print events as JSON on standard output, one object per line";

/// Options of a VM of a pair.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP, mut_arg("json", |arg| arg.help(JSON_HELP)), group(ArgGroup::new("protection").args(["key", "insecure"]).required(true)))]
pub struct PairArgs {
    #[command(flatten)]
    pub(super) vm: VmOptions,
    #[command(flatten)]
    pub(super) sandbox: SandboxArgs,
    /// TOML file with any of these options; the command line overrides it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Network interface of the logging channel
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// MAC address of the other host's interface
    #[arg(long, value_name = "MAC", value_parser = netpath::mac::parse_station)]
    peer: MacAddr,
    /// File with the pre-shared key, made by 'understudy key'
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with a second key, which is accepted, too: while a new key replaces an old one
    #[arg(long, value_name = "FILE", requires = "key")]
    key_next: Option<PathBuf>,
    /// Do not encrypt or authenticate the log: for a private network only
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    witness: WitnessArgs,
    /// Shell command that stops the other host, for example by its power switch: runs before this host takes the VM
    /// over from a host that fell silent. Only if it exits with 0, this host takes over. Required with --disk
    /// FILE,mode=shared
    #[arg(long, value_name = "COMMAND")]
    fence: Option<String>,
    /// Kill the --fence command after this many seconds, and run it again
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=FENCE_SECONDS_MAX))]
    fence_seconds: u64,
    /// Number of the VM; the same on both hosts
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// Take the peer for dead after this many milliseconds of silence; the same on both hosts
    #[arg(long, value_name = "N", default_value_t = SILENCE_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silence_ms: u64,
    /// What to do when the backup is lost
    #[arg(long, value_name = "POLICY", default_value = "continue")]
    on_backup_loss: LossPolicy,
    /// When an output of the VM may leave while this host is the primary
    #[arg(long, value_name = "POLICY", default_value = "early")]
    output_commit: OutputCommit,
    /// Which flush of a disk an output of the VM waits for while this host is the primary
    #[arg(long, value_name = "POLICY", default_value = "both")]
    flush: FlushArg,
    /// Most MiB a second of its disks that this host sends to a new backup while it is the primary [default: no limit]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    copy_rate: Option<u32>,
    /// Start no supervisor: the other host notices the death of this process by its silence only
    #[arg(long)]
    no_supervisor: bool,
    /// Socket for 'understudy status', 'stop' and 'handover' [default: /run/understudy/vm-N.sock]
    #[arg(long, value_name = "PATH")]
    status: Option<PathBuf>,
    /// Serve metrics to Prometheus at http://ADDRESS/metrics: a loopback address with a port, for example
    /// 127.0.0.1:9464, or the path of a socket
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<MetricsAddress>,
    /// IPv4 address on the VM's LAN that this host asks by ARP once a second, through the bridge of the tap: while
    /// it does not answer, the VM can't reach the LAN. Needs a tap on a bridge
    #[arg(long, value_name = "ADDRESS", requires = "tap")]
    probe: Option<Ipv4Addr>,
    /// How long to wait for an output's acknowledgement before the guest continues, microseconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    ack_wait_us: u64,
}

/// Options of `primary`.
#[derive(Args, Clone, Debug)]
pub struct PrimaryArgs {
    #[command(flatten)]
    pub(super) pair: PairArgs,
    /// Boot the VM although the witness has an owner of its newest term: no host runs it any more, for
    /// example because both lost power. A host that still runs it stops it
    #[arg(long)]
    pub(super) boot_again: bool,
}

/// A policy on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LossPolicy {
    /// The VM continues unprotected until a new backup attaches
    Continue,
    /// The VM is paused until a new backup attaches
    Block,
}

/// A policy on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputCommit {
    /// When the backup has acknowledged all log that it needs to compute the output; assumes that no host is
    /// 100 times slower than the other
    Early,
    /// When the backup has acknowledged the output's own log entry; the output is held for longer
    Strict,
}

/// A policy on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FlushArg {
    /// The one on both hosts: what the guest has flushed outlasts the loss of either of them
    Both,
    /// The one on this host; if it is lost, and the other one loses power before its own flush, data that the guest
    /// has flushed are lost
    Local,
}

/// The witness, and who asks it.
pub(super) enum AskedWitness {
    /// This process.
    Here(Box<Witness>, Option<Fence>),
    /// Another one.
    Through(WitnessProcess),
}

impl AskedWitness {
    fn id(&self) -> WitnessId {
        match self {
            Self::Here(witness, _) => witness.id(),
            Self::Through(process) => process.id(),
        }
    }

    pub(super) fn claimant(&self) -> Claimant {
        match self {
            Self::Here(witness, _) => witness.claimant(),
            Self::Through(process) => process.claimant(),
        }
    }

    /// Starts the threads that ask it.
    pub(super) fn start(self) -> Result<WitnessThreads, CliError> {
        let started = match self {
            Self::Here(witness, fence) => WitnessThreads::start(*witness, fence),
            Self::Through(process) => WitnessThreads::through(process),
        };
        started.map_err(|source| CliError::Os { doing: "starting the witness's threads", source })
    }
}

impl PairArgs {
    /// Checks what clap can't check.
    pub(super) fn check(&self) -> Result<(), CliError> {
        self.check_shared_disks()?;
        self.vm.check()
    }

    /// Reserves what only one VM of this host may have, except for its tap and what belongs to that.
    pub(super) fn reserve(&self) -> Result<(), CliError> {
        let interface = self.interface.clone();
        reservation::reserve(Resource::Vm { interface, vm: VmId(self.vm_id) })?;
        Ok(reservation::require_free(&self.control_path())?)
    }

    /// Returns the disks that both hosts share.
    fn shared_disks(&self) -> DiskSet {
        let disks = self.vm.disk.iter().take(DISKS_MAX).enumerate();
        let shared = disks.filter(|(_, options)| options.mode == DiskMode::Shared);
        shared.fold(DiskSet::NONE, |set, (index, _)| set.with(index as u8))
    }

    fn check_shared_disks(&self) -> Result<(), CliError> {
        let shared = self.shared_disks();
        let usage = |what: &str| Err(CliError::Usage(format!("--disk FILE,mode=shared: {what}")));
        if shared.is_empty() {
            return Ok(());
        }
        if shared.len() != self.vm.disk.len() {
            return usage("the VM has another disk that is mirrored: share all of them, or none");
        }
        if self.vm.restore.is_some() {
            return usage(
                "a VM that was saved can't write what its snapshot has into an image that both hosts use",
            );
        }
        let writes = |disk: &DiskOptions| disk.access == DiskAccess::ReadWrite;
        if self.fence.is_none() && self.vm.disk.iter().any(writes) {
            return usage(
                "needs --fence COMMAND: a host that is only taken for lost could write to the image after the other one",
            );
        }
        Ok(())
    }

    fn key_files(&self) -> Option<KeyFiles> {
        Some(KeyFiles { key: self.key.clone()?, next: self.key_next.clone() })
    }

    /// Reads the key, or warns that there is none.
    pub(super) fn security(&self) -> Result<Security, CliError> {
        if self.key.is_none() {
            stdio::warning(
                "understudy: WARNING: --insecure: the log is neither encrypted nor \
                 authenticated; everyone on that network can read and change the VM",
            );
        }
        self.security_in_silence()
    }

    /// Reads the key, and prints no warning.
    pub(super) fn security_in_silence(&self) -> Result<Security, CliError> {
        match self.key_files() {
            Some(files) => Ok(files.read()?),
            None => Ok(Security::Insecure),
        }
    }

    /// Returns whether a file of options was read.
    pub(super) fn has_config(&self) -> bool {
        self.config.is_some()
    }

    /// Opens the witness, with a claimant name that no other run of any process has.
    pub(super) fn witness(&self, security: &Security) -> Result<Witness, CliError> {
        self.witness.open_with_warning(VmId(self.vm_id), ClaimKey::of(security))
    }

    /// Opens the witness for one question, under a name of its own, and prints no warning.
    pub(super) fn witness_for_question(&self) -> Result<Witness, CliError> {
        self.witness.open(VmId(self.vm_id), ClaimKey::of(&self.security_in_silence()?))
    }

    /// Returns what runs before this host takes the VM over.
    pub(super) fn fence(&self) -> Option<Fence> {
        let command = self.fence.clone()?;
        let limit = std::time::Duration::from_secs(self.fence_seconds);
        let (vm, lost_host) = (VmId(self.vm_id), self.peer.to_string());
        Some(Fence::new(FenceConfig { command, limit, vm, lost_host }))
    }

    pub(super) fn wait_policy(&self) -> WaitPolicy {
        let spin = std::time::Duration::from_micros(self.vm.spin_us);
        WaitPolicy { spin, ..WaitPolicy::default() }
    }

    pub(super) fn ack_wait(&self) -> Duration {
        Duration::from_micros(self.ack_wait_us)
    }

    pub(super) fn link_options(&self) -> LinkOptions {
        LinkOptions {
            interface: self.interface.clone(),
            peer: self.peer,
            vm: VmId(self.vm_id),
            wait: self.wait_policy(),
            receive: ReceivePath::Auto,
        }
    }

    /// Returns what to do with frames from another address than `--peer`.
    pub(super) fn other_addresses(&self) -> OtherAddresses {
        if self.insecure { OtherAddresses::Report } else { OtherAddresses::Follow }
    }

    /// Returns what has to be opened again while the VM runs.
    pub(super) fn opener_config(&self) -> OpenerConfig {
        OpenerConfig {
            link: Some(self.link_options().port_config()),
            control: Some(self.control_path()),
            metrics: self.metrics.as_ref().and_then(|address| address.path().map(PathBuf::from)),
            ..session::opener_config(&self.vm)
        }
    }

    fn control_path(&self) -> PathBuf {
        self.status.clone().unwrap_or_else(|| default_socket(self.vm_id))
    }

    /// Opens the witness, which a process of its own asks if there is a sandbox. Returns also the newest claims of the VM,
    /// if it has disks: only they say whether those are the newest.
    pub(super) fn asked_witness(
        &self,
        security: &Security,
    ) -> Result<(AskedWitness, Option<Seen>), CliError> {
        let os = |source| CliError::Os { doing: "starting the witness's process", source };
        let inherited = opener::open_descriptors().map_err(os)?;
        let (witness, fence) = (self.witness(security)?, self.fence());
        let seen = match self.vm.disk.is_empty() {
            true => None,
            false => Some(witness.look().map_err(|error| {
                let source = std::io::Error::other(error);
                CliError::Os { doing: "asking the witness for the VM's newest claims", source }
            })?),
        };
        if !self.sandbox.is_on() {
            return Ok((AskedWitness::Here(Box::new(witness), fence), seen));
        }
        let user = self.sandbox.user();
        let setup = WitnessSetup { witness, fence, user, key_files: self.key_files(), inherited };
        Ok((AskedWitness::Through(WitnessProcess::start(setup).map_err(os)?), seen))
    }

    /// Opens the VM's disks on this host, and returns them when they may be used: by a host that boots the VM, if they are
    /// the newest ones by the claims that it has `seen`. It is durable then that this process uses them.
    pub(super) fn open_disks(
        &self,
        blueprint: &mut Blueprint,
        start: Start,
        (host, seen): (Claimant, Option<Seen>),
    ) -> Result<Disks, CliError> {
        let writes = match (self.shared_disks().is_empty(), start) {
            (true, _) => Writes::Mirrored(VmId(self.vm_id)),
            (false, Start::Backup) => Writes::Shared(SharedUse::Other),
            (false, Start::Standalone | Start::Primary | Start::BootAgain) => {
                Writes::Shared(SharedUse::Own)
            }
        };
        let mut disks = blueprint.pair_disks(&self.vm, writes)?;
        match start {
            Start::Backup => disks.may_receive()?,
            Start::Standalone | Start::Primary | Start::BootAgain => {
                let last = seen.and_then(|seen| seen.last);
                disks.may_boot(last)?;
                blueprint.check_saved_images(&mut disks, &self.vm)?;
                disks.hold(host, last);
            }
        }
        loop {
            match disks.keep_state() {
                KeepState::Done => break,
                KeepState::Failed => return Err(CliError::Superblocks),
                KeepState::Pending => std::thread::sleep(KEEP_CHECK),
            }
        }
        match start {
            // Its disks are copied from the primary.
            Start::Backup => {}
            Start::Standalone | Start::Primary | Start::BootAgain => disks.write_saved()?,
        }
        Ok(disks)
    }

    pub(super) fn replica_config(
        &self,
        (blueprint, disks): (&Blueprint, &Disks),
        (witness, seen): (&AskedWitness, Option<Seen>),
    ) -> ReplicaConfig {
        let pages = blueprint.memory_pages();
        ReplicaConfig {
            sources: self.vm.allowed_sources(blueprint.mac()),
            cpu_digest: blueprint.cpu_model().digest(),
            cpu_level: blueprint.cpu_model().model_name().level(),
            host_profile: blueprint.host_profile(),
            guest_digest: self.vm_digest(blueprint),
            witness: witness.id(),
            claimant: witness.claimant(),
            timing: timing(self.silence_ms),
            on_backup_loss: match self.on_backup_loss {
                LossPolicy::Continue => OnBackupLoss::Continue,
                LossPolicy::Block => OnBackupLoss::Block,
            },
            output_commit: match self.output_commit {
                OutputCommit::Early => CommitPolicy::Early,
                OutputCommit::Strict => CommitPolicy::Strict,
            },
            disks: disks.info().len(),
            shared_disks: self.shared_disks(),
            disks_digest: disks_digest(disks.info(), self.shared_disks()),
            disk_copy_per_s: self.copy_rate.and_then(|mib| NonZeroU64::new(u64::from(mib) << 20)),
            boot_after: seen.map(|seen| seen.newest),
            flush: match self.flush {
                FlushArg::Both => FlushPolicy::Both,
                FlushArg::Local => FlushPolicy::Local,
            },
            ..ReplicaConfig::new(VmId(self.vm_id), blueprint.mac(), pages)
        }
    }

    /// Returns the digest of the guest image and of the machine. The checkpoints of a pair do not have what a machine is
    /// built with: a backup with less memory, another MAC address or without a tap would follow the log, and could
    /// not continue the VM.
    fn vm_digest(&self, blueprint: &Blueprint) -> u64 {
        let mut digest = Xxh3::new();
        digest.update(&blueprint.image_digest().to_le_bytes());
        digest.update(&MACHINE_SCHEMA.to_le_bytes());
        digest.update(&blueprint.memory_bytes().to_le_bytes());
        digest.update(&blueprint.mac().octets());
        digest.update(&[u8::from(self.vm.tap.is_some())]);
        digest.digest()
    }

    /// Starts the supervisor of this process, unless there shall be none.
    pub(super) fn supervisor(&self) -> Supervisor {
        match self.no_supervisor {
            true => Supervisor::none(),
            false => Supervisor::start(&self.interface, (self.peer, VmId(self.vm_id))),
        }
    }

    /// Starts to watch the tap of the VM with the MAC address `vm`. Without it, the VM runs all the same. Must be
    /// called on the vCPU thread.
    pub(super) fn watch_tap(&self, vm: MacAddr) -> Option<WatchedTap> {
        let name = self.vm.tap.as_ref()?;
        match WatchedTap::start(name, vm, self.probe) {
            Ok(tap) => {
                if self.probe.is_some() && tap.watch.health().uplink == Uplink::NoBridge {
                    stdio::warning(format_args!(
                        "understudy: WARNING: --probe: tap {name} is not a port of a bridge: the address \
                         is not asked"
                    ));
                }
                Some(tap)
            }
            Err(error) => {
                stdio::warning(format_args!("understudy: the LAN is not watched: {error}"));
                None
            }
        }
    }

    /// Starts to serve the control socket. Without it, the VM runs all the same.
    pub(super) fn serve_control(&self, served: Served) -> Option<ControlServer> {
        let path = self.control_path();
        match ControlServer::start(&path, served) {
            Ok(server) => Some(server),
            Err(error) => {
                stdio::warning(format_args!(
                    "understudy: can't serve the control socket {}: {error}: choose another with \
                     --status",
                    path.display()
                ));
                None
            }
        }
    }

    /// Opens the socket of the metrics, if they shall be served.
    pub(super) fn metrics_listener(&self) -> Result<Option<MetricsListener>, CliError> {
        Ok(self.metrics.as_ref().map(MetricsListener::open).transpose()?)
    }

    /// Returns the number of the VM.
    pub(super) fn vm_id(&self) -> VmId {
        VmId(self.vm_id)
    }

    /// Returns whether to print results, warnings and errors only.
    pub(super) fn is_quiet(&self) -> bool {
        self.vm.quiet
    }

    /// Returns whether to print events as JSON records.
    pub(super) fn prints_records(&self) -> bool {
        self.vm.json
    }

    /// Prints `text` on standard error, except with `--quiet`.
    pub(super) fn print_info(&self, text: impl FnOnce() -> String) {
        if !self.is_quiet() {
            stdio::message(text());
        }
    }
}

/// Returns the digest of size, access and serial number of each disk, and which are `shared`; 0 if there is none.
fn disks_digest(disks: &[DiskInfo], shared: DiskSet) -> u64 {
    if disks.is_empty() {
        return 0;
    }
    let mut digest = Xxh3::new();
    for &DiskInfo { sectors, read_only, serial } in disks {
        digest.update(&sectors.to_le_bytes());
        digest.update(&[u8::from(read_only)]);
        digest.update(&serial);
    }
    if !shared.is_empty() {
        digest.update(b"shared");
    }
    digest.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_disks_differs_with_size_access_serial_number_and_mode() {
        let disk = DiskInfo { sectors: 8, read_only: false, serial: [0; 20] };
        let mut serial = [0; 20];
        serial[19] = 1;
        let none = DiskSet::NONE;
        let digests = [
            disks_digest(&[], none),
            disks_digest(&[disk], none),
            disks_digest(&[disk], none.with(0)),
            disks_digest(&[disk, disk], none),
            disks_digest(&[DiskInfo { sectors: 9, ..disk }], none),
            disks_digest(&[DiskInfo { read_only: true, ..disk }], none),
            disks_digest(&[DiskInfo { serial, ..disk }], none),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(index));
        }
    }
}
