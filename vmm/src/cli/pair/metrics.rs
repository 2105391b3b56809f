//! Serves the metrics of a host of a pair.

use crate::cli::exit_code::CliError;
use crate::link::now;
use crate::metrics::{MetricsListener, MetricsServer, ServedCounts};
use crate::pair::metrics::{Exposition, MetricsBoard};
use crate::stdio;
use crate::witness::WitnessTimes;
use logchan::ids::VmId;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Metrics that are served.
pub(super) struct ServedMetrics {
    /// Where `vcpu0` publishes samples.
    pub(super) board: Arc<MetricsBoard>,
    _server: MetricsServer,
}

impl ServedMetrics {
    /// Starts to serve the metrics of `vm` at `listener`.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub(super) fn start(
        listener: MetricsListener,
        vm: VmId,
        witness: Arc<WitnessTimes>,
    ) -> Result<ServedMetrics, CliError> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let board = Arc::<MetricsBoard>::default();
        let samples = Arc::clone(&board);
        let text = move |served: &ServedCounts| {
            let sample = samples.latest();
            let exposition = Exposition {
                vm,
                started_s: started.as_secs_f64(),
                now: now(),
                sample,
                witness: Arc::clone(&witness),
                served: *served,
                messages_dropped: stdio::messages_dropped(),
            };
            exposition.text()
        };
        let server = MetricsServer::start(listener, text).map_err(|source| CliError::Os {
            doing: "starting the thread of the metrics",
            source,
        })?;
        Ok(ServedMetrics { board, _server: server })
    }
}
