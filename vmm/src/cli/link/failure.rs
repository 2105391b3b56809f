//! What can go wrong on a channel, one line each.

use super::options::LinkArgs;
use crate::link::LogLink;
use crate::link::diagnosis::why_no_frame_passes;
use logchan::handshake::Mismatch;
use logchan::time::Duration;

/// Why a measurement came to nothing, or to an early end.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// Nobody came who has the key.
    #[error("no {peer} was met in {seconds:.1} s: {why}")]
    NobodyMet {
        /// What the peer would have been.
        peer: &'static str,
        /// How long it was waited for.
        seconds: f64,
        /// The likeliest reason.
        why: String,
    },
    /// Somebody with the key came who does not fit.
    #[error("{why}")]
    Refused {
        /// The difference.
        why: String,
    },
    /// The peer was met, and is not heard any more.
    #[error("the {peer} was not heard for {ms} ms: {why}")]
    PeerSilent {
        /// What the peer was.
        peer: &'static str,
        /// For how long.
        ms: u64,
        /// The likeliest reason.
        why: String,
    },
    /// The primary is another program.
    #[error("entry {entry} is none that 'understudy link' sends: run the same build on both hosts")]
    Foreign {
        /// Which entry.
        entry: u64,
    },
}

/// The peer was heard last `heard_ago` ago.
pub(super) fn silent(link: &LogLink, args: &LinkArgs, heard_ago: Duration) -> LinkFailure {
    let why = why_no_frame_passes(link.port()).unwrap_or_else(|| {
        "it was killed or stopped, or the network between the hosts is cut".into()
    });
    LinkFailure::PeerSilent { peer: args.peer_name(), ms: heard_ago.as_nanos() / 1_000_000, why }
}

/// What to do about a peer that does not fit.
pub(super) fn advice(mismatch: &Mismatch, proven: bool) -> String {
    let text = match mismatch {
        Mismatch::Vm { .. } => format!("{mismatch} (--vm-id)"),
        Mismatch::Role { .. } => format!("{mismatch} (--role)"),
        Mismatch::Timing => format!("{mismatch} (--silence-ms)"),
        Mismatch::CpuModel { .. } | Mismatch::GuestImage { .. } => {
            "the peer runs a VM and is no 'understudy link'".into()
        }
        Mismatch::ProtocolVersion { .. }
        | Mismatch::Witness { .. }
        | Mismatch::Replaced { .. }
        | Mismatch::OldPrimary { .. } => mismatch.to_string(),
    };
    if proven { text } else { format!("{text}; unless somebody plays back what it once said") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::ids::VmId;

    #[test]
    fn advice_names_the_option_and_says_when_it_may_be_a_recording() {
        let vm = Mismatch::Vm { ours: VmId(1), theirs: VmId(2) };
        assert!(advice(&vm, true).ends_with("(--vm-id)"));
        assert!(advice(&vm, false).ends_with("plays back what it once said"));
        assert!(advice(&Mismatch::Timing, true).contains("--silence-ms"));
        let machine = Mismatch::CpuModel { ours: 1, theirs: 2 };
        assert!(advice(&machine, true).contains("runs a VM"));
    }
}
