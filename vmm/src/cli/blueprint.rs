//! The blueprint of a machine: the checked guest, the host's KVM and the configuration, from which machines
//! are built.

use super::exit_code::CliError;
use super::options::{VmOptions, reference_guest};
use crate::boot::FILE_BYTES_MAX;
use crate::boot::cpu_model::CpuModel;
use crate::boot::image::GuestImage;
use crate::boot::linux::{KernelInfo, LinuxKernel, PassOptions, PassReport, SEED_BYTES};
use crate::boot::pvh::{self, BootInfo};
use crate::boot::sweep::{self, SweepPolicy};
use crate::checkpoint::{Snapshot, SnapshotError};
use crate::devices::DeviceConfig;
use crate::files::{Access, input};
use crate::kvm::probe::{KernelTraits, kernel_traits};
use crate::kvm::system::DEV_KVM;
use crate::kvm::{System, entropy};
use crate::mem::layout::{MEMORY_MAX, PAGE};
use crate::vcpu::{Machine, MachineConfig};
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
    Linux { kernel: Box<LinuxKernel>, initrd: Option<Vec<u8>>, traits: KernelTraits },
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
    cpu_digest: u64,
    cpu_name: String,
}

/// A machine that is ready to run, and the blueprint that the header of a log is filled from.
pub struct Prepared {
    /// The machine before its first instruction.
    pub machine: Machine,
    /// The blueprint that the machine was built from.
    pub blueprint: Blueprint,
}

/// Builds the machine that `options` describe and loads its guest.
///
/// # Errors
///
/// If the options, the guest or the host do not fit, or if KVM fails.
pub fn prepare(options: &VmOptions) -> Result<Prepared, CliError> {
    let blueprint = Blueprint::new(options)?;
    let machine = blueprint.booted()?;
    Ok(Prepared { machine, blueprint })
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
            devices: DeviceConfig { mac: options.mac.octets() },
        };
        // The image is checked before the host, so that a bad image is reported on any host.
        let image = match (&options.kernel, &options.restore) {
            (None, None) => Some(checked_image(options)?),
            (Some(_), _) | (_, Some(_)) => None,
        };
        let open = |path| open_snapshot(path, options.access());
        let snapshot = options.restore.as_deref().map(open).transpose()?;
        let kernel_file = options.kernel.as_deref().map(read_image_file).transpose()?;
        // An initrd that is larger than guest memory can't be loaded.
        let initrd_bytes_max = config.memory_bytes.min(MEMORY_MAX);
        let read_initrd = |path: &Path| image_file(path, initrd_bytes_max);
        let initrd = options.initrd.as_deref().map(read_initrd).transpose()?;

        let system = System::open(&options.kvm)?;
        config.cpu_model = CpuModel::from_supported(&system.supported_cpuid()?);
        let model = &config.cpu_model;
        let mut cpu = (model.digest(), model.name());
        let guest = match (image, kernel_file, snapshot) {
            (Some(image), _, _) => Guest::Image(Box::new(image)),
            (None, Some(file), _) => {
                let traits = traits_of_host(&system, model)?;
                cpu = (traits.mixed_into(cpu.0), traits.added_to(&cpu.1));
                let path = options.kernel.as_deref().unwrap_or(Path::new(""));
                let kernel = Box::new(kernel(path, &file, options, traits)?);
                Guest::Linux { kernel, initrd, traits }
            }
            (None, None, Some((path, snapshot))) => {
                let theirs =
                    (snapshot.identity().cpu_digest, snapshot.identity().cpu_name.as_str());
                cpu = check_cpu(&system, model, theirs, ("snapshot", &path))?;
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
        let (cpu_digest, cpu_name) = cpu;
        Ok(Blueprint { system, config, guest, command_line, cpu_digest, cpu_name })
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
            Guest::Linux { kernel, initrd, traits } => {
                let mut machine = self.empty()?;
                let mut seed = [0; SEED_BYTES];
                entropy::fill(&mut seed)
                    .map_err(|source| CliError::Os { doing: "getrandom", source })?;
                let (command_line, initrd) = (self.command_line.as_str(), initrd.as_deref());
                kernel.load(machine.ram(), &KernelInfo { command_line, initrd, seed })?;
                machine.start_at(&pvh::linux_state(kernel.entry()))?;
                // Where KVM emulates CPL0 code, an interrupt window at CPL0 is not an exact position.
                machine.set_irq_windows(!traits.emulates_cpl0);
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

    /// Returns the digest of the CPU model. For a Linux kernel it also covers how this host's KVM runs kernel
    /// code, because the kernel was rewritten for that. A machine can continue only on a host with the same
    /// digest.
    pub fn cpu_digest(&self) -> u64 {
        self.cpu_digest
    }

    /// Returns a one-line description of what [`cpu_digest`](Self::cpu_digest) covers.
    pub fn cpu_name(&self) -> &str {
        &self.cpu_name
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

/// Reads the PVH image of `options` and sweeps it for instructions that can't be replayed.
fn checked_image(options: &VmOptions) -> Result<GuestImage, CliError> {
    let image = match &options.guest {
        None => GuestImage::from_bytes("reference guest", reference_guest())?,
        Some(path) => {
            let bytes = read_image_file(path)?;
            GuestImage::from_bytes(&path.display().to_string(), bytes)?
        }
    };
    log_findings(sweep::check(&sweep::sweep(&image), options.forbidden.into())?);
    Ok(image)
}

/// Rewrites the kernel in `file` so that a replay reproduces it on hosts with these traits.
fn kernel(
    path: &Path,
    file: &[u8],
    options: &VmOptions,
    traits: KernelTraits,
) -> Result<LinuxKernel, CliError> {
    let pass = PassOptions {
        syscall_stays_at_cpl3: traits.syscall_stays_at_cpl3,
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

/// Probes how this host's KVM runs kernel code.
///
/// # Errors
///
/// If a KVM call fails. A probe without a result is not an error: the host is then taken for VMX or SVM.
pub fn traits_of_host(system: &System, model: &CpuModel) -> Result<KernelTraits, CliError> {
    let found = kernel_traits(system, model)?;
    Ok(found.unwrap_or_else(|| {
        tracing::warn!("the probe of this host's KVM was inconclusive: assuming VMX or SVM");
        KernelTraits { syscall_stays_at_cpl3: false, emulates_cpl0: false }
    }))
}

/// Checks that machines can start from this snapshot on this host.
///
/// # Errors
///
/// If the snapshot can't be used, is of another CPU model, or KVM can't be opened.
pub fn check_snapshot(path: &Path, access: Access) -> Result<(), CliError> {
    let (path, snapshot) = open_snapshot(path, access)?;
    let system = System::open(DEV_KVM)?;
    let model = CpuModel::from_supported(&system.supported_cpuid()?);
    let theirs = (snapshot.identity().cpu_digest, snapshot.identity().cpu_name.as_str());
    check_cpu(&system, &model, theirs, ("snapshot", &path)).map(drop)
}

fn open_snapshot(path: &Path, access: Access) -> Result<(PathBuf, Snapshot), CliError> {
    match Snapshot::open(path, access) {
        Ok(snapshot) => Ok((path.to_owned(), snapshot)),
        Err(source) => Err(CliError::Snapshot { path: path.to_owned(), source }),
    }
}

/// Checks that this host can run a machine whose CPU has the digest and name `theirs`, read from `file` (kind
/// and path). Returns the digest and a name for it. Probes how KVM runs kernel code only if the plain digest
/// does not match.
///
/// # Errors
///
/// [`CliError::CpuModel`] if this host has another CPU model; also if a KVM call fails.
pub fn check_cpu(
    system: &System,
    model: &CpuModel,
    theirs: (u64, &str),
    file: (&'static str, &Path),
) -> Result<(u64, String), CliError> {
    let plain = (model.digest(), model.name());
    if theirs.0 == plain.0 {
        return Ok(plain);
    }
    let traits = traits_of_host(system, model)?;
    let for_linux = (traits.mixed_into(plain.0), traits.added_to(&plain.1));
    if theirs.0 == for_linux.0 {
        return Ok(for_linux);
    }
    Err(CliError::CpuModel {
        what: file.0,
        path: file.1.to_owned(),
        theirs: format!("{} ({:016x})", theirs.1.escape_debug(), theirs.0),
        ours: format!("{} ({:016x}, for Linux {:016x})", for_linux.1, plain.0, for_linux.0),
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
