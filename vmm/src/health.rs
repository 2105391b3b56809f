//! [`LanWatch`]: the state of the VM's way to the LAN, watched on a thread of its own.

use crate::kvm::kick::{Kicker, spawn_unkicked};
use crate::opener;
use crate::sandbox::{self, Task};
use netpath::{LanHealth, LanProbe, MacAddr, PortError};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// Longest interval of the questions to the kernel. What it tells by itself is known earlier: the deletion of a tap
/// and the loss of a carrier.
pub const LAN_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shortest interval of the questions. Other interfaces of the host may change all the time.
const LAN_POLL_INTERVAL_MIN: Duration = Duration::from_millis(2);

/// Why the LAN can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum LanWatchError {
    /// There is no such tap, or the kernel can't be asked.
    #[error(transparent)]
    Probe(#[from] PortError),
    /// The thread can't be started.
    #[error("starting the thread that watches the LAN: {0}")]
    Thread(#[from] io::Error),
}

/// Watches a tap and its uplink on the thread `health`, which ends when this value is dropped.
#[derive(Debug)]
pub struct LanWatch {
    shared: Arc<Shared>,
}

/// What the two threads share.
#[derive(Debug)]
struct Shared {
    /// [`LanHealth::to_bits`] of the last answer.
    health: AtomicU8,
    is_ending: AtomicBool,
}

impl LanWatch {
    /// Asks for the state of `tap` once, and then on the new thread, which kicks the calling thread after each
    /// change. Call it in the tap's network namespace, after the tap was opened: a tap that no process is
    /// attached to has no carrier. `vm` is the VM's MAC address. `address` is asked, too, if there is one.
    ///
    /// # Errors
    ///
    /// There is no such tap, the kernel can't be asked, or the thread can't be started.
    pub fn start(
        tap: &str,
        vm: MacAddr,
        address: Option<Ipv4Addr>,
    ) -> Result<LanWatch, LanWatchError> {
        let mut probe = LanProbe::open(tap)?.for_vm(vm);
        if let Some(address) = address {
            let tap = tap.to_owned();
            let open = move || opener::open_bridge(&tap);
            probe = probe.with_address(address, Box::new(open));
        }
        let health = AtomicU8::new(probe.ask()?.to_bits());
        let shared = Arc::new(Shared { health, is_ending: AtomicBool::new(false) });
        let (kicker, of_thread) = (Kicker::of_this_thread(), Arc::clone(&shared));
        // It is not joined: its question to the kernel may wait.
        spawn_unkicked("health", move || watch(&mut probe, &of_thread, kicker))?;
        Ok(LanWatch { shared })
    }

    /// Returns the last known state. Costs one load and no system call.
    pub fn health(&self) -> LanHealth {
        let bits = self.shared.health.load(Ordering::Relaxed);
        LanHealth::from_bits(bits).expect("only the bits of a LanHealth are stored")
    }
}

/// A tap that is watched, for the operator.
#[derive(Clone, Debug)]
pub struct WatchedTap {
    /// Its name.
    pub name: String,
    /// Its state.
    pub watch: Arc<LanWatch>,
}

impl WatchedTap {
    /// Starts to watch the tap `name`: see [`LanWatch::start`].
    ///
    /// # Errors
    ///
    /// As those of [`LanWatch::start`].
    pub fn start(
        name: &str,
        vm: MacAddr,
        address: Option<Ipv4Addr>,
    ) -> Result<WatchedTap, LanWatchError> {
        let watch = Arc::new(LanWatch::start(name, vm, address)?);
        Ok(WatchedTap { name: name.into(), watch })
    }

    /// Returns why frames can't pass between the tap and the LAN, and what to do; `None` if they can.
    pub fn fault(&self) -> Option<String> {
        self.watch.health().fault(&self.name)
    }
}

impl Drop for LanWatch {
    fn drop(&mut self) {
        // The thread ends within an interval.
        self.shared.is_ending.store(true, Ordering::Relaxed);
    }
}

/// Asks until the watch is dropped. A question without an answer changes nothing: it says nothing about the
/// LAN.
fn watch(probe: &mut LanProbe, shared: &Shared, kicker: Kicker) {
    sandbox::enter(Task::Opens);
    while !shared.is_ending.load(Ordering::Relaxed) {
        if let Ok(health) = probe.ask() {
            let before = shared.health.swap(health.to_bits(), Ordering::Relaxed);
            if before != health.to_bits() {
                kicker.kick();
            }
        }
        std::thread::sleep(LAN_POLL_INTERVAL_MIN);
        probe.wait_for_change(LAN_POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::kick::KICK_SIGNAL;
    use netpath::{TapState, Uplink};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::SigSet;
    use std::process::Command;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs root: --features host-tests")]
    fn change_is_published_before_its_kick() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut kicks = SigSet::empty();
            kicks.add(KICK_SIGNAL);
            kicks.thread_block().unwrap();
            let vm = MacAddr(2, 0, 0, 0, 0, 1);
            assert!(LanWatch::start("tap0", vm, None).unwrap_err().to_string().contains("tap0"));
            ip("tuntap add dev tap0 mode tap");
            let watch = LanWatch::start("tap0", vm, None).unwrap();
            let health = |tap| LanHealth { tap, uplink: Uplink::NoBridge, answers: true };
            assert_eq!(watch.health(), health(TapState::Down));
            ip("link set tap0 up");
            assert_eq!(kicks.wait().unwrap(), KICK_SIGNAL);
            assert_eq!(watch.health(), health(TapState::NoCarrier));
            ip("link del tap0");
            assert_eq!(kicks.wait().unwrap(), KICK_SIGNAL);
            assert_eq!(watch.health(), health(TapState::Gone));
        };
        std::thread::spawn(test).join().unwrap();
    }
}
