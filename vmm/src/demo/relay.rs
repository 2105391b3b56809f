//! A log link that loses, duplicates and reorders frames: a thread forwards them between the ports of a
//! [`LogSwitch`], with the faults of [`Fault`].

use netpath::middleware::fault::{Fault, FaultConfig, FaultCounts, FaultRates};
use netpath::{FRAME_MAX, FramePort, PacketConfig, PacketPort, PortError, WaitPolicy, wait_any};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, LogSwitch};

/// Polling interval of the stop flag on an idle link.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Forwards frames until `stop` is set, with `rates` of faults for the frames from A and for those from B. The
/// ports must be taken out of the switch ([`LogSwitch::take_out`]). Returns the counts of the faults.
///
/// # Errors
///
/// If a port can't be opened, or fails.
pub fn run(
    switch: &LogSwitch,
    rates: [FaultRates; 2],
    seed: u64,
    stop: &AtomicBool,
) -> Result<[FaultCounts; 2], TestbedError> {
    switch.namespace().enter(|| {
        let forwarded = forward(rates, seed, stop);
        forwarded.map_err(|error| TestbedError::Wrong(format!("relay on the log link: {error}")))
    })
}

fn forward(
    [from_a, from_b]: [FaultRates; 2],
    seed: u64,
    stop: &AtomicBool,
) -> Result<[FaultCounts; 2], PortError> {
    let open = |host, rx, seed| {
        let port = PacketPort::open(&PacketConfig::new(LogSwitch::port(host)))?;
        let config = FaultConfig { seed, rx, tx: FaultRates::default() };
        Ok::<_, PortError>(Fault::new(port, config))
    };
    let (mut a, mut b) = (open(Host::A, from_a, seed)?, open(Host::B, from_b, !seed)?);
    let mut frame = [0; FRAME_MAX];
    let mut pass = |from: &mut Fault<PacketPort>, to: &mut Fault<PacketPort>| {
        while let Some(length) = from.receive(&mut frame)? {
            to.send(&frame[..length])?;
        }
        to.flush()
    };
    while !stop.load(Ordering::Relaxed) {
        pass(&mut a, &mut b).and_then(|()| pass(&mut b, &mut a))?;
        let ports: &mut [&mut dyn FramePort; 2] = &mut [&mut a, &mut b];
        wait_any(ports, &WaitPolicy::default(), Some(POLL_INTERVAL))?;
    }
    Ok([a.rx_counts(), b.rx_counts()])
}
