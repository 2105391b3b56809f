//! Runs the reference guest under QEMU/KVM, in a namespace with the same tap and addresses as our VM.

use crate::error::BenchError;
use crate::vms::pin;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use testbed::clients::{Limit, first_ping_reply};
use testbed::{GUEST_ADDRESS, Namespace, TAP, TestbedError, VmProcess};
use vmm::devices::DEFAULT_MAC;

/// Bytes of console output or error messages to keep as the reason of a failed boot.
const REASON_BYTES_MAX: usize = 300;

/// Who emulates the 8259 pair, the PIT and the local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Irqchip {
    /// QEMU emulates all of them, as our VMM does.
    Off,
    /// KVM emulates the local APIC, QEMU the rest.
    Split,
    /// KVM emulates all of them.
    On,
}

impl Irqchip {
    /// The value of QEMU's `kernel-irqchip` option.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Irqchip::Off => "off",
            Irqchip::Split => "split",
            Irqchip::On => "on",
        }
    }
}

/// How QEMU runs the guest.
pub(crate) struct Variant {
    /// Who emulates the interrupt controllers.
    pub(crate) irqchip: Irqchip,
    /// The core of all its threads, or all cores.
    pub(crate) core: Option<usize>,
    /// The image of its disk.
    pub(crate) disk: Option<PathBuf>,
}

/// The QEMU program and the guest image it boots.
pub(crate) struct Program {
    path: PathBuf,
    /// First line of the output of `--version`.
    pub(crate) version: String,
    folder: tempfile::TempDir,
}

impl Program {
    /// Finds QEMU at `path` and writes the guest image to a temporary folder.
    pub(crate) fn new(path: &Path) -> Result<Program, BenchError> {
        let output = Command::new(path).arg("--version").output().map_err(|error| {
            BenchError::Wrong(format!(
                "{}: {error} ('apt-get install --no-install-recommends qemu-system-x86' installs \
                 qemu-system-x86_64)",
                path.display()
            ))
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().to_string();
        let folder = tempfile::Builder::new().prefix("understudy-qemu-").tempdir();
        let folder = folder.map_err(BenchError::os("making a temporary folder"))?;
        fs::write(folder.path().join("guest.elf"), vmm::cli::options::reference_guest())
            .map_err(BenchError::os("writing the guest image"))?;
        Ok(Program { path: path.into(), version, folder })
    }

    /// Returns a variant's command line without the program.
    fn arguments(&self, variant: &Variant, console: &Path) -> Vec<String> {
        let image = self.folder.path().join("guest.elf");
        let mut arguments = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-M",
            &format!("pc,accel=kvm,kernel-irqchip={}", variant.irqchip.as_str()),
            // Without KVM's signature, as in our VMM. IA32_ARCH_CAPABILITIES is left out because some
            // hosts (kvm_pvm) report a value that they then refuse.
            "-cpu",
            "host,kvm=off,arch-capabilities=off",
            "-m",
            "64",
            "-kernel",
            &image.display().to_string(),
            "-append",
            "ip=10.77.0.2/24",
            "-serial",
            &format!("file:{}", console.display()),
            "-netdev",
            &format!("tap,id=lan,ifname={TAP},script=no,downscript=no,vhost=off"),
            "-device",
            &format!("virtio-net-pci,netdev=lan,mac={DEFAULT_MAC},romfile="),
            "-device",
            "virtio-rng-pci",
        ]
        .map(String::from)
        .to_vec();
        if let Some(disk) = &variant.disk {
            // Without a lock: our VMM has the same file open, and one VM at a time uses it.
            let file = disk.display().to_string().replace(',', ",,");
            let drive = "if=none,id=disk,format=raw,cache=none,aio=io_uring,file.locking=off";
            arguments.extend(["-drive".into(), format!("file={file},{drive}")]);
            arguments
                .extend(["-device".into(), "virtio-blk-pci,drive=disk,disable-legacy=on".into()]);
        }
        arguments
    }
}

/// A running QEMU; killed on drop.
pub(crate) struct Qemu {
    // Dropped first: the process must end before the namespace it runs in.
    _vm: VmProcess,
    pub(crate) namespace: Namespace,
}

impl Qemu {
    /// Starts QEMU and waits for the guest's first answer. The inner error says why the guest does not boot.
    pub(crate) fn start(
        program: &Program,
        variant: &Variant,
    ) -> Result<Result<Qemu, String>, BenchError> {
        let irqchip = variant.irqchip.as_str();
        let file = |name: &str| program.folder.path().join(format!("{name}-{irqchip}"));
        let (console, errors) = (file("console"), file("errors"));
        let log =
            File::create(&errors).map_err(BenchError::os("creating a file for QEMU's errors"))?;
        let namespace = Namespace::with_tap("qemu")?;
        let started = namespace.enter(|| {
            // A new process inherits its parent's affinity.
            variant.core.map_or(Ok(()), pin)?;
            let mut command = Command::new(&program.path);
            command.args(program.arguments(variant, &console)).stdout(Stdio::null()).stderr(log);
            let start = Instant::now();
            let mut vm = VmProcess::start(&mut command)?;
            match first_ping_reply(&mut vm, GUEST_ADDRESS, start, &Limit::HANG) {
                Ok(_time) => Ok(Ok(vm)),
                Err(TestbedError::Wrong(why)) => Ok(Err(why)),
                Err(error) => Err(BenchError::from(error)),
            }
        })?;
        Ok(match started {
            Ok(vm) => Ok(Qemu { _vm: vm, namespace }),
            Err(why) => Err([why, tail(&errors), tail(&console)]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("; ")),
        })
    }
}

/// Returns the end of a text file as one line; empty if the file cannot be read.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(REASON_BYTES_MAX)..]);
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join(" / ")
}
