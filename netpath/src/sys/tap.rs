//! Opens a tap (Documentation/networking/tuntap.rst), with a distinct error for each kind of failure.
//! The system calls are in `ioctl.rs`; this file has no unsafe code.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::ioctl::{self, InterfaceName};
use crate::error::PortError;
use crate::mac::MacAddr;

/// How long to retry when a tap is busy. The kernel closes an io_uring asynchronously, which keeps the
/// tap attached to its previous owner for some tens of milliseconds (28-63 measured).
pub(crate) const BUSY_RETRY_MAX: Duration = Duration::from_millis(500);
const BUSY_RETRY_EVERY: Duration = Duration::from_millis(2);

/// An attached tap: one frame per read and write, no packet information header.
pub(crate) struct Tap {
    tun: File,
    /// Socket for interface requests, in the namespace that the tap was opened in.
    control: OwnedFd,
    name: InterfaceName,
    text: String,
}

/// The open files of a tap: all of it that needs a permission, and nothing that belongs to one process. They can be
/// passed to another one.
#[derive(Debug)]
pub struct TapFiles {
    /// The attached tap.
    pub tun: OwnedFd,
    /// Socket for interface requests.
    pub control: OwnedFd,
}

/// Checks that the tun driver is present, may be opened and supports taps.
///
/// # Errors
///
/// [`PortError::TunMissing`], [`PortError::TunPermission`], or [`PortError::System`] if a system call
/// fails.
pub fn probe_tun() -> Result<(), PortError> {
    let tun = open_tun()?;
    let features = ioctl::tun_features(tun.as_fd())
        .map_err(PortError::system("cannot read the features of /dev/net/tun"))?;
    if features & libc::IFF_TAP as u32 == 0 { Err(PortError::TunMissing) } else { Ok(()) }
}

fn open_tun() -> Result<File, PortError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|e| match e.raw_os_error() {
            // ENODEV and ENXIO: the device node exists, but the module is not loaded.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ENXIO) => {
                PortError::TunMissing
            }
            Some(libc::EACCES | libc::EPERM) => PortError::TunPermission,
            _ => PortError::System { doing: "cannot open /dev/net/tun", source: e },
        })
}

impl Tap {
    /// Attaches to tap `name` in the calling thread's network namespace. With `create`, creates the tap if
    /// it does not exist; such a tap vanishes when it is dropped.
    pub(crate) fn open(name: &str, create: bool) -> Result<Tap, PortError> {
        let text = name.to_string();
        let name = InterfaceName::new(name)?;
        let tun = open_tun()?;
        let control = ioctl::control_socket()
            .map_err(PortError::system("cannot open a socket for interface requests"))?;
        // TUNSETIFF would create a missing tap.
        if !create
            && !ioctl::interface_exists(&control, &name)
                .map_err(PortError::system("cannot look up the interface"))?
        {
            return Err(PortError::TapMissing { name: text });
        }
        let tap = Tap { tun, control, name, text };
        tap.attach()?;
        ioctl::tun_disable_offload(tap.tun.as_fd())
            .map_err(PortError::system("cannot turn off the tap's offloads"))?;
        Ok(tap)
    }

    /// Returns the tap `name` that another process has opened and [attached](Self::open).
    pub(crate) fn from_files(name: &str, files: TapFiles) -> Result<Tap, PortError> {
        let TapFiles { tun, control } = files;
        let text = name.to_string();
        Ok(Tap { tun: File::from(tun), control, name: InterfaceName::new(name)?, text })
    }

    /// Returns the open files.
    pub(crate) fn into_files(self) -> TapFiles {
        TapFiles { tun: self.tun.into(), control: self.control }
    }

    fn attach(&self) -> Result<(), PortError> {
        let give_up = Instant::now() + BUSY_RETRY_MAX;
        loop {
            let flags = libc::IFF_TAP | libc::IFF_NO_PI;
            let Err(error) = ioctl::tun_attach(self.tun.as_fd(), &self.name, flags) else {
                return Ok(());
            };
            let name = self.text.clone();
            return Err(match error.raw_os_error() {
                Some(libc::EBUSY) if Instant::now() < give_up => {
                    std::thread::sleep(BUSY_RETRY_EVERY);
                    continue;
                }
                Some(libc::EBUSY) => PortError::TapBusy { name },
                Some(libc::EPERM | libc::EACCES) => PortError::TapPermission { name },
                Some(libc::EINVAL) => self.explain_refusal(error),
                _ => PortError::System {
                    doing: "cannot attach to the tap (TUNSETIFF)",
                    source: error,
                },
            });
        }
    }

    /// Returns what EINVAL from TUNSETIFF means: the interface is of another kind, or has several queues.
    fn explain_refusal(&self, error: io::Error) -> PortError {
        let name = self.text.clone();
        match ioctl::interface_driver(&self.control, &self.name) {
            Ok((driver, bus)) if driver == "tun" && bus == "tap" => {
                PortError::TapMultiQueue { name }
            }
            // The driver of a tun device is called "tun" as well, but its bus is not "tap".
            Ok((driver, _)) => PortError::NotATap { name, kind: driver },
            // The loopback device and a few others provide no driver information.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                PortError::NotATap { name, kind: "kernel-internal".to_string() }
            }
            Err(_) => {
                PortError::System { doing: "cannot attach to the tap (TUNSETIFF)", source: error }
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.text
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }

    pub(crate) fn mac(&self) -> Result<MacAddr, PortError> {
        ioctl::interface_mac(&self.control, &self.name).map_err(|e| self.lookup_failed(e))
    }

    pub(crate) fn mtu(&self) -> Result<u32, PortError> {
        ioctl::interface_mtu(&self.control, &self.name).map_err(|e| self.lookup_failed(e))
    }

    pub(crate) fn is_up(&self) -> Result<bool, PortError> {
        let flags = ioctl::interface_flags(&self.control, &self.name);
        flags.map(|f| f & libc::IFF_UP != 0).map_err(|e| self.lookup_failed(e))
    }

    fn lookup_failed(&self, error: io::Error) -> PortError {
        if error.raw_os_error() == Some(libc::ENODEV) {
            PortError::TapGone { name: self.text.clone() }
        } else {
            PortError::System { doing: "cannot read the tap's state", source: error }
        }
    }
}
