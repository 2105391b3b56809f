//! Runs a protected VM under mixed load for a long time and, if requested, kills its hosts meanwhile.
//!
//! `cargo run --release -p tests --bin pair-soak -- --seconds 600 [--kill-every 20]`

use clap::Parser;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testbed::clients::traffic::Ping;
use testbed::{GUEST_ADDRESS, TestbedError, clients};
use tests::pair::couple::PairCounts;
use tests::pair::{Clients, Couple, Process, Rig, RigOptions};
use tests::patience::pace;
use vmm::{outln, stdio};

/// Pause between two burns.
const BURN_PAUSE: Duration = Duration::from_millis(800);

/// Interval of progress lines.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Run a protected VM under mixed load for a long time
#[derive(Parser)]
struct Args {
    /// Duration of the run, seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Kill one of the hosts about every this many seconds; never by default
    #[arg(long)]
    kill_every: Option<f64>,
    /// Silence timeout: time after which a silent host is declared dead, milliseconds
    #[arg(long, default_value_t = 100)]
    silence_ms: u64,
    /// Seed of the kills' moments
    #[arg(long)]
    seed: Option<u64>,
}

/// Makes the guest compute without exits at intervals and counts the computations.
fn burn(stop: &AtomicBool, burns: &AtomicU64) -> Result<(), TestbedError> {
    while !stop.load(Ordering::Relaxed) {
        clients::fetch(GUEST_ADDRESS, "/burn?ms=100")?;
        burns.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(BURN_PAUSE);
    }
    Ok(())
}

/// Formats a process's status as one line.
fn figures(process: &Process) -> String {
    let status = serde_json::Value::Object(process.status());
    format!(
        "{}: {} hold p50 {} us, p99 {} us; lag {} B; log {:.2} Mbit/s, wire {:.2} Mbit/s; \
         {} checkpoints sent, {} applied; divergences {}",
        process.host(),
        status["role"],
        status["hold"]["p50_us"],
        status["hold"]["p99_us"],
        status["lag_bytes"],
        status["log"]["mbit_per_s"].as_f64().unwrap_or(0.0),
        status["log"]["wire_mbit_per_s"].as_f64().unwrap_or(0.0),
        status["checkpoints"]["sent"],
        status["checkpoints"]["applied"],
        status["divergences"],
    )
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = Rig::new(RigOptions {
        silence_ms: args.silence_ms,
        turn: tests::alone,
        ..RigOptions::default()
    });
    outln!("{} s, silence timeout {} ms, seed {seed}", args.seconds, rig.silence_ms());
    let mut couple = Couple::start(&rig);
    let (stop, burns) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = rig.scene.network.client();
    let start = Instant::now();
    let mut next_line = start + LINE_EVERY;
    let mut kill_in = || args.kill_every.map(|every| every * (0.5 + random.f64()));
    let mut next_kill = kill_in().map(|s| start + Duration::from_secs_f64(s));
    let mut kills = [0_u64; 2];
    let (ping, clients) = std::thread::scope(|scope| {
        let burning = scope.spawn(|| client.join().and_then(|()| burn(&stop, &burns)));
        let (ping, clients) = Clients::during(&rig, |clients| {
            let ping = client.enter(|| Ping::start(&pace())).expect("ping starts");
            while start.elapsed() < Duration::from_secs(args.seconds) {
                let lives_on = couple.protect();
                if next_kill.is_some_and(|at| Instant::now() >= at) {
                    let is_primary = kills[0] <= kills[1];
                    kills[usize::from(!is_primary)] += 1;
                    couple.kill(if is_primary { lives_on } else { lives_on.other() });
                    next_kill = kill_in().map(|s| Instant::now() + Duration::from_secs_f64(s));
                }
                if Instant::now() >= next_line {
                    next_line += LINE_EVERY;
                    let (tally, seen) = (clients.counting.tally(), clients.traffic.seen());
                    outln!(
                        "{:4.0} s: {} requests, {} echoes, {} pages, {} burns, {} + {} kills",
                        start.elapsed().as_secs_f64(),
                        tally.requests,
                        seen.echoes,
                        seen.pages,
                        burns.load(Ordering::Relaxed),
                        kills[0],
                        kills[1],
                    );
                    for host in [lives_on, lives_on.other()] {
                        couple.on(host).into_iter().for_each(|p| outln!("        {}", figures(p)));
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            clients.wait_until_served();
            stop.store(true, Ordering::Relaxed);
            ping.stop().expect("ping stops")
        });
        burning.join().expect("no panic").expect("every burn is answered");
        (ping, clients)
    });
    let intervals = clients.host_sequence().len();
    let PairCounts { unplanned, losses, divergences } = couple.stop();
    let (tally, seen) = (clients.counting.tally(), clients.traffic.seen());
    outln!(
        "{} s: {} requests on one connection, none lost, repeated or reset; {} echoes of 64 KiB, {} \
         pages, {} burns; {} of {} pings answered; killed {} primaries and {} backups; the VM had {intervals} \
         leadership intervals; {unplanned} takeovers and {losses} backups lost without a kill; \
         {divergences} divergences",
        args.seconds,
        tally.requests,
        seen.echoes,
        seen.pages,
        burns.load(Ordering::Relaxed),
        ping.1,
        ping.0,
        kills[0],
        kills[1],
    );
    if divergences == 0 { stdio::finish("pair-soak") } else { ExitCode::FAILURE }
}
