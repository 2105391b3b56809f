//! The stages that a frame passes, and when one of them did.

use serde::{Deserialize, Serialize};

/// A stage: from one moment of a [`Passage`] to the next that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Taken from the tap until the interrupt for it was injected.
    Inject,
    /// Injected until the guest's interrupt handler acknowledged it at the NIC.
    Handler,
    /// Acknowledged until the guest handed the NIC a frame of its own.
    Guest,
    /// That frame made until the log behind it was with the kernel, on its way to the backup.
    Send,
    /// Log sent until the backup's acknowledgement was seen.
    Ack,
    /// Acknowledgement seen (standalone: frame made) until the frame was on the tap.
    Leave,
    /// Frame made until it might leave: the output hold.
    Hold,
    /// Frame taken from the tap until the guest's was on it.
    Whole,
}

impl Stage {
    /// All of them; the last two are sums of those before.
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

    /// As it is called in results.
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

/// When a frame that was followed passed each point, nanoseconds of the clock of
/// [`link::now`](crate::link::now); 0 where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The VMM took it from the tap.
    pub taken: u64,
    /// The interrupt that the guest then acknowledged was injected.
    pub injected: u64,
    /// The guest's handler acknowledged it.
    pub served: u64,
    /// The guest handed the NIC a frame.
    pub made: u64,
    /// The log behind that frame was sent. Not of a VM without a backup.
    pub sent: u64,
    /// The acknowledgement for it was seen. Not of a VM without a backup.
    pub acked: u64,
    /// The guest's frame was on the tap.
    pub left: u64,
}

impl Passage {
    /// How long `stage` took; nothing if the frame did not pass both of its ends.
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
    fn stages_of_a_protected_frame_add_up_to_the_whole() {
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
    fn standalone_frame_has_no_log() {
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
