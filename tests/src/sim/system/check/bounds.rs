//! What must stay small.

use logchan::ids::Lane;
use logchan::limits::ENTRY_BYTES_MAX;
use logchan::time::Time;
use vmm::replica::RoleName;

use crate::sim::system::pair::Pair;
use crate::sim::{Checked, MS, require};

/// Turns of a host's thread in a while in which nothing is done, at most.
const IDLE_TURNS_MAX: u64 = 1000;

/// Such a while.
const WHILE_NS: u64 = 20 * MS;

/// Turns of a thread for nothing, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    while_began: u64,
    idle_turns: u64,
}

impl Pair<'_> {
    /// After a turn of the thread of `host`, which began at `clock` and in which something was done or
    /// not.
    pub(crate) fn check_bounds(&mut self, host: usize, clock: Time, done: bool) -> Checked {
        let now = self.queue.now();
        let bounds = &mut self.bounds[host];
        if now >= bounds.while_began + WHILE_NS {
            *bounds = Bounds { while_began: now, idle_turns: 0 };
        }
        bounds.idle_turns += u64::from(!done);
        let idle_turns = bounds.idle_turns;
        require!(
            idle_turns <= IDLE_TURNS_MAX,
            "host {host} is woken {idle_turns} times for nothing in {WHILE_NS} ns"
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
            "host {host} as {} wants to be woken {} ago",
            replica.role(),
            clock.since(timeout.unwrap_or(clock))
        );
        Ok(())
    }

    /// A live machine of `host` is about to enter its guest.
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
            "host {host} goes on with a backup that is {lag} bytes behind, not {most}"
        );
        Ok(())
    }
}
