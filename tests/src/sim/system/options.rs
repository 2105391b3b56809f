//! What a run is like. All of it is drawn from the seed, before anything happens.

use logchan::channel::Timing;
use logchan::limits::{ENTRY_BYTES_MAX, SEALED_FRAME_BYTES_MIN, WINDOW_BYTES_MIN};
use logchan::time::Duration;
use vmm::replica::OnBackupLoss;

use super::machine::program::{GuestOptions, PAGES_MIN};
use crate::sim::link::LinkOptions;
use crate::sim::rng::{Chance, Rng};
use crate::sim::{MS, US};

/// Everything that is drawn for a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Frames of the log link are sealed, not only checked for damage.
    pub(crate) sealed: bool,
    /// What both hosts are told.
    pub(crate) pair: PairOptions,
    /// Each host.
    pub(crate) hosts: [HostOptions; 2],
    /// The log link, by sender.
    pub(crate) links: [LinkOptions; 2],
    /// The service LAN: to and from the switch, for each host, then for each client.
    pub(crate) lan: Vec<[LinkOptions; 2]>,
    /// The clients.
    pub(crate) clients: Vec<ClientOptions>,
    /// The witness.
    pub(crate) witness: WitnessOptions,
    /// The guest.
    pub(crate) guest: GuestOptions,
    /// What goes wrong.
    pub(crate) faults: FaultOptions,
    /// How long there are faults.
    pub(crate) faults_ns: u64,
}

/// What both hosts are told.
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
    pub(crate) memory_pages: u64,
    /// Pages of which both hosts keep what the log told last.
    pub(crate) delta_cache_pages_max: u64,
    /// Bytes that a vCPU's state has beside what is in it.
    pub(crate) pad_bytes: usize,
}

/// What one host is like.
#[derive(Clone, Debug)]
pub(crate) struct HostOptions {
    /// Frames of the log link that wait to be taken in, at most; more of them are dropped.
    pub(crate) ring_frames_max: usize,
    /// Frames of the LAN that wait, at most.
    pub(crate) tap_frames_max: usize,
    /// From an interrupt to the thread that it wakes, at most.
    pub(crate) wake_ns_max: u64,
    /// How old a reading of the clock may be with which frames are taken in.
    pub(crate) stale_ns_max: u64,
    /// It asks whether there is an answer before it asks for an input.
    pub(crate) asks_first: bool,
    /// How often log that no output waits for stays where it is while the guest runs.
    pub(crate) lazy: Chance,
    /// What a turn of its thread takes from one thing to the next, at most.
    pub(crate) turn_ns_max: u64,
    /// From the port of the LAN to its wire, at most; no more than the lease leaves for it.
    pub(crate) tap_ns_max: u64,
    /// Bytes that the driver gives to the log link before they leave; and up to where pages may be
    /// among them.
    pub(crate) backlog_bytes_max: u64,
    pub(crate) bulk_bytes_max: u64,
    /// What its clock shows when the world begins.
    pub(crate) clock_origin_ns: u64,
    /// By how much it errs, in parts in a billion, and whether it changes its mind.
    pub(crate) drift_ppb: i64,
    pub(crate) clock_wanders: bool,
    /// What a step of the guest takes, and an exit, at most.
    pub(crate) step_ns: u64,
    pub(crate) exit_ns_max: u64,
    /// Steps between two kicks of the vCPU, at most.
    pub(crate) kick_steps_max: u64,
    /// A run is interrupted for no reason, or a window opens at CPL0.
    pub(crate) stray: Chance,
    /// An interrupted run becomes a checkpoint although no input waits.
    pub(crate) checkpoint: Chance,
    /// How long an input waits for an exit before the vCPU is stopped for it.
    pub(crate) patience_ns: u64,
    /// Pages copied in one go, and the pause after that.
    pub(crate) copy_pages: u64,
    pub(crate) copy_pause_ns: u64,
    /// Somebody types at the console when the machine looks for input.
    pub(crate) types: Chance,
    /// From the end of a process to the start of the next one, at most.
    pub(crate) restart_ns_max: u64,
}

/// What one client is like.
#[derive(Clone, Debug)]
pub(crate) struct ClientOptions {
    /// It counts, or it wants an echo.
    pub(crate) counts: bool,
    /// Bytes that it sends beside, at most.
    pub(crate) data_bytes_max: u64,
    /// From an answer to the next request, at most.
    pub(crate) think_ns_max: u64,
    /// From a request to its repetition, the first time and at most.
    pub(crate) retry_ns: u64,
    pub(crate) retry_ns_max: u64,
}

/// What the witness is like.
#[derive(Clone, Debug)]
pub(crate) struct WitnessOptions {
    /// One way, at most.
    pub(crate) delay_ns_max: u64,
    /// A question is lost, or an answer.
    pub(crate) loss: Chance,
    /// One of them takes longer than a host waits.
    pub(crate) slow: Chance,
    /// How long a host waits for an answer.
    pub(crate) patience_ns: u64,
    /// A host is told answers that come later than that, too.
    pub(crate) tells_late: bool,
}

/// What happens; times are means. `None`: never in this run.
#[derive(Clone, Debug)]
pub(crate) struct FaultOptions {
    /// A process dies, most often the primary of a protected VM.
    pub(crate) crash_every_ns: Option<u64>,
    /// A host stands still, and how long at most.
    pub(crate) freeze_every_ns: Option<u64>,
    pub(crate) freeze_ns_max: u64,
    /// The log link is cut, one way or both, and how long at most.
    pub(crate) partition_every_ns: Option<u64>,
    pub(crate) partition_ns_max: u64,
    /// A port of the LAN is cut.
    pub(crate) lan_cut_every_ns: Option<u64>,
    /// The witness cannot be reached, by one host or both.
    pub(crate) outage_every_ns: Option<u64>,
    pub(crate) outage_ns_max: u64,
    /// The backup is stopped in good order, and started again.
    pub(crate) leave_every_ns: Option<u64>,
    /// A bit of the backup's machine flips.
    pub(crate) flip_every_ns: Option<u64>,
    /// Somebody on the log link plays back what was sent before.
    pub(crate) replay_every_ns: Option<u64>,
    /// A host whose process ended is started as if the VM had to be booted.
    pub(crate) boots_again: Chance,
    /// The switch forgets where everybody is.
    pub(crate) forget_every_ns: Option<u64>,
    /// Clocks change their rates.
    pub(crate) drift_every_ns: u64,
    /// The primary is stopped in good order when the faults are over.
    pub(crate) stops_at_end: bool,
    /// Clients ask for nothing new when the faults are over, until the VM is protected.
    pub(crate) quiet_at_end: bool,
}

impl Options {
    /// The options of a run.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let pair = PairOptions::draw(rng);
        let silence_ns = pair.timing.silence.as_nanos();
        let faults_ns = (silence_ns * rng.within(6..=24)).clamp(100 * MS, 900 * MS);
        let hosts = [(); 2].map(|()| HostOptions::draw(rng, &pair.timing));
        let clients: Vec<_> =
            (0..rng.within(1..=4)).map(|_| ClientOptions::draw(rng, silence_ns)).collect();
        // The LAN is a LAN: its delays are short against a client's patience.
        let lan_ns = rng.pick(&[2 * MS, silence_ns]);
        let lan = (0..2 + clients.len())
            .map(|_| [(); 2].map(|()| LinkOptions::draw(rng, lan_ns)))
            .collect();
        Self {
            sealed: rng.chance(Chance::percent(30)),
            links: [(); 2].map(|()| LinkOptions::draw(rng, silence_ns)),
            hosts,
            lan,
            clients,
            witness: WitnessOptions::draw(rng, silence_ns),
            guest: draw_guest(rng),
            faults: FaultOptions::draw(rng, silence_ns, faults_ns),
            faults_ns,
            pair,
        }
    }
}

impl PairOptions {
    fn draw(rng: &mut Rng) -> Self {
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
            memory_pages: rng.within(PAGES_MIN..=PAGES_MIN + 12),
            pad_bytes: rng.pick(&[0, 100, 3000, 12_000]),
            delta_cache_pages_max: rng.within(1..=PAGES_MIN + 6),
        }
    }
}

/// Times that go together, often only just.
fn draw_timing(rng: &mut Rng) -> Timing {
    const MILLION: u128 = 1_000_000;
    let silence_ns = rng.magnitude(10 * MS..=60 * MS);
    let drift_ppm = rng.pick(&[0, 500, 5_000, 50_000, 50_000]);
    let margin_ns = silence_ns * rng.within(0..=20) / 100;
    // The longest lease that `Timing::check` lets pass.
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
    timing.check().expect("times that were made to go together");
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
            asks_first: rng.chance(Chance::percent(50)),
            lazy: rng.swarm(Chance::percent(60), 300_000..=950_000),
            turn_ns_max: rng.magnitude(1..=30 * US),
            tap_ns_max: rng.pick(&[0, 20 * US, margin_ns]).min(margin_ns),
            backlog_bytes_max,
            bulk_bytes_max: rng.pick(&[backlog_bytes_max, backlog_bytes_max / 4]),
            clock_origin_ns: rng.magnitude(1..=1 << 60),
            drift_ppb: rng.pick(&[-most_ppb, -most_ppb, most_ppb, most_ppb, 0]),
            clock_wanders: rng.chance(Chance::percent(30)),
            step_ns: rng.magnitude(200..=4 * US),
            exit_ns_max: rng.magnitude(5 * US..=100 * US),
            kick_steps_max: rng.magnitude(20..=1000),
            stray: rng.swarm(Chance::percent(70), 1_000..=300_000),
            checkpoint: rng.swarm(Chance::percent(70), 1_000..=500_000),
            patience_ns: rng.magnitude(100 * US..=5 * MS),
            copy_pages: rng.magnitude(1..=16),
            copy_pause_ns: if slow_copy { 10 * pause_ns } else { pause_ns },
            types: rng.swarm(Chance::percent(40), 1_000..=50_000),
            restart_ns_max: rng.magnitude(MS..=2 * silence_ns),
        }
    }
}

impl ClientOptions {
    fn draw(rng: &mut Rng, silence_ns: u64) -> Self {
        let retry_ns = rng.magnitude(3 * MS..=15 * MS);
        Self {
            counts: rng.chance(Chance::percent(70)),
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
            patience_ns: 2 * delay_ns_max + rng.magnitude(100 * US..=10 * MS),
            tells_late: rng.chance(Chance::percent(50)),
        }
    }
}

fn draw_guest(rng: &mut Rng) -> GuestOptions {
    let has_timer = rng.chance(Chance::percent(65));
    let timer_us_max = rng.magnitude(500..=20_000);
    GuestOptions {
        busy_percent: rng.pick(&[0, 5, 20, 50, 90]),
        compute_steps_max: rng.magnitude(50..=4000),
        chatter_percent: rng.pick(&[0, 20, 50, 70]),
        entropy_bytes_max: rng.pick(&[16, 500, 4096]),
        timer_us_max: if has_timer { timer_us_max } else { 0 },
        speak_percent: rng.pick(&[5, 20, 60]),
    }
}

impl FaultOptions {
    fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        // So many of each in a run, if there are any.
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
            leave_every_ns: every(20, 3),
            flip_every_ns: every(25, 4),
            replay_every_ns: every(25, 30),
            forget_every_ns: every(20, 3),
            drift_every_ns: faults_ns / rng.within(1..=8),
            freeze_ns_max: rng.magnitude(MS..=4 * silence_ns),
            partition_ns_max: rng.magnitude(MS..=4 * silence_ns),
            outage_ns_max: rng.magnitude(MS..=4 * silence_ns),
            boots_again: rng.swarm(Chance::percent(20), 50_000..=300_000),
            stops_at_end: rng.chance(Chance::percent(8)),
            quiet_at_end: rng.chance(Chance::percent(40)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::ProcessId;
    use super::*;
    use netpath::hold::HoldLimits;

    #[test]
    fn options_of_any_seed_are_sound() {
        for seed in 0..20_000 {
            let Options { pair, hosts, .. } = Options::draw(&mut Rng::new(seed));
            let config = super::super::process::config(
                ProcessId(1),
                &pair,
                vmm::replica::Mutants::default(),
            );
            assert_eq!(config.check(), Ok(()), "seed {seed}");
            assert!(HoldLimits::new(pair.hold_frames, pair.hold_bytes).is_ok());
            let margin_ns = pair.timing.lease_margin.as_nanos();
            assert!(hosts.iter().all(|host| host.tap_ns_max <= margin_ns));
        }
    }
}
