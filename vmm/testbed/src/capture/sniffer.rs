//! The sniffer: records on the switch which host the VM's frames come from.

use super::{Capture, Captured, POLL_INTERVAL, answer, equal, load};
use crate::TestbedError;
use crate::clock::{boottime_ns, realtime_ns};
use crate::pair::{Host, SourceChange};
use pnet::util::MacAddr;
use socket2::SockFilter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Bytes captured of each frame: its Ethernet header.
const SNAP_BYTES: u32 = 14;

/// The sniffer and its results.
#[derive(Debug, Default)]
pub struct Sniffer(Mutex<Seen>);

/// What the sniffer saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames of the VM.
    pub frames: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    pub missed: u64,
    /// Changes of the host that the frames came from.
    pub source_changes: Vec<SourceChange>,
}

impl Seen {
    fn record_frame(&mut self, frame: &Captured, missed: u64) {
        self.frames += 1;
        self.missed = missed;
        let host = Host::ALL[frame.interface];
        if self.source_changes.last().is_none_or(|change| change.host != host) {
            // The timestamp is of the wall clock: convert its age to CLOCK_BOOTTIME.
            let age_ns = realtime_ns().saturating_sub(frame.t_ns);
            let seen_ns = boottime_ns().saturating_sub(age_ns);
            self.source_changes.push(SourceChange { host, seen_ns });
        }
    }
}

impl Sniffer {
    /// Records until `stop` every frame with source `vm` that enters the switch, in whose namespace the
    /// calling thread must be. Calls `ready` when no frame can be missed any more.
    ///
    /// # Errors
    ///
    /// If the socket can't be opened or read.
    pub fn run(
        &self,
        vm: MacAddr,
        stop: &AtomicBool,
        ready: impl FnOnce(),
    ) -> Result<(), TestbedError> {
        let mut capture = Capture::filtered(Host::ALL.map(Host::port), |_| filter(vm))?;
        ready();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(POLL_INTERVAL);
            while let Some(frame) = capture.receive()? {
                self.seen().record_frame(&frame, capture.missed);
            }
        }
        Ok(())
    }

    /// Returns what was seen so far.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no thread panics while it holds the lock")
    }
}

/// Returns a filter for incoming frames from `vm`.
fn filter(vm: MacAddr) -> [SockFilter; 8] {
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let [m0, m1, m2, m3, m4, m5] = vm.octets();
    let (high, low) = (u32::from_be_bytes([m0, m1, m2, m3]), u32::from_be_bytes([0, 0, m4, m5]));
    [
        load(libc::BPF_B, PACKET_TYPE),
        equal(u32::from(libc::PACKET_OUTGOING), 5, 0),
        load(libc::BPF_W, 6),
        equal(high, 0, 3),
        load(libc::BPF_H, 10),
        equal(low, 0, 1),
        answer(SNAP_BYTES),
        answer(0),
    ]
}
