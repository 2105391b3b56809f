//! [`VmTap`]: the VM's network port on a tap that may be deleted and made again while the VM runs.
//!
//! A network daemon that is restarted or a script that sets the host's network up again deletes the tap. The VM goes
//! on without it. The thread `tap` notices this, opens the tap as soon as it exists again, and hands the new port
//! over. The vCPU thread can't do that: opening and closing a port waits for other processors.

use crate::kvm::kick::spawn_unkicked;
use crate::opener;
use crate::sandbox::{self, Task};
use crossbeam::channel::{self, Receiver, Sender};
use netpath::null_port::NullPort;
use netpath::port::{FramePort, PortError, Wake};
use netpath::tap_port::{TapConfig, TapPort};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Interval in which the thread looks at the tap, milliseconds: that of the questions about the LAN
/// ([`LAN_POLL_INTERVAL`](crate::health::LAN_POLL_INTERVAL)).
const POLL_MS: u8 = 100;

/// Why a tap can't be used.
#[derive(Debug, thiserror::Error)]
pub enum VmTapError {
    /// The tap can't be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The thread that watches the tap can't be started.
    #[error("starting the thread that watches the tap: {0}")]
    Thread(io::Error),
}

/// Who says that a tap is gone, and that it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanReports {
    /// The port itself.
    ByPort,
    /// The driver of a pair, which watches all of the way to the LAN.
    ByDriver,
}

/// A port on a tap. While the tap is gone, nothing is received, and frames that are sent are lost.
pub struct VmTap {
    /// The port in use; `None` from when its tap is seen to be gone until there is another one.
    port: Option<TapPort>,
    absent: NullPort,
    shared: Arc<Shared>,
    ports: Receiver<TapPort>,
    old_ports: Sender<TapPort>,
    seen_ports: u32,
}

/// What the two threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Counts the ports that were opened again.
    new_ports: AtomicU32,
    is_ending: AtomicBool,
}

impl VmTap {
    /// Opens the tap in the calling thread's network namespace and starts the thread.
    ///
    /// # Errors
    ///
    /// The tap can't be opened, or the thread can't be started.
    pub fn open(config: &TapConfig, reports: LanReports) -> Result<VmTap, VmTapError> {
        let port = opener::open_tap(config)?;
        if !port.is_up()? {
            tracing::warn!("{}", port.down_hint());
        }
        let shared = Arc::<Shared>::default();
        let (new_port, ports) = channel::bounded(1);
        let (old_ports, old_port) = channel::bounded(1);
        let mut watcher = Watcher {
            config: TapConfig { create: false, ..config.clone() },
            reports,
            file: Some(file_of(&port).map_err(VmTapError::Thread)?),
            shared: Arc::clone(&shared),
            new_port,
            untaken: ports.clone(),
            old_port,
        };
        // It is not joined: opening a tap may wait.
        spawn_unkicked("tap", move || watcher.run()).map_err(VmTapError::Thread)?;
        Ok(VmTap {
            port: Some(port),
            absent: NullPort::new(),
            shared,
            ports,
            old_ports,
            seen_ports: 0,
        })
    }

    /// Returns whether there is a port that takes the place of the one in use. Costs one load.
    #[inline]
    fn has_new_port(&self) -> bool {
        self.shared.new_ports.load(Ordering::Acquire) != self.seen_ports
    }

    /// Returns the port in use: the newest one.
    fn port(&mut self) -> &mut dyn FramePort {
        if self.has_new_port() {
            self.take_new_port();
        }
        match &mut self.port {
            Some(port) => port,
            None => &mut self.absent,
        }
    }

    #[cold]
    fn take_new_port(&mut self) {
        self.seen_ports = self.shared.new_ports.load(Ordering::Acquire);
        if let Ok(port) = self.ports.try_recv() {
            self.retire();
            self.port = Some(port);
        }
    }

    /// Has the port in use closed by the other thread.
    fn retire(&mut self) {
        if let Some(port) = self.port.take() {
            // If the other thread is late, the port is closed here.
            let _ = self.old_ports.try_send(port);
        }
    }

    /// Returns `value` in place of the error that the tap is gone.
    fn unless_gone<T>(&mut self, result: Result<T, PortError>, value: T) -> Result<T, PortError> {
        match result {
            Err(PortError::TapGone { .. }) => {
                self.retire();
                Ok(value)
            }
            result => result,
        }
    }
}

impl FramePort for VmTap {
    #[inline]
    fn has_frame(&self) -> bool {
        self.has_new_port() || self.port.as_ref().is_some_and(FramePort::has_frame)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        let result = self.port().receive(buffer);
        self.unless_gone(result, None)
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        let result = self.port().send(frame);
        self.unless_gone(result, ())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        let result = self.port().flush();
        self.unless_gone(result, ())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.port.as_ref().and_then(FramePort::pollable)
    }

    /// A tap that is gone ends every poll.
    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        let is_gone = self.port.as_ref().and_then(FramePort::pollable).is_some_and(is_dead);
        if is_gone {
            self.retire();
        }
        let result = self.port().handle_poll_event();
        self.unless_gone(result, ())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        let result = self.port().wait(timeout);
        self.unless_gone(result, Wake::Timeout)
    }
}

impl Drop for VmTap {
    fn drop(&mut self) {
        // The thread ends within its interval.
        self.shared.is_ending.store(true, Ordering::Relaxed);
    }
}

/// The other thread's part.
struct Watcher {
    config: TapConfig,
    reports: LanReports,
    /// The file of the newest port; `None` while its tap is gone.
    file: Option<OwnedFd>,
    shared: Arc<Shared>,
    new_port: Sender<TapPort>,
    /// A port that the vCPU thread has not taken.
    untaken: Receiver<TapPort>,
    old_port: Receiver<TapPort>,
}

impl Watcher {
    fn run(&mut self) {
        sandbox::enter(Task::Opens);
        while !self.shared.is_ending.load(Ordering::Relaxed) {
            while self.old_port.try_recv().is_ok() {}
            match &self.file {
                Some(file) => {
                    if is_dead_after(file.as_fd(), PollTimeout::from(POLL_MS)) {
                        self.lose();
                    }
                }
                None => self.reopen(),
            }
        }
    }

    fn lose(&mut self) {
        self.file = None;
        let name = &self.config.name;
        if self.reports == LanReports::ByPort {
            tracing::warn!(
                "tap {name} was deleted: the VM goes on without it until it is made again"
            );
        }
    }

    /// Tries to open the tap, and waits if it does not exist yet.
    fn reopen(&mut self) {
        let opened = opener::open_tap(&self.config).ok();
        let Some((port, file)) = opened.and_then(|port| file_of(&port).ok().map(|f| (port, f)))
        else {
            std::thread::sleep(Duration::from_millis(POLL_MS.into()));
            return;
        };
        self.file = Some(file);
        // Its tap is gone, too.
        let _ = self.untaken.try_recv();
        // There is room: nobody else sends.
        if self.new_port.try_send(port).is_ok() {
            self.shared.new_ports.fetch_add(1, Ordering::Release);
        }
        if self.reports == LanReports::ByPort {
            tracing::info!("tap {} is there again", self.config.name);
        }
    }
}

/// Returns a descriptor of the port's tap. A tap that is deleted makes it fail, whoever holds it.
fn file_of(port: &TapPort) -> io::Result<OwnedFd> {
    port.pollable().expect("a tap can be polled").try_clone_to_owned()
}

/// Returns whether the tap of this descriptor is gone.
fn is_dead(file: BorrowedFd<'_>) -> bool {
    is_dead_after(file, PollTimeout::ZERO)
}

/// Returns whether the tap of this descriptor is gone, after at most `timeout`.
fn is_dead_after(file: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    // Of events that nobody asks for, the kernel reports those of a dead descriptor.
    let mut files = [PollFd::new(file, PollFlags::empty())];
    poll(&mut files, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpath::port::FRAME_MAX;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;
    use std::time::Instant;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// Makes the tap. The host sends frames to it by itself when it is up.
    fn make_tap() {
        ip("tuntap add dev tap0 mode tap");
        ip("link set tap0 up");
    }

    /// Uses the port as the vCPU thread does, until `done` says that it may end.
    fn use_until(
        tap: &mut VmTap,
        what: &str,
        mut done: impl FnMut(&mut VmTap, Option<usize>) -> bool,
    ) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let frame = tap.receive(&mut [0; FRAME_MAX]).unwrap();
            tap.send(&[0; 60]).unwrap();
            tap.flush().unwrap();
            tap.wait(Some(Duration::from_millis(2))).unwrap();
            if done(tap, frame) {
                return;
            }
            assert!(Instant::now() < end, "no {what}");
        }
    }

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs root: --features host-tests")]
    fn tap_that_is_made_again_is_used_again() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let config = TapConfig::new("tap0");
            assert!(matches!(VmTap::open(&config, LanReports::ByDriver), Err(VmTapError::Port(_))));
            make_tap();
            let mut tap = VmTap::open(&config, LanReports::ByDriver).unwrap();
            // Twice: the second deletion is that of a tap which the thread has opened.
            for _ in 0..2 {
                use_until(&mut tap, "frame", |_, frame| frame.is_some());
                ip("link del tap0");
                use_until(&mut tap, "loss", |tap, _| tap.port.is_none());
                assert!(!tap.has_frame() && tap.pollable().is_none());
                make_tap();
            }
            use_until(&mut tap, "frame", |_, frame| frame.is_some());
            // A port that is not used, as that of a backup: the newest one counts when it is.
            ip("link del tap0");
            make_tap();
            let opened = tap.seen_ports + 1;
            let end = Instant::now() + Duration::from_secs(60);
            while tap.shared.new_ports.load(Ordering::Acquire) < opened {
                assert!(Instant::now() < end, "the thread has not opened the tap");
                std::thread::sleep(Duration::from_millis(2));
            }
            use_until(&mut tap, "frame", |_, frame| frame.is_some());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
