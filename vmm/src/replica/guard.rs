//! Why something that was said to a replica changes nothing.

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// An answer of the witness to a question that is not open.
    AnswerToNoClaim,
    /// An answer of the witness about another term than the one asked for.
    AnswerOfOtherTerm,
    /// A page of a copy that was broken off meanwhile.
    CopyOfNoSync,
    /// A checkpoint that nobody waits for any more.
    CheckpointOfNoSync,
    /// A frame of the channel by somebody with a newer term: the witness knows more.
    NewerTerm,
    /// Asked to stop when it is over.
    StoppedAlready,
}

impl Ignored {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AnswerToNoClaim,
        Self::AnswerOfOtherTerm,
        Self::CopyOfNoSync,
        Self::CheckpointOfNoSync,
        Self::NewerTerm,
        Self::StoppedAlready,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}
