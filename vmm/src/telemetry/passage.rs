//! The stages that a frame passes, and the timestamps of one frame.

use serde::{Deserialize, Serialize};

/// A stage: the time between two timestamps of a [`Passage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From reading the frame off the tap until its interrupt was injected.
    Inject,
    /// Until the guest's interrupt handler acknowledged the interrupt at the NIC.
    Handler,
    /// From that until the guest gave the NIC its answer.
    Guest,
    /// From the answer until its log was given to the kernel, to be sent to the backup.
    Send,
    /// From that until the backup's acknowledgement was seen.
    Ack,
    /// From the acknowledgement (standalone: from the answer) until the answer was on the tap.
    Leave,
    /// From the answer until it was allowed to leave: the output hold.
    Hold,
    /// From reading the frame off the tap until the answer was on the tap.
    Whole,
}

impl Stage {
    /// All stages. The last two are sums of others.
    pub const ALL: [Stage; 8] = [
        Stage::Inject,
        Stage::Handler,
        Stage::Guest,
        Stage::Send,
        Stage::Ack,
        Stage::Leave,
        Stage::Hold,
        Stage::Whole,
    ];

    /// Returns the name that results use.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Inject => "inject",
            Stage::Handler => "handler",
            Stage::Guest => "guest",
            Stage::Send => "send",
            Stage::Ack => "ack",
            Stage::Leave => "leave",
            Stage::Hold => "hold",
            Stage::Whole => "whole",
        }
    }
}

/// Timestamps of one sampled frame and of the guest's answer to it, nanoseconds of the clock of
/// [`link::now`](crate::link::now); 0 where the frame did not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The VMM read the frame from the tap.
    pub taken: u64,
    /// The interrupt that the guest then acknowledged was injected.
    pub injected: u64,
    /// The guest's interrupt handler acknowledged it.
    pub served: u64,
    /// The guest gave the NIC its answer.
    pub made: u64,
    /// The log that the answer needs was sent. 0 without a backup.
    pub sent: u64,
    /// The acknowledgement of that log was seen. 0 without a backup.
    pub acked: u64,
    /// The answer was on the tap.
    pub left: u64,
}

impl Passage {
    /// Returns how long `stage` took, nanoseconds; `None` if the frame did not pass both of its ends.
    pub fn span_ns(&self, stage: Stage) -> Option<u64> {
        let acked = if self.acked == 0 { self.made } else { self.acked };
        let (from, to) = match stage {
            Stage::Inject => (self.taken, self.injected),
            Stage::Handler => (self.injected, self.served),
            Stage::Guest => (self.served, self.made),
            Stage::Send => (self.made, self.sent),
            Stage::Ack => (self.sent, self.acked),
            Stage::Leave => (acked, self.left),
            Stage::Hold => (self.made, self.acked),
            Stage::Whole => (self.taken, self.left),
        };
        (from > 0 && to >= from).then(|| to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_of_protected_frame_stages_sum_to_whole() {
        let passage = Passage {
            taken: 100,
            injected: 110,
            served: 130,
            made: 170,
            sent: 250,
            acked: 410,
            left: 730,
        };
        let spans = Stage::ALL.map(|stage| passage.span_ns(stage).unwrap());
        assert_eq!(spans, [10, 20, 40, 80, 160, 320, 240, 630]);
        assert_eq!(spans[..6].iter().sum::<u64>(), spans[7]);
    }

    #[test]
    fn span_of_standalone_frame_has_no_log_stages() {
        let passage =
            Passage { taken: 1, injected: 2, served: 4, made: 8, left: 16, ..Passage::default() };
        let spans = Stage::ALL.map(|stage| passage.span_ns(stage));
        assert_eq!(
            spans,
            [Some(1), Some(2), Some(4), None, None, Some(8), None, Some(15)],
            "{passage:?}"
        );
    }
}
