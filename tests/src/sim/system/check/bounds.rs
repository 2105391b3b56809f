//! Checks that queues, windows, lag, timeouts and wake-ups stay within their bounds.

use logchan::ids::Lane;
use logchan::limits::ENTRY_BYTES_MAX;
use logchan::time::Time;
use replication::replica::RoleName;

use crate::sim::system::pair::Pair;
use crate::sim::{Checked, MS, require};

/// Maximum number of idle driver iterations in a time window.
const IDLE_ITERATIONS_MAX: u64 = 1000;

/// Duration of the time window in which idle iterations are counted.
const WINDOW_NS: u64 = 20 * MS;

/// Counts the idle driver iterations of a host in the current time window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    window_began: u64,
    idle_iterations: u64,
}

impl Pair<'_> {
    /// Checks the bounds after a driver iteration of `host`, which began at `clock`. `done` says whether it
    /// did any work.
    pub(crate) fn check_bounds(&mut self, host: usize, clock: Time, done: bool) -> Checked {
        let now = self.queue.now();
        let bounds = &mut self.bounds[host];
        if now >= bounds.window_began + WINDOW_NS {
            *bounds = Bounds { window_began: now, idle_iterations: 0 };
        }
        bounds.idle_iterations += u64::from(!done);
        let idle_iterations = bounds.idle_iterations;
        require!(
            idle_iterations <= IDLE_ITERATIONS_MAX,
            "host {host} has {idle_iterations} idle driver iterations in {WINDOW_NS} ns"
        );

        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let replica = &process.replica;
        let (pair, hold) = (&self.options.pair, replica.hold());
        require!(
            hold.len() <= pair.hold_frames && hold.bytes() <= pair.hold_bytes,
            "host {host} holds {} frames of {} bytes",
            hold.len(),
            hold.bytes()
        );
        if let Some(channel) = replica.channel() {
            for lane in Lane::ALL {
                let window = pair.window_bytes[lane.index()];
                let received = channel.received(lane).len();
                require!(received <= window, "host {host} holds {received} bytes of {lane:?}");
            }
        }
        let timeout = replica.poll_timeout();
        require!(
            timeout.is_none_or(|at| at > clock),
            "host {host} as {} has a timeout that is {} in the past",
            replica.role(),
            clock.since(timeout.unwrap_or(clock))
        );
        Ok(())
    }

    /// Checks the lag of the backup before the live machine of `host` enters its guest.
    pub(crate) fn check_lag(&self, host: usize) -> Checked {
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        if process.replica.role() != RoleName::Protected {
            return Ok(());
        }
        let Some(channel) = process.replica.channel() else { return Ok(()) };
        let lag = channel.appended(Lane::Latency).0.saturating_sub(channel.peer_executed());
        let most = self.options.pair.lag_bytes_max;
        require!(
            lag <= most.max(ENTRY_BYTES_MAX as u64),
            "host {host} runs its guest with a backup that is {lag} bytes behind; at most {most} are allowed"
        );
        Ok(())
    }
}
