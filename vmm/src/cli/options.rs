//! Options that describe a VM and how it runs, shared by `run`, `record`, `save`, `primary` and `backup`.

use super::exit_code::CliError;
use super::session::RunOptions;
use crate::boot::cpu_features::ModelName;
use crate::boot::sweep::SweepPolicy;
use crate::devices::DEFAULT_MAC;
use crate::disk::DiskOptions;
use crate::files::Access;
use crate::limits::TRACE_MAX;
use crate::replay::rate_limit::Rates;
use crate::sandbox::Task;
use crate::telemetry::trace::Trace;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use netpath::mac::MacAddr;
use replication::AllowedSources;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// ELF file of the reference guest, which is built together with this program.
const REFERENCE_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Returns the ELF file of the reference guest.
pub fn reference_guest() -> &'static [u8] {
    REFERENCE_GUEST
}

/// Options of a VM.
#[derive(Args, Clone, Debug)]
pub struct VmOptions {
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub memory: u64,
    /// Number of vCPUs; only 1 is supported, because the order of memory accesses of several is not
    /// replayable
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,
    /// Guest image to boot, an ELF64 file with a PVH entry note [default: the built-in reference guest]
    #[arg(long, value_name = "FILE")]
    pub guest: Option<PathBuf>,
    /// Linux kernel to boot (bzImage, such as a distribution's vmlinuz)
    #[arg(long, value_name = "FILE", conflicts_with = "guest")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM file system for the kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Skip start-up work of the kernel (tracing, BTF, its own patching) that takes a minute where KVM
    /// emulates kernel code; not useful on other hosts
    #[arg(long, requires = "kernel")]
    pub kernel_shortcuts: bool,
    /// Snapshot to start from, made by 'understudy save'; it determines memory size, MAC address and command
    /// line. If its VM has disks, name their images with --disk, in the same order; what the guest writes is gone at
    /// the end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "kernel", "memory", "mac", "command_line", "forbidden"])]
    pub restore: Option<PathBuf>,
    /// CPU model that the guest sees, by the level of x86-64 (psABI); both hosts of a pair need the same one, and
    /// 'understudy doctor' lists what this host offers [default: v1, or that of the snapshot]
    #[arg(long, value_name = "NAME")]
    pub cpu_model: Option<ModelName>,
    /// What to do if the image has instructions whose results a replay can't reproduce
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    pub forbidden: ForbiddenPolicy,
    /// Boot command line; for a kernel it is appended to the parameters that this machine needs; the
    /// reference guest reads ip= and gw= from it [default for the reference guest: ip=10.77.0.2/24]
    #[arg(long, value_name = "TEXT", visible_alias = "cmdline")]
    pub command_line: Option<String>,
    /// Disk of the VM, up to four: an image, or a block device; with ',readonly', ',format=raw' or ',format=qcow2',
    /// ',serial=TEXT' and ',id=NAME' behind it; for 'primary' and 'backup' also ',mode=shared', ',state=FILE' and
    /// ',accept' (see docs/disks.md)
    #[arg(long, value_name = "FILE[,OPTION]...")]
    pub disk: Vec<DiskOptions>,
    /// Do not compute the digests of the disks' images, which reads them completely: an image that is not the one of a
    /// log or snapshot is then found only when the guest reads what differs, or not at all
    #[arg(long)]
    pub no_disk_digest: bool,
    /// Tap device to connect the VM's NIC to; without it the NIC is not connected
    #[arg(long, value_name = "NAME")]
    pub tap: Option<String>,
    /// MAC address of the VM's NIC
    #[arg(long, value_name = "MAC", default_value_t = DEFAULT_MAC, value_parser = netpath::mac::parse_station)]
    pub mac: MacAddr,
    /// IP addresses of the VM, separated by commas: frames from other addresses are dropped, and only these are
    /// announced when this host goes live; IPv6 link-local addresses are always allowed [default: every IP address]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub ip: Vec<IpAddr>,
    /// Let the guest send from every MAC and IP address, as a bridge does; without this, frames from other MAC
    /// addresses than the NIC's are dropped
    #[arg(long, conflicts_with = "ip")]
    pub any_source: bool,
    /// Write every frame of the VM's NIC to this pcap file
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Print a line for every frame of the VM's NIC
    #[arg(long)]
    pub trace_frames: bool,
    /// When the VM stops, write the times of each traced frame to this file, as JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "no_stages")]
    pub trace_stages: Option<PathBuf>,
    /// Do not measure how long frames take through each stage of the machine
    #[arg(long)]
    pub no_stages: bool,
    /// Most entropy that the guest gets, bytes a second; beyond it, one byte for each request. 0: no limit
    #[arg(long, value_name = "BYTES", default_value_t = Rates::default().entropy_bytes)]
    pub limit_rng: u64,
    /// Most frames that enter the guest, a second; those beyond it are dropped. 0: no limit
    #[arg(long, value_name = "FRAMES", default_value_t = Rates::default().frames)]
    pub limit_tap: u64,
    /// Most console output that is shown, bytes a second; what is beyond it is dropped. 0: no limit
    #[arg(long, value_name = "BYTES", default_value_t = Rates::default().console_bytes)]
    pub limit_console: u64,
    /// How long an input may wait for an exit of the guest before the guest is stopped, microseconds. It is
    /// longer where stops are slow, so that they take at most a fifth of the time
    #[arg(long, value_name = "US", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub deadline_us: u64,
    /// How long a halted VM polls for its next frame before it blocks, microseconds
    #[arg(long, value_name = "US", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub spin_us: u64,
    /// Core to pin the vCPU to
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Stop after this many seconds: of the guest's run, or of a pair's host
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Connect standard input to the VM's serial console, and show its output with all control sequences;
    /// without this, control bytes are shown as numbers (\x1b)
    #[arg(long)]
    pub stdin: bool,
    /// Print only results and errors; do not show the VM's console
    #[arg(long, short)]
    pub quiet: bool,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Start from a snapshot that other users can read or change, and let the umask decide who can read the files
    /// that are made; without this, snapshots, logs and captures are for their owner alone
    #[arg(long)]
    pub shared_files: bool,
    /// KVM device node
    #[arg(long, value_name = "PATH", default_value = crate::kvm::system::DEV_KVM, hide = true)]
    pub kvm: String,
}

impl ValueEnum for ModelName {
    fn value_variants<'a>() -> &'a [ModelName] {
        &ModelName::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            ModelName::V1 => "The x86-64 baseline",
            ModelName::V2 => "v1 with SSE3 to SSE4.2, POPCNT and CMPXCHG16B",
            ModelName::V3 => "v2 with AVX, AVX2, FMA, F16C, BMI, LZCNT, MOVBE and XSAVE",
        };
        Some(PossibleValue::new(self.as_str()).help(help))
    }
}

/// How to treat forbidden instructions in a guest image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ForbiddenPolicy {
    /// Do not run the image
    Refuse,
    /// Run the image and print a warning for each instruction; a replay may diverge
    Warn,
}

impl From<ForbiddenPolicy> for SweepPolicy {
    fn from(policy: ForbiddenPolicy) -> Self {
        match policy {
            ForbiddenPolicy::Refuse => SweepPolicy::Refuse,
            ForbiddenPolicy::Warn => SweepPolicy::Warn,
        }
    }
}

impl VmOptions {
    /// Checks the options that clap can't check.
    ///
    /// # Errors
    ///
    /// [`CliError::Usage`] if an option has an invalid value.
    pub fn check(&self) -> Result<(), CliError> {
        if self.vcpus != 1 {
            return Err(CliError::Usage(format!(
                "--vcpus {}: only one vCPU is supported, because the order in which several cores \
                 touch memory is not replayable",
                self.vcpus
            )));
        }
        check_core(self.core)?;
        self.seconds.map_or(Ok(()), |seconds| check_seconds("--for", seconds))
    }

    /// Returns the size of guest memory in bytes. A size that overflows saturates, and is refused later.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.saturating_mul(1 << 20)
    }

    /// Returns who may use the snapshot, and the files that are made.
    pub(super) fn access(&self) -> Access {
        Access::from_flag(self.shared_files)
    }

    /// Returns the source addresses that the guest may use, if its NIC has the address `mac`.
    pub(super) fn allowed_sources(&self, mac: MacAddr) -> AllowedSources {
        match self.any_source {
            true => AllowedSources::Any,
            false => AllowedSources::Vm { card: mac, ips: self.ip.clone() },
        }
    }

    /// Returns an empty trace if `--trace-stages` is given.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.trace_stages.as_ref().map(|_| Trace::new(TRACE_MAX))
    }

    /// Returns how a VM with these options runs; the vCPU thread has `task` in the sandbox.
    pub fn running(&self, task: Task) -> RunOptions {
        let limit = self.seconds.map(Duration::from_secs_f64);
        RunOptions { core: self.core, limit, task }
    }

    /// Returns how fast the guest may take entropy, receive frames and write to its console.
    pub fn rates(&self) -> Rates {
        Rates {
            entropy_bytes: self.limit_rng,
            frames: self.limit_tap,
            console_bytes: self.limit_console,
        }
    }

    /// Returns how long an input may be pending before the guest is interrupted.
    pub fn deadline(&self) -> Duration {
        Duration::from_micros(self.deadline_us)
    }
}

/// Checks the number of seconds that was given with `option`.
pub(super) fn check_seconds(option: &str, seconds: f64) -> Result<(), CliError> {
    if seconds > 0.0 && seconds < 1e9 {
        return Ok(());
    }
    Err(CliError::Usage(format!("{option} {seconds}: give a positive number")))
}

/// Checks that this process may run on the core given with `--core`.
pub(super) fn check_core(core: Option<usize>) -> Result<(), CliError> {
    match core {
        Some(core) if !core_exists(core) => Err(CliError::Usage(format!(
            "--core {core}: no such core, or this process may not run on it"
        ))),
        Some(_) | None => Ok(()),
    }
}

fn core_exists(core: usize) -> bool {
    nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .and_then(|set| set.is_set(core))
        .unwrap_or(false)
}
