//! What happens to a VM of a pair, in words.

use super::PairArgs;
use crate::link::now;
use crate::pair::Observer;
use crate::replica::{Halt, Replica, ReplicaEvent};
use logchan::time::Time;

/// Tells events on standard error, with the time since the start: all of them, or, if told to be
/// quiet, those that a user must not miss.
pub(super) fn observer(args: &PairArgs) -> Observer {
    let quiet = args.is_quiet();
    let start = now();
    Box::new(move |replica: &Replica, event: ReplicaEvent| {
        if quiet && !is_alarming(&event) {
            return;
        }
        let seconds = now().since(start).as_nanos() as f64 / 1e9;
        eprintln!("understudy: {seconds:9.3} s  {}", words(replica, &event));
    })
}

fn is_alarming(event: &ReplicaEvent) -> bool {
    match event {
        ReplicaEvent::PeerRefused { .. }
        | ReplicaEvent::WitnessUnreachable { .. }
        | ReplicaEvent::BackupSilent { .. }
        | ReplicaEvent::PrimarySilent { .. }
        | ReplicaEvent::WentLive { .. }
        | ReplicaEvent::Diverged => true,
        ReplicaEvent::Halted(halt) => match halt {
            Halt::AlreadyStarted { .. } | Halt::Replaced { .. } | Halt::Diverged => true,
            Halt::Stopped | Halt::PrimaryStopped => false,
        },
        ReplicaEvent::PeerMet { .. }
        | ReplicaEvent::TermWon { .. }
        | ReplicaEvent::SyncBegun
        | ReplicaEvent::Protected
        | ReplicaEvent::BackupLeft
        | ReplicaEvent::Following
        | ReplicaEvent::LogFinished => false,
    }
}

fn words(replica: &Replica, event: &ReplicaEvent) -> String {
    let ago = |heard_at: Time| now().since(heard_at).as_nanos() / 1_000_000;
    match *event {
        ReplicaEvent::PeerMet { term, .. } => format!("met the other host, term {term}"),
        ReplicaEvent::PeerRefused { mismatch, proven: true } => mismatch.to_string(),
        ReplicaEvent::PeerRefused { mismatch, proven: false } => {
            format!("{mismatch}; unless somebody plays back what it once said")
        }
        ReplicaEvent::TermWon { term } => format!("term {term} is ours"),
        ReplicaEvent::WitnessUnreachable { term } => {
            format!("the witness can't be reached: nobody goes on in term {term} before it can")
        }
        ReplicaEvent::SyncBegun => "a backup attached: copying memory beside the running VM".into(),
        ReplicaEvent::Protected => {
            let stats = replica.stats();
            format!(
                "protected: {} pages copied, {} in checkpoints so far",
                stats.pages_copied, stats.checkpoint_pages
            )
        }
        ReplicaEvent::BackupSilent { heard_at } => {
            format!("the backup was not heard for {} ms", ago(heard_at))
        }
        ReplicaEvent::BackupLeft => "the backup said goodbye: going on alone".into(),
        ReplicaEvent::Following => "the whole VM is here: following".into(),
        ReplicaEvent::PrimarySilent { heard_at, whole } => {
            let what = if whole { "finishing its log" } else { "dropping what came of its memory" };
            format!("the primary was not heard for {} ms: {what}", ago(heard_at))
        }
        ReplicaEvent::LogFinished => "the log is executed to its last entry".into(),
        ReplicaEvent::WentLive { term } => {
            let again = replica.stats().sent_again;
            format!("LIVE in term {term}; {again} frames that may not have left are sent again")
        }
        ReplicaEvent::Diverged => {
            "this VM is not what the primary's is: asking for its memory again".into()
        }
        ReplicaEvent::Halted(halt) => match halt {
            Halt::AlreadyStarted { term } => format!(
                "this VM was booted before (the witness has term {term}): start as the backup; if it \
                 runs nowhere any more, remove the witness's files of it"
            ),
            Halt::Replaced { term } => {
                format!("the other host went on with the VM in term {term}: it stops here")
            }
            Halt::Stopped => "stopped".into(),
            Halt::PrimaryStopped => "the primary stopped the VM".into(),
            Halt::Diverged => {
                "the primary is gone, and this VM is not what it was: nobody can go on".into()
            }
        },
    }
}
