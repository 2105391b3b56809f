//! One iteration of a host's driver, in the order of calls that [`replication::replica::Replica`] requires.

use std::rc::Rc;

use logchan::endpoint::EndpointVerdict;
use logchan::time::Time;
use replication::replica::{Command, ReplicaEvent, RoleName};
use replication::witness::{Answer, Question};

use super::check::{EndCause, is_synced_backup};
use super::count::Count;
use super::crash::CrashPoint;
use super::host::{Arrival, Host};
use super::lan::TapFrame;
use super::options::HostOptions;
use super::pair::{Event, Pair, other};
use super::process::{Process, VcpuState};
use crate::sim::damage::{damage, pad};
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;
use crate::sim::{Checked, Violation, require};

/// Maximum number of passes (run the machine, then release output) in one iteration.
const PASSES_MAX: usize = 256;

impl Pair<'_> {
    /// Runs one iteration of the driver of `host`.
    pub(crate) fn drive(&mut self, host: usize) -> Checked {
        let own = &self.hosts[host];
        if own.frozen || own.process.is_none() {
            return Ok(());
        }
        // The driver receives frames with an earlier clock reading, to avoid another one.
        let own = &mut self.hosts[host];
        let stale_ns = own.rng.below(self.options.hosts[host].stale_ns_max + 1);
        let before = own.reading;
        let clock = self.read_clock(host);
        let stale = Time::from_nanos(clock.as_nanos().saturating_sub(stale_ns)).max(before);
        self.counts.count(Count::DriverIterations);
        let work_before = self.work;

        if let Some(process) = &mut self.hosts[host].process {
            let before = process.world.disk.executed;
            let _next = process.world.disk.due(clock);
            self.work += process.world.disk.executed - before;
        }
        let mut heard = false;
        while let Some(arrival) = self.hosts[host].ring.pop_front() {
            heard |= self.handle_arrival(host, stale, arrival)?;
        }
        if heard {
            self.engine(host, |process| process.replica.heard_by(clock))?;
        }
        while let Some((term, answer)) = self.next_answer(host) {
            self.engine(host, |process| process.replica.handle_witness(clock, term, answer))?;
        }
        let lan_is_up = !self.lan.is_cut(host);
        let is_cut_off = self.options.hosts[host].sees_cut_link && self.links[host].is_cut();
        self.engine(host, |process| {
            process.replica.set_cut_off(is_cut_off);
            if std::mem::replace(&mut process.lan_is_up, lan_is_up) != lan_is_up {
                process.replica.set_lan(clock, lan_is_up);
            }
            process.replica.handle_timeout(clock);
        })?;

        for pass in 0.. {
            require!(pass < PASSES_MAX, "host {host} releases output endlessly");
            self.take_time(host);
            self.run_machine(host)?;
            self.check_passed(host)?;
            self.pass_frames(host)?;
            self.copy_disks(host)?;
            self.take_events(host)?;
            self.transmit(host);
            if self.release(host)? == 0 {
                break;
            }
        }
        self.brief_supervisor(host);
        self.check_bounds(host, clock, self.work > work_before)?;
        self.crash_if_pending(host);
        self.sleep(host);
        Ok(())
    }

    /// Calls `act` on the process of `host`, and handles a change of its role.
    pub(crate) fn engine<T>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Process) -> T,
    ) -> Checked<T> {
        let process = self.hosts[host].process.as_mut();
        let process =
            process.ok_or_else(|| Violation("bug in the simulator: no process".into()))?;
        let before = process.replica.role();
        let sent_before = process.replica.stats().frames_passed_on;
        let result = act(process);
        self.note_passed(host, before, sent_before);
        self.handle_role_change(host, before)?;
        Ok(result)
    }

    /// Passes a frame of the log link to the engine, and returns whether it was a sign of life.
    fn handle_arrival(&mut self, host: usize, clock: Time, arrival: Arrival) -> Checked<bool> {
        self.work += 1;
        let Arrival { frame, damage: damaged, pad: padded } = arrival;
        let mut bytes = self.frames.bytes(frame).to_vec();
        if let Some(seed) = damaged {
            damage(&mut bytes, &mut Rng::new(seed));
        }
        if let Some(seed) = padded {
            pad(&mut bytes, &mut Rng::new(seed));
        }
        let session = self.hosts[host].process.as_ref().and_then(Process::session);
        let verdict =
            self.engine(host, |process| process.replica.handle_frame(clock, &mut bytes))?;
        let now = self.queue.now();
        self.trace.line(now, Some(host), "got", format_args!("#{:06} {verdict:?}", frame.0));
        if let Some(verdict) = verdict {
            self.check_notice(host, session, verdict)?;
        }
        self.brief_supervisor(host);
        Ok(verdict.is_some_and(EndpointVerdict::is_sign_of_life))
    }

    fn next_answer(&mut self, host: usize) -> Option<(Question, Answer)> {
        let answer = self.hosts[host].process.as_mut()?.answers.pop_front();
        self.work += u64::from(answer.is_some());
        answer
    }

    /// Runs the checks of a role change of `host`, whose role was `before`.
    pub(crate) fn handle_role_change(&mut self, host: usize, before: RoleName) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let after = process.replica.role();
        if before == after {
            return Ok(());
        }
        let now = self.queue.now();
        let term = process.replica.term();
        self.trace.line(now, Some(host), "role", format_args!("{before} -> {after}, term {term}"));
        if is_synced_backup(after) && !is_synced_backup(before) {
            self.check_holds(host)?;
        }
        if after != RoleName::Alone {
            return Ok(());
        }
        if is_synced_backup(before) {
            let held = process.replica.hold().len();
            self.counts.count(Count::Takeovers);
            self.check_gives_way(host)?;
            self.counts.add(Count::TakeoversWithHeld, u64::from(held > 0));
            if let Some(process) = &mut self.hosts[host].process {
                process.must_reproduce = true;
                process.takeovers += 1;
                process.broken |= process.flipped;
                let owes = process.outputs_made() < self.output.next();
                self.counts.add(Count::TakeoversBehind, owes.into());
            }
            self.end_flip(host);
        }
        let was_given_a_term =
            is_synced_backup(before) || matches!(before, RoleName::Starting | RoleName::Losing);
        if was_given_a_term { self.check_authority(host) } else { Ok(()) }
    }

    /// Ends the tracking of a flipped bit: it was overwritten, or the machine has gone live with it.
    pub(crate) fn end_flip(&mut self, host: usize) {
        if let Some(process) = &mut self.hosts[host].process
            && std::mem::take(&mut process.flipped)
        {
            self.counts.count(Count::FlipsTakenAlong);
        }
    }

    fn take_events(&mut self, host: usize) -> Checked {
        let now = self.queue.now();
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        while let Some(event) = process.replica.poll_event() {
            self.trace.line(now, Some(host), "event", format_args!("{event:?}"));
            process.syncs.check(now, &event)?;
            if event == ReplicaEvent::Diverged {
                let flips = std::mem::take(&mut process.undetected_flips);
                require!(flips > 0, "host {host} has diverged without a flipped bit");
            }
            if let ReplicaEvent::DiskFault(fault) = event {
                let flips = std::mem::take(&mut process.undetected_flips);
                let may_be = self.options.disk.has_faults() || flips > 0;
                require!(may_be, "host {host} leaves without a fault of its disk: {fault}");
            }
        }
        while let Some(Command::Ask(question)) = self.next_command(host) {
            self.send_claim(host, question);
        }
        Ok(())
    }

    fn copy_disks(&mut self, host: usize) -> Checked {
        let clock = self.hosts[host].reading;
        self.engine(host, |process| {
            let Process { replica, world, .. } = process;
            replica.copy_disks(clock, world);
            replica.begin_shared(clock, world);
        })?;
        self.check_shared(host)
    }

    fn next_command(&mut self, host: usize) -> Option<Command> {
        self.hosts[host].process.as_mut()?.replica.poll_command()
    }

    fn transmit(&mut self, host: usize) {
        if self.may_defer_transmit(host) {
            return;
        }
        let clock = self.take_time(host);
        let now = self.hosts[host].thread_at;
        let HostOptions { backlog_bytes_max, bulk_bytes_max, .. } = self.options.hosts[host];
        loop {
            let drained_at = self.links[host].drained_at(now, backlog_bytes_max);
            if drained_at > now {
                return self.wake_at(host, drained_at);
            }
            let bulk_at = self.links[host].drained_at(now, bulk_bytes_max);
            let Some(process) = &mut self.hosts[host].process else { return };
            let length = if bulk_at > now {
                process.replica.poll_transmit_log(clock, &mut self.buffer)
            } else {
                process.replica.poll_transmit(clock, &mut self.buffer)
            };
            let Some(length) = length else {
                process.sent_up_to = process.logged_up_to();
                if bulk_at > now {
                    self.wake_at(host, bulk_at);
                }
                return;
            };
            let frame = self.frames.push(&self.buffer[..length], ());
            self.work += 1;
            self.counts.count(Count::LogFrames);
            self.counts.add(Count::LogBytes, length as u64);
            self.trace.line(
                now,
                Some(host),
                "send",
                format_args!("#{:06} {length} bytes", frame.0),
            );
            self.send_copies(host, now, frame);
        }
    }

    /// Offers a frame to the log link of `host`, and schedules the arrival of the copies that the link delivers.
    pub(crate) fn send_copies(&mut self, host: usize, now: u64, frame: FrameId) {
        let length = self.frames.bytes(frame).len();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.links[host].offer(now, length, &mut deliveries);
        for delivery in deliveries.drain(..) {
            let arrival = Arrival { frame, damage: delivery.damage, pad: delivery.pad };
            self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
        }
        self.deliveries = deliveries;
    }

    /// Draws whether to defer sending until the guest stops. This is allowed if neither held output nor the next
    /// output depends on the unsent log.
    fn may_defer_transmit(&mut self, host: usize) -> bool {
        let defer_transmit = self.options.hosts[host].defer_transmit;
        let Host { process, rng, .. } = &mut self.hosts[host];
        let Some(process) = process else { return false };
        let (session, position) = process.sent_up_to;
        process.replica.role() == RoleName::Protected
            && matches!(process.vcpu_state, VcpuState::Running(_))
            && process.session() == Some(session)
            && process.nondeterministic <= (session, position)
            && process.replica.is_releasable_by(position)
            && rng.chance(defer_transmit)
    }

    /// Gives the frames that may leave to the tap, and returns how many of them are frames of the VM.
    fn release(&mut self, host: usize) -> Checked<usize> {
        let mut released = 0;
        loop {
            // Read the clock for each frame, because the lease is checked against the reading.
            let clock = self.take_time(host);
            let Some(process) = &mut self.hosts[host].process else { break };
            let Some(tap) = process.replica.poll_tap(clock) else { break };
            let frame: Rc<[u8]> = tap.bytes.into();
            let announcement = tap.made_at.is_none();
            let waited = tap.made_at.is_some_and(|at| at < clock);
            let (speaker, term) = (process.id, process.replica.term().0);
            self.work += 1;
            self.check_right(host, speaker, term)?;
            if !announcement {
                released += 1;
                self.counts.add(Count::OutputWaits, waited.into());
                self.check_release(host, &frame)?;
            }
            let is_early = self.engine(host, |process| {
                let before = process.replica.stats().released_early;
                process.replica.pop_tap();
                process.replica.stats().released_early > before
            })?;
            if !announcement {
                self.reach_crash_point(host, CrashPoint::Release);
            }
            if is_early {
                self.reach_crash_point(host, CrashPoint::EarlyRelease);
            }
            let own = &mut self.hosts[host];
            let takes_ns = own.rng.below(self.options.hosts[host].tap_ns_max + 1);
            own.tap_busy_until = own.tap_busy_until.max(own.thread_at + takes_ns);
            let tap_frame = TapFrame { speaker, announcement, frame };
            self.queue.push(own.tap_busy_until, Event::Leave { host, tap_frame });
        }
        self.engine(host, |process| process.replica.tap_flushed())?;
        Ok(released)
    }

    /// Schedules the next wake-up of `host`, or ends its process if the engine has halted.
    fn sleep(&mut self, host: usize) {
        let Host { process, reading, .. } = &mut self.hosts[host];
        let disk_due = process.as_mut().and_then(|process| process.world.disk.due(*reading));
        let own = &self.hosts[host];
        let Some(process) = &own.process else { return };
        if matches!(process.vcpu_state, VcpuState::Ended) && process.replica.halted().is_some() {
            return self.end_process(host, EndCause::Exited);
        }
        let now = own.thread_at;
        let timeout = process.replica.poll_timeout();
        let mut wake = timeout.map(|at| own.clock.when(at));
        let mut also = |at: Option<u64>| wake = wake.into_iter().chain(at).min();
        match &process.vcpu_state {
            VcpuState::Running(run) => also(Some(run.until)),
            VcpuState::Inputs { .. } if process.world.is_live() => {
                let timer = process.machine.devices.timer_ns;
                let timer = timer.and_then(|due_ns| process.world.when(due_ns));
                // A timer that is due waits for something else.
                also(timer.map(|at| own.clock.when(at)).filter(|&at| at > now));
            }
            VcpuState::Entry | VcpuState::Stopped { .. } if process.is_paused(now) => {
                also(Some(process.paused_until));
            }
            VcpuState::Entry
            | VcpuState::Stopped { .. }
            | VcpuState::Capture(_)
            | VcpuState::Position { .. }
            | VcpuState::Exit { .. }
            | VcpuState::Inputs { .. }
            | VcpuState::Halted
            | VcpuState::Inject(_)
            | VcpuState::Ended => {}
        }
        also(disk_due.map(|at| own.clock.when(at)));
        also(process.world.disk.shared_due());
        if process.replica.poll_copy().is_some()
            && !matches!(process.vcpu_state, VcpuState::Running(_))
        {
            also(Some(process.next_copy_at.max(now + 1)));
        }
        if let Some(at) = wake {
            self.wake_at(host, at.max(now + 1));
        }
    }
}
