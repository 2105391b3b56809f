//! The demonstration of several protected VMs on two hosts that share one log link and one witness. Half of the VMs run on
//! each host. Repeatedly, a host is lost with all its processes at once, comes back, and protects all VMs again.
//!
//! - this file: what is done
//! - `summary`: the results

mod summary;

pub use summary::{Loss, ManySummary, VmResult};

use super::pair::running::{PROTECTED_TIME, Progress};
use super::pair::{KILL_AFTER_MS, Totals, gap};
use crate::kvm::clock::boottime_ns;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::clients::StopOnDrop;
use testbed::clients::load::{Load, Threads};

use testbed::figures::ms;
use testbed::pace::Pace;
use testbed::pair::{Host, Hosts, LostPart, PairVm, Part, Scene, Setup, Survival, lose_host};
use testbed::{Guest, TestbedError, cores};

/// Parameters of a demonstration.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManyPlan {
    /// Number of VMs.
    pub vms: u8,
    /// Number of times to lose a host.
    pub kills: u32,
    /// Silence timeout in milliseconds. `None`: one that fits this host and the number of VMs.
    pub silence_ms: Option<u64>,
    /// Seed for which host is lost, and when.
    pub seed: u64,
}

/// Returns the host that runs `vm` before a host is lost.
fn home(vm: PairVm) -> Host {
    Host::ALL[usize::from(vm.number()) % Host::ALL.len()]
}

/// Runs the demonstration with the executable `program`. `interrupted` ends it early. Removes everything that
/// it created.
///
/// # Errors
///
/// If a process or a client fails, or something that must happen does not.
pub fn run(
    program: &Path,
    plan: &ManyPlan,
    interrupted: &Arc<AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<ManySummary, TestbedError> {
    let guest = Guest::Reference;
    let scene = Scene::new(program)?;
    progress
        .message("LAN: hosts A and B, a client, a switch; between A and B one link for all logs");
    let alone = scene.pace((&guest, &["run"]), None, interrupted)?;
    let pace = alone.shared_by(plan.vms.into(), cores::usable().len(), plan.silence_ms);
    progress.message(&pace.describe());
    let vms: Vec<_> = PairVm::first(plan.vms).collect();
    for &vm in &vms[1..] {
        scene.network.add_vm(vm)?;
    }
    let loads: Vec<_> = vms.iter().map(|&vm| Load::of(vm, &guest, pace)).collect();
    // Dropped after the clients have ended, so that every client gets the answer that it waits for.
    let mut hosts: Vec<_> = vms
        .iter()
        .map(|&vm| {
            let setup = Setup { vm, ..scene.setup(pace.silence_ms()) };
            Hosts::new(setup, pace.patience(), interrupted)
        })
        .collect();
    std::thread::scope(|scope| {
        let _stop: Vec<_> = loads.iter().map(|load| StopOnDrop(&load.stop)).collect();
        let threads = loads.iter().zip(&hosts);
        let threads = threads
            .map(|(load, hosts)| Threads::new(scope, &scene.network, load, hosts.sender()))
            .collect();
        let (loads, hosts) = (&loads, &mut hosts);
        let mut running = Running { vms, loads, hosts, threads, progress };
        let result = running.run_plan(plan, pace);
        if let Err(error) = &result {
            let limit = pace.patience().as_secs();
            running
                .progress
                .message(&format!("failed: {error} (the clients end within {limit} s)"));
        }
        result
    })
}

/// The VMs and their clients, each list in the order of the VMs.
struct Running<'scope, 'c> {
    vms: Vec<PairVm>,
    loads: &'c [Load],
    hosts: &'c mut [Hosts],
    threads: Vec<Threads<'scope, 'c>>,
    progress: &'c mut dyn Progress,
}

impl Running<'_, '_> {
    fn run_plan(&mut self, plan: &ManyPlan, pace: Pace) -> Result<ManySummary, TestbedError> {
        self.begin()?;
        let mut summary = ManySummary::new(*plan, pace);
        let mut random = fastrand::Rng::with_seed(plan.seed);
        self.progress.message(&format!(
            "losing a host with all its processes {} times, at random times with seed {}",
            plan.kills, plan.seed
        ));
        for kill in 1..=plan.kills {
            self.balance()?;
            self.run_protected(Duration::from_millis(random.u64(KILL_AFTER_MS)))?;
            let host = random.choice(Host::ALL).expect("there are two");
            self.lose(kill, host, &mut summary)?;
            self.progress.steps_done(kill);
        }
        summary.vms = self.finish()?;
        Ok(summary)
    }

    /// Starts every VM on its home, its clients, and its backup on the other host, and waits until all is well.
    fn begin(&mut self) -> Result<(), TestbedError> {
        for (index, vm) in self.vms.iter().enumerate() {
            let (load, hosts) = (&self.loads[index], &mut self.hosts[index]);
            self.threads[index].start_sniffer(vm.mac())?;
            hosts.wait("the sniffer", |_| load.is_listening().then_some(()))?;
            hosts.start(Part::Primary, home(*vm))?;
        }
        for (index, hosts) in self.hosts.iter_mut().enumerate() {
            let load = &self.loads[index];
            self.threads[index].start_prober()?;
            hosts.wait("the VM's first answer", |_| load.prober.seen().times.last())?;
            self.threads[index].start_counter()?;
        }
        self.progress
            .message(&format!("{} VMs are booted, half of them on each host", self.vms.len()));
        self.protect()?;
        self.run_protected(PROTECTED_TIME)
    }

    /// Starts all missing backups, as a host does that comes back, and waits until every VM is protected.
    fn protect(&mut self) -> Result<(), TestbedError> {
        for hosts in &mut *self.hosts {
            for host in Host::ALL {
                if hosts.is_missing(host) {
                    hosts.start(Part::Backup, host)?;
                }
            }
        }
        for hosts in &mut *self.hosts {
            hosts.protect(|_, _| ())?;
        }
        Ok(())
    }

    /// Hands over every VM that is not at home.
    fn balance(&mut self) -> Result<(), TestbedError> {
        let mut moved = 0;
        for (vm, hosts) in self.vms.iter().zip(&mut *self.hosts) {
            if hosts.leader().is_some_and(|leader| leader.host != home(*vm)) {
                hosts.hand_over(|| ())?;
                hosts.protect(|_, _| ())?;
                moved += 1;
            }
        }
        if moved > 0 {
            self.progress
                .message(&format!("{moved} VMs were handed over: half of them run on each host"));
        }
        Ok(())
    }

    /// Waits for `time`, and restores the protection of VMs that have lost it.
    fn run_protected(&mut self, time: Duration) -> Result<(), TestbedError> {
        if let Some(first) = self.hosts.first_mut() {
            first.pause(time)?;
        }
        for hosts in &mut *self.hosts {
            hosts.poll()?;
        }
        self.protect()
    }

    /// Loses `host`, waits until every VM runs on the other one and every client is served, brings the host back, and
    /// waits until every VM is protected again.
    fn lose(
        &mut self,
        kill: u32,
        host: Host,
        summary: &mut ManySummary,
    ) -> Result<(), TestbedError> {
        let lost = lose_host(self.hosts, host)?;
        let killed_ns = lost.iter().map(|lost| lost.killed_ns).min().unwrap_or_default();
        let parts: Vec<_> = lost.iter().map(|lost| lost.part).collect();
        let mut survivals = Vec::new();
        for (hosts, lost) in self.hosts.iter_mut().zip(lost) {
            survivals.push(hosts.survive(lost)?);
        }
        let mut losses = Vec::new();
        for (index, (survival, part)) in survivals.iter().zip(parts).enumerate() {
            let (load, hosts) = (&self.loads[index], &mut self.hosts[index]);
            let (resumed_ns, times_ns) = match *survival {
                Survival::TakenOver(takeover) => {
                    let detect_ns = takeover.lost_ns.saturating_sub(killed_ns);
                    let golive_ns = takeover.live_ns.saturating_sub(takeover.lost_ns);
                    (takeover.live_ns, Some([detect_ns, golive_ns]))
                }
                Survival::Continued { alone_ns } => (alone_ns, None),
                // It is counted as a takeover without a kill.
                Survival::Left => continue,
            };
            hosts.wait("every client to be served again", |_| {
                let probe = load.prober.seen().times.last();
                let tcp = load.counting.tally().times.last();
                (probe.min(tcp) > Some(resumed_ns)).then_some(())
            })?;
            let outage_ns = gap(load.prober.seen().times.longest_gap(killed_ns, resumed_ns))?;
            let tcp_gap_ns = gap(load.counting.tally().times.longest_gap(killed_ns, resumed_ns))?;
            losses.push(Loss { vm: self.vms[index], part, times_ns, outage_ns, tcp_gap_ns });
        }
        let longest = |part| {
            let of_part = losses.iter().filter(|loss| loss.part == part);
            ms(of_part.map(|loss| loss.outage_ns).max().unwrap_or_default())
        };
        let taken = losses.iter().filter(|loss| loss.part == LostPart::Primary).count();
        self.progress.message(&format!(
            "kill {kill}: host {host} lost; host {} has taken over {taken} VMs (outage at most {:.1} ms) and continued \
             {} (at most {:.1} ms)",
            host.other(),
            longest(LostPart::Primary),
            losses.len() - taken,
            longest(LostPart::Backup),
        ));
        summary.losses.extend(losses);
        let back_ns = boottime_ns();
        self.protect()?;
        let protected_ns = boottime_ns() - back_ns;
        summary.protected_again_ns.push(protected_ns);
        self.progress.message(&format!(
            "  host {host} is back: all VMs are protected after {:.1} ms",
            ms(protected_ns)
        ));
        Ok(())
    }

    /// Ends the clients and the VMs. Returns what each saw.
    fn finish(&mut self) -> Result<Vec<VmResult>, TestbedError> {
        self.run_protected(PROTECTED_TIME)?;
        self.loads.iter().for_each(Load::stop);
        let mut results = Vec::new();
        for (index, hosts) in self.hosts.iter_mut().enumerate() {
            let (vm, load, threads) = (self.vms[index], &self.loads[index], &self.threads[index]);
            hosts.wait("the clients to end", |_| threads.have_ended().then_some(()))?;
            let hold = hosts.stop()?;
            let totals = Totals { hold: Some(hold), ..Totals::of(load, hosts) };
            results.push(VmResult { vm, totals });
        }
        Ok(results)
    }
}
