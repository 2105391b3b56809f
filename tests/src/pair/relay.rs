//! [`Relay`]: a log link that loses, repeats and reorders frames.
//!
//! The direct wire between the two hosts is replaced by two, with a thread in between that passes on
//! what [`Fault`] lets pass. (Kernels may lack netem; this one needs nothing.)

use super::rig::Rig;
use crate::patience::Waiting;
use netpath::middleware::fault::{Fault, FaultConfig, FaultCounts, FaultRates};
use netpath::{FRAME_MAX, FramePort, PacketConfig, PacketPort, WaitPolicy, wait_any};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vmm::demo::DemoError;
use vmm::demo::lan::Namespace;
use vmm::demo::pair::network::{Host, LOG_LINK};

/// From one look at the stop flag to the next, on an idle link.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The place between two hosts; its wires go with it.
pub struct Relay {
    middle: Namespace,
}

/// The end of a host's wire in the middle.
fn end(host: Host) -> &'static str {
    match host {
        Host::A => "from-a",
        Host::B => "from-b",
    }
}

impl Relay {
    /// Puts it between the hosts of `rig`, which have no process yet.
    pub fn new(rig: &Rig) -> Result<Relay, DemoError> {
        let relay = Relay { middle: Namespace::new("middle")? };
        // Both ends of it.
        rig.ip(Host::A, &format!("link del {LOG_LINK}"));
        for host in Host::ALL {
            let namespace = rig.network.host(host);
            let (name, middle) = (namespace.name(), end(host));
            let ip = |namespace: &Namespace, text: String| {
                namespace.ip(&text.split(' ').collect::<Vec<_>>()).map(drop)
            };
            ip(
                &relay.middle,
                format!("link add {middle} type veth peer name {LOG_LINK} netns {name}"),
            )?;
            // In the middle, each end stands for the host that is not there.
            for (place, interface, mac) in [
                (namespace, LOG_LINK, host.log_mac()),
                (&relay.middle, middle, host.other().log_mac()),
            ] {
                ip(place, format!("link set {interface} address {mac} addrgenmode none up"))?;
            }
        }
        let waiting = Waiting::default();
        for host in Host::ALL {
            while !relay.middle.ip(&["-o", "link", "show", end(host)])?.contains(" state UP ") {
                waiting.goes_on(|| format!("the carrier of {}", end(host)));
            }
        }
        Ok(relay)
    }

    /// Passes frames on until `stop`, with faults in either direction; what became of those that came
    /// from A, and of those from B.
    pub fn run(
        &self,
        rates: FaultRates,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<[FaultCounts; 2], DemoError> {
        self.middle.join()?;
        let failed = |error| DemoError::Wrong(format!("relay: {error}"));
        let open = |host, seed| {
            let port = PacketPort::open(&PacketConfig::new(end(host))).map_err(failed)?;
            let config = FaultConfig { seed, rx: rates, tx: FaultRates::default() };
            Ok::<_, DemoError>(Fault::new(port, config))
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
