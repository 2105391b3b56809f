//! [`TapPort`]: the VM's end of a tap device.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::mac::MacAddr;
use crate::port::{FramePort, PortError, Wake};
use crate::ring::{FrameRing, ReadPath};
use crate::stats::PortStats;
use crate::sys::tap::Tap;
pub use crate::sys::tap::TapFiles;
use crate::wait::WaitPolicy;

/// Which tap to open and how to wait on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Creates the tap if it does not exist (needs CAP_NET_ADMIN); it then vanishes with the port.
    pub create: bool,
    /// How [`wait`](FramePort::wait) waits.
    pub wait: WaitPolicy,
    /// How frames come in.
    pub read: ReadPath,
}

impl TapConfig {
    /// An existing tap with the defaults for the rest.
    pub fn new(name: impl Into<String>) -> Self {
        let (wait, read) = (WaitPolicy::default(), ReadPath::default());
        TapConfig { name: name.into(), create: false, wait, read }
    }
}

/// A port on a tap, through an io_uring of its own (Linux 6.1 or newer; before 6.7 a frame received
/// costs a system call more).
///
/// **Threads.** The port may be opened on one thread and moved to another: nothing is read before
/// its first use or [`start`](Self::start), and the thread of that first use owns it from then on.
/// Used from another thread it answers [`PortError::WrongThread`]. Dropped by its owner it frees
/// the tap at once; dropped elsewhere, the kernel keeps the tap busy for some tens of
/// milliseconds.
///
/// **Bounds.** Frames that arrive while nobody calls the port wait in the tap's own queue, which
/// drops what is beyond its length (`txqueuelen`, 1000 frames by default). One system call fetches up
/// to 256 of them into the port. Up to 128 frames are queued by `send` before it flushes by itself.
/// Memory: 0.8 MiB, allocated at opening.
///
/// **Carrier.** A tap has no carrier while nobody is attached, and the kernel may take up to a
/// second to notice that it is back (its link watch is rate-limited), dropping what the host sends
/// until then. A port that must work at a certain moment is opened well before it.
///
/// **Sending never blocks.** Frames that the tap refuses are dropped and counted in
/// [`PortStats::tx_dropped`]: all of them while the interface is down.
///
/// `receive` and `wait` may submit frames queued by `send` before `flush` is called; none stays
/// behind after `flush`.
pub struct TapPort {
    // Before `tap`: the ring lets go of the tap's file first.
    ring: FrameRing,
    tap: Tap,
    mac: MacAddr,
    mtu_bytes: u32,
}

impl TapPort {
    /// Attaches to the tap in the calling thread's network namespace. The interface is left as it
    /// is: check [`is_up`](Self::is_up). A tap that another owner has only just closed is waited
    /// for, up to 500 ms.
    ///
    /// # Errors
    ///
    /// If the tap can't be opened or its properties can't be read, or io_uring is unavailable.
    pub fn open(config: &TapConfig) -> Result<TapPort, PortError> {
        Self::with_tap(config, Tap::open(&config.name, config.create)?)
    }

    /// Opens and attaches the tap of `config`, for [`with_files`](Self::with_files). Only this part of
    /// [`open`](Self::open) needs a permission.
    ///
    /// # Errors
    ///
    /// As those of `open`.
    pub fn open_files(config: &TapConfig) -> Result<TapFiles, PortError> {
        Ok(Tap::open(&config.name, config.create)?.into_files())
    }

    /// Makes a port of the `files` of the tap of `config`.
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub fn with_files(config: &TapConfig, files: TapFiles) -> Result<TapPort, PortError> {
        Self::with_tap(config, Tap::from_files(&config.name, files)?)
    }

    fn with_tap(config: &TapConfig, tap: Tap) -> Result<TapPort, PortError> {
        let ring = FrameRing::new(tap.file(), tap.name(), config.wait, config.read)?;
        let (mac, mtu_bytes) = (tap.mac()?, tap.mtu()?);
        Ok(TapPort { ring, tap, mac, mtu_bytes })
    }

    /// Makes the calling thread the port's owner and begins to receive. Optional: the first use
    /// does the same; call it to have its cost and its errors at a time of your choice.
    ///
    /// # Errors
    ///
    /// If the ring can't be made this thread's, or the tap is gone.
    pub fn start(&mut self) -> Result<(), PortError> {
        self.ring.start().map_err(tap_gone)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.tap.name()
    }

    /// The MAC address of the host's end, read at opening. The VM's own is another one.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The MTU in bytes, read at opening. Above 1500, the host may send frames that are longer than
    /// a port carries; they are counted in [`PortStats::rx_oversize`].
    pub fn mtu_bytes(&self) -> u32 {
        self.mtu_bytes
    }

    /// Whether the interface is up now (a system call). While it is down no frame passes; the
    /// remedy is [`down_hint`](Self::down_hint).
    ///
    /// # Errors
    ///
    /// If the system call fails.
    pub fn is_up(&self) -> Result<bool, PortError> {
        self.tap.is_up()
    }

    /// One line for a user whose tap is down.
    pub fn down_hint(&self) -> String {
        let name = self.name();
        format!("tap {name} is down: 'ip link set {name} up'")
    }

    /// What the port counted so far.
    pub fn stats(&self) -> PortStats {
        self.ring.stats()
    }
}

/// A tap's descriptor dies with the tap.
fn tap_gone(error: PortError) -> PortError {
    match error {
        PortError::DescriptorDead { name } => PortError::TapGone { name },
        other => other,
    }
}

impl fmt::Debug for TapPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TapPort");
        debug.field("name", &self.name()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl FramePort for TapPort {
    /// True as well before the first use, and after a burst that filled every buffer: the next
    /// `receive` finds out.
    #[inline]
    fn has_frame(&self) -> bool {
        self.ring.has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        self.ring.receive(buffer).map_err(tap_gone)
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        self.ring.send(frame).map_err(tap_gone)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.ring.flush().map_err(tap_gone)
    }

    /// The tap and not the ring: what a ring of deferred work has to do wakes nobody who polls it,
    /// and until that work is done the frame lies in the tap's own queue.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.file())
    }

    /// Returns [`Wake::Frame`] only when `receive` will give a frame.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        self.ring.wait(timeout).map_err(tap_gone)
    }
}
