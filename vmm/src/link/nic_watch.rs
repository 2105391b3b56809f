//! [`NicWatch`]: watches the interface of the log link on a thread of its own.
//!
//! An interface that is deleted and made again (a driver that is loaded again, a virtual or USB interface) is another
//! one to the kernel, and its MAC address may have changed. A question about interfaces waits for changes that are
//! under way, and opening a port waits for other processors. The vCPU thread can do neither, so the thread
//! `log-nic` asks, opens the new port, and hands it over.

use super::error::LinkError;
use crate::kvm::kick::{Kicker, spawn_unkicked};
use crate::opener;
use crate::sandbox::{self, Task};
use crossbeam::channel::{self, Receiver, Sender};
use netpath::{LinkState, MacAddr, Nic, NicProbe, PacketConfig, PacketPort, PortError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Interval of the questions to the kernel: half the default silence timeout, so that a changed address is known
/// before the other host is declared dead.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What to watch.
pub(super) struct NicWatchConfig {
    /// How to open a port.
    pub(super) port: PacketConfig,
    /// Least MTU of the interface, bytes: that of the first one, as far as frames use it.
    pub(super) mtu_bytes_min: u32,
    /// Index of the interface of the port in use.
    pub(super) index: u32,
    /// Its MAC address.
    pub(super) mac: MacAddr,
    /// Its state.
    pub(super) state: LinkState,
}

/// What the two threads share.
#[derive(Debug)]
struct Shared {
    /// The position of the [`LinkState`] in [`STATES`].
    state: AtomicU8,
    /// Counts the changes that the vCPU thread must look at.
    changes: AtomicU32,
    /// The vCPU thread's port has lost its interface.
    is_port_lost: AtomicBool,
    is_ending: AtomicBool,
}

const STATES: [LinkState; 5] =
    [LinkState::Up, LinkState::NoCarrier, LinkState::Down, LinkState::BridgePort, LinkState::Gone];

fn number(state: LinkState) -> u8 {
    match state {
        LinkState::Up => 0,
        LinkState::NoCarrier => 1,
        LinkState::Down => 2,
        LinkState::BridgePort => 3,
        LinkState::Gone => 4,
    }
}

/// The watch, as the vCPU thread uses it. The thread `log-nic` ends when this value is dropped.
#[derive(Debug)]
pub(super) struct NicWatch {
    shared: Arc<Shared>,
    ports: Receiver<PacketPort>,
    /// Ports that are not used any more: closing one waits for other processors.
    old_ports: Sender<PacketPort>,
    seen_changes: u32,
    thread: Option<JoinHandle<()>>,
}

impl NicWatch {
    /// Starts the thread. It kicks the calling thread after each change.
    ///
    /// # Errors
    ///
    /// The kernel can't be asked, or the thread can't be started.
    pub(super) fn start(config: NicWatchConfig) -> Result<NicWatch, LinkError> {
        let probe = NicProbe::open(&config.port.interface)?;
        let shared = Arc::new(Shared {
            state: AtomicU8::new(number(config.state)),
            changes: AtomicU32::new(0),
            is_port_lost: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        });
        let (new_port, ports) = channel::bounded(1);
        let (old_ports, old_port) = channel::bounded(1);
        let mut watcher = Watcher {
            probe,
            config,
            shared: Arc::clone(&shared),
            kicker: Kicker::of_this_thread(),
            new_port,
            old_port,
            refusal: None,
            is_mtu_small: false,
        };
        let thread = spawn_unkicked("log-nic", move || watcher.run()).map_err(LinkError::Thread)?;
        Ok(NicWatch { shared, ports, old_ports, seen_changes: 0, thread: Some(thread) })
    }

    /// Returns whether [`take_change`](Self::take_change) has something to do. Costs one load.
    #[inline]
    pub(super) fn has_change(&self) -> bool {
        self.shared.changes.load(Ordering::Relaxed) != self.seen_changes
    }

    /// Marks the changes as seen. Returns the port that takes the place of the one in use, if there is one.
    pub(super) fn take_change(&mut self) -> Option<PacketPort> {
        self.seen_changes = self.shared.changes.load(Ordering::Acquire);
        let port = self.ports.try_recv().ok()?;
        self.shared.is_port_lost.store(false, Ordering::Relaxed);
        Some(port)
    }

    /// The port in use has lost its interface.
    pub(super) fn port_lost(&self) {
        self.shared.is_port_lost.store(true, Ordering::Relaxed);
    }

    /// Closes a port on the other thread.
    pub(super) fn close(&self, port: PacketPort) {
        // If the other thread is late, the port is closed here.
        let _ = self.old_ports.try_send(port);
    }

    /// Returns the state of the interface, as the thread last saw it.
    pub(super) fn state(&self) -> LinkState {
        STATES[usize::from(self.shared.state.load(Ordering::Relaxed))]
    }
}

impl Drop for NicWatch {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        // The thread is not joined: its question to the kernel may wait.
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

/// What the thread `log-nic` owns.
struct Watcher {
    probe: NicProbe,
    /// With the index, address and state that were seen last.
    config: NicWatchConfig,
    shared: Arc<Shared>,
    kicker: Kicker,
    new_port: Sender<PacketPort>,
    old_port: Receiver<PacketPort>,
    /// Why the new interface was refused, as it was reported.
    refusal: Option<String>,
    /// Its MTU became smaller than the frames, as it was reported.
    is_mtu_small: bool,
}

impl Watcher {
    fn run(&mut self) {
        sandbox::enter(Task::Opens);
        while !self.shared.is_ending.load(Ordering::Relaxed) {
            drop(self.old_port.try_recv());
            // A question without an answer says nothing about the interface.
            if let Ok(found) = self.find() {
                self.look(found);
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }

    /// Returns the interface of the port in use, which may have been renamed. If it is gone, opens a port on the
    /// interface that has the name now, and returns that one.
    fn find(&mut self) -> Result<Option<Nic>, PortError> {
        if !self.shared.is_port_lost.load(Ordering::Relaxed)
            && let Some(nic) = self.probe.by_index(self.config.index)?
        {
            return Ok(Some(nic));
        }
        let Some(nic) = self.probe.by_name()? else { return Ok(None) };
        Ok(self.reopen().then_some(nic).filter(|nic| nic.index == self.config.index))
    }

    fn look(&mut self, ours: Option<Nic>) {
        if let Some(nic) = ours
            && nic.mac != self.config.mac
        {
            self.config.mac = nic.mac;
            let name = &self.config.port.interface;
            tracing::warn!("the log interface {name} has another MAC address now: {}", nic.mac);
            self.publish();
        }
        if let Some(nic) = ours {
            self.check_mtu(nic.mtu_bytes);
        }
        self.tell(ours.map_or(LinkState::Gone, |nic| nic.state));
    }

    /// Reports an MTU that has become too small, once: the kernel drops the longer frames, and the shorter ones pass.
    fn check_mtu(&mut self, mtu_bytes: u32) {
        let is_small = mtu_bytes < self.config.mtu_bytes_min;
        if std::mem::replace(&mut self.is_mtu_small, is_small) == is_small {
            return;
        }
        let (name, min) = (&self.config.port.interface, self.config.mtu_bytes_min);
        if is_small {
            tracing::warn!(
                "the MTU of the log interface {name} is {mtu_bytes} now, and longer frames are lost: 'ip link set \
                 {name} mtu {min}'"
            );
        } else {
            tracing::warn!("the MTU of the log interface {name} is {mtu_bytes} again");
        }
    }

    /// Opens a port on the interface that has the name now, and hands it over. Returns whether it did.
    fn reopen(&mut self) -> bool {
        match self.open() {
            Ok(port) => {
                let (index, mac) = (port.index(), port.mac());
                // While the vCPU thread has not taken the port before, this one is opened again later.
                let is_taken = self.new_port.try_send(port).is_ok();
                if is_taken {
                    self.shared.is_port_lost.store(false, Ordering::Relaxed);
                    (self.config.index, self.config.mac) = (index, mac);
                    self.refusal = None;
                    self.publish();
                }
                is_taken
            }
            // It was deleted again.
            Err(PortError::InterfaceMissing { .. }) => false,
            Err(error) => {
                let text = error.to_string();
                if self.refusal.as_ref() != Some(&text) {
                    let name = &self.config.port.interface;
                    tracing::warn!("the new log interface {name} can't be used: {text}");
                    self.refusal = Some(text);
                }
                false
            }
        }
    }

    fn open(&self) -> Result<PacketPort, PortError> {
        let port = opener::open_link(&self.config.port)?;
        let (mtu_bytes, min_bytes) = (port.mtu_bytes(), self.config.mtu_bytes_min);
        if mtu_bytes < min_bytes {
            let name = self.config.port.interface.clone();
            return Err(PortError::MtuTooSmall { name, mtu_bytes, min_bytes });
        }
        Ok(port)
    }

    /// Reports a change of the state, once.
    fn tell(&mut self, state: LinkState) {
        let before = std::mem::replace(&mut self.config.state, state);
        if before == state {
            return;
        }
        self.shared.state.store(number(state), Ordering::Relaxed);
        let NicWatchConfig { port: PacketConfig { interface, .. }, mac, .. } = &self.config;
        tracing::warn!("{}", message(before, state, interface, *mac));
        self.kicker.kick();
    }

    /// Makes the vCPU thread look at a change.
    fn publish(&self) {
        self.shared.changes.fetch_add(1, Ordering::Release);
        self.kicker.kick();
    }
}

/// Returns the line about a change of the state of `interface`.
fn message(before: LinkState, now: LinkState, interface: &str, mac: MacAddr) -> String {
    let fault = super::diagnosis::why_state_stops_frames(now, interface);
    if before == LinkState::Gone {
        let fault = fault.map_or_else(String::new, |fault| format!("; {fault}"));
        return format!(
            "the log interface {interface} is there again, with MAC address {mac}{fault}"
        );
    }
    fault.unwrap_or_else(|| format!("the log interface {interface} passes frames again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_states_are_positions() {
        for (position, &state) in STATES.iter().enumerate() {
            assert_eq!(usize::from(number(state)), position);
        }
    }

    #[test]
    fn message_of_each_change_is_one_line_that_names_interface() {
        let mac = MacAddr(2, 0, 0, 0, 0, 1);
        for before in STATES {
            for now in STATES.into_iter().filter(|&now| now != before) {
                let text = message(before, now, "log0", mac);
                assert!(text.contains("log0") && !text.contains('\n'), "{text}");
            }
        }
        let again = message(LinkState::Gone, LinkState::Up, "log0", mac);
        assert!(again.contains("there again") && again.contains("02:00:00:00:00:01"), "{again}");
    }
}
