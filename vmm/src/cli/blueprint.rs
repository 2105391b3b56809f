//! The blueprint of a machine: the checked guest, the host's KVM and the configuration, from which machines
//! are built.

use super::exit_code::{CliError, MachineSource};
use super::options::{VmOptions, reference_guest};
use super::session;
use crate::boot::FILE_BYTES_MAX;
use crate::boot::cpu_features::ModelName;
use crate::boot::cpu_model::CpuModel;
use crate::boot::image::GuestImage;
use crate::boot::linux::{KernelInfo, LinuxKernel, PassOptions, PassReport, SEED_BYTES};
use crate::boot::pvh::{self, BootInfo};
use crate::boot::sweep::{self, SweepPolicy};
use crate::checkpoint::{Snapshot, SnapshotError, SnapshotIdentity};
use crate::devices::DeviceConfig;
use crate::disk::{DiskOptions, Disks, Writes};
use crate::files::{Access, input};
use crate::kvm::offered_models::ModelError;
use crate::kvm::profile;
use crate::kvm::system::DEV_KVM;
use crate::kvm::{System, entropy};
use crate::mem::layout::{MEMORY_MAX, PAGE};
use crate::vcpu::{Machine, MachineConfig};
use logchan::host_profile::{Answer, HostProfile};
use logchan::limits::DISKS_MAX;
use netpath::mac::MacAddr;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Default boot command line of a guest that is not a Linux kernel.
const DEFAULT_COMMAND_LINE: &str = "ip=10.77.0.2/24";

/// A guest that was read and checked.
#[derive(Debug)]
enum Guest {
    /// An ELF image with a PVH entry.
    Image(Box<GuestImage>),
    /// A Linux kernel.
    Linux { kernel: Box<LinuxKernel>, initrd: Option<Vec<u8>> },
    /// A machine that was saved by `understudy save`.
    Snapshot { path: PathBuf, snapshot: Box<Snapshot> },
}

/// Everything that a machine is built from, and that the two hosts of a pair must agree on.
#[derive(Debug)]
pub struct Blueprint {
    system: System,
    config: MachineConfig,
    guest: Guest,
    command_line: String,
}

/// A machine that is ready to run, and the blueprint that the header of a log is filled from.
pub struct Prepared {
    /// The machine before its first instruction.
    pub machine: Machine,
    /// The blueprint that the machine was built from.
    pub blueprint: Blueprint,
    /// The machine's disks.
    pub disks: Disks,
}

/// Builds the machine that `options` describe, opens its disks and loads its guest. What the guest of a snapshot writes
/// goes to private files, whatever `writes` says.
///
/// # Errors
///
/// If the options, the guest, the disks or the host do not fit, or if KVM fails.
pub fn prepare(options: &VmOptions, writes: Writes) -> Result<Prepared, CliError> {
    let mut blueprint = Blueprint::new(options)?;
    let disks = match &blueprint.guest {
        Guest::Image(_) | Guest::Linux { .. } => session::open_disks(&options.disk, writes)?,
        Guest::Snapshot { path, snapshot } => {
            let saved = (path.as_path(), &**snapshot);
            let mut disks = session::open_saved_disks(&options.disk, saved, Writes::Overlay)?;
            check_images(&mut disks, options, snapshot)?;
            disks
        }
    };
    blueprint.config.devices.disks = session::disk_configs(&disks);
    let machine = blueprint.booted()?;
    Ok(Prepared { machine, blueprint, disks })
}

/// Checks that the images of the VM in `snapshot` have not changed since.
fn check_images(
    disks: &mut Disks,
    options: &VmOptions,
    snapshot: &Snapshot,
) -> Result<(), CliError> {
    let no_digest = options.no_disk_digest;
    for (index, (options, saved)) in options.disk.iter().zip(snapshot.disks()).enumerate() {
        let Some(theirs) = saved.digest.filter(|_| !no_digest) else { continue };
        let ours = session::image_digest(disks, index, options)?;
        session::check_digests((index, options), ours, theirs, MachineSource::Snapshot)?;
    }
    Ok(())
}

impl Blueprint {
    /// Reads and checks the guest, and checks the host.
    ///
    /// # Errors
    ///
    /// If an option is invalid, a file can't be read or used, or the host does not fit.
    pub fn new(options: &VmOptions) -> Result<Blueprint, CliError> {
        options.check()?;
        let mut config = MachineConfig {
            memory_bytes: options.memory_bytes(),
            cpu_model: CpuModel::from_supported(&[]),
            host_profile: HostProfile::UNKNOWN,
            devices: DeviceConfig { mac: options.mac.octets(), disks: [None; DISKS_MAX] },
        };
        let image = match (&options.kernel, &options.restore) {
            (None, None) => Some(read_image(options)?),
            (Some(_), _) | (_, Some(_)) => None,
        };
        let open = |path| open_snapshot(path, options.access());
        let snapshot = options.restore.as_deref().map(open).transpose()?;
        let kernel_file = options.kernel.as_deref().map(read_image_file).transpose()?;
        // An initrd that is larger than guest memory can't be loaded.
        let initrd_bytes_max = config.memory_bytes.min(MEMORY_MAX);
        let read_initrd = |path: &Path| image_file(path, initrd_bytes_max);
        let initrd = options.initrd.as_deref().map(read_initrd).transpose()?;

        // A bad image is reported on any host.
        let policy = SweepPolicy::from(options.forbidden);
        let chosen = options.cpu_model.unwrap_or_default();
        let sweep = image.as_ref().map(|image| sweep::sweep(image, chosen));
        let system = match (open_host(options, snapshot.as_ref()), &sweep) {
            (Ok((system, model, profile)), _) => {
                (config.cpu_model, config.host_profile) = (model, profile);
                system
            }
            (Err(error), Some(report)) => {
                sweep::check(report, policy)?;
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        };
        if let Some(report) = sweep {
            log_findings(sweep::check(&report.on_host(&config.host_profile), policy)?);
        }
        let guest = match (image, kernel_file, snapshot) {
            (Some(image), _, _) => Guest::Image(Box::new(image)),
            (None, Some(file), _) => {
                let path = options.kernel.as_deref().unwrap_or(Path::new(""));
                let kernel = Box::new(kernel(path, &file, options, &config.host_profile)?);
                Guest::Linux { kernel, initrd }
            }
            (None, None, Some((path, snapshot))) => {
                session::check_disk_count(&options.disk, &path, snapshot.disks())?;
                config.memory_bytes = snapshot.memory_bytes();
                config.devices.mac = snapshot.identity().nic_mac;
                Guest::Snapshot { path, snapshot: Box::new(snapshot) }
            }
            (None, None, None) => unreachable!("a guest is an image, a kernel or a snapshot"),
        };
        let command_line = match (&options.command_line, &guest) {
            (Some(line), _) => line.clone(),
            (None, Guest::Image(_)) => DEFAULT_COMMAND_LINE.to_owned(),
            (None, Guest::Linux { .. } | Guest::Snapshot { .. }) => String::new(),
        };
        Ok(Blueprint { system, config, guest, command_line })
    }

    /// Opens the disks of a VM that runs on two hosts, and gives them to its machines. Those of a VM that was saved are
    /// as the guest has left them after [`Disks::write_saved`].
    ///
    /// # Errors
    ///
    /// If an image can't be used.
    pub fn pair_disks(&mut self, options: &VmOptions, writes: Writes) -> Result<Disks, CliError> {
        let disks = match &self.guest {
            Guest::Image(_) | Guest::Linux { .. } => session::open_disks(&options.disk, writes)?,
            Guest::Snapshot { path, snapshot } => {
                session::open_saved_disks(&options.disk, (path, snapshot), writes)?
            }
        };
        self.config.devices.disks = session::disk_configs(&disks);
        Ok(disks)
    }

    /// Checks that the images of a host that boots the VM are those with which it was saved, if it was.
    ///
    /// # Errors
    ///
    /// If one has changed, or can't be read.
    pub fn check_saved_images(
        &self,
        disks: &mut Disks,
        options: &VmOptions,
    ) -> Result<(), CliError> {
        match &self.guest {
            Guest::Image(_) | Guest::Linux { .. } => Ok(()),
            Guest::Snapshot { snapshot, .. } => check_images(disks, options, snapshot),
        }
    }

    /// Creates a machine with empty memory, to which a checkpoint is then applied.
    ///
    /// # Errors
    ///
    /// If memory can't be allocated or KVM fails.
    pub fn empty(&self) -> Result<Machine, CliError> {
        Ok(Machine::new(&self.system, &self.config)?)
    }

    /// Creates a machine at its guest's first instruction, or in the state in which it was saved.
    ///
    /// # Errors
    ///
    /// If the guest can't be loaded or restored, or KVM fails.
    pub fn booted(&self) -> Result<Machine, CliError> {
        match &self.guest {
            Guest::Image(image) => {
                let mut machine = self.empty()?;
                let entry = image.load(machine.ram())?;
                let info = BootInfo { command_line: &self.command_line, initrd: None };
                pvh::write_boot_info(machine.ram(), entry, &info)?;
                machine.start_at(&pvh::initial_state(entry.pvh_entry))?;
                Ok(machine)
            }
            Guest::Linux { kernel, initrd } => {
                let mut machine = self.empty()?;
                let mut seed = [0; SEED_BYTES];
                entropy::fill(&mut seed)
                    .map_err(|source| CliError::Os { doing: "getrandom", source })?;
                let (command_line, initrd) = (self.command_line.as_str(), initrd.as_deref());
                let cpu_model = self.cpu_model().model_name();
                kernel
                    .load(machine.ram(), &KernelInfo { cpu_model, command_line, initrd, seed })?;
                machine.start_at(&pvh::linux_state(kernel.entry()))?;
                // Where KVM emulates CPL0 code, an interrupt window at CPL0 is not an exact position.
                let emulates = self.config.host_profile.emulates_kernel_code == Answer::Yes;
                machine.set_irq_windows(!emulates);
                Ok(machine)
            }
            Guest::Snapshot { path, snapshot } => {
                let failed =
                    |source: SnapshotError| CliError::Snapshot { path: path.clone(), source };
                let ram = snapshot.load_memory().map_err(failed)?;
                let mut machine = Machine::with_ram(&self.system, &self.config, &ram, false)?;
                snapshot.restore(&mut machine).map_err(|error| failed(error.into()))?;
                Ok(machine)
            }
        }
    }

    /// Returns the CPU model. A machine can continue only on a host with the same model.
    pub fn cpu_model(&self) -> &CpuModel {
        &self.config.cpu_model
    }

    /// Returns how this host runs the guest. A machine can continue only on a host without
    /// [differences](HostProfile::difference) to it.
    pub fn host_profile(&self) -> HostProfile {
        self.config.host_profile
    }

    /// Returns the xxh3-64 digest of the image, of kernel, initrd and command line, or of the snapshot.
    pub fn image_digest(&self) -> u64 {
        match &self.guest {
            Guest::Image(image) => image.digest(),
            Guest::Linux { kernel, initrd, .. } => {
                let initrd = initrd.as_deref().map_or(0, xxh3_64);
                let line = xxh3_64(self.command_line.as_bytes());
                let parts = [kernel.digest(), initrd, line];
                xxh3_64(&parts.map(u64::to_le_bytes).concat())
            }
            Guest::Snapshot { snapshot, .. } => snapshot.digest(),
        }
    }

    /// Returns the guest's name.
    pub fn guest_name(&self) -> &str {
        match &self.guest {
            Guest::Image(image) => image.name(),
            Guest::Linux { kernel, .. } => kernel.name(),
            Guest::Snapshot { snapshot, .. } => &snapshot.identity().guest_name,
        }
    }

    /// Returns the MAC address of the NIC.
    pub fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, f] = self.config.devices.mac;
        MacAddr(a, b, c, d, e, f)
    }

    /// Returns the size of guest memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.config.memory_bytes
    }

    /// Returns the number of pages of guest memory.
    pub fn memory_pages(&self) -> u64 {
        self.config.memory_bytes / PAGE
    }

    /// Returns the guest time at which the guest starts, in nanoseconds.
    pub fn start_ns(&self) -> u64 {
        match &self.guest {
            Guest::Image(_) | Guest::Linux { .. } => 0,
            Guest::Snapshot { snapshot, .. } => snapshot.now_ns(),
        }
    }
}

/// Reads the PVH image of `options`.
fn read_image(options: &VmOptions) -> Result<GuestImage, CliError> {
    Ok(match &options.guest {
        None => GuestImage::from_bytes("reference guest", reference_guest())?,
        Some(path) => {
            let bytes = read_image_file(path)?;
            GuestImage::from_bytes(&path.display().to_string(), bytes)?
        }
    })
}

/// Rewrites the kernel in `file` so that a replay reproduces it on hosts with this profile.
fn kernel(
    path: &Path,
    file: &[u8],
    options: &VmOptions,
    profile: &HostProfile,
) -> Result<LinuxKernel, CliError> {
    let pass = PassOptions {
        syscall_stays_at_cpl3: profile.syscall_stays_at_cpl3 == Answer::Yes,
        shortcuts: options.kernel_shortcuts,
        tolerate: SweepPolicy::from(options.forbidden) == SweepPolicy::Warn,
    };
    let kernel = LinuxKernel::from_bytes(&path.display().to_string(), file, &pass)?;
    let PassReport { lacking, sweep, .. } = kernel.report();
    for line in lacking {
        tracing::warn!("{line}");
    }
    // Every distribution kernel has some of these; `understudy inspect` lists them.
    let (warned, noted) = (sweep.warned, sweep.noted);
    tracing::info!(
        "kernel: {warned} doubtful instructions, {noted} notes; see 'understudy inspect'"
    );
    Ok(kernel)
}

/// Probes how this host runs a guest with the CPU model `model`.
///
/// # Errors
///
/// If a KVM call fails. An inconclusive probe is not an error: nothing is known about this field then.
pub fn host_profile(system: &System, model: &CpuModel) -> Result<HostProfile, CliError> {
    let profile = profile::probe(system, model)?;
    if profile.emulates_kernel_code == Answer::Unknown {
        tracing::warn!("the probe of this host's KVM was inconclusive: assuming VMX or SVM");
    }
    Ok(profile)
}

/// Checks that machines can start from this snapshot on this host with these disks, and with the CPU model `chosen` if
/// there is one.
///
/// # Errors
///
/// If the snapshot can't be used, has another number of disks, is of another CPU model, or KVM can't be opened.
pub fn check_snapshot(
    (path, disks): (&Path, &[DiskOptions]),
    access: Access,
    chosen: Option<ModelName>,
) -> Result<(), CliError> {
    let (path, snapshot) = open_snapshot(path, access)?;
    session::check_disk_count(disks, &path, snapshot.disks())?;
    let system = System::open(DEV_KVM)?;
    matching_snapshot(&system, (&path, &snapshot), chosen).map(drop)
}

/// Opens KVM, and returns the CPU model, which is that of the snapshot if there is one, and the host profile.
fn open_host(
    options: &VmOptions,
    snapshot: Option<&(PathBuf, Snapshot)>,
) -> Result<(System, CpuModel, HostProfile), CliError> {
    let system = System::open(&options.kvm)?;
    let (model, profile) = match snapshot {
        Some((path, snapshot)) => matching_snapshot(&system, (path, snapshot), options.cpu_model)?,
        None => {
            let model = system.cpu_model(options.cpu_model.unwrap_or_default())?;
            let profile = host_profile(&system, &model)?;
            (model, profile)
        }
    };
    Ok((system, model, profile))
}

/// Returns the CPU model of the snapshot, which must be `chosen` if there is a choice, and the host profile.
fn matching_snapshot(
    system: &System,
    (path, snapshot): (&Path, &Snapshot),
    chosen: Option<ModelName>,
) -> Result<(CpuModel, HostProfile), CliError> {
    let SnapshotIdentity { cpu_digest, cpu_name, host_profile, .. } = snapshot.identity();
    let theirs = MadeOn { cpu_digest: *cpu_digest, cpu_name, host_profile: *host_profile };
    let (model, profile) = matching_host(system, &theirs, ("snapshot", path))?;
    match chosen.filter(|chosen| *chosen != model.model_name()) {
        Some(chosen) => {
            Err(CliError::OtherModel { path: path.to_owned(), theirs: model.model_name(), chosen })
        }
        None => Ok((model, profile)),
    }
}

fn open_snapshot(path: &Path, access: Access) -> Result<(PathBuf, Snapshot), CliError> {
    match Snapshot::open(path, access) {
        Ok(snapshot) => Ok((path.to_owned(), snapshot)),
        Err(source) => Err(CliError::Snapshot { path: path.to_owned(), source }),
    }
}

/// What a log or a snapshot says about the host that it was made on.
#[derive(Clone, Copy, Debug)]
pub struct MadeOn<'a> {
    /// Digest of the CPU model.
    pub cpu_digest: u64,
    /// Name of the CPU model.
    pub cpu_name: &'a str,
    /// How that host ran the guest.
    pub host_profile: HostProfile,
}

/// Finds the CPU model of this host that the machine in `file` (kind and path) has, and probes the host with it.
///
/// # Errors
///
/// [`CliError::CpuModel`] if this host offers no such CPU model, [`CliError::HostProfile`] if it is of another kind;
/// also if a KVM call fails.
pub fn matching_host(
    system: &System,
    theirs: &MadeOn<'_>,
    (what, path): (&'static str, &Path),
) -> Result<(CpuModel, HostProfile), CliError> {
    let mut offered = Vec::new();
    for name in ModelName::ALL {
        let model = match system.cpu_model(name) {
            Ok(model) => model,
            Err(ModelError::NotOffered { .. }) => continue,
            Err(error @ (ModelError::Kvm(_) | ModelError::Memory(_))) => return Err(error.into()),
        };
        if theirs.cpu_digest != model.digest() {
            offered.push(format!("{} ({:016x})", model.name(), model.digest()));
            continue;
        }
        let profile = host_profile(system, &model)?;
        return match profile.difference(&theirs.host_profile) {
            Some(difference) => {
                Err(CliError::HostProfile { what, path: path.to_owned(), difference })
            }
            None => Ok((model, profile)),
        };
    }
    Err(CliError::CpuModel {
        what,
        path: path.to_owned(),
        theirs: format!("{} ({:016x})", theirs.cpu_name.escape_debug(), theirs.cpu_digest),
        ours: offered.join(" and "),
    })
}

/// Reads an image or a kernel of at most `FILE_BYTES_MAX` bytes.
///
/// # Errors
///
/// If the file can't be read or is too large.
pub fn read_image_file(path: &Path) -> Result<Vec<u8>, CliError> {
    image_file(path, FILE_BYTES_MAX as u64)
}

fn image_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CliError> {
    input::read(path, bytes_max)
        .map_err(|source| CliError::ImageFile { path: path.to_owned(), source })
}

/// Logs the findings of a sweep: notes as information, everything else as warnings.
fn log_findings(lines: Vec<String>) {
    for line in lines {
        if line.starts_with("note") {
            tracing::info!("{line}");
        } else {
            tracing::warn!("{line}");
        }
    }
}
