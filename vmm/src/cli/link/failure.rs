//! Failures of `understudy link`; each displays as one line.

use super::options::LinkArgs;
use crate::link::LogLink;
use crate::link::diagnosis::why_state_stops_frames;
use logchan::handshake::Mismatch;
use logchan::time::Duration;

/// Why a measurement did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// No peer with the key answered.
    #[error("no {peer} found in {seconds:.1} s: {why}")]
    NoPeer {
        /// Role of the peer: "primary" or "backup".
        peer: &'static str,
        /// How long this side waited, in seconds.
        seconds: f64,
        /// The most likely reason.
        why: String,
    },
    /// A peer with the key answered, but its settings do not match.
    #[error("{why}")]
    Refused {
        /// The difference, and what to do about it.
        why: String,
    },
    /// The peer stopped sending.
    #[error("received nothing from the {peer} for {ms} ms: {why}")]
    PeerSilent {
        /// Role of the peer: "primary" or "backup".
        peer: &'static str,
        /// Time since the last frame from the peer, in milliseconds.
        ms: u64,
        /// The most likely reason.
        why: String,
    },
    /// The primary sent an entry that this program does not send.
    #[error("entry {entry} was not sent by 'understudy link': run the same build on both hosts")]
    UnexpectedEntry {
        /// Number of the entry.
        entry: u64,
    },
}

/// Returns the failure of a channel that received its last frame `heard_ago` ago.
pub(super) fn silent(link: &LogLink, args: &LinkArgs, heard_ago: Duration) -> LinkFailure {
    let port = link.port();
    let why = why_state_stops_frames(port.link(), port.name()).unwrap_or_else(|| {
        "the process was killed or stopped, or the network between the hosts is down".into()
    });
    LinkFailure::PeerSilent { peer: args.peer_name(), ms: heard_ago.as_nanos() / 1_000_000, why }
}

/// Describes a mismatch with the peer and names the option to change. If the peer has not proven that it
/// has the key now (`proven` is false), the message may be a replay, and the text says so.
pub(super) fn advice(mismatch: &Mismatch, proven: bool) -> String {
    let text = match mismatch {
        Mismatch::Vm { .. } => format!("{mismatch} (--vm-id)"),
        Mismatch::Role { .. } => format!("{mismatch} (--role)"),
        Mismatch::Timing => format!("{mismatch} (--silence-ms)"),
        Mismatch::CpuModel { .. }
        | Mismatch::HostProfile(_)
        | Mismatch::GuestImage { .. }
        | Mismatch::Disks => "the peer runs a VM, not 'understudy link'".into(),
        Mismatch::ProtocolVersion { .. }
        | Mismatch::Witness { .. }
        | Mismatch::Replaced { .. }
        | Mismatch::OldPrimary { .. } => mismatch.to_string(),
    };
    if proven { text } else { format!("{text}; or someone replays an old message of the peer") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::handshake::CpuModelId;
    use logchan::ids::VmId;

    #[test]
    fn advice_names_the_option_and_mentions_a_possible_replay() {
        let vm = Mismatch::Vm { ours: VmId(1), theirs: VmId(2) };
        assert!(advice(&vm, true).ends_with("(--vm-id)"));
        assert!(advice(&vm, false).ends_with("replays an old message of the peer"));
        assert!(advice(&Mismatch::Timing, true).contains("--silence-ms"));
        let machine = Mismatch::CpuModel {
            ours: CpuModelId { level: 1, digest: 1 },
            theirs: CpuModelId { level: 1, digest: 2 },
        };
        assert!(advice(&machine, true).contains("runs a VM"));
    }
}
