//! The client's request rates.

use super::Args;
use std::time::Duration;

/// The rate of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// One per second.
    One,
    /// 100 per second.
    Hundred,
    /// 1000 per second.
    Thousand,
    /// Back to back on one connection.
    Saturating,
}

impl Load {
    /// All loads.
    pub(super) const ALL: [Load; 4] = [Load::One, Load::Hundred, Load::Thousand, Load::Saturating];

    /// The name in reports: requests per second.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Load::One => "1",
            Load::Hundred => "100",
            Load::Thousand => "1000",
            Load::Saturating => "saturating",
        }
    }

    /// Returns the time from one request to the next; `None` for back to back.
    pub(super) const fn pace(self) -> Option<Duration> {
        match self {
            Load::One => Some(Duration::from_secs(1)),
            Load::Hundred => Some(Duration::from_millis(10)),
            Load::Thousand => Some(Duration::from_millis(1)),
            Load::Saturating => None,
        }
    }

    /// Returns the number of requests per VM.
    pub(super) const fn requests(self, args: &Args) -> u64 {
        match self {
            Load::One => args.slow_requests,
            Load::Hundred | Load::Thousand | Load::Saturating => args.requests,
        }
    }
}
