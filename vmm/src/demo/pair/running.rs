//! A protected VM with its clients: what every demonstration of a pair acts on.

use super::totals::Totals;
use crate::boot::cpu_features::ModelName;
use crate::devices::DEFAULT_MAC;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};
use testbed::clients::StopOnDrop;
use testbed::clients::counting::Counting;
use testbed::clients::load::{Load, Threads};
use testbed::clients::redis_tools::{self, Tool};
use testbed::clients::traffic::Ping;
use testbed::clients::{redis, sqlite};
use testbed::disk::chain::Chaining;
use testbed::disk::{CHAIN, Counts, DiskCheck, FirstContents, Images};
use testbed::figures::ms;
use testbed::guest::disk_image;
use testbed::pace::Pace;
use testbed::pair::{Host, Hosts, Network, Part, Scene, Setup};
use testbed::{GUEST_ADDRESS, Guest, GuestDisk, TestbedError};

/// While the VM is protected and nothing happens to it, the counter's client gets at least this many answers.
const PROTECTED_ANSWERS: u64 = 3;

/// The least time for which the VM is protected before the first thing happens to it, and after the last one.
pub(in crate::demo) const PROTECTED_TIME: Duration = Duration::from_millis(500);

/// Size of the reference guest's disk. It has room for half a million links of the chain.
const DISK_BYTES: u64 = 256 << 20;

/// Nothing was written to the disk for this long before the VM is stopped at the end, so that no request is in flight. A
/// Linux guest writes what its page cache has every few seconds.
const DISK_REST: Duration = Duration::from_secs(1);

/// Receives reports about the progress of a demonstration.
pub trait Progress: Send {
    /// Reports an event in one line.
    fn message(&mut self, line: &str);
    /// Reports how much is done: of the kills and handovers, or of the seconds of a run with a time limit.
    fn steps_done(&mut self, done: u32);
    /// Reports the folder in which the processes of the pair will have their control sockets.
    fn sockets_in(&mut self, _folder: &Path) {}
}

/// The environment of a pair before its first process starts.
pub(in crate::demo) struct Environment {
    /// The LAN, the key, the witness.
    pub(in crate::demo) scene: Arc<Scene>,
    /// How fast the guest is on this machine.
    pub(in crate::demo) pace: Pace,
    /// Settings of the processes.
    pub(in crate::demo) setup: Setup,
    /// The images of the VM's disk, if it has one.
    pub(in crate::demo) images: Option<Images>,
}

/// What a VM is.
#[derive(Clone, Debug, Default)]
pub struct VmPlan {
    /// The guest.
    pub guest: Guest,
    /// Whether it has a disk. That of a Linux guest is beside its snapshot.
    pub disk: GuestDisk,
    /// CPU model of the VM. `None`: the default, or that of the snapshot.
    pub cpu_model: Option<ModelName>,
    /// Silence timeout in milliseconds. `None`: a default that fits this host.
    pub silence_ms: Option<u64>,
}

impl Environment {
    /// Creates a LAN for processes of `program`, and measures the guest on it. `interrupted` ends that early.
    ///
    /// # Errors
    ///
    /// If a command or a client fails, or the host is too slow.
    pub(in crate::demo) fn new(
        program: &Path,
        vm: &VmPlan,
        interrupted: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<Environment, TestbedError> {
        let scene = Scene::new(program)?;
        progress.sockets_in(scene.folder());
        progress
            .message("LAN: hosts A and B, a client, a switch; between A and B a link for the log");
        let images = make_images(&scene, vm)?;
        let disk = images.as_ref().map(|images| images.option(Host::A));
        let command =
            ["run"].into_iter().chain(disk.iter().flat_map(|disk| ["--disk", disk.as_str()]));
        let command: Vec<_> = command.collect();
        let pace = scene.pace((&vm.guest, &command), vm.silence_ms, interrupted)?;
        progress.message(&pace.describe());
        let mut setup = Setup { guest: vm.guest.clone(), ..scene.setup(pace.silence_ms()) };
        for host in Host::ALL {
            let options = &mut setup.options[host.index()];
            options.extend(vm.cpu_model.map(|name| format!("--cpu-model={name}")));
            options.extend(images.iter().map(|images| format!("--disk={}", images.option(host))));
        }
        if let Some(images) = &images {
            progress.message(&format!(
                "disk: an image of {} MiB on each host; that of host B has zeros",
                images.bytes() >> 20
            ));
        }
        Ok(Environment { scene, pace, setup, images })
    }

    /// Runs `act` on the pair, of which no process runs yet. Ends all processes and clients afterwards.
    ///
    /// # Errors
    ///
    /// Those of `act`.
    pub(in crate::demo) fn run<T>(
        self,
        interrupted: &Arc<AtomicBool>,
        progress: &mut dyn Progress,
        act: impl FnOnce(&mut RunningPair<'_, '_>) -> Result<T, TestbedError>,
    ) -> Result<T, TestbedError> {
        let Environment { scene, pace, setup, images } = self;
        let guest = setup.guest.clone();
        let chained = images.as_ref().filter(|_| matches!(guest, Guest::Reference));
        let chaining = chained.map(|images| Chaining::new(pace, images.bytes()));
        let has_database = images.is_some() && matches!(guest, Guest::Linux(_));
        let inserting =
            has_database.then(|| Counting::new(GUEST_ADDRESS, &sqlite::INSERTIONS, pace));
        let load = Load::new(&guest, pace).with_chaining(chaining).with_inserting(inserting);
        // Dropped after the clients have ended, so that every client gets the answer that it waits for.
        let mut hosts = Hosts::new(setup, pace.patience(), interrupted);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&load.stop);
            let network = &scene.network;
            let threads = Threads::new(scope, network, &load, hosts.sender());
            let (load, hosts, guest) = (&load, &mut hosts, &guest);
            let (tools, ping) = (Vec::new(), None);
            let disk = images.as_ref().map(|images| (images, scene.folder()));
            let mut pair = RunningPair {
                guest,
                pace,
                network,
                load,
                hosts,
                progress,
                disk,
                threads,
                tools,
                ping,
            };
            let result = act(&mut pair);
            // A client may wait for its answer until the time limit, so the reason is told before they end.
            if let Err(error) = &result {
                let limit = pace.patience().as_secs();
                let text = format!("failed: {error} (the clients end within {limit} s)");
                pair.progress.message(&text);
            }
            result
        })
    }
}

/// A running pair and its clients.
pub(in crate::demo) struct RunningPair<'scope, 'c> {
    /// The guest.
    pub(in crate::demo) guest: &'c Guest,
    /// How fast it is on this machine.
    pub(in crate::demo) pace: Pace,
    /// The LAN.
    pub(in crate::demo) network: &'c Network,
    /// The clients and the sniffer.
    pub(in crate::demo) load: &'c Load,
    /// The processes.
    pub(in crate::demo) hosts: &'c mut Hosts,
    /// Receives reports.
    pub(in crate::demo) progress: &'c mut dyn Progress,
    /// The images of the VM's disk, if it has one, and a folder for copies.
    pub(in crate::demo) disk: Option<(&'c Images, &'c Path)>,
    threads: Threads<'scope, 'c>,
    /// Programs of redis that run as clients.
    tools: Vec<Tool>,
    ping: Option<Ping>,
}

impl RunningPair<'_, '_> {
    /// Starts the VM on host A, a backup on host B, and the clients, and waits until all is well.
    pub(in crate::demo) fn begin(&mut self) -> Result<(), TestbedError> {
        let load = self.load;
        self.threads.start_sniffer(DEFAULT_MAC)?;
        self.hosts.wait("the sniffer", |_| load.is_listening().then_some(()))?;
        let pid = self.hosts.start(Part::Primary, Host::A)?;
        self.threads.start_prober()?;
        let first_answer = |_: &Hosts| load.prober.seen().times.last();
        self.hosts.wait("the VM's first answer", first_answer)?;
        let how = match self.guest {
            Guest::Reference => "the VM is booted and answers",
            Guest::Linux(_) => "the Linux VM is restored from its snapshot and answers",
        };
        self.progress.message(&format!("host A, primary (process {pid}): {how}"));
        self.start_clients()?;
        self.protect()?;
        self.run_protected(PROTECTED_TIME)
    }

    fn start_clients(&mut self) -> Result<(), TestbedError> {
        self.threads.start_rest()?;
        let period_ms = self.load.prober.period().as_secs_f64() * 1e3;
        let clients = match self.guest {
            Guest::Reference => format!(
                "ping, curl, TCP echo of 64 KiB, a UDP datagram every {period_ms:.3} ms, {}and one persistent \
                 TCP connection to the counter",
                match self.load.chaining {
                    Some(_) => "a chain on the disk, each link flushed before its answer, ",
                    None => "",
                }
            ),
            Guest::Linux(_) => format!(
                "ping, curl, redis ECHO of 16 KiB{}, an ICMP echo request every {period_ms:.0} ms, {}and one \
                 persistent TCP connection with INCR to redis",
                self.start_redis_tools()?,
                match self.load.inserting {
                    Some(_) => "one persistent TCP connection with INSERT to SQLite, ",
                    None => "",
                }
            ),
        };
        self.ping = Some(self.network.client().enter(|| Ping::start(&self.pace))?);
        self.progress.message(&format!("clients: {clients}"));
        Ok(())
    }

    /// Starts those of redis's programs that are installed. Returns their names, each after a comma.
    fn start_redis_tools(&mut self) -> Result<String, TestbedError> {
        let mut started = String::new();
        for tool in Tool::ALL {
            let name = tool.name();
            if tool.is_installed() {
                self.threads.start_redis_tool(tool)?;
                started += &format!(", {name}");
                self.tools.push(tool);
            } else {
                self.progress.message(&format!("{name} is not installed (package redis-tools)"));
            }
        }
        Ok(started)
    }

    /// Starts missing backups and waits until the VM is protected.
    pub(in crate::demo) fn protect(&mut self) -> Result<(), TestbedError> {
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
    pub(in crate::demo) fn run_protected(&mut self, time: Duration) -> Result<(), TestbedError> {
        let load = self.load;
        let enough = load.counting.tally().requests + PROTECTED_ANSWERS;
        self.hosts.pause(time)?;
        self.hosts.wait("answers to the counter's client", |_| {
            (load.counting.tally().requests >= enough).then_some(())
        })?;
        // The VM may have lost its backup, or moved to the other host, by itself.
        self.protect()
    }

    /// Waits until the prober and the counter's client have an answer later than `since_ns`.
    pub(in crate::demo) fn wait_until_served(&mut self, since_ns: u64) -> Result<(), TestbedError> {
        let load = self.load;
        self.hosts.wait("every client to be served again", |_| {
            let probe = load.prober.seen().times.last();
            let tcp = load.counting.tally().times.last();
            (probe.min(tcp) > Some(since_ns)).then_some(())
        })
    }

    /// Waits until each client has completed a transfer, ends the clients, and stops the VM. Returns what they
    /// saw.
    pub(in crate::demo) fn finish(&mut self) -> Result<Totals, TestbedError> {
        self.run_protected(PROTECTED_TIME)?;
        let (load, tools) = (self.load, &self.tools);
        self.hosts.wait("each client to complete a transfer", |_| {
            let has_linked = load.chaining.iter().all(|chaining| chaining.answered().links > 0);
            let has_inserted = load.inserting.iter().all(|client| client.tally().requests > 0);
            (has_linked && has_inserted && load.traffic.seen().all_completed(tools)).then_some(())
        })?;
        let pings = self.ping.take().map(Ping::stop).transpose()?;
        load.stop();
        let threads = &self.threads;
        // The clients end before the VM stops, so that each gets the answer that it waits for.
        self.hosts.wait("the clients to end", |_| threads.have_ended().then_some(()))?;
        self.wait_until_disk_rests()?;
        let hold = self.hosts.stop()?;
        let mut totals = Totals::of(self.load, self.hosts);
        totals.hold = Some(hold);
        totals.disk = self.check_disk()?;
        (totals.ping_sent, totals.ping_received) = pings.unwrap_or_default();
        Ok(totals)
    }

    /// Waits until nothing was written to the disk for a while, if the VM has one.
    fn wait_until_disk_rests(&mut self) -> Result<(), TestbedError> {
        let Some((images, _)) = self.disk else { return Ok(()) };
        self.hosts.wait("the disk to rest", |_| {
            let written = images.written().ok()?;
            let rests = SystemTime::now().duration_since(written).ok()?;
            (rests >= DISK_REST).then_some(())
        })
    }

    /// Checks both images of the disk, if the VM had one: it has ended.
    fn check_disk(&mut self) -> Result<Option<DiskCheck>, TestbedError> {
        let Some(images) = self.disk else { return Ok(None) };
        let answered = match &self.load.chaining {
            Some(chaining) => Counts::from([(CHAIN.into(), chaining.answered().links)]),
            None => Counts::from([
                (redis::COUNTER_KEY.into(), self.load.counting.tally().last),
                (redis_tools::COUNTER_KEY.into(), self.load.traffic.seen().redis_cli),
                (
                    sqlite::TABLE.into(),
                    self.load.inserting.as_ref().map_or(0, |client| client.tally().last),
                ),
            ]),
        };
        self.progress.message("the VM has ended; comparing and reading the images of its disk");
        DiskCheck::new(images, self.guest, answered).map(Some)
    }
}

/// Makes the images of the disk of `vm`, if it has one.
fn make_images(scene: &Scene, vm: &VmPlan) -> Result<Option<Images>, TestbedError> {
    let images = match (vm.disk, &vm.guest) {
        (GuestDisk::None, _) => return Ok(None),
        (GuestDisk::Mirrored, Guest::Reference) => {
            Images::new(scene.folder(), FirstContents::Zeros(DISK_BYTES))
        }
        (GuestDisk::Mirrored, Guest::Linux(snapshot)) => {
            Images::new(scene.folder(), FirstContents::Of(&disk_image(snapshot)))
        }
    };
    images.map(Some)
}
