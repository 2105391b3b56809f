//! What a run is like. All of it is drawn from the seed, before anything happens.

use std::ops::RangeInclusive;

use logchan::channel::Timing;
use logchan::limits::{SEALED_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MIN, WINDOW_BYTES_MIN};
use logchan::time::Duration;

use super::load::LoadOptions;
use crate::sim::link::LinkOptions;
use crate::sim::rng::{Chance, Rng};
use crate::sim::{MS, US};

/// Everything that is drawn for a run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Frames are sealed. Where they are not, checkers read them.
    pub(super) sealed: bool,
    /// The times, the same at both ends.
    pub(super) timing: Timing,
    /// Frames after which the keys are replaced.
    pub(super) rekey_after: Option<u64>,
    /// By sender.
    pub(super) links: [LinkOptions; 2],
    /// Each host.
    pub(super) hosts: [HostOptions; 2],
    /// What happens to both.
    pub(super) faults: FaultOptions,
    /// How long there are faults.
    pub(super) faults_ns: u64,
}

/// What one host is like.
#[derive(Clone, Debug)]
pub(super) struct HostOptions {
    /// Bytes of the longest frame.
    pub(super) mtu: usize,
    /// Bytes of each lane's window.
    pub(super) window_bytes: [usize; 2],
    /// Frames that wait to be taken in, at most; more of them are dropped.
    pub(super) ring_frames_max: usize,
    /// From an interrupt to the thread that it wakes, at most.
    pub(super) wake_ns_max: u64,
    /// Bytes that the driver gives to the link before they leave. `None`: it never asks.
    pub(super) backlog_bytes_max: Option<u64>,
    /// What its clock shows when the world begins.
    pub(super) clock_origin_ns: u64,
    /// How its clock errs.
    pub(super) clock: ClockStyle,
    /// From the end of a channel to the wish for another one.
    pub(super) renew_ns: RangeInclusive<u64>,
    /// What it does.
    pub(super) load: LoadOptions,
}

/// How a clock errs, within the drift that both ends were told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockStyle {
    /// As fast as it may be.
    Fastest,
    /// As slow as it may be.
    Slowest,
    /// By any amount, which changes.
    Wanders,
}

/// What happens to hosts and links; times are means. `None`: never in this run.
#[derive(Clone, Debug)]
pub(super) struct FaultOptions {
    /// One direction is cut, or both.
    pub(super) partition_every_ns: Option<u64>,
    /// How long that lasts.
    pub(super) partition_ns: RangeInclusive<u64>,
    /// A host stands still.
    pub(super) freeze_every_ns: Option<u64>,
    /// How long it does.
    pub(super) freeze_ns: RangeInclusive<u64>,
    /// A host's process dies, and another one is started.
    pub(super) restart_every_ns: Option<u64>,
    /// How long there is none.
    pub(super) down_ns: RangeInclusive<u64>,
    /// Somebody sends what was recorded, or made up.
    pub(super) forge_every_ns: Option<u64>,
    /// He holds back what a host sends.
    pub(super) hold_every_ns: Option<u64>,
    /// How long he does.
    pub(super) hold_ns: RangeInclusive<u64>,
    /// He answers a handshake with all of them that he has recorded.
    pub(super) echo: Chance,
    /// A clock changes its rate.
    pub(super) drift_every_ns: u64,
    /// A backup whose primary is silent goes live.
    pub(super) go_live: Chance,
    /// A primary that was replaced does not know.
    pub(super) stubborn: Chance,
    /// One that is refused gives way.
    pub(super) yields: bool,
}

impl Options {
    /// The options of a run.
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

/// Times that go together, often only just.
fn draw_timing(rng: &mut Rng) -> Timing {
    const MILLION: u128 = 1_000_000;
    let silence_ns = rng.magnitude(20 * MS..=120 * MS);
    let drift_ppm = rng.pick(&[0, 100, 500, 5_000, 50_000]);
    let margin_ns = silence_ns * rng.within(0..=25) / 100;
    // The longest lease that `Timing::check` lets pass.
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
    timing.check().expect("times that were made to go together");
    // What ships must be right at least.
    if rng.chance(Chance::percent(12)) { Timing::DEFAULT } else { timing }
}

/// How long something lasts: anything, or just about as long as anybody's patience.
fn draw_while(rng: &mut Rng, silence_ns: u64) -> RangeInclusive<u64> {
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
            renew_ns: draw_while(rng, silence_ns),
            load: LoadOptions::draw(rng, silence_ns, faults_ns),
        }
    }
}

impl FaultOptions {
    fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        let [partition_ns, freeze_ns, down_ns, hold_ns] =
            [(); 4].map(|()| draw_while(rng, silence_ns));
        // So many of each in a run, if there are any.
        let mut every = |times| {
            let every_ns = faults_ns / rng.within(1..=times);
            rng.chance(Chance::percent(50)).then_some(every_ns)
        };
        let [partition_every_ns, freeze_every_ns, restart_every_ns] = [12, 16, 8].map(&mut every);
        let [forge_every_ns, hold_every_ns] = [60, 8].map(&mut every);
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
            echo: rng.swarm(Chance::percent(30), 10_000..=300_000),
            drift_every_ns: faults_ns / rng.within(2..=20),
            go_live: Chance::percent(rng.within(0..=100) as u32),
            stubborn: Chance::percent(rng.within(0..=70) as u32),
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
    fn options_of_any_seed_are_sound() {
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
        assert!(tight > 5_000, "the lease is as long as it may be in {tight} of 20000 runs");
    }
}
