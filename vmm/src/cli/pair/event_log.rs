//! What happens to a VM of a pair: in words on standard error, as records on standard output.

use super::PairArgs;
use crate::link::now;
use crate::pair::Observer;
use crate::pair::event::{Notice, PairRecord};
use crate::replica::{Halt, Replica, ReplicaEvent};
use crate::stdio;
use logchan::handshake::Mismatch;
use logchan::time::Time;

/// Tells notices on standard error, with the time since the start: all of them, or, if told to be
/// quiet, those that a user must not miss. If told to, tells all of them as records, too.
pub(super) fn observer(args: &PairArgs) -> Observer {
    let quiet = args.is_quiet();
    let start = now();
    let records = args.wants_records();
    Box::new(move |replica: &Replica, notice: Notice| {
        if records {
            record(&PairRecord::of(now(), replica.term().0, replica.stats(), &notice));
        }
        if quiet && !is_alarming(&notice) {
            return;
        }
        let seconds = now().since(start).as_nanos() as f64 / 1e9;
        stdio::message(format_args!("understudy: {seconds:9.3} s  {}", words(replica, &notice)));
    })
}

/// Prints a line of the account.
pub(super) fn record(record: &PairRecord) {
    let line = serde_json::to_string(record).expect("a record has no maps with strange keys");
    stdio::record(line);
}

/// What to do about a peer that does not fit.
fn advice(mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Vm { .. } => format!("{mismatch} (--vm-id)"),
        Mismatch::Witness { .. } => format!("{mismatch} (--witness)"),
        Mismatch::Timing => format!("{mismatch} (--silence-ms)"),
        Mismatch::GuestImage { .. } => format!("{mismatch} (--guest)"),
        Mismatch::ProtocolVersion { .. }
        | Mismatch::Role { .. }
        | Mismatch::CpuModel { .. }
        | Mismatch::Replaced { .. }
        | Mismatch::OldPrimary { .. } => mismatch.to_string(),
    }
}

fn is_alarming(notice: &Notice) -> bool {
    let event = match notice {
        Notice::Replica { event, spoke_at: _ } => event,
        Notice::SyncClosed { .. } => return false,
        Notice::NobodyMet { .. } => return true,
    };
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

fn words(replica: &Replica, notice: &Notice) -> String {
    let event = match notice {
        Notice::Replica { event, spoke_at: _ } => event,
        Notice::SyncClosed { pause, pages } => {
            let ms = pause.as_nanos() as f64 / 1e6;
            return format!("the VM stood still for {ms:.1} ms, for the last {pages} pages");
        }
        Notice::NobodyMet { why } => {
            return why.clone();
        }
    };
    let ago = |heard_at: Time| now().since(heard_at).as_nanos() / 1_000_000;
    match *event {
        ReplicaEvent::PeerMet { term, .. } => format!("met the other host, term {term}"),
        ReplicaEvent::PeerRefused { mismatch, proven: true } => advice(&mismatch),
        ReplicaEvent::PeerRefused { mismatch, proven: false } => {
            format!("{}; unless somebody plays back what it once said", advice(&mismatch))
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
