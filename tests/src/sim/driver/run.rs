//! The event loop of a run. It resumes the coroutine of a process when its time has come.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use corosensei::{Coroutine, CoroutineResult};
use replication::DriverMutant;

use super::check::Phase;
use super::count::Count;
use super::process::{self, Ended};
use super::state::{Event, State};
use super::thread::Thread;
use crate::sim::counts::Counts;
use crate::sim::system::check::EndCause;
use crate::sim::trace::Trace;
use crate::sim::{Checked, MS, Violation};

/// Maximum number of events in a run. More of them indicate an endless loop.
const EVENTS_MAX: u64 = 5_000_000;

/// A run: its state, and the coroutines of the processes by host.
struct Run {
    state: Rc<RefCell<State>>,
    processes: [Option<Coroutine<(), (), Ended>>; 2],
}

/// Runs a seed.
///
/// # Errors
///
/// A violation.
pub(super) fn run(
    seed: u64,
    planted: Option<DriverMutant>,
    counts: &mut Counts<Count>,
    trace: &mut Trace,
) -> Checked {
    let state = State::new(seed, planted, std::mem::take(trace));
    let mut run = Run { state: Rc::new(RefCell::new(state)), processes: [None, None] };
    run.state.borrow_mut().begin();
    // Unwind safe: after a panic, only counters and the text of the trace are used.
    let result = panic::catch_unwind(AssertUnwindSafe(|| run.run_events()));
    // Unwinds the processes that still run.
    run.processes = [None, None];
    let mut state = run.state.borrow_mut();
    if let Ok(Err(Violation(what))) = &result {
        state.note(None, "VIOLATION", format_args!("{what}"));
    }
    let ms = state.queue.now() / MS;
    state.counts.add(Count::VirtualMs, ms);
    counts.merge(&state.counts);
    *trace = std::mem::take(&mut state.trace);
    match result {
        Ok(checked) => checked,
        Err(payload) => panic::resume_unwind(payload),
    }
}

impl Run {
    fn run_events(&mut self) -> Checked {
        for _ in 0..EVENTS_MAX {
            let event = self.state.borrow_mut().queue.pop();
            let event = event.ok_or_else(|| Violation("no event is left".into()))?;
            match event {
                Event::Resume { host, ticket } => self.resume(host, ticket),
                Event::Boot { host } => self.boot(host),
                event => self.state.borrow_mut().handle(event)?,
            }
            for host in [0, 1] {
                if std::mem::take(&mut self.state.borrow_mut().hosts[host].is_doomed) {
                    // The state must not be borrowed: the process is unwound.
                    self.processes[host] = None;
                    self.state.borrow_mut().end_process(host, EndCause::Crashed, "");
                }
            }
            let mut state = self.state.borrow_mut();
            state.counts.count(Count::Events);
            if let Some(violation) = state.violation.take() {
                return Err(violation);
            }
            state.check_copies()?;
            state.check_progress()?;
            if state.copies.lost && !matches!(state.phase, Phase::Stop { .. }) {
                return Ok(());
            }
            if state.phase == Phase::Over {
                return state.clients.check_counter_values();
            }
        }
        let now = self.state.borrow().queue.now();
        Err(Violation(format!("too many events: {EVENTS_MAX} in {now} ns")))
    }

    fn boot(&mut self, host: usize) {
        let Some((id, start)) = self.state.borrow_mut().boot(host) else { return };
        let state = Rc::clone(&self.state);
        self.processes[host] = Some(Coroutine::new(move |yielder, ()| {
            process::run(&Thread::new(state, host, yielder), id, start)
        }));
        self.step(host);
    }

    fn resume(&mut self, host: usize, ticket: u64) {
        if self.state.borrow_mut().may_resume(host, ticket) {
            self.state.borrow_mut().counts.count(Count::Resumed);
            self.step(host);
        }
    }

    /// Runs a process until it sleeps or ends.
    fn step(&mut self, host: usize) {
        let Some(process) = &mut self.processes[host] else { return };
        match process.resume(()) {
            CoroutineResult::Yield(()) => {}
            CoroutineResult::Return(ended) => {
                self.processes[host] = None;
                let mut state = self.state.borrow_mut();
                let (cause, how) = match ended {
                    Ended::Halted(halt) => (EndCause::Exited, format!("{halt:?}")),
                    Ended::TapFailed => {
                        state.counts.count(Count::GaveUp);
                        (EndCause::Crashed, "its tap failed".to_string())
                    }
                };
                state.end_process(host, cause, &how);
            }
        }
    }
}
