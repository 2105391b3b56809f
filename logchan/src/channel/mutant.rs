//! Bugs that a test can plant, one at a time, to see that the simulator finds them: in the channel, and
//! in the link that it runs on. Without the feature `mutants` there are none, and the checks cost
//! nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, feature = "mutants")),
    expect(unreachable_pub, reason = "public with the feature")
)]
pub enum Mutant {
    /// Acknowledges up to the end of what was received, in spite of gaps.
    AckGap,
    /// The lease lasts as long as the backup's silence timeout.
    NoLeaseMargin,
    /// The lease runs from the arrival of an acknowledgement.
    LeaseFromArrival,
    /// Bytes that arrive again are delivered again.
    DeliverTwice,
    /// A primary that was replaced gets a backup.
    FollowOldTerm,
    /// The last frame of a lane is never retransmitted.
    ForgetLastFrame,
    /// The bulk lane goes before the latency lane.
    BulkFirst,
    /// Acknowledges frames even after the peer was declared dead.
    AckAfterSilence,
    /// Log that requires bulk is committed without it.
    CommitWithoutBulk,
    /// A peer that left with a `Bye` is declared dead later.
    ByeIsSilence,
    /// The lease goes on after a `Bye`.
    LeaseAfterBye,
    /// A duplicate frame is accepted as a new one, by the seal and by the channel.
    TakeRepeated,
    /// Sends beyond the peer's window.
    IgnoreWindow,
    /// The retransmission timeout is not doubled when nothing comes back.
    NoBackOff,
    /// The last report of the peer's progress counts, not the largest.
    ExecutedGoesBack,
    /// The caller of a refused append is not notified when there is room.
    RoomNeverTold,
    /// Sends no heartbeats.
    ForgetHeartbeat,
    /// A timer that expired stays set.
    BusyTimer,
    /// A request is not repeated.
    AskOnce,
    /// Any peer with the key is answered, even while there is a channel with another one.
    AnswerStrangers,
    /// An initiation alone establishes a session, although it may be a recording.
    TrustRecordings,
    /// An initiation is answered whatever challenge it carries, without a rate limit.
    TakeStale,
    /// An initiation that was answered does not use up its challenge.
    KeepChallenge,
    /// A challenge is taken although it is not for our request.
    TrustChallenge,
    /// New keys invalidate frames sealed with the old ones.
    DropOldKeys,
    /// The first frame of a pending session always makes that session the current one, even if it was
    /// superseded or is of another incarnation.
    ReviveSessions,
    /// The death notice of any session is taken, also that of an earlier one.
    TakeOldNotice,
}

impl Mutant {
    /// All bugs.
    #[cfg(any(test, feature = "mutants"))]
    pub const ALL: [Self; 27] = [
        Self::AckGap,
        Self::NoLeaseMargin,
        Self::LeaseFromArrival,
        Self::DeliverTwice,
        Self::FollowOldTerm,
        Self::ForgetLastFrame,
        Self::BulkFirst,
        Self::AckAfterSilence,
        Self::CommitWithoutBulk,
        Self::ByeIsSilence,
        Self::LeaseAfterBye,
        Self::TakeRepeated,
        Self::IgnoreWindow,
        Self::NoBackOff,
        Self::ExecutedGoesBack,
        Self::RoomNeverTold,
        Self::ForgetHeartbeat,
        Self::BusyTimer,
        Self::AskOnce,
        Self::AnswerStrangers,
        Self::TrustRecordings,
        Self::TakeStale,
        Self::KeepChallenge,
        Self::TrustChallenge,
        Self::DropOldKeys,
        Self::ReviveSessions,
        Self::TakeOldNotice,
    ];
}

/// The planted bug of one channel: at most one, and none without the feature `mutants`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(any(test, feature = "mutants"))]
    planted: Option<Mutant>,
}

impl Mutants {
    /// Plants one bug.
    #[cfg(any(test, feature = "mutants"))]
    pub const fn plant(mutant: Mutant) -> Self {
        Self { planted: Some(mutant) }
    }

    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        self.planted == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(crate) const fn has(self, _: Mutant) -> bool {
        false
    }
}
