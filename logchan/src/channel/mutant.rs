//! Bugs that can be switched on, one at a time, to see that the simulator finds them. Without the
//! feature `mutants` there are none, and asking costs nothing.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, feature = "mutants")),
    expect(unreachable_pub, reason = "public with the feature")
)]
pub enum Mutant {
    /// Acknowledges the end of what arrived, gaps or not.
    AckGap,
    /// The lease lasts as long as the backup's patience.
    NoLeaseMargin,
    /// The lease runs from the arrival of an acknowledgement.
    LeaseFromArrival,
    /// Bytes that arrive again are delivered again.
    DeliverTwice,
    /// Frames of an older term are taken.
    TakeOldTerm,
    /// The last frame of a lane is never sent again.
    ForgetLastFrame,
    /// Bulk goes before latency.
    BulkFirst,
    /// Acknowledges also after the peer was declared dead.
    AckAfterSilence,
    /// What waits for bulk is committed without it.
    CommitWithoutBulk,
    /// An end that said goodbye is declared dead later.
    ByeIsSilence,
}

impl Mutant {
    /// All of them.
    #[cfg(any(test, feature = "mutants"))]
    pub const ALL: [Self; 10] = [
        Self::AckGap,
        Self::NoLeaseMargin,
        Self::LeaseFromArrival,
        Self::DeliverTwice,
        Self::TakeOldTerm,
        Self::ForgetLastFrame,
        Self::BulkFirst,
        Self::AckAfterSilence,
        Self::CommitWithoutBulk,
        Self::ByeIsSilence,
    ];
}

/// The bugs of one channel: at most one, and none without the feature `mutants`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(any(test, feature = "mutants"))]
    planted: Option<Mutant>,
}

impl Mutants {
    /// This one bug.
    #[cfg(any(test, feature = "mutants"))]
    pub const fn plant(mutant: Mutant) -> Self {
        Self { planted: Some(mutant) }
    }

    #[cfg(any(test, feature = "mutants"))]
    pub(super) fn has(self, mutant: Mutant) -> bool {
        self.planted == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(super) const fn has(self, _: Mutant) -> bool {
        false
    }
}
