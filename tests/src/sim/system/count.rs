//! What is counted in the runs of this simulator.

use vmm::replica::{Replica, ReplicaStats};

use crate::sim::counts::{Counts, counters};

counters! {
    /// What happened to two hosts, their VM, the witness and the clients.
    pub enum Count {
        VirtualMs = "virtual time, ms",
        Events = "events",
        Turns = "turns of a host's thread",
        Regions = "regions that a guest ran",
        Positions = "positions logged",
        Compared = "positions compared, byte for byte",
        LogFrames = "frames on the log link",
        LogBytes = "bytes on the log link",
        LogFramesLost = "frames lost on the log link",
        LogFramesDamaged = "frames damaged on the log link",
        Replayed = "frames played back on the log link",
        LanFrames = "frames on the LAN",
        Said = "frames of the VM on the LAN",
        Announcements = "announcements on the LAN",
        Crashes = "processes that died",
        CrashesOfPrimary = "primaries that died",
        BootedAgain = "processes started as if the VM had to be booted",
        Freezes = "freezes",
        FreezesBeyondSilence = "freezes longer than the silence timeout",
        Partitions = "partitions of the log link",
        OneWay = "partitions, of one direction only",
        LanCuts = "ports of the LAN cut",
        Outages = "outages of the witness",
        ClaimsLost = "questions and answers of the witness lost",
        Claims = "claims made",
        ClaimsWon = "claims won",
        Flips = "bits flipped in a backup",
        FlipsTakenAlong = "flips that went live or were overwritten",
        Divergences = "divergences found",
        Leaves = "backups stopped in good order",
        Stops = "primaries stopped in good order",
        Takeovers = "takeovers",
        TakeoversWithHeld = "takeovers that sent output again",
        TakeoversBehind = "takeovers of a machine that had to catch up with what was said",
        SentAgain = "outputs sent again",
        BackupsLost = "backups that a primary lost",
        Syncs = "attaches: syncs completed",
        SyncsBroken = "syncs broken off",
        PagesCopied = "pages copied beside the running VM",
        Roused = "halted guests roused for a sync",
        CheckpointsSent = "checkpoints sent",
        CheckpointPages = "pages of those",
        CheckpointsApplied = "checkpoints applied",
        CheckpointsDropped = "checkpoints broken off",
        Released = "outputs released",
        ReleasedEarly = "outputs released before the backup had their own entry",
        OutputsDropped = "outputs dropped by a VM that had to stand still",
        OutputWaits = "outputs that waited for their acknowledgement",
        LagWaits = "waits for a backup behind",
        HoldWaits = "waits for room in the hold queue",
        Invalidated = "machines made void",
        Interrupts = "interrupts injected",
        Strays = "runs that ended at no position",
        UserWindows = "windows at CPL3",
        RequestsSent = "requests of clients, repetitions included",
        Answers = "requests of clients answered",
        LostVms = "VMs lost with both copies",
        StoppedVms = "VMs stopped in good order",
        OutlivedStops = "VMs that lived on because the goodbye was lost",
        Recovered = "runs that recovered",
        RecoveryMs = "time until then, ms",
    }
}

/// Adds what an engine counted, whose process ends.
pub(crate) fn count_replica(counts: &mut Counts<Count>, replica: &Replica) {
    let ReplicaStats {
        syncs,
        syncs_broken,
        pages_copied,
        checkpoints_sent,
        checkpoint_pages,
        checkpoints_applied,
        released,
        released_early,
        sent_again,
        outputs_dropped,
        takeovers: _,
        backups_lost,
        divergences,
        lag_waits,
        hold_waits,
        ignored: _,
    } = *replica.stats();
    counts.add(Count::Syncs, syncs);
    counts.add(Count::SyncsBroken, syncs_broken);
    counts.add(Count::PagesCopied, pages_copied);
    counts.add(Count::CheckpointsSent, checkpoints_sent);
    counts.add(Count::CheckpointPages, checkpoint_pages);
    counts.add(Count::CheckpointsApplied, checkpoints_applied);
    counts.add(Count::Released, released);
    counts.add(Count::ReleasedEarly, released_early);
    counts.add(Count::SentAgain, sent_again);
    counts.add(Count::OutputsDropped, outputs_dropped);
    counts.add(Count::BackupsLost, backups_lost);
    counts.add(Count::Divergences, divergences);
    counts.add(Count::LagWaits, lag_waits);
    counts.add(Count::HoldWaits, hold_waits);
}
