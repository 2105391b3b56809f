//! Wait policies of the two sides and request rates of the client.

use logchan::time::Duration;
use netpath::WaitPolicy;

/// Time between two requests on an idle link.
const PACE: Duration = Duration::from_millis(10);

/// Spin time on an idle link: longer than the wake-up of the other side, so that a round trip contains
/// one wake-up and not two.
const IDLE_LOOK: std::time::Duration = std::time::Duration::from_micros(200);

/// Spin time of a side that never blocks: longer than the pace.
const POLL_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// How both sides of a variant wait for each other. All variants use the same code
/// ([`netpath::wait::spin`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Policy {
    /// Block at once; requests back to back
    Block,
    /// Spin for 50 us, yielding after 4 us, then block; requests back to back
    Spin,
    /// Spin for 200 us, yielding after 4 us, then block; one request every 10 ms
    Idle,
    /// Block at once; one request every 10 ms
    IdleBlock,
    /// Spin until something arrives, yielding after 4 us; one request every 10 ms
    Poll,
}

impl Policy {
    /// Default policies of `log-rtt`. Polling is not included, because it occupies both cores all the
    /// time.
    pub(crate) const USUAL: [Policy; 4] =
        [Policy::Block, Policy::Spin, Policy::Idle, Policy::IdleBlock];

    /// The name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Policy::Block => "block",
            Policy::Spin => "spin",
            Policy::Idle => "idle",
            Policy::IdleBlock => "idle-block",
            Policy::Poll => "poll",
        }
    }

    /// Returns the wait policy of each side.
    pub(crate) fn wait(self) -> WaitPolicy {
        match self {
            Policy::Block | Policy::IdleBlock => WaitPolicy::BLOCK,
            Policy::Spin => WaitPolicy::default(),
            Policy::Idle => WaitPolicy { spin: IDLE_LOOK, ..WaitPolicy::default() },
            Policy::Poll => WaitPolicy { spin: POLL_LOOK, ..WaitPolicy::default() },
        }
    }

    /// Returns the time from one request to the next; `None` for back to back.
    pub(crate) const fn pace(self) -> Option<Duration> {
        match self {
            Policy::Block | Policy::Spin => None,
            Policy::Idle | Policy::IdleBlock | Policy::Poll => Some(PACE),
        }
    }
}
