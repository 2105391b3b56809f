//! Measures false alarms: how often a pair without kills declares a living host dead.

use super::watch::{Watched, watch};
use crate::error::BenchError;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::busy::on_busy_cores;

/// Whether other work runs on the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// No other work.
    Idle,
    /// A thread on each core is busy about half of the time, in random bursts.
    Loaded,
}

impl Load {
    /// Both loads.
    pub(super) const ALL: [Load; 2] = [Load::Idle, Load::Loaded];

    /// The name in the figures.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Loaded => "loaded",
        }
    }
}

/// Results for one silence timeout under one load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarms {
    seen: Watched,
    /// Number of started pairs that never became protected.
    never_protected: u32,
}

impl Alarms {
    /// Watches a new pair for `time`.
    pub(super) fn run_round(
        &mut self,
        silence_ms: u64,
        load: Load,
        time: Duration,
        seed: u64,
    ) -> Result<(), BenchError> {
        let (begin, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let watch = || watch(silence_ms, time, || begin.store(true, Ordering::Relaxed));
        let seen = match load {
            Load::Idle => watch(),
            // A rate measured without the complete load would be mislabelled: then this fails.
            Load::Loaded => on_busy_cores(seed, &begin, &stop, watch)?,
        };
        self.add(&seen?);
        Ok(())
    }

    fn add(&mut self, seen: &Watched) {
        let all = &mut self.seen;
        all.watched += seen.watched;
        all.protected += seen.protected;
        all.alarms += seen.alarms;
        all.takeovers += seen.takeovers;
        all.backups_lost += seen.backups_lost;
        all.late = all.late.max(seen.late);
        self.never_protected += u32::from(seen.watched.is_zero());
    }

    pub(super) fn figures(&self) -> Value {
        let minutes = self.seen.protected.as_secs_f64() / 60.0;
        json!({
            "watched_s": self.seen.watched.as_secs_f64(),
            "protected_s": self.seen.protected.as_secs_f64(),
            "alarms": self.seen.alarms,
            "takeovers": self.seen.takeovers,
            "backups_lost": self.seen.backups_lost,
            "never_protected": self.never_protected,
            "host_late_ms_max": self.seen.late.as_secs_f64() * 1e3,
            "alarms_per_protected_minute":
                (minutes > 0.0).then(|| self.seen.alarms as f64 / minutes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_rate_uses_protected_time_and_is_null_without_any() {
        let mut alarms = Alarms::default();
        alarms.add(&Watched::default());
        assert_eq!(alarms.figures()["never_protected"], 1);
        assert_eq!(alarms.figures()["alarms_per_protected_minute"], Value::Null);
        for seconds in [10, 20] {
            let (watched, protected) = (Duration::from_secs(30), Duration::from_secs(seconds));
            let late = Duration::from_millis(seconds);
            let alarm =
                Watched { watched, protected, alarms: 2, takeovers: 1, backups_lost: 1, late };
            alarms.add(&alarm);
        }
        assert_eq!(alarms.figures()["alarms_per_protected_minute"], 8.0);
        assert_eq!(alarms.figures()["watched_s"], 60.0);
        assert_eq!(alarms.figures()["host_late_ms_max"], 20.0);
    }
}
