//! The options of a run. All of them are drawn from the seed before the first event.

use logchan::channel::Timing;
use logchan::limits::{ENTRY_BYTES_MAX, SEALED_FRAME_BYTES_MIN, WINDOW_BYTES_MIN};
use logchan::time::Duration;
use replication::replica::OnBackupLoss;

use super::machine::disk::RING_SLOTS;
use super::machine::program::{GuestOptions, PAGES_MIN};
use super::sim_disk::DiskOptions;
use crate::sim::link::LinkOptions;
use crate::sim::rng::{Chance, Rng};
use crate::sim::{MS, US};

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Whether frames of the log link are sealed, or only protected against damage.
    pub(crate) sealed: bool,
    /// The options that both hosts share.
    pub(crate) pair: PairOptions,
    /// The hosts.
    pub(crate) hosts: [HostOptions; 2],
    /// The two directions of the log link, by sender.
    pub(crate) links: [LinkOptions; 2],
    /// The links to and from the switch of the service LAN, for each host, then for each client.
    pub(crate) lan: Vec<[LinkOptions; 2]>,
    /// The clients.
    pub(crate) clients: Vec<ClientOptions>,
    /// The witness.
    pub(crate) witness: WitnessOptions,
    /// The guest.
    pub(crate) guest: GuestOptions,
    /// The disks of both hosts.
    pub(crate) disk: DiskOptions,
    /// The faults.
    pub(crate) faults: FaultOptions,
    /// Duration of the phase with faults.
    pub(crate) faults_ns: u64,
}

/// The options that both hosts share.
#[derive(Clone, Debug)]
pub(crate) struct PairOptions {
    pub(crate) timing: Timing,
    pub(crate) frame_bytes_max: usize,
    pub(crate) window_bytes: [usize; 2],
    pub(crate) lag_bytes_max: u64,
    pub(crate) hold_frames: usize,
    pub(crate) hold_bytes: usize,
    pub(crate) early_release_ns: u64,
    pub(crate) on_backup_loss: OnBackupLoss,
    pub(crate) witness_retry_ns: u64,
    /// Interval at which a host asks whether its term is the newest.
    pub(crate) witness_check_ns: u64,
    /// Longest time from a tap to the LAN, on both hosts.
    pub(crate) tap_delay_ns: u64,
    pub(crate) memory_pages: u64,
    /// Maximum number of pages in the delta cache of both hosts.
    pub(crate) delta_cache_pages_max: u64,
    /// Padding of the vCPU's state in a checkpoint.
    pub(crate) pad_bytes: usize,
}

/// The options of one host.
#[derive(Clone, Debug)]
pub(crate) struct HostOptions {
    /// Capacity of the receive ring of the log link; further frames are dropped.
    pub(crate) ring_frames_max: usize,
    /// Capacity of the tap's receive queue.
    pub(crate) tap_frames_max: usize,
    /// Maximum latency from an interrupt to the thread that it wakes.
    pub(crate) wake_ns_max: u64,
    /// Maximum age of the clock reading with which frames are received.
    pub(crate) stale_ns_max: u64,
    /// Whether the machine polls the engine for readiness before it asks for an input.
    pub(crate) polls_input_first: bool,
    /// Probability that log that no output waits for is not sent while the guest runs.
    pub(crate) defer_transmit: Chance,
    /// Maximum time between two steps of a driver iteration.
    pub(crate) step_delay_ns_max: u64,
    /// Maximum delay of a frame in the tap, at most the lease margin.
    pub(crate) tap_ns_max: u64,
    /// Maximum number of bytes that the driver queues at the log link, for log and for bulk (pages).
    pub(crate) backlog_bytes_max: u64,
    pub(crate) bulk_bytes_max: u64,
    /// Reading of its clock at true time 0.
    pub(crate) clock_origin_ns: u64,
    /// Rate error of its clock in parts per billion, and whether the error changes.
    pub(crate) drift_ppb: i64,
    pub(crate) clock_wanders: bool,
    /// Duration of a guest step, and maximum duration of an exit.
    pub(crate) step_ns: u64,
    pub(crate) exit_ns_max: u64,
    /// Maximum number of steps between two kicks of the vCPU.
    pub(crate) kick_steps_max: u64,
    /// Probability that a run is interrupted earlier than by its regular kick.
    pub(crate) spurious_stop: Chance,
    /// Probability that a mid-region stop becomes a checkpoint although no input waits.
    pub(crate) checkpoint: Chance,
    /// How long an input waits for an exit before the vCPU is stopped for it.
    pub(crate) input_wait_ns_max: u64,
    /// Number of pages that precopy copies at a time, and the pause after that.
    pub(crate) copy_pages: u64,
    pub(crate) copy_pause_ns: u64,
    /// Probability of console input when the machine polls for input.
    pub(crate) console_input: Chance,
    /// Maximum time from the end of a process to the start of the next one.
    pub(crate) restart_ns_max: u64,
    /// Whether its interface shows that the log link is cut.
    pub(crate) sees_cut_link: bool,
}

/// The options of one client.
#[derive(Clone, Debug)]
pub(crate) struct ClientOptions {
    /// Whether it uses the counter service, otherwise the echo service.
    pub(crate) uses_counter: bool,
    /// Maximum number of data bytes in a request.
    pub(crate) data_bytes_max: u64,
    /// Maximum time from an answer to the next request.
    pub(crate) think_ns_max: u64,
    /// Initial and maximum time from a request to its retry.
    pub(crate) retry_ns: u64,
    pub(crate) retry_ns_max: u64,
}

/// The options of the witness.
#[derive(Clone, Debug)]
pub(crate) struct WitnessOptions {
    /// Maximum one-way delay.
    pub(crate) delay_ns_max: u64,
    /// Probability that a claim or an answer is lost.
    pub(crate) loss: Chance,
    /// Probability that a claim or an answer takes longer, possibly beyond the host's timeout.
    pub(crate) slow: Chance,
    /// How long a host waits for an answer.
    pub(crate) timeout_ns: u64,
    /// Whether answers after the timeout are delivered, too.
    pub(crate) delivers_late: bool,
}

/// The faults. Intervals are means; `None` means never in this run.
#[derive(Clone, Debug)]
pub(crate) struct FaultOptions {
    /// A process crashes, most often the primary of a protected VM.
    pub(crate) crash_every_ns: Option<u64>,
    /// A host freezes, and for how long at most.
    pub(crate) freeze_every_ns: Option<u64>,
    pub(crate) freeze_ns_max: u64,
    /// The log link is cut, in one or both directions, and for how long at most.
    pub(crate) partition_every_ns: Option<u64>,
    pub(crate) partition_ns_max: u64,
    /// A port of the LAN is cut.
    pub(crate) lan_cut_every_ns: Option<u64>,
    /// The witness is unreachable from one or both hosts, and for how long at most.
    pub(crate) outage_every_ns: Option<u64>,
    pub(crate) outage_ns_max: u64,
    /// A host finds another storage in the place of the witness, for as long as an outage.
    pub(crate) other_witness_every_ns: Option<u64>,
    /// The backup is stopped in an orderly way and restarted.
    pub(crate) stop_backup_every_ns: Option<u64>,
    /// A primary is ordered to hand the VM over.
    pub(crate) hand_over_every_ns: Option<u64>,
    /// An operator says that no host runs the VM.
    pub(crate) forget_vm_every_ns: Option<u64>,
    /// Claims are removed from the witness's storage.
    pub(crate) remove_claims_every_ns: Option<u64>,
    /// A bit of the backup's machine flips.
    pub(crate) flip_every_ns: Option<u64>,
    /// An attacker on the log link replays recorded frames.
    pub(crate) replay_every_ns: Option<u64>,
    /// Probability that a process is restarted as if it had to boot the VM.
    pub(crate) boots_wrongly: Chance,
    /// The switch loses its address table.
    pub(crate) forget_every_ns: Option<u64>,
    /// A clock changes its rate.
    pub(crate) drift_every_ns: u64,
    /// Whether the primary is stopped in an orderly way after healing.
    pub(crate) stops_at_end: bool,
    /// Whether clients make no new requests after healing until the VM is protected.
    pub(crate) pause_clients_at_end: bool,
}

impl Options {
    /// Draws the options of a run.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let pair = PairOptions::draw(rng);
        let silence_ns = pair.timing.silence.as_nanos();
        let faults_ns = (silence_ns * rng.within(6..=24)).clamp(100 * MS, 900 * MS);
        let hosts = [(); 2].map(|()| HostOptions::draw(rng, &pair.timing));
        let clients: Vec<_> =
            (0..rng.within(1..=4)).map(|_| ClientOptions::draw(rng, silence_ns)).collect();
        // The delays of the LAN are usually short compared with a client's retry time.
        let lan_ns = rng.pick(&[2 * MS, silence_ns]);
        let lan = (0..2 + clients.len())
            .map(|_| [(); 2].map(|()| LinkOptions::draw(rng, lan_ns)))
            .collect();
        let slowest_ns = hosts.iter().map(|host| host.tap_ns_max).max().unwrap_or_default();
        let tap_delay_ns = slowest_ns * 11 / 10 + 50 * US;
        let mut options = Self {
            sealed: rng.chance(Chance::percent(30)),
            links: [(); 2].map(|()| LinkOptions::draw(rng, silence_ns)),
            hosts,
            lan,
            clients,
            witness: WitnessOptions::draw(rng, silence_ns),
            guest: draw_guest(rng),
            disk: DiskOptions::none(),
            faults: FaultOptions::draw(rng, silence_ns, faults_ns),
            faults_ns,
            pair: PairOptions { tap_delay_ns, ..pair },
        };
        options.disk = DiskOptions::draw(rng, silence_ns);
        if options.disk.disks > 0 {
            options.guest.disk_percent = options.disk.busy_percent;
            // A guest must not read a block again before it knows that a write to it has failed.
            options.guest.disk_depth = if options.disk.has_faults() { 1 } else { RING_SLOTS };
        }
        options
    }
}

impl PairOptions {
    pub(in crate::sim) fn draw(rng: &mut Rng) -> Self {
        let timing = draw_timing(rng);
        let window = |rng: &mut Rng| rng.magnitude(WINDOW_BYTES_MIN as u64..=256 << 10);
        let window_bytes = [window(rng), window(rng)];
        let any_lag = rng.within(ENTRY_BYTES_MAX as u64..=window_bytes[0]);
        let mtu = rng.pick(&[SEALED_FRAME_BYTES_MIN as u64, 600, 1500, 1500, 9000]);
        Self {
            timing,
            frame_bytes_max: mtu as usize,
            window_bytes: window_bytes.map(|bytes| bytes as usize),
            lag_bytes_max: rng.pick(&[ENTRY_BYTES_MAX as u64, any_lag]),
            hold_frames: rng.magnitude(1..=64) as usize,
            hold_bytes: rng.magnitude(1518..=64 << 10) as usize,
            early_release_ns: rng.magnitude(100 * US..=3 * MS),
            on_backup_loss: if rng.chance(Chance::percent(25)) {
                OnBackupLoss::Block
            } else {
                OnBackupLoss::Continue
            },
            witness_retry_ns: rng.magnitude(MS..=20 * MS),
            witness_check_ns: rng.magnitude(10 * MS..=1000 * MS),
            // Set once the hosts are known.
            tap_delay_ns: 0,
            memory_pages: rng.within(PAGES_MIN..=PAGES_MIN + 12),
            pad_bytes: rng.pick(&[0, 100, 3000, 12_000]),
            delta_cache_pages_max: rng.within(1..=PAGES_MIN + 6),
        }
    }
}

/// Draws valid times, often at the limit of validity.
fn draw_timing(rng: &mut Rng) -> Timing {
    const MILLION: u128 = 1_000_000;
    let silence_ns = rng.magnitude(10 * MS..=60 * MS);
    let drift_ppm = rng.pick(&[0, 500, 5_000, 50_000, 50_000]);
    let margin_ns = silence_ns * rng.within(0..=20) / 100;
    // The longest lease that `Timing::check` accepts.
    let (fast, slow) = (MILLION + u128::from(drift_ppm), MILLION - u128::from(drift_ppm));
    let ends = u128::from(silence_ns) * MILLION * slow - u128::from(margin_ns) * fast * slow;
    let longest_ns = (ends / (MILLION * fast)) as u64;
    let shorter_ns = rng.within(longest_ns / 2..=longest_ns);
    let lease_ns = rng.pick(&[longest_ns, longest_ns, shorter_ns]);
    let retransmit_min_ns = rng.magnitude(200 * US..=MS);
    let timing = Timing {
        heartbeat: Duration::from_nanos(lease_ns / rng.within(3..=10)),
        silence: Duration::from_nanos(silence_ns),
        lease: Duration::from_nanos(lease_ns),
        lease_margin: Duration::from_nanos(margin_ns),
        clock_drift_ppm: drift_ppm,
        retransmit_min: Duration::from_nanos(retransmit_min_ns),
        retransmit_max: Duration::from_nanos(rng.magnitude(retransmit_min_ns..=10 * MS)),
    };
    timing.check().expect("valid times");
    timing
}

impl HostOptions {
    fn draw(rng: &mut Rng, timing: &Timing) -> Self {
        let silence_ns = timing.silence.as_nanos();
        let most_ppb = i64::from(timing.clock_drift_ppm) * 1000;
        let margin_ns = timing.lease_margin.as_nanos();
        let backlog_bytes_max = rng.magnitude(1000..=100_000);
        let (slow_copy, pause_ns) =
            (rng.chance(Chance::percent(30)), rng.magnitude(10 * US..=2 * MS));
        Self {
            ring_frames_max: rng.magnitude(16..=512) as usize,
            tap_frames_max: rng.magnitude(2..=64) as usize,
            wake_ns_max: rng.magnitude(1..=200 * US),
            stale_ns_max: rng.pick(&[0, 5 * US, 50 * US]),
            polls_input_first: rng.chance(Chance::percent(50)),
            defer_transmit: rng.swarm(Chance::percent(60), 300_000..=950_000),
            step_delay_ns_max: rng.magnitude(1..=30 * US),
            tap_ns_max: rng.pick(&[0, 20 * US, margin_ns]).min(margin_ns),
            backlog_bytes_max,
            bulk_bytes_max: rng.pick(&[backlog_bytes_max, backlog_bytes_max / 4]),
            clock_origin_ns: rng.magnitude(1..=1 << 60),
            drift_ppb: rng.pick(&[-most_ppb, -most_ppb, most_ppb, most_ppb, 0]),
            clock_wanders: rng.chance(Chance::percent(30)),
            step_ns: rng.magnitude(200..=4 * US),
            exit_ns_max: rng.magnitude(5 * US..=100 * US),
            kick_steps_max: rng.magnitude(20..=1000),
            spurious_stop: rng.swarm(Chance::percent(70), 1_000..=300_000),
            checkpoint: rng.swarm(Chance::percent(70), 1_000..=500_000),
            input_wait_ns_max: rng.magnitude(100 * US..=5 * MS),
            copy_pages: rng.magnitude(1..=16),
            copy_pause_ns: if slow_copy { 10 * pause_ns } else { pause_ns },
            console_input: rng.swarm(Chance::percent(40), 1_000..=50_000),
            restart_ns_max: rng.magnitude(MS..=2 * silence_ns),
            sees_cut_link: rng.chance(Chance::percent(50)),
        }
    }
}

impl ClientOptions {
    pub(in crate::sim) fn draw(rng: &mut Rng, silence_ns: u64) -> Self {
        let retry_ns = rng.magnitude(3 * MS..=15 * MS);
        Self {
            uses_counter: rng.chance(Chance::percent(70)),
            data_bytes_max: rng.pick(&[0, 100, 1450]),
            think_ns_max: rng.magnitude(100 * US..=silence_ns / 2),
            retry_ns,
            retry_ns_max: retry_ns * rng.within(1..=4),
        }
    }
}

impl WitnessOptions {
    fn draw(rng: &mut Rng, silence_ns: u64) -> Self {
        let delay_ns_max = rng.magnitude(10 * US..=silence_ns / 4);
        Self {
            delay_ns_max,
            loss: rng.swarm(Chance::percent(40), 10_000..=300_000),
            slow: rng.swarm(Chance::percent(40), 10_000..=300_000),
            timeout_ns: 2 * delay_ns_max + rng.magnitude(100 * US..=10 * MS),
            delivers_late: rng.chance(Chance::percent(50)),
        }
    }
}

pub(in crate::sim) fn draw_guest(rng: &mut Rng) -> GuestOptions {
    let has_timer = rng.chance(Chance::percent(65));
    let timer_us_max = rng.magnitude(500..=20_000);
    GuestOptions {
        busy_percent: rng.pick(&[0, 5, 20, 50, 90]),
        compute_steps_max: rng.magnitude(50..=4000),
        device_read_percent: rng.pick(&[0, 20, 50, 70]),
        entropy_bytes_max: rng.pick(&[16, 500, 4096]),
        timer_us_max: if has_timer { timer_us_max } else { 0 },
        unsolicited_percent: rng.pick(&[5, 20, 60]),
        disk_percent: 0,
        disk_depth: 1,
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
            crash_every_ns: every(60, 5),
            freeze_every_ns: every(50, 5),
            partition_every_ns: every(40, 4),
            lan_cut_every_ns: every(20, 3),
            outage_every_ns: every(30, 4),
            stop_backup_every_ns: every(20, 3),
            hand_over_every_ns: every(40, 8),
            remove_claims_every_ns: every(15, 2),
            forget_vm_every_ns: every(15, 1),
            flip_every_ns: every(25, 4),
            replay_every_ns: every(25, 30),
            forget_every_ns: every(20, 3),
            other_witness_every_ns: every(40, 3),
            drift_every_ns: faults_ns / rng.within(1..=8),
            freeze_ns_max: rng.magnitude(MS..=4 * silence_ns),
            partition_ns_max: rng.magnitude(MS..=4 * silence_ns),
            outage_ns_max: rng.magnitude(MS..=4 * silence_ns),
            boots_wrongly: rng.swarm(Chance::percent(20), 50_000..=300_000),
            stops_at_end: rng.chance(Chance::percent(8)),
            pause_clients_at_end: rng.chance(Chance::percent(40)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::ProcessId;
    use super::*;
    use replication::hold::HoldLimits;

    #[test]
    fn options_of_every_seed_are_valid() {
        for seed in 0..20_000 {
            let Options { pair, hosts, .. } = Options::draw(&mut Rng::new(seed));
            let config = super::super::process::config(
                ProcessId(1),
                &pair,
                &DiskOptions::none(),
                replication::Mutants::default(),
            );
            assert_eq!(config.check(), Ok(()), "seed {seed}");
            assert!(HoldLimits::new(pair.hold_frames, pair.hold_bytes).is_ok());
            let margin_ns = pair.timing.lease_margin.as_nanos();
            assert!(hosts.iter().all(|host| host.tap_ns_max <= margin_ns));
        }
    }
}
