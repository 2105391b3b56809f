//! The counters of this simulator.

use replication::replica::{Replica, ReplicaStats};

use crate::sim::counts::{Counts, counters};

counters! {
    /// Counters of two hosts, their VM, the witness and the clients.
    pub enum Count {
        VirtualMs = "virtual time, ms",
        Events = "events",
        DriverIterations = "driver iterations",
        Regions = "regions run by a live guest",
        Positions = "positions logged",
        Compared = "positions compared",
        LogFrames = "frames on the log link",
        LogBytes = "bytes on the log link",
        LogFramesLost = "frames lost on the log link",
        LogFramesDamaged = "frames damaged on the log link",
        Replayed = "frames replayed on the log link",
        NoticesSent = "death notices sent",
        NoticesTaken = "death notices taken",
        NoticesReplayed = "death notices replayed",
        LanFrames = "frames on the LAN",
        VmFrames = "frames of the VM on the LAN",
        Announcements = "announcements on the LAN",
        Crashes = "processes crashed",
        CrashesOfPrimary = "primaries crashed",
        BootedWrongly = "processes restarted as if to boot the VM",
        Freezes = "freezes",
        FreezesBeyondSilence = "freezes longer than the silence timeout",
        Partitions = "partitions of the log link",
        OneWay = "partitions of one direction only",
        LanCuts = "ports of the LAN cut",
        Outages = "outages of the witness",
        OtherWitnesses = "witnesses replaced by another storage",
        ClaimsLost = "claims and answers of the witness lost",
        Forgotten = "running VMs forgotten",
        ClaimsRemoved = "removals of claims",
        Claims = "claims made",
        ClaimsWon = "claims won",
        Flips = "bits flipped in a backup",
        FlipsTakenAlong = "flips that went live or were overwritten",
        Divergences = "divergences detected",
        DiskFaults = "backups that left because of a disk",
        DisksBroken = "disks lost with both hosts",
        SharedChanges = "changes of a shared disk under the output rule",
        Fences = "lost primaries fenced",
        FencesFailed = "fences that failed",
        BackupsStopped = "orderly stops of a backup",
        Stops = "orderly stops of a primary",
        Takeovers = "takeovers",
        TakeoversWithHeld = "takeovers that resent output",
        TakeoversBehind = "takeovers that had to reproduce output",
        SentAgain = "outputs resent",
        Handovers = "handovers begun",
        HandoversFailed = "handovers that failed",
        FramesPassedOn = "frames passed on by old primaries",
        PassedFramesTaken = "passed frames taken",
        BackupsLost = "backups lost by a primary",
        Syncs = "syncs completed",
        SyncsBroken = "syncs aborted",
        PagesCopied = "pages copied by precopy",
        CopiesRepeated = "later passes of precopies",
        GuestsSlowed = "syncs with a slowed guest",
        WokenForSync = "halted guests woken for a sync",
        CheckpointsSent = "checkpoints sent",
        CheckpointPages = "pages in checkpoints sent",
        CheckpointsApplied = "checkpoints applied",
        CheckpointsDropped = "checkpoints aborted",
        Released = "outputs released",
        ReleasedEarly = "outputs released before their entry's ack",
        OutputsDropped = "outputs dropped by a blocked VM",
        OutputWaits = "outputs that waited for an acknowledgement",
        LagWaits = "waits for a lagging backup",
        HoldWaits = "waits for room in the hold queue",
        Invalidated = "machines invalidated",
        Interrupts = "interrupts injected",
        MidRegionStops = "mid-region stops",
        Windows = "interrupt windows at CPL3",
        RequestsSent = "client requests sent, retries included",
        Answers = "client requests answered",
        LostVms = "VMs lost with both copies",
        StoppedVms = "VMs stopped in an orderly way",
        OutlivedStops = "VMs that survived a stop due to a lost Bye",
        Recovered = "runs that recovered",
        RecoveryMs = "total recovery time, ms",
    }
}

/// Adds the counters of an engine whose process ends.
pub(crate) fn count_replica(counts: &mut Counts<Count>, replica: &Replica) {
    let ReplicaStats {
        syncs,
        syncs_broken,
        pages_copied,
        copies_repeated,
        guests_slowed,
        checkpoints_sent,
        checkpoint_pages,
        checkpoints_applied,
        released,
        released_early,
        sent_again,
        outputs_dropped,
        takeovers: _,
        handovers,
        handovers_refused: _,
        handovers_failed,
        // The frames themselves are counted.
        frames_passed_on: _,
        passed_frames_taken: _,
        passed_frames_dropped: _,
        backups_lost,
        divergences,
        disk_faults,
        lag_waits,
        hold_waits,
        // The driver fetches the events in every iteration.
        events_dropped: _,
        ignored: _,
    } = *replica.stats();
    counts.add(Count::Syncs, syncs);
    counts.add(Count::SyncsBroken, syncs_broken);
    counts.add(Count::PagesCopied, pages_copied);
    counts.add(Count::CopiesRepeated, copies_repeated);
    counts.add(Count::GuestsSlowed, guests_slowed);
    counts.add(Count::CheckpointsSent, checkpoints_sent);
    counts.add(Count::CheckpointPages, checkpoint_pages);
    counts.add(Count::CheckpointsApplied, checkpoints_applied);
    counts.add(Count::Released, released);
    counts.add(Count::ReleasedEarly, released_early);
    counts.add(Count::SentAgain, sent_again);
    counts.add(Count::OutputsDropped, outputs_dropped);
    counts.add(Count::Handovers, handovers);
    counts.add(Count::HandoversFailed, handovers_failed);
    counts.add(Count::BackupsLost, backups_lost);
    counts.add(Count::Divergences, divergences);
    counts.add(Count::DiskFaults, disk_faults);
    counts.add(Count::LagWaits, lag_waits);
    counts.add(Count::HoldWaits, hold_waits);
}
