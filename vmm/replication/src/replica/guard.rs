//! Reasons for which the engine ignores an input.

/// Why an input changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// An answer of the witness while no claim was outstanding.
    AnswerWithoutClaim,
    /// An answer of the witness for another term than the one claimed.
    AnswerForOtherTerm,
    /// A page for a sync that was aborted meanwhile.
    CopyWithoutSync,
    /// A checkpoint that no backup needs any more.
    CheckpointWithoutSync,
    /// A frame with a newer term. Only the witness decides which term is valid.
    NewerTerm,
    /// A stop request after this host's part was over.
    AlreadyStopped,
}

impl Ignored {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::AnswerWithoutClaim,
        Self::AnswerForOtherTerm,
        Self::CopyWithoutSync,
        Self::CheckpointWithoutSync,
        Self::NewerTerm,
        Self::AlreadyStopped,
    ];

    /// Returns the index in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}
