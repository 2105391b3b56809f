//! The counters of this simulator.

use logchan::channel::FrameVerdict;
use logchan::endpoint::Endpoint;

use crate::sim::counts::{Counts, counters};
use crate::sim::link::LinkCounts;

counters! {
        /// Counters of two endpoints, their link and their owners.
    pub enum Count {
        VirtualMs = "virtual time, ms",
        DriverIterations = "driver iterations",
        IdleWakes = "driver iterations with nothing to do",
        SendOnlyIterations = "driver iterations that only sent",
        Frames = "frames sent",
        Bytes = "bytes sent",
        Delivered = "frames accepted",
        Lost = "frames lost",
        LostInBursts = "frames lost in bursts",
        Cut = "frames sent into a partition",
        Overflowed = "frames lost to a full link queue",
        Dropped = "frames lost to a full receive ring",
        Absent = "frames to a host without a process",
        Duplicated = "frames duplicated",
        Reordered = "frames delayed to be overtaken",
        Damaged = "frames damaged",
        Stalls = "stalls of a link",
        Forged = "frames forged or replayed",
        HandshakesReplayed = "handshakes replayed",
        NoticesSent = "death notices sent",
        NoticesTaken = "death notices taken",
        NoticesReplayed = "death notices replayed",
        Holds = "times that the attacker withheld frames",
        Held = "frames that the attacker withheld",
        Partitions = "partitions",
        OneWay = "partitions of one direction only",
        Freezes = "freezes",
        FreezesBeyondSilence = "freezes longer than the silence timeout",
        Restarts = "processes killed and restarted",
        DriftChanges = "changes of a clock's rate",
        Sessions = "sessions established at both ends",
        HalfSessions = "sessions established at one end only",
        Handshakes = "handshakes completed, per end",
        Rekeys = "handshakes that replaced keys, per end",
        Refusals = "peers refused, per end",
        Strangers = "handshakes of strangers not answered",
        StaleInitiations = "initiations refused as stale",
        StaleResponses = "challenges and responses refused as stale",
        Replays = "frames rejected as replays",
        StaleFrames = "frames of unknown sessions",
        BadTags = "frames with a wrong tag",
        TooOldForSeal = "frames too old for the replay window",
        KeyGaps = "frames lost to frequent key changes",
        Silences = "peers declared silent",
        GoLives = "backups that went live",
        StalePrimaries = "replaced primaries that came back as primary",
        Byes = "Byes sent",
        ByesHeard = "Byes received",
        ByesConfirmed = "Byes confirmed",
        LeasesHeld = "leases begun",
        LeasesLost = "leases lost",
        ThawsWithoutLease = "thawed primaries without a lease",
        Appends = "entries appended",
        Refused = "entries refused for lack of room",
        RoomEvents = "events that room is available again",
        BytesAppended = "bytes appended",
        BytesRead = "bytes read and compared",
        Barriers = "positions that require bulk",
        BehindBulk = "log entries that overtook bulk",
        Resent = "segments retransmitted",
        Needless = "segments received repeatedly",
        LostOvertaken = "segments declared lost: overtaken",
        LostTimeout = "segments declared lost: timeout",
        TooOld = "frames too old for the channel",
        Completed = "runs completed",
    }
}

/// Adds the counters of a link.
pub(super) fn count_link(counts: &mut Counts<Count>, link: LinkCounts) {
    let LinkCounts {
        lost,
        lost_in_bursts,
        cut,
        overflowed,
        duplicated,
        reordered,
        stalls,
        damaged,
    } = link;
    counts.add(Count::Lost, lost);
    counts.add(Count::LostInBursts, lost_in_bursts);
    counts.add(Count::Cut, cut);
    counts.add(Count::Overflowed, overflowed);
    counts.add(Count::Duplicated, duplicated);
    counts.add(Count::Reordered, reordered);
    counts.add(Count::Stalls, stalls);
    counts.add(Count::Damaged, damaged);
}

/// Adds the counters of the channel of `endpoint`, which ends now.
pub(super) fn count_channel(counts: &mut Counts<Count>, endpoint: &Endpoint) {
    let Some(channel) = endpoint.channel() else { return };
    let stats = channel.stats();
    counts.add(Count::Resent, stats.resent);
    counts.add(Count::Needless, stats.received(FrameVerdict::PayloadRepeated));
    counts.add(Count::LostOvertaken, stats.lost_overtaken);
    counts.add(Count::LostTimeout, stats.lost_timeout);
    counts.add(Count::TooOld, stats.received(FrameVerdict::TooOld));
}

/// Adds the counters of the link of `endpoint`, whose process ends now. Returns the number of completed
/// handshakes.
pub(super) fn count_endpoint(counts: &mut Counts<Count>, endpoint: &Endpoint) -> u64 {
    let stats = endpoint.link_stats();
    counts.add(Count::Handshakes, stats.sessions);
    counts.add(Count::Refusals, stats.refused);
    counts.add(Count::Strangers, stats.strangers);
    counts.add(Count::StaleInitiations, stats.stale_initiations);
    counts.add(Count::StaleResponses, stats.stale_responses);
    counts.add(Count::Replays, stats.open.replayed);
    counts.add(Count::StaleFrames, stats.open.stale_session);
    counts.add(Count::BadTags, stats.open.bad_tag);
    stats.sessions
}
