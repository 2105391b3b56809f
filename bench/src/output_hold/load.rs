//! What the client asks for.

use super::Args;
use std::time::Duration;

/// How often a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// One a second.
    One,
    /// 100 a second.
    Hundred,
    /// 1000 a second.
    Thousand,
    /// As fast as they are answered, on one connection.
    Saturating,
}

impl Load {
    /// All of them.
    pub(super) const ALL: [Load; 4] = [Load::One, Load::Hundred, Load::Thousand, Load::Saturating];

    /// The name in reports: requests a second.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Load::One => "1",
            Load::Hundred => "100",
            Load::Thousand => "1000",
            Load::Saturating => "saturating",
        }
    }

    /// Time from one request to the next.
    pub(super) const fn pace(self) -> Option<Duration> {
        match self {
            Load::One => Some(Duration::from_secs(1)),
            Load::Hundred => Some(Duration::from_millis(10)),
            Load::Thousand => Some(Duration::from_millis(1)),
            Load::Saturating => None,
        }
    }

    /// Requests of each VM.
    pub(super) const fn requests(self, args: &Args) -> u64 {
        match self {
            Load::One => args.slow_requests,
            Load::Hundred | Load::Thousand | Load::Saturating => args.requests,
        }
    }
}
