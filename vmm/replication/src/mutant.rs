//! Planted bugs. They can be switched on one at a time, to show that the simulator finds each of them.
//! Without the feature `mutants` there are none, and the checks cost nothing.

use logchan::channel::Mutants as ChannelMutants;

macro_rules! mutants {
    ($(#[$of:meta])* $enum:ident: $($(#[$doc:meta])* $name:ident,)*) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(any(test, feature = "mutants")),
            expect(unreachable_pub, reason = "public with the feature")
        )]
        pub enum $enum {
            $($(#[$doc])* $name,)*
        }

        impl $enum {
            /// All of them.
            #[cfg(any(test, feature = "mutants"))]
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

mutants! {
    /// A planted bug of the engine.
    Mutant:
    /// Output leaves before the backup has acknowledged its log.
    ReleaseBeforeAck,
    /// Output leaves without the lease.
    ReleaseWithoutLease,
    /// Output leaves while a primary that lost its backup still claims the next term.
    ReleaseWhileClaiming,
    /// A primary that handed the VM over still releases output.
    ReleaseAfterHandover,
    /// A primary that handed the VM over ends with a Bye, as if the VM had stopped.
    ByeAfterHandover,
    /// A primary that handed the VM over continues it when the backup falls silent, without a claim.
    ResumeWithoutClaim,
    /// A new primary forgets the frames that the old one has passed on.
    ForgetPassedFrames,
    /// A primary that hands the VM over passes on frames before it has ended its log.
    PassBeforeHandover,
    /// A primary that has become the backup keeps the frames that it passed on, and its VM takes them later.
    KeepPassedFrames,
    /// After the closing checkpoint was sent, output leaves without an acknowledgement until the backup has
    /// acknowledged the sync. The backup may already be able to take over.
    FreeUntilProtected,
    /// A backup takes over without a claim at the witness.
    LiveWithoutWitness,
    /// The tap of a backup opens when the primary falls silent, before the claim is won.
    TapBeforeClaim,
    /// A host that lost the claim continues.
    IgnoreLostClaim,
    /// A primary continues although the witness has a newer term.
    IgnoreNewerTerm,
    /// The last output in the log is not kept at takeover.
    SkipLastOutput,
    /// The outputs that the dead primary may not have released are not sent again.
    ForgetKeptOutput,
    /// A backup enters a region before it knows how the region ends.
    RunPastHorizon,
    /// A checkpoint that arrived only in part is applied at takeover.
    ApplyHalfCheckpoint,
    /// The closing checkpoint of a sync lacks the pages that were written during the precopy.
    MovingTarget,
    /// A page that was sent, and is zero when it is copied again, is not sent.
    ForgetZeroedPages,
    /// The pages that were written during the last pass of a precopy are not sent.
    ForgetWrittenPages,
    /// A difference between primary and backup is ignored.
    IgnoreDivergence,
    /// Guest time restarts from 0 at takeover.
    ClockStartsOver,
    /// A backup that took over keeps its old term.
    KeepTerm,
    /// Announcements are sent during a claim, or without the lease.
    AnnounceWithoutRight,
    /// Pages of the next checkpoint are sent before the backup has completed the sync.
    PagesBeforeWhole,
    /// The closing checkpoint reads the world's clock before the clock was set at takeover.
    SyncBeforeWake,
    /// The sync of a halted guest is completed only after an input has woken the guest.
    SyncAwaitsInput,
    /// A blocked VM waits for room in the hold queue.
    WaitWhileBlocked,
    /// A page whose delta is empty is not restored, although the backup's machine has written it since.
    SkipUnchanged,
    /// The base of a page delta is the page's contents after the region that could not be replayed.
    BaseAfterRegion,
    /// A blocked VM releases output.
    SpeakWhileBlocked,
    /// A machine that goes live accepts inputs before its replay-out is over.
    InputsBeforeReplayOut,
    /// A clock reading is treated as deterministic: an output does not wait for its acknowledgement.
    AssumeTimeDeterministic,
    /// A death notice ends the channel, and nothing follows from it.
    IgnoreNotice,
    /// A backup is synced again at once, however often its protection did not last.
    NeverBackOff,
    /// A backup delivers a completion of a disk when its own request is done, and not where the log has it.
    ReadBeforePosition,
    /// An output does not wait for the backup's flush.
    FlushLocalOnly,
    /// A backup delivers the completion of a write or flush before its own is done.
    ConsumeBeforeOwnWrite,
    /// A sync is closed when the memory is copied, although the disks are not.
    WholeWithoutDisk,
    /// A sync is closed while requests to disks are in flight: the backup repeats them.
    ForgetInFlightAtSync,
    /// A write to a shared disk is begun before the backup holds its log.
    SharedWriteUncommitted,
    /// A backup begins the requests to shared disks when it makes its claim: before the lost host is fenced.
    ReissueBeforeClaim,
    /// The requests to shared disks that were in flight at takeover are never begun.
    ReissueForgotten,
    /// A primary hands the VM over while its own requests to shared disks are in flight.
    HandOverInFlight,
}

mutants! {
    /// A planted bug of the driver.
    DriverMutant:
    /// After an output, what may leave is released; the log is sent at the next opportunity.
    SendLogAfterOutput,
    /// The lease is checked against a clock reading from before the frames of this round were sent.
    ReleaseByStaleClock,
    /// The operator's messages are written on the vCPU thread, which waits for a slow reader. (In the
    /// simulated host.)
    BlockingEvents,
    /// Nothing is sent while the machine applies a long checkpoint.
    ForgetKeepalive,
    /// The witness's answer to an earlier claim counts for the current one.
    TakeOlderAnswer,
    /// An error of the tap is ignored: the host goes on, and its outputs are lost.
    SwallowTapError,
    /// After the machine was replaced, the driver believes that all log was sent.
    RebuildForgetsSession,
    /// The live side of a machine that went live learns of it only when the guest takes an input.
    WakeAtFirstInput,
    /// A primary shows the console although it may not speak for the VM.
    ShowConsoleWithoutRight,
    /// Bulk frames are sent although the network has a backlog, in front of the log.
    BulkBeforeLatency,
    /// A primary that has handed the VM over leaves the frames in its tap.
    LeaveFramesInTap,
    /// A guest that is to be slowed does not pause.
    NeverPause,
    /// The supervisor gets the death notice of the first session only.
    HoldFirstNotice,
}

mutants! {
    /// A planted bug of the rules by which a witness grants terms.
    WitnessMutant:
    /// A host boots the VM although the newest term has an owner.
    BootOwned,
    /// A confirmation does not look for a newer term.
    ConfirmReplaced,
    /// A host whose confirmation finds no claim makes it for itself, whoever owns the term.
    RemakeForeign,
}

/// The planted bugs of one host: at most one of the engine, of the driver, of the witness or of the channel; none
/// without the feature `mutants`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(any(test, feature = "mutants"))]
    planted: Option<Mutant>,
    #[cfg(any(test, feature = "mutants"))]
    driver: Option<DriverMutant>,
    #[cfg(any(test, feature = "mutants"))]
    witness: Option<WitnessMutant>,
    channel: ChannelMutants,
}

impl Mutants {
    /// Plants one bug of the engine.
    #[cfg(any(test, feature = "mutants"))]
    pub fn plant(mutant: Mutant) -> Self {
        Self { planted: Some(mutant), ..Self::default() }
    }

    /// Plants one bug of the driver.
    #[cfg(any(test, feature = "mutants"))]
    pub fn of_driver(mutant: DriverMutant) -> Self {
        Self { driver: Some(mutant), ..Self::default() }
    }

    /// Plants one bug of the witness.
    #[cfg(any(test, feature = "mutants"))]
    pub fn of_witness(mutant: WitnessMutant) -> Self {
        Self { witness: Some(mutant), ..Self::default() }
    }

    /// Plants bugs of the channel.
    #[cfg(any(test, feature = "mutants"))]
    pub fn of_channel(channel: ChannelMutants) -> Self {
        Self { channel, ..Self::default() }
    }

    pub(crate) fn channel(self) -> ChannelMutants {
        self.channel
    }

    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        self.planted == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(crate) const fn has(self, _: Mutant) -> bool {
        false
    }

    /// Returns whether the simulated host must have the planted bug [`DriverMutant::BlockingEvents`].
    pub fn blocks_on_events(self) -> bool {
        self.has_driver(DriverMutant::BlockingEvents)
    }

    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn has_witness(self, mutant: WitnessMutant) -> bool {
        self.witness == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(crate) const fn has_witness(self, _: WitnessMutant) -> bool {
        false
    }

    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn has_driver(self, mutant: DriverMutant) -> bool {
        self.driver == Some(mutant)
    }

    #[cfg(not(any(test, feature = "mutants")))]
    pub(crate) const fn has_driver(self, _: DriverMutant) -> bool {
        false
    }
}
