//! Bugs that can be switched on, one at a time, to see that the simulator finds them. Without the
//! feature `mutants` there are none, and asking costs nothing.

use logchan::channel::Mutants as ChannelMutants;

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug of the engine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(any(test, feature = "mutants")),
            expect(unreachable_pub, reason = "public with the feature")
        )]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            #[cfg(any(test, feature = "mutants"))]
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

mutants! {
    /// Output leaves before the backup has its log.
    ReleaseBeforeAck,
    /// Output leaves whether or not the lease is held.
    ReleaseWithoutLease,
    /// Output leaves while the right to go on alone is still being claimed.
    ReleaseWhileClaiming,
    /// A primary whose new backup could already take over goes on as if it were alone, until that
    /// backup has acknowledged.
    FreeUntilProtected,
    /// A backup takes over without asking the witness.
    LiveWithoutWitness,
    /// The tap of a backup opens when the primary falls silent.
    TapBeforeClaim,
    /// Who lost the claim goes on nevertheless.
    IgnoreLostClaim,
    /// The last output in the log is not made again at takeover.
    SkipLastOutput,
    /// What the dead primary may not have released is not sent again.
    ForgetKeptOutput,
    /// A backup runs into a region before it knows how the region ends.
    RunPastHorizon,
    /// A checkpoint of which a part is there is applied at takeover.
    ApplyHalfCheckpoint,
    /// The closing checkpoint of a sync lacks the pages that changed while the others were copied.
    MovingTarget,
    /// A difference between primary and backup is passed over.
    IgnoreDivergence,
    /// Guest time begins anew at takeover.
    ClockStartsOver,
    /// A backup that took over stays in its old term.
    KeepTerm,
    /// Announcements go on while the right to go on alone is still being claimed, or without a lease.
    AnnounceWithoutRight,
    /// The pages of the next checkpoint follow those of a sync at once.
    PagesBeforeWhole,
    /// The closing checkpoint asks a world that was not told that the machine is live.
    SyncBeforeWake,
    /// A halted guest is given to a backup only when something has woken it.
    SyncAwaitsInput,
    /// A VM that has to stand still waits for room for its output.
    WaitWhileBlocked,
    /// A page that is as it was told last is not put back, though the machine has executed since.
    SkipUnchanged,
    /// The base of a page's changes is what it is after the region that could not be replayed.
    BaseAfterRegion,
    /// A VM that has to stand still speaks.
    SpeakWhileBlocked,
    /// A machine that goes live takes in what there is before it has made what was said.
    InputsBeforeReplayOut,
    /// An output does not need what the guest read of the clock before it.
    AssumeTimeDeterministic,
}

/// The bugs of one replica: at most one of the engine and one of its channel, and none without the
/// feature `mutants`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(any(test, feature = "mutants"))]
    planted: Option<Mutant>,
    channel: ChannelMutants,
}

impl Mutants {
    /// This one bug of the engine.
    #[cfg(any(test, feature = "mutants"))]
    pub fn plant(mutant: Mutant) -> Self {
        Self { planted: Some(mutant), channel: ChannelMutants::default() }
    }

    /// These bugs of the channel.
    #[cfg(any(test, feature = "mutants"))]
    pub fn of_channel(channel: ChannelMutants) -> Self {
        Self { planted: None, channel }
    }

    pub(super) fn channel(self) -> ChannelMutants {
        self.channel
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
