//! What is counted in the runs of this simulator.

use logchan::channel::FrameVerdict;
use logchan::endpoint::Endpoint;

use crate::sim::counts::{Counts, counters};
use crate::sim::link::LinkCounts;

counters! {
    /// What happened to two endpoints, their link and their owners.
    pub enum Count {
        VirtualMs = "virtual time, ms",
        Turns = "turns of a host's thread",
        IdleWakes = "turns with nothing to do",
        HastyTurns = "turns that only sent",
        Frames = "frames sent",
        Bytes = "bytes sent",
        Delivered = "frames taken in",
        Lost = "frames lost",
        LostInBursts = "frames lost in bursts",
        Cut = "frames sent into a partition",
        Overflowed = "frames lost to a full queue of the link",
        Dropped = "frames lost to a full ring of a host",
        Absent = "frames that found no process",
        Repeated = "frames repeated",
        Reordered = "frames held back, to be overtaken",
        Damaged = "frames damaged",
        Stalls = "stalls of a link",
        Forged = "frames forged or played back",
        PlayedBack = "handshakes played back",
        Holds = "times that a forger held frames back",
        Held = "frames that a forger held back",
        Partitions = "partitions",
        OneWay = "partitions, of one direction only",
        Freezes = "freezes",
        FreezesBeyondSilence = "freezes longer than the silence timeout",
        Restarts = "processes killed and started again",
        DriftChanges = "changes of a clock's rate",
        Sessions = "sessions that both ends met in",
        HalfSessions = "sessions that one end met in alone",
        Handshakes = "handshakes done, by end",
        Rekeys = "handshakes that replaced keys, by end",
        Refusals = "peers refused, by end",
        Strangers = "initiations of strangers not answered",
        Replays = "frames that a seal knew already",
        StaleFrames = "frames of sessions unknown to the link",
        BadTags = "frames that did not match their tag",
        TooOldForSeal = "frames too old for a seal",
        KeyGaps = "frames lost because keys were replaced too often",
        Silences = "peers declared silent",
        GoLives = "backups that went live",
        Stubborn = "primaries that came back replaced",
        Byes = "goodbyes said",
        ByesHeard = "goodbyes heard",
        ByesConfirmed = "goodbyes confirmed",
        LeasesHeld = "leases begun",
        LeasesLost = "leases lost",
        ThawsWithoutLease = "frozen primaries that found no lease",
        Appends = "entries appended",
        Refused = "entries refused for want of room",
        RoomsTold = "entries told of room",
        BytesAppended = "bytes appended",
        BytesRead = "bytes read and compared",
        Barriers = "points that required bulk",
        BehindBulk = "log entries that overtook bulk",
        Resent = "segments sent again",
        Needless = "segments that were there already",
        LostOvertaken = "segments taken for lost: overtaken",
        LostTimeout = "segments taken for lost: timeout",
        TooOld = "frames too old",
        Calm = "runs that ended calm",
    }
}

/// Adds what a link did.
pub(super) fn count_link(counts: &mut Counts<Count>, link: LinkCounts) {
    let LinkCounts { lost, lost_in_bursts, cut, overflowed, repeated, reordered, stalls, damaged } =
        link;
    counts.add(Count::Lost, lost);
    counts.add(Count::LostInBursts, lost_in_bursts);
    counts.add(Count::Cut, cut);
    counts.add(Count::Overflowed, overflowed);
    counts.add(Count::Repeated, repeated);
    counts.add(Count::Reordered, reordered);
    counts.add(Count::Stalls, stalls);
    counts.add(Count::Damaged, damaged);
}

/// Adds what the channel of an endpoint counted, which ends now.
pub(super) fn count_channel(counts: &mut Counts<Count>, endpoint: &Endpoint) {
    let Some(channel) = endpoint.channel() else { return };
    let stats = channel.stats();
    counts.add(Count::Resent, stats.resent);
    counts.add(Count::Needless, stats.received(FrameVerdict::PayloadRepeated));
    counts.add(Count::LostOvertaken, stats.lost_overtaken);
    counts.add(Count::LostTimeout, stats.lost_timeout);
    counts.add(Count::TooOld, stats.received(FrameVerdict::TooOld));
}

/// Adds what the link of an endpoint counted, whose process ends now. How many handshakes came to
/// their end.
pub(super) fn count_endpoint(counts: &mut Counts<Count>, endpoint: &Endpoint) -> u64 {
    let stats = endpoint.link_stats();
    counts.add(Count::Handshakes, stats.sessions);
    counts.add(Count::Refusals, stats.refused);
    counts.add(Count::Strangers, stats.strangers);
    counts.add(Count::Replays, stats.open.replayed);
    counts.add(Count::StaleFrames, stats.open.stale_session);
    counts.add(Count::BadTags, stats.open.bad_tag);
    stats.sessions
}
