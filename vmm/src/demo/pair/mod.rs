//! The demonstration of a protected VM: its host is killed again and again while clients talk to it.
//!
//! | file | holds |
//! |---|---|
//! | `network` | hosts A and B, a client, a switch, a log link: namespaces |
//! | `member`, `hosts` | the processes of the pair, and what they say |
//! | `crowd` | everybody who talks to the VM or listens |
//! | `prober`, `counting`, `traffic` | the clients |
//! | `probe`, `redis_tools` | how the prober knocks; redis's own programs as clients |
//! | `sniffer`, `reigns` | who speaks for the VM: on the LAN, and by the accounts |
//! | `figures`, `summary` | what it all came to |
//! | `scene` | what a pair needs before its first process |
//! | `watch` | the pair without clients and kills: false alarms |

pub mod counting;
mod crowd;
pub mod figures;
mod hosts;
pub mod member;
pub mod network;
pub mod probe;
pub mod prober;
pub mod redis_tools;
pub mod reigns;
pub mod scene;
pub mod sniffer;
mod summary;
pub mod traffic;
mod watch;

pub use summary::{Failover, Summary};
pub use watch::{Watched, watch};

use super::DemoError;
use super::guest::Guest;
use crate::demo::pace::Pace;
use crowd::{Crowd, StopOnDrop, Threads};
use figures::ms;
use hosts::{Hosts, Takeover};
use member::Part;
use network::{Host, Network};
use redis_tools::Tool;
use scene::Scene;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use traffic::Ping;

/// All clients talk to a protected VM for at least this long before the first kill and after the last, and the
/// counter's client is answered as often meanwhile.
const UNDISTURBED: Duration = Duration::from_millis(500);
const UNDISTURBED_ANSWERS: u64 = 3;

/// A busy machine is mentioned from here on.
const LATE_SAID_NS: u64 = 20_000_000;

/// A kill comes at a random moment after the VM is protected: so many milliseconds later.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 50..=1250;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the VM is.
    pub guest: Guest,
    /// How often the primary is killed.
    pub kills: u32,
    /// After how long a silent host is taken for dead, milliseconds; as fits this host if it is not given.
    pub silence_ms: Option<u64>,
    /// Of the moments of the kills.
    pub seed: u64,
}

/// Whoever watches.
pub trait Audience: Send {
    /// Something happened.
    fn say(&mut self, line: &str);
    /// So many kills are through.
    fn kills_done(&mut self, done: u32);
}

/// Runs the demonstration with processes made of `program`. `interrupted` ends it early. Leaves nothing
/// behind.
pub fn run(
    program: &Path,
    plan: &Plan,
    interrupted: &Arc<AtomicBool>,
    audience: &mut dyn Audience,
) -> Result<Summary, DemoError> {
    let scene = Scene::new()?;
    let network = &scene.network;
    audience.say("LAN: hosts A and B, a client, a switch; between A and B a link for the log");
    let pace = scene.pace(program, (&plan.guest, plan.silence_ms), interrupted)?;
    audience.say(&pace.describe());
    let setup = scene.setup(program, &plan.guest, pace.silence_ms());
    let crowd = Crowd::new(&plan.guest, pace);
    // They go after the clients: whoever still waits for an answer gets it.
    let mut hosts = Hosts::new(&setup, pace.patience(), interrupted);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&crowd);
        let threads = Threads::new(scope, network, &crowd, hosts.sender());
        let (crowd, hosts) = (&crowd, &mut hosts);
        Course { plan, pace, network, crowd, hosts, tools: Vec::new(), audience }.run(threads)
    })
}

/// The demonstration under way.
struct Course<'c, 'h> {
    plan: &'c Plan,
    pace: Pace,
    network: &'c Network,
    crowd: &'c Crowd,
    hosts: &'c mut Hosts<'h>,
    /// Programs of redis that run.
    tools: Vec<Tool>,
    audience: &'c mut dyn Audience,
}

impl Course<'_, '_> {
    fn run(mut self, mut threads: Threads<'_, '_>) -> Result<Summary, DemoError> {
        let ping = self.begin(&mut threads)?;
        let mut failovers = Vec::new();
        let mut random = fastrand::Rng::with_seed(self.plan.seed);
        for kill in 1..=self.plan.kills {
            failovers.push(loop {
                self.undisturbed(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
                if let Some(failover) = self.fail_over(kill)? {
                    break failover;
                }
            });
            self.audience.kills_done(kill);
        }
        self.undisturbed(UNDISTURBED)?;
        let (crowd, tools) = (self.crowd, &self.tools);
        self.hosts.wait("each client to get to an end", |_| {
            crowd.traffic.seen().is_whole(tools).then_some(())
        })?;
        let (ping_sent, ping_received) = ping.stop()?;
        crowd.stop();
        // Before the VM stops: whoever waits for an answer gets it.
        self.hosts.wait("the clients to end", |_| threads.have_ended().then_some(()))?;
        let hold = self.hosts.stop()?;

        let (tally, traffic) = (self.crowd.counting.tally(), self.crowd.traffic.seen());
        let (probed, lan) = (self.crowd.prober.seen(), self.crowd.sniffer.seen());
        let counts = &self.hosts.counts;
        Ok(Summary {
            guest: self.plan.guest.clone(),
            kills: self.plan.kills,
            seed: self.plan.seed,
            pace: Some(self.pace),
            failovers,
            pauses_ns: counts.pauses_ns.clone(),
            requests: tally.requests,
            lost: tally.lost,
            repeated: tally.repeated,
            resets: tally.resets,
            probes_sent: self.crowd.prober.sent(),
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
            doubles_by_account: self.hosts.reigns.doubles(),
            doubles_on_lan: self.hosts.reigns.unexplained(&lan.turns),
            lan_frames: lan.frames,
            lan_missed: lan.missed,
            unplanned: counts.unplanned,
            late_ns: self.crowd.prober.lates().most_in(0, u64::MAX),
            backups_lost: counts.backups_lost,
            hold: Some(hold),
        })
    }

    /// Starts the VM on host A, protects it by host B, and starts the clients.
    fn begin(&mut self, threads: &mut Threads<'_, '_>) -> Result<Ping, DemoError> {
        let crowd = self.crowd;
        threads.start_sniffer()?;
        self.hosts.wait("the sniffer", |_| crowd.is_listening().then_some(()))?;
        let pid = self.hosts.start(Part::Primary, Host::A)?;
        threads.start_prober()?;
        let first_answer = |_: &Hosts<'_>| crowd.prober.seen().times.last();
        self.hosts.wait("the VM's first answer", first_answer)?;
        let how = match self.plan.guest {
            Guest::Reference => "the VM is booted and answers",
            Guest::Linux(_) => "the Linux VM goes on from its snapshot and answers",
        };
        self.audience.say(&format!("host A, primary (process {pid}): {how}"));
        threads.start_rest()?;
        let period_ms = crowd.prober.period().as_secs_f64() * 1e3;
        let clients = match self.plan.guest {
            Guest::Reference => format!(
                "ping, curl, TCP echo of 64 KiB, a UDP datagram every {period_ms:.3} ms, and one TCP \
                 connection to the counter for the whole time"
            ),
            Guest::Linux(_) => format!(
                "ping, curl, ECHO of 16 KiB by redis{}, an ICMP echo request every {period_ms:.0} ms, and \
                 one TCP connection with INCR to redis for the whole time",
                self.start_redis_tools(threads)?
            ),
        };
        let ping = self.network.client().enter(|| Ping::start(&self.pace))?;
        self.audience.say(&format!("clients: {clients}"));
        self.protect()?;
        self.undisturbed(UNDISTURBED)?;
        self.audience.say(&format!(
            "now the primary is killed {} times (kill -9, at random moments of seed {})",
            self.plan.kills, self.plan.seed
        ));
        Ok(ping)
    }

    /// Starts those of redis's programs that are there; which, for a list.
    fn start_redis_tools(&mut self, threads: &mut Threads<'_, '_>) -> Result<String, DemoError> {
        let mut started = String::new();
        for tool in Tool::ALL {
            let name = tool.name();
            if tool.is_installed() {
                threads.start_redis_tool(tool)?;
                started += &format!(", {name}");
                self.tools.push(tool);
            } else {
                self.audience.say(&format!("{name} is not installed (package redis-tools)"));
            }
        }
        Ok(started)
    }

    /// Sees to it that the VM is protected.
    fn protect(&mut self) -> Result<(), DemoError> {
        let mut new = Vec::new();
        let live = self.hosts.protect(|host, pid| new.push((host, pid)))?;
        let pause = self.hosts.counts.pauses_ns.last().map_or(0.0, |&ns| ms(ns));
        for (host, pid) in new {
            self.audience.say(&format!(
                "host {host}, backup (process {pid}): has the whole VM; for the last of it the VM \
                 on {live} stood still for {pause:.1} ms. Protected"
            ));
        }
        Ok(())
    }

    /// Lets `time` pass, and the counter's client be answered, with a protected VM.
    fn undisturbed(&mut self, time: Duration) -> Result<(), DemoError> {
        let crowd = self.crowd;
        let enough = crowd.counting.tally().requests + UNDISTURBED_ANSWERS;
        self.hosts.pause(time)?;
        self.hosts.wait("answers to the counter's client", |_| {
            (crowd.counting.tally().requests >= enough).then_some(())
        })?;
        // It may have lost its backup, or moved, all by itself.
        self.protect()
    }

    /// One kill, and everything that follows until the VM is protected again and every client served.
    /// `None`: the host that was killed was not the VM's any more.
    fn fail_over(&mut self, kill: u32) -> Result<Option<Failover>, DemoError> {
        let (crowd, client) = (self.crowd, self.network.client());
        let mut timers = Ok(String::new());
        let takeover = self.hosts.kill(|| timers = counting::timers(client, &self.plan.guest))?;
        let Some(takeover) = takeover else { return Ok(None) };
        let Takeover { dead, killed_ns, silent_ns, live_ns } = takeover;
        let detect_ns = silent_ns.saturating_sub(killed_ns);
        let golive_ns = live_ns.saturating_sub(silent_ns);
        self.audience.say(&format!(
            "kill {kill}: host {dead} is dead; {:.1} ms later host {} notices, and is live after \
             another {:.1} ms",
            ms(detect_ns),
            dead.other(),
            ms(golive_ns),
        ));
        self.hosts.wait("every client to be served again", |_| {
            let probe = crowd.prober.seen().times.last();
            let tcp = crowd.counting.tally().times.last();
            (probe.min(tcp) > Some(live_ns)).then_some(())
        })?;
        let outage_ns = gap(crowd.prober.seen().times.longest_gap(killed_ns, live_ns))?;
        let tcp_gap_ns = gap(crowd.counting.tally().times.longest_gap(killed_ns, live_ns))?;
        self.audience.say(&format!(
            "  the clients missed it for {:.1} ms by {}, for {:.1} ms on the counter connection \
             (ss -ti when host {} was live: {})",
            ms(outage_ns),
            self.plan.guest.probe().name(),
            ms(tcp_gap_ns),
            dead.other(),
            timers?,
        ));
        let served_ns = crowd.prober.seen().times.last().unwrap_or(live_ns);
        let late_ns = crowd.prober.lates().most_in(killed_ns, served_ns);
        if late_ns > LATE_SAID_NS {
            self.audience.say(&format!(
                "  (this machine is busy: a client that wanted to run had to wait for {:.1} ms)",
                ms(late_ns)
            ));
        }
        self.protect()?;
        let protected_ns = self.hosts.protected().map_or(served_ns, |(_, since_ns)| since_ns);
        self.hosts.wait("an answer to the prober", |_| {
            (crowd.prober.seen().times.last() > Some(protected_ns)).then_some(())
        })?;
        let sync_gap_ns = gap(crowd.prober.seen().times.longest_gap(served_ns, protected_ns))?;
        let failover =
            Failover { detect_ns, golive_ns, outage_ns, tcp_gap_ns, sync_gap_ns, late_ns };
        Ok(Some(failover))
    }
}

fn gap(gap_ns: Option<u64>) -> Result<u64, DemoError> {
    gap_ns.ok_or_else(|| DemoError::Wrong("a client was answered only once".into()))
}
