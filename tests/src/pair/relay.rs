//! [`Relay`]: a log link that loses, duplicates and reorders frames.
//!
//! The direct wire between the two hosts is replaced by two wires, with a thread in between that
//! forwards the frames that [`Fault`] passes. (Kernels may lack netem; this has no requirements.)

use super::rig::Rig;
use netpath::middleware::fault::{Fault, FaultConfig, FaultCounts, FaultRates};
use netpath::{FRAME_MAX, FramePort, PacketConfig, PacketPort, WaitPolicy, wait_any};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::pair::{Host, LOG_LINK};
use testbed::{Namespace, TestbedError};

/// Polling interval of the stop flag on an idle link.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The namespace between two hosts. Its wires are removed with it.
pub struct Relay {
    middle: Namespace,
}

/// Returns the name of the relay's end of a host's wire.
fn end(host: Host) -> &'static str {
    match host {
        Host::A => "from-a",
        Host::B => "from-b",
    }
}

impl Relay {
    /// Inserts a relay between the hosts of `rig`, which must have no processes yet.
    pub fn new(rig: &Rig) -> Result<Relay, TestbedError> {
        let relay = Relay { middle: Namespace::new("middle")? };
        // Deletes both ends.
        rig.ip(Host::A, &format!("link del {LOG_LINK}"));
        for host in Host::ALL {
            let (namespace, end) = (rig.scene.network.host(host), end(host));
            relay.middle.add_cable(end, namespace, LOG_LINK)?;
            // Each end at the relay has the MAC address of the opposite host.
            namespace.set_up(LOG_LINK, &format!("address {}", host.log_mac()))?;
            relay.middle.set_up(end, &format!("address {}", host.other().log_mac()))?;
        }
        for host in Host::ALL {
            relay.middle.wait_for_carrier(end(host))?;
        }
        Ok(relay)
    }

    /// Forwards frames until `stop` is set, with faults in both directions. Returns the fault counts of
    /// the frames from A and of those from B.
    pub fn run(
        &self,
        rates: FaultRates,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<[FaultCounts; 2], TestbedError> {
        self.middle.join()?;
        let failed = |error| TestbedError::Wrong(format!("relay: {error}"));
        let open = |host, seed| {
            let port = PacketPort::open(&PacketConfig::new(end(host))).map_err(failed)?;
            let config = FaultConfig { seed, rx: rates, tx: FaultRates::default() };
            Ok::<_, TestbedError>(Fault::new(port, config))
        };
        let (mut a, mut b) = (open(Host::A, seed)?, open(Host::B, !seed)?);
        let mut frame = [0; FRAME_MAX];
        let mut pass = |from: &mut Fault<PacketPort>, to: &mut Fault<PacketPort>| {
            while let Some(length) = from.receive(&mut frame)? {
                to.send(&frame[..length])?;
            }
            to.flush()
        };
        while !stop.load(Ordering::Relaxed) {
            pass(&mut a, &mut b).and_then(|()| pass(&mut b, &mut a)).map_err(failed)?;
            let ports: &mut [&mut dyn FramePort; 2] = &mut [&mut a, &mut b];
            wait_any(ports, &WaitPolicy::default(), Some(LOOK_EVERY)).map_err(failed)?;
        }
        Ok([a.rx_counts(), b.rx_counts()])
    }
}
