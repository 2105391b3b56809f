//! Bugs that can be switched on, one at a time, to see that the simulator finds them: in the channel,
//! and in the link that it runs on. Without the feature `mutants` there are none, and asking costs
//! nothing.

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
    /// A primary that was replaced finds a backup that follows it.
    FollowOldTerm,
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
    /// The lease goes on after goodbye.
    LeaseAfterBye,
    /// A frame that is repeated counts as another one, for the seal and for the channel.
    TakeRepeated,
    /// Sends whatever the peer's window is.
    IgnoreWindow,
    /// The timeout is not doubled when nothing comes back.
    NoBackOff,
    /// The newest that was heard of the peer's execution is what came last.
    ExecutedGoesBack,
    /// An append that was refused is not told of the room that there is now.
    RoomNeverTold,
    /// Says nothing by itself.
    ForgetHeartbeat,
    /// A timer that ran out stays set.
    BusyTimer,
    /// An initiation is not repeated.
    AskOnce,
    /// Whoever has the key is answered, also while there is a channel with somebody else.
    AnswerStrangers,
    /// An initiation alone makes a session, and it may be a recording.
    TrustRecordings,
    /// Every initiation is answered, however many there are.
    AnswerAll,
    /// New keys end what was sealed with the old ones.
    DropOldKeys,
    /// A session that was answered is taken up whenever its first frame comes, and whoever sent it.
    ReviveSessions,
}

impl Mutant {
    /// All of them.
    #[cfg(any(test, feature = "mutants"))]
    pub const ALL: [Self; 24] = [
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
        Self::AnswerAll,
        Self::DropOldKeys,
        Self::ReviveSessions,
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
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        self.planted == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(crate) const fn has(self, _: Mutant) -> bool {
        false
    }
}
