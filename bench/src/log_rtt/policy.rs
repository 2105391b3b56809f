//! How the two sides wait, and how often the client asks.

use logchan::time::Duration;
use netpath::WaitPolicy;

/// Time between two requests of an idle line.
const PACE: Duration = Duration::from_millis(10);

/// How long a side of an idle line looks: for longer than the other one needs to be woken, so that a
/// round trip has one wake in it and not two.
const IDLE_LOOK: std::time::Duration = std::time::Duration::from_micros(200);

/// How long a side looks that never blocks: longer than the pace.
const POLL_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// How both sides of a variant wait for each other. The same for every variant, by the same code
/// ([`netpath::wait::spin`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Policy {
    /// Block at once, one request after the other
    Block,
    /// Look for 50 us, yielding after 4, then block; one request after the other
    Spin,
    /// Look for 200 us, yielding after 4, then block; one request every 10 ms
    Idle,
    /// As block, with one request every 10 ms
    IdleBlock,
    /// Look until something comes, yielding after 4 us; one request every 10 ms
    Poll,
}

impl Policy {
    /// Those of `log-rtt` unless told otherwise: without polling, which takes both cores for all of its
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

    /// How a side waits.
    pub(crate) fn wait(self) -> WaitPolicy {
        match self {
            Policy::Block | Policy::IdleBlock => WaitPolicy::BLOCK,
            Policy::Spin => WaitPolicy::default(),
            Policy::Idle => WaitPolicy { spin: IDLE_LOOK, ..WaitPolicy::default() },
            Policy::Poll => WaitPolicy { spin: POLL_LOOK, ..WaitPolicy::default() },
        }
    }

    /// Time from one request to the next; `None`: at once.
    pub(crate) const fn pace(self) -> Option<Duration> {
        match self {
            Policy::Block | Policy::Spin => None,
            Policy::Idle | Policy::IdleBlock | Policy::Poll => Some(PACE),
        }
    }
}
