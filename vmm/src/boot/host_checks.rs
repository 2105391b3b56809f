//! Checks of the host for `doctor` that need no KVM call.
//!
//! Everything is read below one root directory, which is `/` for the running host, so that a test can lay out
//! its own host. The checks open `/dev/kvm` and `/dev/net/tun`, but issue no ioctl, so they change nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Maximum number of bytes read from a file in /proc. `/proc/cpuinfo` of a large host is longer, but the
/// first processor is enough.
const READ_BYTES_MAX: u64 = 64 << 10;
/// Bit of CAP_NET_ADMIN (linux/include/uapi/linux/capability.h): taps, interface set-up.
const CAP_NET_ADMIN: u32 = 12;
/// Bit of CAP_NET_RAW: packet sockets.
const CAP_NET_RAW: u32 = 13;
/// Why a host with [`Host::shadows_page_tables`] is refused. Such a page fault happens where KVM has no shadow page yet,
/// so it is not a function of the guest's state: a replay, which writes checkpoints, has others than the recording.
pub const SHADOW_PAGING: &str = "kvm_intel has ept=0: a page fault that interrupts the delivery of an event sets \
    RFLAGS.RF there, and a replay has other such faults than the recording";
/// What to do about it.
pub const MEND_SHADOW_PAGING: &str = "load it with ept=1 (modprobe -r kvm_intel && modprobe kvm_intel ept=1), or use a processor with EPT";

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As required.
    Ok,
    /// Works with a limitation.
    Warn,
    /// Does not work.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked, in a few words.
    pub name: &'static str,
    /// The verdict.
    pub status: Status,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it. `None` if nothing needs to be done or can be done.
    pub mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), mend: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: &str) -> Self {
        Self { name, status: Status::Warn, found: found.into(), mend: Some(mend.to_owned()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: &str) -> Self {
        Self { name, status: Status::Fail, found: found.into(), mend: Some(mend.to_owned()) }
    }
}

/// A host, seen through its file system.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// Creates a host whose `/sys`, `/proc` and `/dev` are below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Runs all checks, in the order in which problems should be fixed.
    pub fn check_all(&self) -> Vec<Check> {
        vec![
            self.processor(),
            self.kernel(),
            self.kvm_module(),
            self.kvm_device(),
            self.tun_device(),
            self.user(),
            self.net_admin(),
            self.net_raw(),
        ]
    }

    /// Reports the processor's name from `/proc/cpuinfo`.
    pub fn processor(&self) -> Check {
        let name = "processor";
        match self.read("proc/cpuinfo") {
            Ok(text) => match field(&text, "model name") {
                Some(model) => Check::ok(name, model),
                None => Check::warn(name, "/proc/cpuinfo has no model name", "use an x86-64 host"),
            },
            Err(error) => unreadable(name, "/proc/cpuinfo", &error),
        }
    }

    /// Returns the kernel release, for reports. Whether a kernel will do is found by trying the features of
    /// KVM and io_uring, not by its number.
    pub fn kernel(&self) -> Check {
        let name = "kernel";
        match self.read("proc/sys/kernel/osrelease") {
            Ok(text) => Check::ok(name, line(&text)),
            Err(error) => unreadable(name, "/proc/sys/kernel/osrelease", &error),
        }
    }

    /// Reports which module provides `/dev/kvm`. It determines the cost of guest kernel code.
    pub fn kvm_module(&self) -> Check {
        let name = "kvm module";
        let loaded: Vec<&str> = ["kvm_intel", "kvm_amd", "kvm_pvm"]
            .into_iter()
            .filter(|module| self.root.join("sys/module").join(module).is_dir())
            .collect();
        match loaded[..] {
            ["kvm_intel"] if self.shadows_page_tables() => {
                Check::fail(name, SHADOW_PAGING, MEND_SHADOW_PAGING)
            }
            ["kvm_intel"] => Check::ok(name, "kvm_intel (VMX)"),
            ["kvm_amd"] => Check::ok(name, "kvm_amd (SVM)"),
            ["kvm_pvm"] => Check::warn(
                name,
                "kvm_pvm: guest user code runs natively, guest kernel code is emulated",
                "not a problem for correctness; for fast guest kernels use a host with VMX or SVM",
            ),
            [] if self.root.join("dev/kvm").exists() => Check::warn(
                name,
                "none of kvm_intel, kvm_amd, kvm_pvm, though /dev/kvm exists",
                "find out which module it is (lsmod | grep kvm) before relying on this host",
            ),
            [] => Check::fail(
                name,
                "none loaded",
                "load one (modprobe kvm_intel or kvm_amd), with virtualization enabled in the firmware",
            ),
            _ => Check::warn(
                name,
                format!("several: {}", loaded.join(", ")),
                "unload all but one, so that both hosts of a pair use the same one",
            ),
        }
    }

    /// Returns whether kvm_intel runs guests on shadow page tables, because it was told to or the processor has no
    /// EPT. A host without kvm_intel does not.
    pub fn shadows_page_tables(&self) -> bool {
        let ept = self.read("sys/module/kvm_intel/parameters/ept").unwrap_or_default();
        matches!(line(&ept).as_str(), "N" | "0")
    }

    /// Checks that `/dev/kvm` can be opened for reading and writing.
    pub fn kvm_device(&self) -> Check {
        self.device("/dev/kvm", "load a kvm module", "add the user to the group that owns /dev/kvm")
    }

    /// Checks that `/dev/net/tun` can be opened for reading and writing.
    pub fn tun_device(&self) -> Check {
        self.device("/dev/net/tun", "load the module (modprobe tun)", "run as root")
    }

    /// Reports the effective user.
    pub fn user(&self) -> Check {
        let name = "user";
        let status = match self.read("proc/self/status") {
            Ok(text) => text,
            Err(error) => return unreadable(name, "/proc/self/status", &error),
        };
        // Uid: real, effective, saved, file system (proc_pid_status(5)).
        match field(&status, "Uid").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()) {
            Some(0u32) => Check::ok(name, "root"),
            Some(id) => Check::ok(name, format!("user id {id}")),
            None => Check::warn(name, "/proc/self/status has no Uid", "mount /proc"),
        }
    }

    /// Checks for CAP_NET_ADMIN, which is needed to create taps.
    pub fn net_admin(&self) -> Check {
        self.capability("CAP_NET_ADMIN", CAP_NET_ADMIN)
    }

    /// Checks for CAP_NET_RAW, which is needed for the packet sockets of the logging channel.
    pub fn net_raw(&self) -> Check {
        self.capability("CAP_NET_RAW", CAP_NET_RAW)
    }

    fn capability(&self, name: &'static str, bit: u32) -> Check {
        let status = match self.read("proc/self/status") {
            Ok(text) => text,
            Err(error) => return unreadable(name, "/proc/self/status", &error),
        };
        let effective = field(&status, "CapEff").and_then(|set| u64::from_str_radix(set, 16).ok());
        match effective {
            Some(set) if set & (1 << bit) != 0 => Check::ok(name, "held"),
            Some(_) => {
                let mend =
                    format!("run as root, or give the binary {}+ep by setcap", name.to_lowercase());
                Check::fail(name, "not held", &mend)
            }
            None => Check::warn(name, "/proc/self/status has no CapEff", "mount /proc"),
        }
    }

    fn device(&self, path: &'static str, absent: &str, denied: &str) -> Check {
        let real = self.root.join(path.trim_start_matches('/'));
        match OpenOptions::new().read(true).write(true).open(real) {
            Ok(_) => Check::ok(path, "can be opened for reading and writing"),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Check::fail(path, "does not exist", absent),
                io::ErrorKind::PermissionDenied => Check::fail(path, "permission denied", denied),
                _ => Check::fail(path, line(&error.to_string()), absent),
            },
        }
    }

    fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.root.join(path))?.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn unreadable(name: &'static str, path: &str, error: &io::Error) -> Check {
    Check::warn(name, format!("{path}: {}", line(&error.to_string())), "mount /proc")
}

/// Returns the value of `key` in a text with lines of the form `key: value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Returns the first line of `text`, trimmed and escaped for printing.
fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().escape_debug().to_string()
}

#[cfg(test)]
#[path = "host_checks_tests.rs"]
mod tests;
