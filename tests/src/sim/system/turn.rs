//! One turn of a host's thread: what a driver of an engine does, in the order that
//! [`vmm::replica::Replica`] asks for.

use std::rc::Rc;

use logchan::endpoint::EndpointVerdict;
use logchan::ids::Term;
use logchan::time::Time;
use vmm::replica::{Answer, Command, ReplicaEvent, RoleName};

use super::check::{Gone, is_whole};
use super::count::Count;
use super::crash::Trigger;
use super::host::{Arrival, Host};
use super::lan::Given;
use super::options::HostOptions;
use super::pair::{Event, Pair, other};
use super::process::{Place, Process};
use crate::sim::damage::{damage, pad};
use crate::sim::rng::Rng;
use crate::sim::{Checked, Violation, require};

/// Times that output leaves and the machine goes on in one turn, at most.
const PASSES_MAX: usize = 256;

impl Pair<'_> {
    /// The thread of `host` runs.
    pub(crate) fn turn(&mut self, host: usize) -> Checked {
        let own = &self.hosts[host];
        if own.frozen || own.process.is_none() {
            return Ok(());
        }
        // Frames are taken in with a reading of the clock that is at hand.
        let own = &mut self.hosts[host];
        let stale_ns = own.rng.below(self.options.hosts[host].stale_ns_max + 1);
        let before = own.reading;
        let clock = self.read_clock(host);
        let stale = Time::from_nanos(clock.as_nanos().saturating_sub(stale_ns)).max(before);
        self.counts.count(Count::Turns);
        let done_before = self.done;

        let mut heard = false;
        while let Some(arrival) = self.hosts[host].ring.pop_front() {
            heard |= self.take_in(host, stale, arrival)?;
        }
        if heard {
            self.engine(host, |process| process.replica.heard_by(clock))?;
        }
        while let Some((term, answer)) = self.next_answer(host) {
            self.engine(host, |process| process.replica.handle_witness(clock, term, answer))?;
        }
        self.engine(host, |process| process.replica.handle_timeout(clock))?;

        for pass in 0.. {
            require!(pass < PASSES_MAX, "host {host} releases output without end");
            self.take_time(host);
            self.run_machine(host)?;
            self.take_events(host)?;
            self.transmit(host);
            if self.release(host)? == 0 {
                break;
            }
        }
        self.check_bounds(host, clock, self.done > done_before)?;
        self.end_turn(host);
        self.sleep(host);
        Ok(())
    }

    /// Something is done with the process of `host`, and looked at what became of its role.
    pub(crate) fn engine<T>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Process) -> T,
    ) -> Checked<T> {
        let process = self.hosts[host].process.as_mut();
        let process = process.ok_or_else(|| Violation("the simulator has lost count".into()))?;
        let before = process.replica.role();
        let result = act(process);
        self.look_at_role(host, before)?;
        Ok(result)
    }

    /// A frame from the log link is taken in; whether it was a sign of life.
    fn take_in(&mut self, host: usize, clock: Time, arrival: Arrival) -> Checked<bool> {
        self.done += 1;
        let Arrival { frame, damage: damaged, pad: padded } = arrival;
        let mut bytes = self.frames.bytes(frame).to_vec();
        if let Some(seed) = damaged {
            damage(&mut bytes, &mut Rng::new(seed));
        }
        if let Some(seed) = padded {
            pad(&mut bytes, &mut Rng::new(seed));
        }
        let verdict =
            self.engine(host, |process| process.replica.handle_frame(clock, &mut bytes))?;
        let now = self.queue.now();
        self.trace.line(now, Some(host), "got", format_args!("#{:06} {verdict:?}", frame.0));
        Ok(verdict.is_some_and(EndpointVerdict::is_sign_of_life))
    }

    fn next_answer(&mut self, host: usize) -> Option<(Term, Answer)> {
        let answer = self.hosts[host].process.as_mut()?.answers.pop_front();
        self.done += u64::from(answer.is_some());
        answer
    }

    /// The role of `host` was `before`: what follows from what it is now.
    pub(crate) fn look_at_role(&mut self, host: usize, before: RoleName) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let after = process.replica.role();
        if before == after {
            return Ok(());
        }
        let now = self.queue.now();
        let term = process.replica.term();
        self.trace.line(now, Some(host), "role", format_args!("{before} -> {after}, term {term}"));
        if is_whole(after) && !is_whole(before) {
            self.check_holds(host)?;
        }
        if after != RoleName::Alone {
            return Ok(());
        }
        if is_whole(before) {
            let held = process.replica.hold().len();
            self.counts.count(Count::Takeovers);
            self.counts.add(Count::TakeoversWithHeld, u64::from(held > 0));
            if let Some(process) = &mut self.hosts[host].process {
                process.owes_said = true;
                process.broken |= process.flipped;
                let owes = process.outputs_made() < self.output.next();
                self.counts.add(Count::TakeoversBehind, owes.into());
            }
            self.end_flip(host);
        }
        let was_given_a_term =
            is_whole(before) || matches!(before, RoleName::Starting | RoleName::Losing);
        if was_given_a_term { self.check_authority(host) } else { Ok(()) }
    }

    /// What was flipped in the machine of `host` is not there any more, or is the truth now.
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
            if event == ReplicaEvent::Diverged {
                let flips = std::mem::take(&mut process.flips_due);
                require!(flips > 0, "host {host} has diverged by itself");
            }
        }
        while let Some(Command::Claim { term, previous }) = self.next_command(host) {
            self.ask_witness(host, term, previous);
        }
        Ok(())
    }

    fn next_command(&mut self, host: usize) -> Option<Command> {
        self.hosts[host].process.as_mut()?.replica.poll_command()
    }

    fn transmit(&mut self, host: usize) {
        if self.may_wait(host) {
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
                process.sent = process.logged_up_to();
                if bulk_at > now {
                    self.wake_at(host, bulk_at);
                }
                return;
            };
            let frame = self.frames.push(&self.buffer[..length], ());
            self.done += 1;
            self.counts.count(Count::LogFrames);
            self.counts.add(Count::LogBytes, length as u64);
            self.trace.line(
                now,
                Some(host),
                "send",
                format_args!("#{:06} {length} bytes", frame.0),
            );
            let mut deliveries = std::mem::take(&mut self.deliveries);
            self.links[host].offer(now, length, &mut deliveries);
            for delivery in deliveries.drain(..) {
                let arrival = Arrival { frame, damage: delivery.damage, pad: delivery.pad };
                self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
            }
            self.deliveries = deliveries;
        }
    }

    /// Whether what there is to send stays where it is until the guest stops: no output needs it, nor will
    /// the next one.
    fn may_wait(&mut self, host: usize) -> bool {
        let lazy = self.options.hosts[host].lazy;
        let Host { process, rng, .. } = &mut self.hosts[host];
        let Some(process) = process else { return false };
        let (session, position) = process.sent;
        process.replica.role() == RoleName::Protected
            && matches!(process.place, Place::Running(_))
            && process.session() == Some(session)
            && process.nondeterministic <= (session, position)
            && process.replica.is_releasable_by(position)
            && rng.chance(lazy)
    }

    /// What may leave is given to the port of the LAN; how many frames of the VM that were.
    fn release(&mut self, host: usize) -> Checked<usize> {
        let mut released = 0;
        loop {
            // Read anew for each frame: the lease is checked against it.
            let clock = self.take_time(host);
            let Some(process) = &mut self.hosts[host].process else { break };
            let Some(tap) = process.replica.poll_tap(clock) else { break };
            let frame: Rc<[u8]> = tap.bytes.into();
            let announcement = tap.made_at.is_none();
            let waited = tap.made_at.is_some_and(|at| at < clock);
            let (speaker, term) = (process.id, process.replica.term().0);
            self.done += 1;
            self.check_right(host, speaker, term)?;
            if !announcement {
                released += 1;
                self.counts.add(Count::OutputWaits, waited.into());
                self.check_release(host, &frame)?;
            }
            self.engine(host, |process| process.replica.pop_tap())?;
            if !announcement {
                self.pull_trigger(host, Trigger::Release);
            }
            let own = &mut self.hosts[host];
            let takes_ns = own.rng.below(self.options.hosts[host].tap_ns_max + 1);
            own.tap_busy_until = own.tap_busy_until.max(own.thread_at + takes_ns);
            let given = Given { speaker, announcement, frame };
            self.queue.push(own.tap_busy_until, Event::Leave { host, given });
        }
        self.engine(host, |process| process.replica.tap_flushed())?;
        Ok(released)
    }

    /// The thread of `host` has nothing to do until something happens; or its process is over.
    fn sleep(&mut self, host: usize) {
        let own = &self.hosts[host];
        let Some(process) = &own.process else { return };
        if matches!(process.place, Place::Ended) && process.replica.halted().is_some() {
            return self.bury(host, Gone::Ended);
        }
        let now = own.thread_at;
        let timeout = process.replica.poll_timeout();
        let mut wake = timeout.map(|at| own.clock.when(at));
        let mut also = |at: Option<u64>| wake = wake.into_iter().chain(at).min();
        match &process.place {
            Place::Running(run) => also(Some(run.until)),
            Place::Inputs { .. } if process.world.is_live() => {
                let timer = process.machine.devices.timer_ns;
                let timer = timer.and_then(|due_ns| process.world.when(due_ns));
                // One that is due waits for something else.
                also(timer.map(|at| own.clock.when(at)).filter(|&at| at > now));
            }
            Place::Entry
            | Place::Stopped { .. }
            | Place::Capture(_)
            | Place::Position { .. }
            | Place::Exit { .. }
            | Place::Inputs { .. }
            | Place::Halted
            | Place::Inject(_)
            | Place::Ended => {}
        }
        if process.replica.poll_copy().is_some() && !matches!(process.place, Place::Running(_)) {
            also(Some(process.copies_at.max(now + 1)));
        }
        if let Some(at) = wake {
            self.wake_at(host, at.max(now + 1));
        }
    }
}
