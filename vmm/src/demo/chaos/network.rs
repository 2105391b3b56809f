//! Faults of the log link and of a host's way to the LAN.

use super::super::relay;
use super::bound::LAN_SILENT_AFTER;
use super::run::Chaos;
use crate::health::LAN_POLL_INTERVAL;
use netpath::middleware::fault::{FaultCounts, FaultRates};
use netpath::packet_port::CHANNEL_ETHERTYPE;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testbed::intruder::{Intensity, Intruder, Sent};
use testbed::namespace::SWITCH;
use testbed::pair::{Host, Isolation, LOG_LINK, LogSwitch};
use testbed::{Namespace, TAP, TestbedError};

/// For each host, frames of its log link that an intruder has captured.
pub(super) type OldFrames = [Vec<Vec<u8>>; 2];

/// Every frame is lost.
const CUT: FaultRates = FaultRates { drop: 10_000, ..INTACT };

/// 5 % are lost, 5 % reordered, 2 % duplicated.
const LOSSY: FaultRates = FaultRates { drop: 500, duplicate: 200, reorder: 500, ..INTACT };

const INTACT: FaultRates =
    FaultRates { drop: 0, duplicate: 0, reorder: 0, delay: 0, corrupt: 0, delay_frames: 0 };

/// An address that no interface has.
const OTHER_MAC: &str = "02:00:00:00:02:0c";

/// How many frames an intruder sends: some thousand per second, several for each one of the log.
const INTENSITY: Intensity = Intensity { burst: 8, pause: Duration::from_millis(1) };

/// Cuts the log link in both directions, for less or more than the silence timeout: one end has no carrier, or
/// both have theirs and no frame passes.
pub(super) fn cut_log_link(
    chaos: &mut Chaos<'_, '_, '_>,
    _primary: Host,
) -> Result<(), TestbedError> {
    let switch = &chaos.tools.switch;
    let port = match chaos.random.u32(..3) {
        0 => Some(LogSwitch::port(Host::A)),
        1 => Some(LogSwitch::port(Host::B)),
        _neither => None,
    };
    match port {
        Some(port) => down_and_up(chaos, switch.namespace(), port, 2..=30),
        None => {
            switch.isolate(Isolation::On)?;
            chaos.hold(2..=30)?;
            switch.isolate(Isolation::Off)
        }
    }
}

/// Loses all log frames that `host` sends, for less or more than the silence timeout.
pub(super) fn cut_log_from(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    let rates = Host::ALL.map(|sender| if sender == host { CUT } else { INTACT });
    relayed(chaos, rates, 2..=30).map(drop)
}

/// Deletes the log interface of `host`, and makes it again after less or more than the silence timeout.
pub(super) fn make_log_nic_again(
    chaos: &mut Chaos<'_, '_, '_>,
    host: Host,
) -> Result<(), TestbedError> {
    chaos.pair.network.host(host).ip(&format!("link del {LOG_LINK}"))?;
    chaos.hold(2..=30)?;
    chaos.tools.switch.plug_in(chaos.pair.network, host, host.log_mac())
}

/// Gives the log interface of `host` another MAC address for a while.
pub(super) fn change_log_mac(
    chaos: &mut Chaos<'_, '_, '_>,
    host: Host,
) -> Result<(), TestbedError> {
    let namespace = chaos.pair.network.host(host);
    namespace.ip(&format!("link set {LOG_LINK} address {OTHER_MAC}"))?;
    chaos.hold(10..=60)?;
    namespace.ip(&format!("link set {LOG_LINK} address {}", host.log_mac())).map(drop)
}

/// Loses, duplicates and reorders some log frames.
pub(super) fn lose_log_frames(
    chaos: &mut Chaos<'_, '_, '_>,
    _primary: Host,
) -> Result<(), TestbedError> {
    let counts = relayed(chaos, [LOSSY; 2], 20..=60)?;
    match counts.iter().any(|count| count.dropped > 0) {
        true => Ok(()),
        false => Err(TestbedError::Wrong(format!("no frame was lost: {counts:?}"))),
    }
}

/// Forwards the log frames by a thread of this process for a random time, with these faults of the frames from A
/// and of those from B.
fn relayed(
    chaos: &mut Chaos<'_, '_, '_>,
    rates: [FaultRates; 2],
    tenths: RangeInclusive<u32>,
) -> Result<[FaultCounts; 2], TestbedError> {
    let (switch, seed) = (&chaos.tools.switch, chaos.random.u64(..));
    switch.take_out()?;
    let counts = chaos.hold_during(tenths, |stop| relay::run(switch, rates, seed, stop))?;
    switch.put_back()?;
    Ok(counts)
}

/// Sends forged, replayed, damaged and foreign frames to the other host.
pub(super) fn send_hostile_frames(
    chaos: &mut Chaos<'_, '_, '_>,
    host: Host,
) -> Result<(), TestbedError> {
    let (namespace, seed) = (chaos.pair.network.host(host), chaos.random.u64(..));
    let old = std::mem::take(&mut chaos.old_frames[host.index()]);
    let sent = Sent::default();
    let captured = chaos.hold_during(20..=60, |stop| {
        namespace.enter(|| {
            let mut intruder = Intruder::open(LOG_LINK, CHANNEL_ETHERTYPE, seed)?;
            intruder.attack(&old, INTENSITY, &sent, stop)?;
            Ok::<_, TestbedError>(intruder.captured().to_vec())
        })
    })?;
    chaos.old_frames[host.index()] = captured;
    match sent.iter().all(|count| count.load(Ordering::Relaxed) == 0) {
        true => Err(TestbedError::Wrong("the intruder sent nothing".into())),
        false => Ok(()),
    }
}

/// Takes the VM's tap down, or out of its bridge.
pub(super) fn tap_down(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    let network = chaos.pair.network;
    let [away, back] = match chaos.random.bool() {
        true => ["down".into(), "up".into()],
        false => ["nomaster".into(), format!("master {SWITCH}")],
    };
    network.host(host).ip(&format!("link set {TAP} {away}"))?;
    hold_without_lan(chaos, host, LAN_POLL_INTERVAL * 2)?;
    network.host(host).ip(&format!("link set {TAP} {back}")).map(drop)
}

/// Deletes the VM's tap and makes it again.
pub(super) fn delete_tap(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    let network = chaos.pair.network;
    network.host(host).ip(&format!("link del {TAP}"))?;
    hold_without_lan(chaos, host, LAN_POLL_INTERVAL * 2)?;
    network.restore_tap(host)
}

/// Takes down what connects the host with the LAN: its network card, the switch's port, or its bridge.
pub(super) fn uplink_down(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    let network = chaos.pair.network;
    let (namespace, interface) = match chaos.random.u32(..3) {
        0 => (network.host(host), "eth0"),
        1 => (network.switch(), host.port()),
        _other => (network.host(host), SWITCH),
    };
    namespace.ip(&format!("link set {interface} down"))?;
    hold_without_lan(chaos, host, LAN_POLL_INTERVAL * 2)?;
    namespace.ip(&format!("link set {interface} up")).map(drop)
}

/// The switch of the LAN forwards nothing from and to the host, whose carrier stays.
pub(super) fn lan_silent(chaos: &mut Chaos<'_, '_, '_>, host: Host) -> Result<(), TestbedError> {
    let (switch, port) = (chaos.pair.network.switch(), host.port());
    switch.ip(&format!("link set {port} nomaster"))?;
    hold_without_lan(chaos, host, LAN_SILENT_AFTER)?;
    switch.ip(&format!("link set {port} master {SWITCH}")).map(drop)
}

/// Waits until the host has noticed, after `noticed` at most, and for a random time more.
fn hold_without_lan(
    chaos: &mut Chaos<'_, '_, '_>,
    host: Host,
    noticed: Duration,
) -> Result<(), TestbedError> {
    if chaos.hosts().leader().is_some_and(|leader| leader.host == host) {
        chaos.hosts().wait_for_leader(host.other())?;
    } else {
        chaos.hosts().pause(noticed)?;
    }
    chaos.hold(5..=20)
}

/// Takes an interface down for a random time.
fn down_and_up(
    chaos: &mut Chaos<'_, '_, '_>,
    namespace: &Namespace,
    interface: &str,
    tenths: RangeInclusive<u32>,
) -> Result<(), TestbedError> {
    namespace.ip(&format!("link set {interface} down"))?;
    chaos.hold(tenths)?;
    namespace.ip(&format!("link set {interface} up")).map(drop)
}
