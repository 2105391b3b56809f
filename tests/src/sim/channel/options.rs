//! The options of a run. All of them are drawn from the seed before the first event.

use std::ops::RangeInclusive;

use logchan::channel::Timing;
use logchan::limits::{SEALED_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MIN, WINDOW_BYTES_MIN};
use logchan::time::Duration;

use super::load::LoadOptions;
use crate::sim::link::LinkOptions;
use crate::sim::rng::{Chance, Rng};
use crate::sim::{MS, US};

/// The options of a run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Whether frames are sealed. In other runs the checkers decode them.
    pub(super) sealed: bool,
    /// The channel's times, the same at both ends.
    pub(super) timing: Timing,
    /// Number of frames after which the keys are replaced.
    pub(super) rekey_after: Option<u64>,
    /// The two directions of the link, by sender.
    pub(super) links: [LinkOptions; 2],
    /// The hosts.
    pub(super) hosts: [HostOptions; 2],
    /// The faults of hosts and links.
    pub(super) faults: FaultOptions,
    /// Duration of the phase with faults.
    pub(super) faults_ns: u64,
}

/// The options of one host.
#[derive(Clone, Debug)]
pub(super) struct HostOptions {
    /// Bytes of the longest frame.
    pub(super) mtu: usize,
    /// Bytes of each lane's window.
    pub(super) window_bytes: [usize; 2],
    /// Capacity of the receive ring; further frames are dropped.
    pub(super) ring_frames_max: usize,
    /// Maximum latency from an interrupt to the thread that it wakes.
    pub(super) wake_ns_max: u64,
    /// Maximum number of bytes that the driver queues at the link. `None`: unlimited.
    pub(super) backlog_bytes_max: Option<u64>,
    /// Reading of its clock at true time 0.
    pub(super) clock_origin_ns: u64,
    /// How its clock drifts.
    pub(super) clock: ClockStyle,
    /// Time from the end of a channel to its renewal.
    pub(super) renew_ns: RangeInclusive<u64>,
    /// The load of its program.
    pub(super) load: LoadOptions,
}

/// How a clock drifts, within the configured maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockStyle {
    /// At the maximum rate.
    Fastest,
    /// At the minimum rate.
    Slowest,
    /// At a random rate, which changes.
    Wanders,
}

/// The faults of hosts and links. Intervals are means; `None` means never in this run.
#[derive(Clone, Debug)]
pub(super) struct FaultOptions {
    /// One or both directions of the link are cut.
    pub(super) partition_every_ns: Option<u64>,
    /// Duration of a partition.
    pub(super) partition_ns: RangeInclusive<u64>,
    /// A host freezes.
    pub(super) freeze_every_ns: Option<u64>,
    /// Duration of a freeze.
    pub(super) freeze_ns: RangeInclusive<u64>,
    /// A host's process dies and is restarted.
    pub(super) restart_every_ns: Option<u64>,
    /// Time from the death of a process to its restart.
    pub(super) down_ns: RangeInclusive<u64>,
    /// The attacker sends recorded or made-up frames.
    pub(super) forge_every_ns: Option<u64>,
    /// The attacker withholds the frames of a host.
    pub(super) hold_every_ns: Option<u64>,
    /// How long it withholds them.
    pub(super) hold_ns: RangeInclusive<u64>,
    /// The attacker answers a handshake by replaying recorded ones.
    pub(super) replay_handshakes: Chance,
    /// A clock changes its rate.
    pub(super) drift_every_ns: u64,
    /// A backup whose primary is silent goes live.
    pub(super) go_live: Chance,
    /// A replaced primary comes back as primary, because it does not know that it was replaced.
    pub(super) stale_primary: Chance,
    /// Whether a host in a wrong role renews when its peer refuses it.
    pub(super) yields: bool,
}

impl Options {
    /// Draws the options of a run.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let timing = draw_timing(rng);
        let silence_ns = timing.silence.as_nanos();
        let faults_ns = silence_ns * rng.within(4..=20);
        let rekeys = rng.chance(Chance::percent(25));
        let rekey_after = rng.magnitude(20..=500);
        Self {
            sealed: rng.chance(Chance::percent(40)),
            timing,
            rekey_after: rekeys.then_some(rekey_after),
            links: [(); 2].map(|()| LinkOptions::draw(rng, silence_ns)),
            hosts: [(); 2].map(|()| HostOptions::draw(rng, silence_ns, faults_ns)),
            faults: FaultOptions::draw(rng, silence_ns, faults_ns),
            faults_ns,
        }
    }
}

/// Draws valid times, often at the limit of validity.
fn draw_timing(rng: &mut Rng) -> Timing {
    const MILLION: u128 = 1_000_000;
    let silence_ns = rng.magnitude(20 * MS..=120 * MS);
    let drift_ppm = rng.pick(&[0, 100, 500, 5_000, 50_000]);
    let margin_ns = silence_ns * rng.within(0..=25) / 100;
    // The longest lease that `Timing::check` accepts.
    let (fast, slow) = (MILLION + u128::from(drift_ppm), MILLION - u128::from(drift_ppm));
    let ends = u128::from(silence_ns) * MILLION * slow - u128::from(margin_ns) * fast * slow;
    let longest_ns = (ends / (MILLION * fast)) as u64;
    let shorter_ns = rng.within(longest_ns / 2..=longest_ns);
    let lease_ns = rng.pick(&[longest_ns, shorter_ns]);
    let retransmit_min_ns = rng.magnitude(200 * US..=2 * MS);
    let timing = Timing {
        heartbeat: Duration::from_nanos(lease_ns / rng.within(3..=12)),
        silence: Duration::from_nanos(silence_ns),
        lease: Duration::from_nanos(lease_ns),
        lease_margin: Duration::from_nanos(margin_ns),
        clock_drift_ppm: drift_ppm,
        retransmit_min: Duration::from_nanos(retransmit_min_ns),
        retransmit_max: Duration::from_nanos(rng.magnitude(retransmit_min_ns..=20 * MS)),
    };
    timing.check().expect("valid times");
    // Some runs use the default times.
    if rng.chance(Chance::percent(12)) { Timing::DEFAULT } else { timing }
}

/// Draws a range of durations: of any magnitude, or close to the silence timeout.
fn draw_duration(rng: &mut Rng, silence_ns: u64) -> RangeInclusive<u64> {
    let any = 1..=rng.magnitude(100 * US..=3 * silence_ns);
    let about = silence_ns * 9 / 10..=silence_ns * 3 / 2;
    if rng.chance(Chance::percent(40)) { about } else { any }
}

impl HostOptions {
    fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        let any_mtu = rng.within(SEALED_FRAME_BYTES_MIN as u64..=SEALED_FRAME_BYTES_MAX as u64);
        let window = |rng: &mut Rng| {
            let more = rng.magnitude(1..=1 << 18);
            WINDOW_BYTES_MIN + rng.pick(&[0, 0, more]) as usize
        };
        let backlog_bytes_max = rng.magnitude(1..=10_000);
        Self {
            mtu: rng.pick(&[1500, 1500, SEALED_FRAME_BYTES_MIN, 9000, any_mtu as usize]),
            window_bytes: [window(rng), window(rng)],
            ring_frames_max: rng.magnitude(8..=1024) as usize,
            wake_ns_max: rng.magnitude(1..=200 * US),
            backlog_bytes_max: rng.chance(Chance::percent(60)).then_some(backlog_bytes_max),
            clock_origin_ns: rng.magnitude(1..=1 << 60),
            clock: rng.pick(&[ClockStyle::Fastest, ClockStyle::Slowest, ClockStyle::Wanders]),
            renew_ns: draw_duration(rng, silence_ns),
            load: LoadOptions::draw(rng, silence_ns, faults_ns),
        }
    }
}

impl FaultOptions {
    fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        let [partition_ns, freeze_ns, down_ns, hold_ns] =
            [(); 4].map(|()| draw_duration(rng, silence_ns));
        // Up to `times` faults of a kind in a run, if there are any.
        let mut every = |times| {
            let every_ns = faults_ns / rng.within(1..=times);
            rng.chance(Chance::percent(50)).then_some(every_ns)
        };
        let [partition_every_ns, freeze_every_ns, restart_every_ns] = [12, 16, 8].map(&mut every);
        let [forge_every_ns, hold_every_ns] = [60, 16].map(&mut every);
        Self {
            partition_every_ns,
            partition_ns,
            freeze_every_ns,
            freeze_ns,
            restart_every_ns,
            down_ns,
            forge_every_ns,
            hold_every_ns,
            hold_ns,
            replay_handshakes: rng.swarm(Chance::percent(30), 10_000..=300_000),
            drift_every_ns: faults_ns / rng.within(2..=20),
            go_live: Chance::percent(rng.within(0..=100) as u32),
            stale_primary: Chance::percent(rng.within(0..=70) as u32),
            yields: rng.chance(Chance::percent(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::endpoint::Settings;
    use logchan::ids::{Role, Term, VmId};

    #[test]
    fn options_of_every_seed_are_valid() {
        let mut tight = 0;
        for seed in 0..20_000 {
            let Options { timing, hosts, .. } = Options::draw(&mut Rng::new(seed));
            for host in hosts {
                let settings = Settings::new(Role::Primary, VmId(1), Term(1));
                let (frame_bytes_max, window_bytes) = (host.mtu, host.window_bytes);
                let settings = Settings { frame_bytes_max, window_bytes, timing, ..settings };
                assert_eq!(settings.check(), Ok(()), "seed {seed}");
            }
            let longer = Duration::from_nanos(timing.lease.as_nanos() + 2);
            tight += u64::from(Timing { lease: longer, ..timing }.check().is_err());
        }
        assert!(tight > 5_000, "the lease has its maximum in {tight} of 20000 runs");
    }
}
