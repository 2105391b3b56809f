//! The event log of a VM of a pair: messages on standard error, and JSON records on standard output.

use super::PairArgs;
use crate::health::WatchedTap;
use crate::link::now;
use crate::message_limit::MessageLimit;
use crate::pair::OnNotice;
use crate::pair::event::PairRecord;
use crate::pair::event_feed::{EVENT_SCHEMA, EventFeed, EventLevel, OperatorEvent};
use crate::stdio::{self, Priority};
use logchan::handshake::Mismatch;
use logchan::limits::PAGE_BYTES;
use logchan::time::Time;
use replication::Divergence;
use replication::driver::Notice;
use replication::replica::{DisksCopied, Halt, Replica, ReplicaEvent, StallCause, SyncDelay};
use serde::Serialize;
use std::sync::Arc;

/// Returns a function that prints each notice on standard error, with the time since the start, and passes it to
/// those who follow the events. With `--quiet` it prints warnings only. With `--json` it also prints every notice as
/// a record.
pub(super) fn on_notice(
    args: &PairArgs,
    lan: Option<WatchedTap>,
    feed: Arc<EventFeed>,
) -> OnNotice {
    let quiet = args.is_quiet();
    let start = now();
    let prints_records = args.prints_records();
    let limit = MessageLimit::new();
    stdio::limit_messages();
    Box::new(move |replica: &Replica, notice: Notice| {
        let time = now();
        let record = PairRecord::of(time, replica.term().0, replica.stats(), &notice);
        if prints_records {
            print_record(&record);
        }
        let text = message(replica, &notice, lan.as_ref());
        let level = match is_warning(&notice) {
            true => EventLevel::Warning,
            false => EventLevel::Info,
        };
        match may_repeat(&notice) && limit.admit(time.as_nanos()).is_none() {
            true => feed.leave_out(),
            false => feed.put(OperatorEvent::now(record, level, text.clone())),
        }
        if let Notice::WitnessFailed { error } = &notice {
            return tracing::warn!("{error}");
        }
        let priority = match level {
            EventLevel::Warning => Priority::Warning,
            EventLevel::Info if quiet => return,
            EventLevel::Info => Priority::Info,
        };
        let seconds = time.since(start).as_nanos() as f64 / 1e9;
        let text = format!("understudy: {seconds:9.3} s  {text}");
        match may_repeat(&notice) {
            true => stdio::repeatable_message_at(priority, text),
            false => stdio::message_at(priority, text),
        }
    })
}

/// Passes a record of the process itself, which is no notice, to those who follow the events. With `--json` also prints it.
pub(super) fn tell(args: &PairArgs, feed: &EventFeed, (record, text): (PairRecord, &str)) {
    if args.prints_records() {
        print_record(&record);
    }
    feed.put(OperatorEvent::now(record, EventLevel::Info, text.into()));
}

/// A line of standard output.
#[derive(Serialize)]
struct EventLogLine<'a> {
    schema: u32,
    #[serde(flatten)]
    record: &'a PairRecord,
}

/// Prints a record on standard output. One that can't be written is dropped and counted: it must not stop
/// the VM.
fn print_record(record: &PairRecord) {
    let line = EventLogLine { schema: EVENT_SCHEMA, record };
    let line = serde_json::to_string(&line).expect("a record has no maps with strange keys");
    stdio::record(line);
}

/// Returns the mismatch with the option to check.
fn mismatch_message(mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Vm { .. } => format!("{mismatch} (--vm-id)"),
        Mismatch::Witness { .. } => format!("{mismatch} (--witness)"),
        Mismatch::Timing => format!("{mismatch} (--silence-ms)"),
        Mismatch::CpuModel { .. } => format!("{mismatch} (--cpu-model)"),
        Mismatch::GuestImage { .. } => format!("{mismatch} (--guest, --memory, --mac, --tap)"),
        Mismatch::Disks => format!("{mismatch} (--disk)"),
        Mismatch::ProtocolVersion { .. }
        | Mismatch::Role { .. }
        | Mismatch::HostProfile(_)
        | Mismatch::Replaced { .. }
        | Mismatch::OldPrimary { .. } => mismatch.to_string(),
    }
}

/// Returns whether a notice is about a condition that can come and go many times a second, and changes nothing for the
/// VM.
fn may_repeat(notice: &Notice) -> bool {
    match notice {
        Notice::NobodyMet { .. } | Notice::WitnessFailed { .. } => true,
        Notice::SyncClosed { .. }
        | Notice::GoesSilent
        | Notice::Diverged(_)
        | Notice::HandoverRefused
        | Notice::StopRefused
        | Notice::SupervisorLost { .. } => false,
        Notice::Replica { event, spoke_at: _ } => matches!(
            event,
            ReplicaEvent::WitnessLost
                | ReplicaEvent::WitnessBack
                | ReplicaEvent::WitnessUnreachable { .. }
                | ReplicaEvent::LanLost
                | ReplicaEvent::LanBack
                | ReplicaEvent::BackupHealth { .. }
                | ReplicaEvent::PeerRefused { .. }
                | ReplicaEvent::SyncStalled { .. }
                | ReplicaEvent::SyncDelayed(_)
                | ReplicaEvent::GuestSlowed { .. }
                | ReplicaEvent::GuestSlowedForDisks { .. }
                | ReplicaEvent::GuestNotSlowed
                | ReplicaEvent::SyncGivenUp(_)
        ),
    }
}

/// Returns whether a notice is printed even with `--quiet`.
fn is_warning(notice: &Notice) -> bool {
    let event = match notice {
        Notice::Replica { event, spoke_at: _ } => event,
        Notice::SyncClosed { .. } | Notice::GoesSilent => return false,
        Notice::WitnessFailed { .. } => return true,
        Notice::NobodyMet { .. } | Notice::Diverged(_) | Notice::HandoverRefused => return true,
        Notice::StopRefused | Notice::SupervisorLost { .. } => return true,
    };
    match event {
        ReplicaEvent::WitnessLost
        | ReplicaEvent::WitnessBack
        | ReplicaEvent::LanLost
        | ReplicaEvent::LanBack
        | ReplicaEvent::BackupHealth { .. }
        | ReplicaEvent::PeerRefused { .. }
        | ReplicaEvent::WitnessUnreachable { .. }
        | ReplicaEvent::BackupSilent { .. }
        | ReplicaEvent::SyncStalled { .. }
        | ReplicaEvent::SyncDelayed(_)
        | ReplicaEvent::GuestSlowed { .. }
        | ReplicaEvent::GuestSlowedForDisks { .. }
        | ReplicaEvent::GuestNotSlowed
        | ReplicaEvent::SyncGivenUp(_)
        | ReplicaEvent::BackupStalled { .. }
        | ReplicaEvent::BackupGone
        | ReplicaEvent::PrimarySilent { .. }
        | ReplicaEvent::PrimaryGone { .. }
        | ReplicaEvent::WentLive { .. }
        | ReplicaEvent::HandoverFailed
        | ReplicaEvent::ReleaseFailed
        | ReplicaEvent::Diverged
        | ReplicaEvent::DiskFault(_) => true,
        ReplicaEvent::Halted(halt) => match halt {
            Halt::AlreadyStarted { .. } | Halt::Replaced { .. } | Halt::Diverged => true,
            Halt::Stopped | Halt::PrimaryStopped | Halt::HandedOver { .. } => false,
        },
        ReplicaEvent::PeerMet { .. }
        | ReplicaEvent::TermWon { .. }
        | ReplicaEvent::SyncBegun
        | ReplicaEvent::DisksCopied(_)
        | ReplicaEvent::Protected
        | ReplicaEvent::HandingOver
        | ReplicaEvent::BackupLeft
        | ReplicaEvent::Following
        | ReplicaEvent::LogFinished => false,
    }
}

/// Returns the message about a backup that diverged: what was expected and what was found.
fn divergence_message(divergence: &Divergence) -> String {
    let Divergence { natural_exits, log_position, expected, found, .. } = divergence;
    let registers = match divergence.differing_registers() {
        text if text.is_empty() => text,
        text => format!(" ({text})"),
    };
    format!(
        "this VM diverged from the primary's after {natural_exits} exits, at byte {log_position} of \
         the log: the log says {expected}, this VM {found}{registers}; discarding its state"
    )
}

/// Returns what a backup does after the death of its primary. `whole`: it holds the whole VM.
fn what_follows(whole: bool) -> &'static str {
    match whole {
        true => "executing the rest of its log",
        false => "dropping the incomplete copy of its memory",
    }
}

/// Returns why nothing gets on although the backup answers, and what to check.
fn why_stalled(cause: StallCause) -> &'static str {
    match cause {
        StallCause::LongFramesLost => {
            "the backup answers, and receives no log: does the log link lose long frames (an interface or a switch \
             with a smaller MTU)?"
        }
        StallCause::Slow => {
            "the backup's answers take longer than the lease: is the log link congested, or the other host \
             overloaded? A longer --silence-ms on both hosts allows for more"
        }
    }
}

/// Returns the message that a user sees.
fn message(replica: &Replica, notice: &Notice, lan: Option<&WatchedTap>) -> String {
    let event = match notice {
        Notice::Replica { event, spoke_at: _ } => event,
        Notice::SyncClosed { pause, pages } => {
            let ms = pause.as_nanos() as f64 / 1e6;
            return format!("the VM was paused for {ms:.1} ms to send the last {pages} pages");
        }
        Notice::NobodyMet { why } => return why.clone(),
        Notice::WitnessFailed { error } => return error.clone(),
        Notice::StopRefused => {
            return "not stopped: the VM is being handed over to this host; order again".into();
        }
        Notice::HandoverRefused => {
            return "not handed over: no backup holds the whole VM, or it is unfit (see 'understudy status')"
                .into();
        }
        Notice::SupervisorLost { why } => {
            return format!(
                "the supervisor is gone ({why}): a death of this process is noticed by its silence only"
            );
        }
        Notice::GoesSilent => {
            return "this host failed: it goes silent, and the backup takes over".into();
        }
        Notice::Diverged(divergence) => return divergence_message(divergence),
    };
    let ms_since = |heard_at: Time| now().since(heard_at).as_nanos() / 1_000_000;
    match *event {
        ReplicaEvent::PeerMet { term, .. } => format!("connected to the other host in term {term}"),
        ReplicaEvent::PeerRefused { mismatch, proven: true } => mismatch_message(&mismatch),
        ReplicaEvent::PeerRefused { mismatch, proven: false } => {
            format!("{} (not proven: it may be a replayed recording)", mismatch_message(&mismatch))
        }
        ReplicaEvent::TermWon { term } => format!("term {term} is ours: the witness granted it"),
        ReplicaEvent::WitnessUnreachable { term } => {
            format!("the claim of term {term} has no answer: it is repeated until there is one")
        }
        ReplicaEvent::WitnessLost => {
            "the witness does not answer: the VM continues, and no host can take over until it does"
                .into()
        }
        ReplicaEvent::WitnessBack => "the witness answers again".into(),
        ReplicaEvent::ReleaseFailed => {
            "the witness was not told that the VM has ended: before you boot it again, run \
             'understudy forget'"
                .into()
        }
        ReplicaEvent::SyncBegun => "a backup attached: copying memory while the VM runs".into(),
        ReplicaEvent::Protected => {
            let stats = replica.stats();
            format!(
                "protected: the backup can take over ({} pages copied, {} in checkpoints so far)",
                stats.pages_copied, stats.checkpoint_pages
            )
        }
        ReplicaEvent::LanLost => {
            let fault = lan.and_then(WatchedTap::fault);
            format!(
                "the VM can't reach the LAN: {}",
                fault.as_deref().unwrap_or("it was down for a moment")
            )
        }
        ReplicaEvent::LanBack => "the VM reaches the LAN again".into(),
        ReplicaEvent::BackupHealth { unfit } if unfit.is_fit() => {
            "the backup is fit again: the VM is protected".into()
        }
        ReplicaEvent::BackupHealth { unfit } => {
            format!("the VM is not protected, because the backup is unfit: {unfit}")
        }
        ReplicaEvent::HandingOver => "handing the VM over: this host sends no more output".into(),
        ReplicaEvent::HandoverFailed => {
            "the backup did not take over: this host continues the VM".into()
        }
        ReplicaEvent::BackupSilent { heard_at } => {
            format!(
                "no frame from the backup for {} ms: claiming the next term",
                ms_since(heard_at)
            )
        }
        ReplicaEvent::SyncDelayed(SyncDelay { until, failures, cause }) => {
            format!(
                "the VM stays unprotected for {} ms: {failures} syncs in a row did not last, the last one because {}",
                until.since(now()).as_nanos() / 1_000_000,
                cause
            )
        }
        ReplicaEvent::GuestSlowed { pages, carried_per_s } => {
            format!(
                "the guest is slowed until its memory is copied: it writes {} KiB in the time in which the log link \
                 carries as much ({} KiB/s)",
                pages * PAGE_BYTES as u64 / 1024,
                carried_per_s / 1024
            )
        }
        ReplicaEvent::GuestSlowedForDisks { bytes_left } => {
            let mib = bytes_left >> 20;
            format!(
                "the guest is slowed until its disks are copied: it writes to them as fast as that ({mib} MiB are left)"
            )
        }
        ReplicaEvent::GuestNotSlowed => "the guest is not slowed any more".into(),
        ReplicaEvent::SyncGivenUp(cause) => format!("the sync is given up: {cause}"),
        ReplicaEvent::DisksCopied(DisksCopied { size, sent, zero, equal }) => format!(
            "the backup has the disks: of {} KiB, {} were sent, {} are zero, and it had {}",
            size / 1024,
            sent / 1024,
            zero / 1024,
            equal / 1024
        ),
        ReplicaEvent::SyncStalled { since, cause } => {
            format!("the sync has stood still for {} ms: {}", ms_since(since), why_stalled(cause))
        }
        ReplicaEvent::BackupStalled { since, cause } => {
            format!(
                "no output could leave for {} ms: claiming the next term, because {}",
                ms_since(since),
                why_stalled(cause)
            )
        }
        ReplicaEvent::BackupGone => "the backup's process is gone: claiming the next term".into(),
        ReplicaEvent::BackupLeft => "the backup left: the VM is unprotected".into(),
        ReplicaEvent::Following => "sync complete: this backup can take over".into(),
        ReplicaEvent::PrimarySilent { heard_at, whole } => {
            format!(
                "no frame from the primary for {} ms: {}",
                ms_since(heard_at),
                what_follows(whole)
            )
        }
        ReplicaEvent::PrimaryGone { whole } => {
            format!("the primary's process is gone: {}", what_follows(whole))
        }
        ReplicaEvent::LogFinished => {
            "the log is executed to its end: claiming the next term".into()
        }
        ReplicaEvent::WentLive { term } => {
            let again = replica.stats().sent_again;
            format!(
                "LIVE in term {term}: sending {again} frames again that the primary may not have \
                 released"
            )
        }
        ReplicaEvent::Diverged => unreachable!("reported as Notice::Diverged"),
        ReplicaEvent::DiskFault(fault) => {
            format!("{fault}; this backup leaves, and the primary continues unprotected")
        }
        ReplicaEvent::Halted(halt) => match halt {
            Halt::AlreadyStarted { term } => format!(
                "this VM was booted before (the witness has term {term}): start this host as the \
                 backup; if no host runs the VM any more, boot it with --boot-again"
            ),
            Halt::Replaced { term } => {
                format!("the other host took over the VM in term {term}: it stops on this host")
            }
            Halt::HandedOver { term } => {
                format!("handed over: the other host runs the VM in term {term}")
            }
            Halt::Stopped => "stopped".into(),
            Halt::PrimaryStopped => "the primary stopped the VM".into(),
            Halt::Diverged => {
                "the primary is dead, and this VM had diverged from it: no host can continue it"
                    .into()
            }
        },
    }
}
