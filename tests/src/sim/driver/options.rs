//! The options of a run. All of them are drawn from the seed before the first event.

use logchan::time::Duration;
use replication::driver::{ANSWER_MAX, LINK_HEADER_BYTES};
use replication::limits::FRAME_MAX;
use replication::replica::OnBackupLoss;

use crate::sim::link::LinkOptions;
use crate::sim::rng::{Chance, Rng};
use crate::sim::system::machine::program::GuestOptions;
use crate::sim::system::options::{ClientOptions, PairOptions, draw_guest};
use crate::sim::{MS, US};

/// Least lease margin: the time that an output may take from the check of the lease until it is on the LAN.
const MARGIN_NS_MIN: u64 = 500 * US;

/// The options of a run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The options that both hosts share.
    pub(super) pair: PairOptions,
    /// The hosts.
    pub(super) hosts: [HostOptions; 2],
    /// The two directions of the log link, by sender.
    pub(super) links: [LinkOptions; 2],
    /// The log link loses nothing by itself and is fast: a host falls silent only after a fault.
    pub(super) is_calm: bool,
    /// Maximum delay of a frame on the LAN, and the probability that it is lost there.
    pub(super) lan_ns_max: u64,
    pub(super) lan_loss: Chance,
    /// The clients.
    pub(super) clients: Vec<ClientOptions>,
    /// The witness.
    pub(super) witness: WitnessOptions,
    /// The guest.
    pub(super) guest: GuestOptions,
    /// The faults.
    pub(super) faults: FaultOptions,
    /// Duration of the phase with faults.
    pub(super) faults_ns: u64,
}

/// The options of one host.
#[derive(Clone, Debug)]
pub(super) struct HostOptions {
    /// Capacity of the receive ring of the log link; further frames are dropped.
    pub(super) ring_frames_max: usize,
    /// Capacity of the tap's receive queue.
    pub(super) tap_frames_max: usize,
    /// Reading of its clock at true time 0, and its rate error in parts per billion.
    pub(super) clock_origin_ns: u64,
    pub(super) drift_ppb: i64,
    /// Duration of a reading of the clock, of a system call, and of handling one frame.
    pub(super) clock_ns: u64,
    pub(super) call_ns: u64,
    pub(super) frame_ns: u64,
    /// Maximum latency from an event to the thread that it wakes.
    pub(super) wake_ns_max: u64,
    /// A wait spins for this long before it blocks.
    pub(super) spin_ns: u64,
    /// How long the driver spins for an acknowledgement.
    pub(super) ack_wait_ns: u64,
    /// Probability that a wait returns early without a reason.
    pub(super) early: Chance,
    /// Maximum time from the last check of the lease until the frames are on the LAN.
    pub(super) tap_ns_max: u64,
    /// Duration of a guest step, and maximum duration of an exit.
    pub(super) step_ns: u64,
    pub(super) exit_ns_max: u64,
    /// How long a guest that makes no exit may delay an input.
    pub(super) deadline_ns: u64,
    /// Probability that the vCPU is kicked in a region without a reason.
    pub(super) spurious_stop: Chance,
    /// Probability of console input when the machine polls for input.
    pub(super) console_input: Chance,
    /// Time per page to capture a checkpoint, to apply it, and to copy memory for a sync.
    pub(super) capture_page_ns: u64,
    pub(super) apply_page_ns: u64,
    pub(super) copy_page_ns: u64,
    /// Maximum time from the end of a process to the start of the next one.
    pub(super) restart_ns_max: u64,
    /// Time in which the operator's terminal takes a message or a byte of the console.
    pub(super) terminal_ns: u64,
}

/// The options of the witness.
#[derive(Clone, Debug)]
pub(super) struct WitnessOptions {
    /// Maximum time of a claim, one way.
    pub(super) delay_ns_max: u64,
    /// Probability that a claim hangs, and for how long at most.
    pub(super) hang: Chance,
    pub(super) hang_ns_max: u64,
    /// Probability that a hanging claim is answered soon after the client gave it up.
    pub(super) barely_late: Chance,
    /// Probability that a claim fails.
    pub(super) fails: Chance,
}

/// The faults. Intervals are means; `None` means never in this run.
#[derive(Clone, Debug)]
pub(super) struct FaultOptions {
    /// A process crashes, now or at a certain point.
    pub(super) crash_every_ns: Option<u64>,
    /// A host freezes, now or while it sends, and for how long at most.
    pub(super) freeze_every_ns: Option<u64>,
    pub(super) freeze_ns_max: u64,
    /// The log link is cut, in one or both directions, and for how long at most.
    pub(super) cut_every_ns: Option<u64>,
    pub(super) cut_ns_max: u64,
    /// A host's tap fails.
    pub(super) tap_every_ns: Option<u64>,
    /// A host's terminal is blocked, and for how long at most, or nobody reads it any more.
    pub(super) terminal_every_ns: Option<u64>,
    pub(super) terminal_ns_max: u64,
    /// The witness is unreachable from a host, and for how long at most.
    pub(super) outage_every_ns: Option<u64>,
    pub(super) outage_ns_max: u64,
    /// A backup is asked to stop.
    pub(super) stop_every_ns: Option<u64>,
    /// A primary is ordered to hand the VM over.
    pub(super) hand_over_every_ns: Option<u64>,
    /// Probability that a checkpoint cannot be applied.
    pub(super) fails_to_apply: Chance,
    /// Whether the primary is asked to stop at the end of the run.
    pub(super) stops_at_end: bool,
}

impl Options {
    /// Draws the options of a run.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let pair = draw_pair(rng);
        let silence_ns = pair.timing.silence.as_nanos();
        let margin_ns = pair.timing.lease_margin.as_nanos();
        let drift_ppb_max = i64::from(pair.timing.clock_drift_ppm) * 1000;
        let witness = WitnessOptions::draw(rng, silence_ns);
        let is_witness_slow = witness.hang != Chance::NEVER;
        let faults_ns = match is_witness_slow {
            true => rng.within(1500 * MS..=3000 * MS),
            false => (silence_ns * rng.within(5..=16)).clamp(100 * MS, 600 * MS),
        };
        let is_calm = rng.chance(Chance::percent(60));
        let hosts =
            [(); 2].map(|()| HostOptions::draw(rng, &pair, (silence_ns, margin_ns, drift_ppb_max)));
        let slowest_ns = hosts.iter().map(|host: &HostOptions| host.tap_ns_max).max();
        let tap_delay_ns = slowest_ns.unwrap_or_default() * 11 / 10 + 50 * US;
        Self {
            links: [(); 2].map(|()| draw_link(rng, silence_ns, is_calm)),
            hosts,
            is_calm,
            lan_ns_max: rng.magnitude(10 * US..=2 * MS),
            lan_loss: rng.swarm(Chance::percent(40), 100..=50_000),
            clients: (0..rng.within(1..=3)).map(|_| ClientOptions::draw(rng, silence_ns)).collect(),
            witness,
            guest: draw_guest(rng),
            faults: FaultOptions::draw(rng, silence_ns, faults_ns),
            faults_ns,
            pair: PairOptions { tap_delay_ns, ..pair },
        }
    }
}

/// Draws the options of the pair, with a lease margin that the simulated hosts keep.
fn draw_pair(rng: &mut Rng) -> PairOptions {
    loop {
        let mut pair = PairOptions::draw(rng);
        // What a VM without a backup does is a matter of the engine: see the simulator of the pair.
        pair.on_backup_loss = OnBackupLoss::Continue;
        pair.frame_bytes_max = pair.frame_bytes_max.min(FRAME_MAX - LINK_HEADER_BYTES);
        pair.witness_retry_ns = rng.pick(&[pair.witness_retry_ns, 50 * MS]);
        pair.early_release_ns = rng.pick(&[pair.early_release_ns, 200 * US]);
        if pair.timing.lease_margin >= Duration::from_nanos(MARGIN_NS_MIN) {
            return pair;
        }
    }
}

fn draw_link(rng: &mut Rng, silence_ns: u64, is_calm: bool) -> LinkOptions {
    let link = LinkOptions::draw(rng, silence_ns);
    if !is_calm {
        // The queue of an interface; and a link that is slower would delay signs of life for too long.
        let bytes_per_ms = link.bytes_per_ms.map(|rate| rate.max(3000));
        return LinkOptions {
            queue_bytes_max: link.queue_bytes_max.max(100_000),
            bytes_per_ms,
            ..link
        };
    }
    let rate = rng.magnitude(30_000..=125_000);
    let bytes_per_ms = rng.pick(&[None, Some(rate), Some(rate)]);
    LinkOptions { bytes_per_ms, queue_bytes_max: 1_000_000, ..link.healthy() }
}

impl HostOptions {
    fn draw(
        rng: &mut Rng,
        pair: &PairOptions,
        (silence_ns, margin_ns, drift_ppb_max): (u64, u64, i64),
    ) -> Self {
        let is_slow_to_apply = rng.chance(Chance::percent(40));
        let slow_ns = silence_ns * rng.within(1..=3) / pair.memory_pages;
        let fast_ns = rng.magnitude(US..=20 * US);
        Self {
            ring_frames_max: rng.magnitude(200..=1000) as usize,
            tap_frames_max: rng.magnitude(4..=64) as usize,
            clock_origin_ns: rng.magnitude(1..=1 << 60),
            drift_ppb: rng.pick(&[-drift_ppb_max, drift_ppb_max, 0]),
            clock_ns: rng.magnitude(20..=500),
            call_ns: rng.magnitude(300..=5 * US),
            frame_ns: rng.magnitude(200..=2 * US),
            wake_ns_max: rng.magnitude(US..=100 * US),
            spin_ns: rng.pick(&[0, 20 * US, 100 * US]),
            ack_wait_ns: rng.pick(&[0, 20 * US, 100 * US]),
            early: rng.swarm(Chance::percent(50), 1_000..=100_000),
            tap_ns_max: rng.pick(&[10 * US, margin_ns / 8]),
            step_ns: rng.magnitude(200..=2 * US),
            exit_ns_max: rng.magnitude(5 * US..=60 * US),
            deadline_ns: rng.magnitude(200 * US..=2 * MS),
            spurious_stop: rng.swarm(Chance::percent(50), 1_000..=100_000),
            console_input: rng.swarm(Chance::percent(30), 1_000..=20_000),
            capture_page_ns: rng.magnitude(500..=10 * US),
            apply_page_ns: if is_slow_to_apply { slow_ns } else { fast_ns },
            copy_page_ns: rng.magnitude(500..=50 * US),
            restart_ns_max: rng.magnitude(MS..=2 * silence_ns),
            terminal_ns: rng.magnitude(US..=MS),
        }
    }
}

impl WitnessOptions {
    fn draw(rng: &mut Rng, silence_ns: u64) -> Self {
        let answer_ns = ANSWER_MAX.as_nanos();
        Self {
            delay_ns_max: rng.magnitude(20 * US..=silence_ns / 4),
            hang: rng.swarm(Chance::percent(20), 300_000..=900_000),
            hang_ns_max: rng.within(answer_ns / 2..=answer_ns * 2),
            barely_late: Chance::percent(50),
            fails: rng.swarm(Chance::percent(30), 50_000..=300_000),
        }
    }
}

impl FaultOptions {
    fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        // Up to `times` faults of a kind in a run, if there are any.
        let mut every = |percent: u32, times: u64| {
            let every_ns = faults_ns / rng.within(1..=times);
            rng.chance(Chance::percent(percent)).then_some(every_ns)
        };
        Self {
            crash_every_ns: every(60, 4),
            freeze_every_ns: every(50, 5),
            cut_every_ns: every(40, 3),
            tap_every_ns: every(30, 2),
            terminal_every_ns: every(50, 3),
            outage_every_ns: every(30, 3),
            stop_every_ns: every(15, 2),
            hand_over_every_ns: every(40, 6),
            fails_to_apply: rng.swarm(Chance::percent(20), 5_000..=100_000),
            stops_at_end: rng.chance(Chance::percent(25)),
            freeze_ns_max: rng.magnitude(MS..=4 * silence_ns),
            cut_ns_max: rng.magnitude(MS..=4 * silence_ns),
            terminal_ns_max: rng.magnitude(10 * MS..=8 * silence_ns),
            outage_ns_max: rng.magnitude(MS..=4 * silence_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::system::process::{ProcessId, config};
    use crate::sim::system::sim_disk::DiskOptions;

    #[test]
    fn options_of_every_seed_are_valid() {
        for seed in 0..20_000 {
            let Options { pair, .. } = Options::draw(&mut Rng::new(seed));
            let disk = DiskOptions::none();
            let config = config(ProcessId(1), &pair, &disk, replication::Mutants::default());
            assert_eq!(config.check(), Ok(()), "seed {seed}");
        }
    }
}
