//! The demonstration of a protected VM: its host is killed again and again while clients talk to it.
//!
//! | file | holds |
//! |---|---|
//! | `network` | hosts A and B, a client, a switch, a log link: namespaces |
//! | `member`, `hosts` | the processes of the pair, and what they say |
//! | `prober`, `counting`, `traffic` | the clients |
//! | `sniffer`, `reigns` | who speaks for the VM: on the LAN, and by the accounts |
//! | `figures`, `summary` | what it all came to |

mod counting;
mod figures;
mod hosts;
mod member;
mod network;
mod prober;
mod reigns;
mod sniffer;
mod summary;
mod traffic;

pub use summary::Summary;

use super::DemoError;
use super::lan::Namespace;
use crate::cli::options::DEFAULT_MAC;
use counting::Counting;
use crossbeam::channel::Sender;
use figures::ms;
use hosts::{Hosts, Takeover};
use member::{Message, Part, Setup};
use network::{Host, Network};
use prober::Prober;
use sniffer::Sniffer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;
use summary::Failover;
use traffic::{Ping, Traffic};

/// A VM that has not answered by then will not.
const BOOT_MAX: Duration = Duration::from_secs(10);

/// From the other host's being live to every client's being served again: more than TCP's
/// retransmission timer makes of any outage.
const SERVED_MAX: Duration = Duration::from_secs(15);

/// All clients talk to a protected VM for at least this long before the first kill and after the last.
const UNDISTURBED: Duration = Duration::from_millis(500);

/// A kill comes at a random moment after the VM is protected: so many milliseconds later.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 50..=1250;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the primary is killed.
    pub kills: u32,
    /// After how long a silent host is taken for dead, milliseconds.
    pub silence_ms: u64,
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

/// Everybody who talks to the VM, and who listens.
#[derive(Debug, Default)]
struct Clients {
    stop: AtomicBool,
    sniffer_ready: AtomicBool,
    prober: Prober,
    counting: Counting,
    traffic: Traffic,
    sniffer: Sniffer,
}

/// Ends all clients, whatever happens.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the demonstration with processes made of `program`. `interrupted` ends it early. Leaves nothing
/// behind.
pub fn run(
    program: &Path,
    plan: &Plan,
    interrupted: &Arc<AtomicBool>,
    audience: &mut dyn Audience,
) -> Result<Summary, DemoError> {
    let folder = tempfile::Builder::new().prefix("understudy-demo-").tempdir();
    let folder = folder.map_err(DemoError::client("making a temporary folder"))?;
    let (key, witness) = (folder.path().join("key"), folder.path().join("witness"));
    std::fs::create_dir(&witness).map_err(DemoError::client("making the witness's folder"))?;
    crate::link::key_file::create(&key)
        .map_err(|error| DemoError::Wrong(format!("making a key: {error}")))?;
    let network = Network::new()?;
    audience.say("LAN: hosts A and B, a client, a switch; between A and B a link for the log");
    let setup = Setup {
        program,
        network: &network,
        key: &key,
        witness: &witness,
        silence_ms: plan.silence_ms,
    };
    let clients = Clients::default();
    let mut hosts = Hosts::new(&setup, interrupted);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&clients.stop);
        let trouble = hosts.sender();
        Course { plan, network: &network, clients: &clients, hosts: &mut hosts, audience }
            .run(scope, &trouble)
    })
}

/// The demonstration under way.
struct Course<'c, 'h> {
    plan: &'c Plan,
    network: &'c Network,
    clients: &'c Clients,
    hosts: &'c mut Hosts<'h>,
    audience: &'c mut dyn Audience,
}

impl<'c> Course<'c, '_> {
    fn run<'scope>(
        mut self,
        scope: &'scope Scope<'scope, 'c>,
        trouble: &Sender<Message>,
    ) -> Result<Summary, DemoError>
    where
        'c: 'scope,
    {
        let clients = self.clients;
        let ping = self.begin(scope, trouble)?;
        let mut failovers = Vec::new();
        let mut sync_gaps_ns = Vec::new();
        let mut random = fastrand::Rng::with_seed(self.plan.seed);
        for kill in 1..=self.plan.kills {
            let after = Duration::from_millis(random.u64(KILL_AFTER_MS));
            self.undisturbed(after)?;
            let (failover, sync_gap_ns) = self.fail_over(kill)?;
            failovers.push(failover);
            sync_gaps_ns.push(sync_gap_ns);
            self.audience.kills_done(kill);
        }
        self.undisturbed(UNDISTURBED)?;
        let (ping_sent, ping_received) = ping.stop()?;
        clients.stop.store(true, Ordering::Relaxed);
        self.hosts.stop()?;

        let tally = clients.counting.tally();
        let traffic = clients.traffic.seen();
        let udp = clients.prober.seen();
        let lan = clients.sniffer.seen();
        let counts = &self.hosts.counts;
        Ok(Summary {
            kills: self.plan.kills,
            seed: self.plan.seed,
            silence_ms: self.plan.silence_ms,
            failovers,
            pauses_ns: counts.pauses_ns.clone(),
            sync_gaps_ns,
            requests: tally.requests,
            lost: tally.lost,
            repeated: tally.repeated,
            resets: tally.resets,
            udp_sent: clients.prober.sent(),
            udp_answered: udp.times.count() as u64,
            udp_wrong: udp.wrong,
            ping_sent,
            ping_received,
            echoes: traffic.echoes,
            pages: traffic.pages,
            failed: traffic.failed,
            first_failure: traffic.first_failure.clone(),
            divergences: counts.divergences,
            doubles_by_account: self.hosts.reigns.doubles(),
            doubles_on_lan: self.hosts.reigns.unexplained(&lan.turns),
            lan_frames: lan.frames,
            lan_missed: lan.missed,
            unplanned: counts.unplanned,
            backups_lost: counts.backups_lost,
        })
    }

    /// Boots the VM on host A, protects it by host B, and starts the clients.
    fn begin<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'c>,
        trouble: &Sender<Message>,
    ) -> Result<Ping, DemoError>
    where
        'c: 'scope,
    {
        let Course { plan, network, clients, .. } = *self;
        let start =
            |name: &str, namespace: &'c Namespace, run| spawn(scope, trouble, name, namespace, run);
        start(
            "sniffer",
            network.switch(),
            Box::new(|| {
                let ready = || clients.sniffer_ready.store(true, Ordering::Relaxed);
                clients.sniffer.run(DEFAULT_MAC, &clients.stop, ready)
            }),
        )?;
        self.hosts.wait("the switch's sniffer", BOOT_MAX, |_| {
            clients.sniffer_ready.load(Ordering::Relaxed).then_some(())
        })?;
        let pid = self.hosts.start(Part::Primary, Host::A)?;
        start("prober", network.client(), Box::new(|| clients.prober.run(&clients.stop)))?;
        self.hosts
            .wait("the VM's first answer", BOOT_MAX, |_| clients.prober.seen().times.last())?;
        self.audience
            .say(&format!("host A, primary (process {pid}): the VM is booted and answers"));
        start("counter", network.client(), Box::new(|| clients.counting.run(&clients.stop)))?;
        let echo = || {
            clients.traffic.echo(&clients.stop);
            Ok(())
        };
        start("echo", network.client(), Box::new(echo))?;
        let pages = || {
            clients.traffic.pages(&clients.stop);
            Ok(())
        };
        start("pages", network.client(), Box::new(pages))?;
        let ping = network.client().enter(Ping::start)?;
        self.audience.say(
            "clients: ping, curl, TCP echo of 64 KiB, a UDP datagram every ms, and one TCP \
             connection to the counter for the whole time",
        );
        self.protect()?;
        self.undisturbed(UNDISTURBED)?;
        self.audience.say(&format!(
            "now the primary is killed {} times (kill -9, at random moments of seed {})",
            plan.kills, plan.seed
        ));
        Ok(ping)
    }

    /// Sees to it that the VM is protected.
    fn protect(&mut self) -> Result<(), DemoError> {
        let mut new = Vec::new();
        let live = self.hosts.protect(|host, pid| new.push((host, pid)))?;
        let pause = self.hosts.counts.pauses_ns.last().map_or(0.0, |&ns| ms(ns));
        for (host, pid) in new {
            self.audience.say(&format!(
                "host {host}, backup (process {pid}): has the whole VM; for the last of it the VM \
                 stood still for {pause:.1} ms. Protected on {live}"
            ));
        }
        Ok(())
    }

    /// Lets `time` pass with a protected VM.
    fn undisturbed(&mut self, time: Duration) -> Result<(), DemoError> {
        self.hosts.pause(time)?;
        // It may have lost its backup, or moved, all by itself.
        self.protect()
    }

    /// One kill, and everything that follows until the VM is protected again and every client served.
    /// With it the longest time without an answer by UDP during the new backup's sync.
    fn fail_over(&mut self, kill: u32) -> Result<(Failover, u64), DemoError> {
        let Course { network, clients, .. } = *self;
        let mut timers = Ok(String::new());
        let takeover = self.hosts.kill(|| timers = counting::timers(network.client()))?;
        let Takeover { dead, killed_ns, silent_ns, live_ns } = takeover;
        self.audience.say(&format!(
            "kill {kill}: host {dead} is dead; {:.1} ms later host {} notices, and is live after \
             another {:.1} ms",
            ms(silent_ns.saturating_sub(killed_ns)),
            dead.other(),
            ms(live_ns.saturating_sub(silent_ns)),
        ));
        self.hosts.wait("every client to be served again", SERVED_MAX, |_| {
            let udp = clients.prober.seen().times.last();
            let tcp = clients.counting.tally().times.last();
            (udp.min(tcp) > Some(live_ns)).then_some(())
        })?;
        let outage_ns = gap(clients.prober.seen().times.longest_gap(killed_ns, live_ns))?;
        let tcp_gap_ns = gap(clients.counting.tally().times.longest_gap(killed_ns, live_ns))?;
        self.audience.say(&format!(
            "  the clients missed it for {:.1} ms by UDP, for {:.1} ms on the counter connection \
             (ss -ti when host {} was live: {})",
            ms(outage_ns),
            ms(tcp_gap_ns),
            dead.other(),
            timers?,
        ));
        let served_ns = clients.prober.seen().times.last().unwrap_or(live_ns);
        self.protect()?;
        let protected_ns = self.hosts.protected().map_or(served_ns, |(_, since_ns)| since_ns);
        self.hosts.wait("an answer by UDP", SERVED_MAX, |_| {
            (clients.prober.seen().times.last() > Some(protected_ns)).then_some(())
        })?;
        let sync_gap_ns = clients.prober.seen().times.longest_gap(served_ns, protected_ns);
        let failover = Failover {
            detect_ns: silent_ns.saturating_sub(killed_ns),
            golive_ns: live_ns.saturating_sub(silent_ns),
            outage_ns,
            tcp_gap_ns,
        };
        Ok((failover, gap(sync_gap_ns)?))
    }
}

fn gap(gap_ns: Option<u64>) -> Result<u64, DemoError> {
    gap_ns.ok_or_else(|| DemoError::Wrong("a client was answered only once".into()))
}

/// A client's work.
type Work<'c> = Box<dyn FnOnce() -> Result<(), DemoError> + Send + 'c>;

/// Starts a client on a thread in `namespace`. If it cannot go on, it is `trouble`.
fn spawn<'scope, 'c: 'scope>(
    scope: &'scope Scope<'scope, 'c>,
    trouble: &Sender<Message>,
    name: &str,
    namespace: &'c Namespace,
    work: Work<'c>,
) -> Result<(), DemoError> {
    let trouble = trouble.clone();
    let thread = std::thread::Builder::new().name(name.into());
    let body = move || {
        if let Err(error) = namespace.join().and_then(|()| work()) {
            // Nobody listens any more: the demonstration is over.
            let _ = trouble.send(Message::Client(error));
        }
    };
    thread.spawn_scoped(scope, body).map(drop).map_err(DemoError::client("starting a thread"))
}
