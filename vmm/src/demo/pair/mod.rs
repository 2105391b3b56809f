//! The demonstration of a protected VM: its primary is killed, or ordered to hand the VM over, repeatedly while
//! clients use the VM.
//! `summary` has the results.

mod summary;

pub use summary::{Failover, Summary};

use crate::devices::DEFAULT_MAC;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::clients::load::{Load, Threads};
use testbed::clients::redis_tools::Tool;
use testbed::clients::traffic::Ping;
use testbed::clients::{StopOnDrop, counting};
use testbed::figures::ms;
use testbed::pace::Pace;
use testbed::pair::{Host, Hosts, Network, Part, Scene, Setup, Takeover};
use testbed::{Guest, TestbedError};

/// Before the first kill and after the last one, the VM is protected and the clients run for at least this
/// time, and the counter's client gets at least this many answers.
const PROTECTED_TIME: Duration = Duration::from_millis(500);
const PROTECTED_ANSWERS: u64 = 3;

/// A delay of the prober of more than this is reported, in nanoseconds.
const LATE_REPORTED_NS_MIN: u64 = 20_000_000;

/// Range of the random time from the VM's protection to a kill, in milliseconds.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 50..=1250;

/// Parameters of a demonstration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The guest.
    pub guest: Guest,
    /// Number of times to kill the primary.
    pub kills: u32,
    /// Number of times to hand the VM over, after the kills.
    pub handovers: u32,
    /// Silence timeout in milliseconds. `None`: a default that fits this host.
    pub silence_ms: Option<u64>,
    /// Seed for the times of the kills.
    pub seed: u64,
}

/// Receives reports about the progress of a demonstration.
pub trait Progress: Send {
    /// Reports an event in one line.
    fn message(&mut self, line: &str);
    /// Reports the number of completed kills and handovers.
    fn takeovers_done(&mut self, done: u32);
}

/// Runs the demonstration with the executable `program`. `interrupted` ends it early. Removes everything that
/// it created.
///
/// # Errors
///
/// If a process or a client fails, or something that must happen does not.
pub fn run(
    program: &Path,
    plan: &Plan,
    interrupted: &Arc<AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<Summary, TestbedError> {
    let scene = Scene::new(program)?;
    let network = &scene.network;
    progress.message("LAN: hosts A and B, a client, a switch; between A and B a link for the log");
    let pace = scene.pace(&plan.guest, plan.silence_ms, interrupted)?;
    progress.message(&pace.describe());
    let setup = Setup { guest: plan.guest.clone(), ..scene.setup(pace.silence_ms()) };
    let load = Load::new(&plan.guest, pace);
    // Dropped after the clients have ended, so that every client gets the answer that it waits for.
    let mut hosts = Hosts::new(setup, pace.patience(), interrupted);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load.stop);
        let threads = Threads::new(scope, network, &load, hosts.sender());
        let (load, hosts) = (&load, &mut hosts);
        DemoRun { plan, pace, network, load, hosts, tools: Vec::new(), progress }.run(threads)
    })
}

/// A running demonstration.
struct DemoRun<'c> {
    plan: &'c Plan,
    pace: Pace,
    network: &'c Network,
    load: &'c Load,
    hosts: &'c mut Hosts,
    /// Programs of redis that run as clients.
    tools: Vec<Tool>,
    progress: &'c mut dyn Progress,
}

impl DemoRun<'_> {
    fn run(mut self, mut threads: Threads<'_, '_>) -> Result<Summary, TestbedError> {
        let ping = self.begin(&mut threads)?;
        let mut failovers = Vec::new();
        let mut random = fastrand::Rng::with_seed(self.plan.seed);
        for kill in 1..=self.plan.kills {
            failovers.push(loop {
                self.run_protected(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
                if let Some(failover) = self.fail_over(kill)? {
                    break failover;
                }
            });
            self.progress.takeovers_done(kill);
        }
        let mut handovers = Vec::new();
        for handover in 1..=self.plan.handovers {
            self.run_protected(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
            handovers.push(self.hand_over(handover)?);
            self.progress.takeovers_done(self.plan.kills + handover);
        }
        self.run_protected(PROTECTED_TIME)?;
        let (load, tools) = (self.load, &self.tools);
        self.hosts.wait("each client to complete a transfer", |_| {
            load.traffic.seen().all_completed(tools).then_some(())
        })?;
        let (ping_sent, ping_received) = ping.stop()?;
        load.stop();
        // The clients end before the VM stops, so that each gets the answer that it waits for.
        self.hosts.wait("the clients to end", |_| threads.have_ended().then_some(()))?;
        let hold = self.hosts.stop()?;

        let (tally, traffic) = (self.load.counting.tally(), self.load.traffic.seen());
        let (probed, lan) = (self.load.prober.seen(), self.load.sniffer.seen());
        let counts = &self.hosts.counts;
        Ok(Summary {
            guest: self.plan.guest.clone(),
            kills: self.plan.kills,
            handovers_planned: self.plan.handovers,
            seed: self.plan.seed,
            pace: Some(self.pace),
            failovers,
            handovers,
            pauses_ns: counts.pauses_ns.clone(),
            requests: tally.requests,
            lost: tally.lost,
            repeated: tally.repeated,
            resets: tally.resets,
            probes_sent: self.load.prober.sent(),
            probes_answered: probed.times.count() as u64,
            probes_wrong: probed.wrong,
            ping_sent,
            ping_received,
            echoes: traffic.echoes,
            pages: traffic.pages,
            redis_cli: traffic.redis_cli,
            redis_benchmarks: traffic.redis_benchmarks,
            failed: traffic.failed,
            first_failure: traffic.first_failure.clone(),
            divergences: counts.divergences,
            overlaps_in_event_logs: self.hosts.leadership.overlaps(),
            unexplained_on_lan: self.hosts.leadership.unexplained_changes(&lan.source_changes),
            lan_frames: lan.frames,
            lan_missed: lan.missed,
            unplanned: counts.unplanned,
            late_ns: self.load.prober.send_delays().max_in(0, u64::MAX),
            backups_lost: counts.backups_lost,
            hold: Some(hold),
        })
    }

    /// Starts the VM on host A, a backup on host B, and the clients.
    fn begin(&mut self, threads: &mut Threads<'_, '_>) -> Result<Ping, TestbedError> {
        let load = self.load;
        threads.start_sniffer(DEFAULT_MAC)?;
        self.hosts.wait("the sniffer", |_| load.is_listening().then_some(()))?;
        let pid = self.hosts.start(Part::Primary, Host::A)?;
        threads.start_prober()?;
        let first_answer = |_: &Hosts| load.prober.seen().times.last();
        self.hosts.wait("the VM's first answer", first_answer)?;
        let how = match self.plan.guest {
            Guest::Reference => "the VM is booted and answers",
            Guest::Linux(_) => "the Linux VM is restored from its snapshot and answers",
        };
        self.progress.message(&format!("host A, primary (process {pid}): {how}"));
        threads.start_rest()?;
        let period_ms = load.prober.period().as_secs_f64() * 1e3;
        let clients = match self.plan.guest {
            Guest::Reference => format!(
                "ping, curl, TCP echo of 64 KiB, a UDP datagram every {period_ms:.3} ms, and one persistent \
                 TCP connection to the counter"
            ),
            Guest::Linux(_) => format!(
                "ping, curl, redis ECHO of 16 KiB{}, an ICMP echo request every {period_ms:.0} ms, and one \
                 persistent TCP connection with INCR to redis",
                self.start_redis_tools(threads)?
            ),
        };
        let ping = self.network.client().enter(|| Ping::start(&self.pace))?;
        self.progress.message(&format!("clients: {clients}"));
        self.protect()?;
        self.run_protected(PROTECTED_TIME)?;
        let Plan { kills, handovers, seed, .. } = self.plan;
        self.progress.message(&format!(
            "killing the primary {kills} times (kill -9) and handing the VM over {handovers} times, at random \
             times with seed {seed}"
        ));
        Ok(ping)
    }

    /// Starts those of redis's programs that are installed. Returns their names, each after a comma.
    fn start_redis_tools(&mut self, threads: &mut Threads<'_, '_>) -> Result<String, TestbedError> {
        let mut started = String::new();
        for tool in Tool::ALL {
            let name = tool.name();
            if tool.is_installed() {
                threads.start_redis_tool(tool)?;
                started += &format!(", {name}");
                self.tools.push(tool);
            } else {
                self.progress.message(&format!("{name} is not installed (package redis-tools)"));
            }
        }
        Ok(started)
    }

    /// Starts missing backups and waits until the VM is protected.
    fn protect(&mut self) -> Result<(), TestbedError> {
        let mut new = Vec::new();
        let live = self.hosts.protect(|host, pid| new.push((host, pid)))?;
        let pause = self.hosts.counts.pauses_ns.last().map_or(0.0, |&ns| ms(ns));
        for (host, pid) in new {
            self.progress.message(&format!(
                "host {host}, backup (process {pid}): synchronized; the VM on host {live} was paused for \
                 {pause:.1} ms and is protected"
            ));
        }
        Ok(())
    }

    /// Waits for `time` and for [`PROTECTED_ANSWERS`] answers to the counter's client, and restores the VM's
    /// protection if it was lost.
    fn run_protected(&mut self, time: Duration) -> Result<(), TestbedError> {
        let load = self.load;
        let enough = load.counting.tally().requests + PROTECTED_ANSWERS;
        self.hosts.pause(time)?;
        self.hosts.wait("answers to the counter's client", |_| {
            (load.counting.tally().requests >= enough).then_some(())
        })?;
        // The VM may have lost its backup, or moved to the other host, without a kill.
        self.protect()
    }

    /// Kills the primary and waits until the VM is protected again and every client is served. Returns `None`
    /// if the VM had left the killed host before the kill.
    fn fail_over(&mut self, kill: u32) -> Result<Option<Failover>, TestbedError> {
        let client = self.network.client();
        let mut timers = Ok(String::new());
        let takeover = self.hosts.kill(|| timers = counting::timers(client, &self.plan.guest))?;
        let Some(takeover) = takeover else { return Ok(None) };
        let what = format!("kill {kill}: host {} killed; the silence was detected", takeover.dead);
        self.measure(&what, takeover, timers).map(Some)
    }

    /// Hands the VM over and waits until it is protected again and every client is served.
    fn hand_over(&mut self, number: u32) -> Result<Failover, TestbedError> {
        let (client, guest) = (self.network.client(), &self.plan.guest);
        let mut timers = Ok(String::new());
        let takeover = self.hosts.hand_over(|| timers = counting::timers(client, guest))?;
        let host = takeover.dead;
        let what = format!("handover {number}: host {host} sent no more output");
        self.measure(&what, takeover, timers)
    }

    /// Measures a takeover: `what` says what happened at the end of its first part.
    fn measure(
        &mut self,
        what: &str,
        takeover: Takeover,
        timers: Result<String, TestbedError>,
    ) -> Result<Failover, TestbedError> {
        let load = self.load;
        let Takeover { dead, killed_ns, silent_ns, live_ns } = takeover;
        let detect_ns = silent_ns.saturating_sub(killed_ns);
        let golive_ns = live_ns.saturating_sub(silent_ns);
        self.progress.message(&format!(
            "{what} after {:.1} ms; the other host went live after another {:.1} ms",
            ms(detect_ns),
            ms(golive_ns),
        ));
        self.hosts.wait("every client to be served again", |_| {
            let probe = load.prober.seen().times.last();
            let tcp = load.counting.tally().times.last();
            (probe.min(tcp) > Some(live_ns)).then_some(())
        })?;
        let outage_ns = gap(load.prober.seen().times.longest_gap(killed_ns, live_ns))?;
        let tcp_gap_ns = gap(load.counting.tally().times.longest_gap(killed_ns, live_ns))?;
        self.progress.message(&format!(
            "  outage seen by the clients: {:.1} ms by {}, {:.1} ms on the counter connection \
             (ss -ti when host {} was live: {})",
            ms(outage_ns),
            self.plan.guest.probe().name(),
            ms(tcp_gap_ns),
            dead.other(),
            timers?,
        ));
        let served_ns = load.prober.seen().times.last().unwrap_or(live_ns);
        let late_ns = load.prober.send_delays().max_in(killed_ns, served_ns);
        if late_ns > LATE_REPORTED_NS_MIN {
            self.progress.message(&format!(
                "  (this machine is busy: the prober was scheduled up to {:.1} ms late)",
                ms(late_ns)
            ));
        }
        self.protect()?;
        // After a handover, the VM may be protected again before every client was served.
        let protected_ns =
            self.hosts.protected().map_or(0, |(_, since_ns)| since_ns).max(served_ns);
        self.hosts.wait("an answer to the prober", |_| {
            (load.prober.seen().times.last() > Some(protected_ns)).then_some(())
        })?;
        let sync_gap_ns = gap(load.prober.seen().times.longest_gap(served_ns, protected_ns))?;
        Ok(Failover { detect_ns, golive_ns, outage_ns, tcp_gap_ns, sync_gap_ns, late_ns })
    }
}

fn gap(gap_ns: Option<u64>) -> Result<u64, TestbedError> {
    gap_ns.ok_or_else(|| TestbedError::Wrong("a client was answered only once".into()))
}
