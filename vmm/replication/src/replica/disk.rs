//! Disks of a pair: each host executes every request of the VM on a disk of its own (mirrored disks). For disks that both
//! hosts share, see [`shared`](super::shared).
//!
//! ```text
//!              primary                                        backup
//!   guest asks |                                   guest asks | (the same position)
//!              | own disk works                               | own disk works
//!              | done                                         |   ...
//!              v                                              |   ...
//!   completion enters at a position --- disk-done -->         | done, and the log says so
//!                                                             v
//!                                             completion enters at the same position
//! ```
//!
//! The primary decides when a completion enters, and logs status and digest. The backup delivers it at the same position,
//! with the data of its own disk, once its own request is done: a log that says that a flush is done is executed on the
//! backup only after the backup's own flush. So how far the backup has executed, which every frame of it says, also says
//! which flushes are durable there.
//!
//! | logged | own request | consequence on the backup |
//! |---|---|---|
//! | done | done, same digest | the completion is delivered |
//! | failed | any | the failure is delivered |
//! | done | failed, or another digest | it leaves, and says why; the primary continues unprotected |
//! | done | takes longer than [`disk_wait_max`](super::ReplicaConfig::disk_wait_max) | it leaves, and says why |
//!
//! A primary logs a failure only if no backup can take the VM over. Otherwise the request [waits](FailedRequests::Wait): the
//! primary is unfit (`Unfit::DISK`) and hands the VM over to a fit backup, whose own request is then the one that counts.
//!
//! A backup whose primary is dead can't leave: no other host has the VM. It waits for its own request as long as that takes.
//! If its own write or flush has failed, it delivers what the log says, and from then on every request to this disk fails: the
//! guest learns that data are lost. If its own read has failed or differs, the VM's state can't be reproduced, and this host
//! halts.
//!
//! At takeover nothing is executed twice: the requests in flight are the new primary's own, and complete like any other.
//!
//! Before the closing checkpoint of a sync, the devices [take no new requests](Replica::holds_disk_requests), and the ones in
//! flight are completed. Otherwise the backup would have to repeat them on a disk that has later contents already: a read that
//! was done on the primary before an overlapping write would find the data of that write.

use super::disk_pace::{CopyRate, Pace};
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::resync::SyncLoss;
use super::role::{Backup, Primary, Role};
use super::session::{Malformed, Taken};
use super::shared::SharedRequests;
use super::step::{LiveInputs, Step};
use crate::boundary::{DiskCompletion, DiskOperation, DiskRequest, DiskStatus, Input};
use crate::log_writer::read_digest;
use crate::mutant::Mutant;
use crate::verifier::{LogCursor, TakenDisk, Verifier};
use alloc::vec::Vec;
use core::fmt::{self, Display};
use core::mem;
use core::num::NonZeroU64;
use logchan::disk_copy::{DiskCopy, Generation};
use logchan::entry::Entry;
use logchan::entry_codec::encoded_length;
use logchan::ids::{Claimant, Lane};
use logchan::limits::DISK_COPY_ENTRY_BYTES_MAX;
use logchan::time::{Duration, Time};

/// Default of [`disk_wait_max`](super::ReplicaConfig::disk_wait_max).
pub(super) const DISK_WAIT_MAX: Duration = Duration::from_millis(2_000);

/// Longest time for which requests in flight, and the last changed blocks, may delay the end of a sync. The guest's new
/// requests wait meanwhile.
pub(super) const DISK_HOLD_MAX: Duration = Duration::from_millis(2_000);

/// Which flush an output of the guest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPolicy {
    /// An output after a flush leaves when the flush is durable on both hosts.
    Both,
    /// It leaves when the flush is durable on the primary. The primary's disk alone has what was flushed last.
    Local,
}

/// Whether requests that have failed on this host may enter the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedRequests {
    /// They enter like others.
    #[default]
    Enter,
    /// They wait: the other host is about to take the VM over, and its own request may not have failed.
    Wait,
}

/// Whether a host may use the shared disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedUse {
    /// The other host may use them: this one begins no request, and none is in flight.
    #[default]
    Other,
    /// No other host uses them.
    Own,
}

/// The disks of a host. Nothing here waits for I/O.
pub trait LocalDisks {
    /// Begins a request. Copies the data of a write.
    fn begin_request(&mut self, request: &DiskRequest<'_>);
    /// Returns how request `number` of disk `disk` ended; `None` if it is not done, or is not in flight.
    fn done(&mut self, disk: u8, number: u64) -> Option<DiskStatus>;
    /// Takes the completion of a request that is done; `None` if it is not, or is not in flight.
    fn take_done(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>>;
    /// Returns whether any request is done that was not taken.
    fn has_done(&mut self) -> bool;
    /// Sets whether a request that has failed may enter the guest. Returns whether there is one.
    fn set_failed(&mut self, _failed: FailedRequests) -> bool {
        false
    }
    /// Makes every request to `disk` fail from here on.
    fn fail_disk(&mut self, disk: u8);
    /// Sets whether this host may use the shared disks. It may from the first call on until another one says otherwise; the
    /// requests that follow wait until it has their locks.
    fn set_shared(&mut self, _shared: SharedUse) {}
    /// Forgets the requests in flight, because their machine is gone. They may take effect all the same, but before any
    /// request that is begun later, and before any block that is copied later.
    fn forget_requests(&mut self);
}

/// The host's end of a copy of disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// Its blocks are sent: the primary.
    Send,
    /// Its blocks are written: the backup.
    Receive,
}

/// The other host's copier has sent a message that may not come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedMessage;

/// How far a copier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// It copies.
    Running {
        /// Bytes that were not compared or sent yet, or were changed since, and may differ on the other host.
        bytes_left: u64,
    },
    /// At [`CopyEnd::Send`]: everything that was written up to now is durable on the other host.
    Whole,
    /// This host's disk has failed.
    Failed {
        /// Index of the disk.
        disk: u8,
    },
}

/// Copies the disks of a primary to those of a backup. Nothing here waits for I/O.
pub trait DiskCopier {
    /// A sync begins; an earlier one is forgotten. At [`CopyEnd::Send`], every change from here on is copied, too.
    fn begin_copy(&mut self, end: CopyEnd);
    /// The sync is complete, or was given up.
    fn end_copy(&mut self);
    /// Returns the next message for the other host, if there is one now.
    fn copy_out(&mut self) -> Option<DiskCopy<'_>>;
    /// Returns whether [`copy_in`](Self::copy_in) can take one more message now.
    fn copy_takes(&mut self) -> bool;
    /// Takes a message of the other host.
    ///
    /// # Errors
    ///
    /// The message may not come here.
    fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), UnexpectedMessage>;
    /// Returns how far it is.
    fn copy_state(&mut self) -> CopyState;
    /// This host's disks differ from the primary's, and nobody knows where: the VM may not boot from them, and the next
    /// copy to them compares everything.
    fn distrust(&mut self) {}
    /// At [`CopyEnd::Send`], where the machine is stopped for the closing checkpoint: both hosts make every change from here
    /// on themselves. [`in_sync`](Self::in_sync) or [`end_copy`](Self::end_copy) follows.
    fn copy_closed(&mut self) {}
    /// Both hosts have everything of `generation`: the copy is complete. `host` is the process of this host. Returns what
    /// the copy took, at [`CopyEnd::Send`].
    fn in_sync(
        &mut self,
        end: CopyEnd,
        _generation: Generation,
        _host: Claimant,
    ) -> Option<DisksCopied> {
        match end {
            CopyEnd::Send | CopyEnd::Receive => self.end_copy(),
        }
        None
    }
}

/// What a complete copy of all disks took, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisksCopied {
    /// Size of the disks.
    pub size: u64,
    /// What was sent, also what was sent again because it had changed.
    pub sent: u64,
    /// What is zero, and was not sent therefore.
    pub zero: u64,
    /// What the backup had already: only digests were sent.
    pub equal: u64,
}

/// Why a backup left because of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// Index of the disk.
    pub disk: u8,
    /// Number of the request; 0 for a block of a copy.
    pub number: u64,
    /// What was wrong.
    pub kind: DiskFaultKind,
}

/// What was wrong with a request on a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFaultKind {
    /// It failed, and succeeded on the primary.
    Failed,
    /// It read other data than the primary's.
    Differs,
    /// It took too long.
    Slow,
    /// A block of the primary's disk could not be written.
    Copy,
}

impl Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &DiskFault { disk, number, kind } = self;
        match kind {
            DiskFaultKind::Failed => write!(
                f,
                "disk {disk} of this host failed (request {number}), and the primary's did not: check this host's disk"
            ),
            DiskFaultKind::Differs => write!(
                f,
                "disk {disk} of this host has other contents than the primary's (read by request {number}): they are \
                 copied again"
            ),
            DiskFaultKind::Slow => write!(
                f,
                "disk {disk} of this host is too slow (request {number}): check this host's disk"
            ),
            DiskFaultKind::Copy => write!(
                f,
                "disk {disk} of this host could not take the primary's contents: 'understudy status' says why \
                 (copy_fault)"
            ),
        }
    }
}

/// A request in flight: begun, and not delivered to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InFlight {
    disk: u8,
    number: u64,
    operation: DiskOperation,
}

/// How a copy has ended.
enum End {
    /// The closing checkpoint was sent, and the backup has not confirmed it.
    Awaited,
    /// Both hosts have everything of this generation.
    InSync(Generation),
    /// It was given up.
    BrokenOff,
}

/// What the engine knows of the disks.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    in_flight: Vec<InFlight>,
    /// On a backup: the request that the log says is done, and since when this host waits for its own.
    awaited: Option<(u8, u64, Time)>,
    /// Why this host left last, as a backup.
    fault: Option<DiskFault>,
    /// The machine or a disk has just turned out to differ from the primary's, and the copier does not know yet.
    is_doubtful: bool,
    /// A request has failed on this host.
    pub(super) has_failed: bool,
    /// Requests to shared disks.
    pub(super) shared: SharedRequests,
    /// A flush was executed on this backup: the primary's outputs may wait for it.
    report_due: bool,
    /// Syncs begun.
    syncs: u64,
    rate: CopyRate,
    /// The next message waits for its time.
    is_paced: bool,
    /// The sync of which the copier of this host knows.
    copy: Option<(CopyEnd, u64)>,
}

impl DiskState {
    /// This host's disks differ from the primary's, or may.
    pub(super) fn distrust(&mut self) {
        self.is_doubtful = true;
    }

    fn begun(&mut self, request: &DiskRequest<'_>) {
        let &DiskRequest { disk, number, operation, .. } = request;
        self.in_flight.push(InFlight { disk, number, operation });
    }

    fn find(&self, disk: u8, number: u64) -> Option<InFlight> {
        self.in_flight.iter().find(|one| (one.disk, one.number) == (disk, number)).copied()
    }

    pub(super) fn delivered(&mut self, disk: u8, number: u64) {
        self.in_flight.retain(|one| (one.disk, one.number) != (disk, number));
        self.shared.delivered(disk, number);
    }

    /// A sync begins.
    pub(super) fn sync_begins(&mut self) {
        self.syncs += 1;
    }

    /// The machine whose requests these are is gone.
    pub(super) fn forget_machine(&mut self) {
        self.in_flight.clear();
        self.shared.forget();
        self.awaited = None;
    }
}

impl Replica {
    /// The guest asks a disk for I/O: this host executes the request. If the disk is shared, the host that speaks for the
    /// VM does, and [`begin_shared`](Self::begin_shared) follows.
    pub fn disk_request<W: LiveInputs>(
        &mut self,
        world: &mut W,
        request: &DiskRequest<'_>,
    ) -> Step<()> {
        let step = self.may_act();
        if let Step::Ready(()) = step {
            self.disks.begun(request);
            if self.config.shared_disks.has(request.disk) {
                self.share_request(request);
                return step;
            }
            if let Role::Primary(Primary::Copying(precopy)) = &mut self.role {
                precopy.disks_written(request.operation);
            }
            world.begin_request(request);
        }
        step
    }

    /// Returns whether devices must leave new requests to disks in their queues: a sync is about to be closed. Devices
    /// ask only when the driver has notified them, and when a position is reached.
    pub fn holds_disk_requests(&self) -> bool {
        matches!(&self.role, Role::Primary(Primary::Copying(precopy)) if precopy.is_closing())
            && !self.planted(Mutant::ForgetInFlightAtSync)
    }

    /// Returns whether a sync waits until the requests in flight are done. Their completions enter at positions only.
    pub(super) fn drains_disks(&self) -> bool {
        self.holds_disk_requests() && !self.disks.in_flight.is_empty()
    }

    /// Returns how many disks the VM has.
    pub fn disks(&self) -> usize {
        self.config.disks
    }

    /// Returns whether this host's disks work: a request is in flight, and its completion enters soon, or a copy goes on.
    pub fn awaits_disk(&self) -> bool {
        !self.disks.in_flight.is_empty() || self.disks.copy.is_some()
    }

    /// Returns why this host, as a backup, left last because of a disk.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        self.disks.fault
    }

    /// Returns whether nothing of the disks delays the closing checkpoint.
    pub(super) fn disks_are_ready(&self) -> bool {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return false };
        let is_drained =
            self.disks.in_flight.is_empty() || self.planted(Mutant::ForgetInFlightAtSync);
        let is_whole = precopy.disks.is_whole() || self.planted(Mutant::WholeWithoutDisk);
        self.config.disks == 0 || is_drained && is_whole
    }

    /// A completion enters the guest of a live machine, and was logged if there is a backup.
    pub(super) fn disk_done_recorded(&mut self, (disk, number, status): (u8, u64, DiskStatus)) {
        let request = self.disks.find(disk, number);
        self.shared_done_recorded(disk, number);
        self.disks.delivered(disk, number);
        match status {
            DiskStatus::Failed => self.disks.has_failed = true,
            DiskStatus::Done => {
                let is_flush = request.is_some_and(|one| one.operation == DiskOperation::Flush);
                let is_own = !self.config.shared_disks.has(disk);
                if is_flush && is_own && self.config.flush == FlushPolicy::Both && self.is_logging()
                {
                    self.commit.flush_logged(self.session.absolute(self.session.appended().0));
                }
            }
        }
    }

    /// Lets requests that have failed on this primary wait while a backup can take the VM over, and hands it over then. Call
    /// it at every round of the driver's work.
    pub fn keep_failed_requests<W: LocalDisks>(&mut self, now: Time, world: &mut W) {
        let can_hand_over = match &self.role {
            Role::Primary(Primary::Protected(protected)) => {
                protected.is_confirmed && self.peer_unfit().is_fit()
            }
            Role::Primary(Primary::HandingOver(_)) => true,
            Role::Primary(Primary::Losing(losing)) => losing.handed_over.is_some(),
            Role::Standalone
            | Role::Primary(Primary::Starting(_) | Primary::Alone | Primary::Copying(_))
            | Role::Backup(_)
            | Role::Halted(_) => false,
        };
        let failed = if can_hand_over { FailedRequests::Wait } else { FailedRequests::Enter };
        if self.config.disks > 0 && world.set_failed(failed) && can_hand_over {
            self.disks.has_failed = true;
            self.update_health(now);
        }
    }

    /// Returns the completion at the front of the log, if there is one.
    fn logged_disk_done(&mut self) -> Option<TakenDisk> {
        match self.session.front() {
            Ok(Some(Entry::DiskDone { disk, number, status, digest, data: _ })) => {
                Some(TakenDisk { disk, number, status, digest, length: 0 })
            }
            Ok(Some(_) | None) | Err(_) => None,
        }
    }

    /// Returns `Ready` unless the log has a completion next, and this host's own request is not done.
    pub(super) fn can_follow_disk<W: LiveInputs>(&mut self, now: Time, world: &mut W) -> Step<()> {
        let Some(TakenDisk { disk, number, .. }) = self.logged_disk_done() else {
            self.disks.awaited = None;
            return Step::Ready(());
        };
        if self.config.shared_disks.has(disk) {
            return Step::Ready(());
        }
        let Some(request) = self.disks.find(disk, number) else { return Step::Ready(()) };
        let skips =
            self.planted(Mutant::ConsumeBeforeOwnWrite) && request.operation != DiskOperation::Read;
        if world.done(disk, number).is_some() || skips {
            self.disks.awaited = None;
            return Step::Ready(());
        }
        if self.disks.awaited.map(|(disk, number, _)| (disk, number)) != Some((disk, number)) {
            self.disks.awaited = Some((disk, number, now));
        }
        Step::Pending
    }

    /// Delivers the completion at the front of the log, for which [`can_follow_disk`](Self::can_follow_disk) is ready; any
    /// other input as the log has it.
    pub(super) fn follow_input_or_disk<'a, W: LiveInputs>(
        &'a mut self,
        now: Time,
        world: &'a mut W,
    ) -> Step<Option<Input<'a>>> {
        let Some(logged) = self.logged_disk_done() else {
            if self.planted(Mutant::ReadBeforePosition)
                && let Some(one) = self.first_done(world)
            {
                self.disks.delivered(one.disk, one.number);
                return Step::Ready(world.take_done(one.disk, one.number).map(Input::Disk));
            }
            let step = self.follow(now, Verifier::next_input);
            return step.map(|taken| taken.map(|taken| self.verifier.input(taken)));
        };
        let TakenDisk { disk, number, status, digest, .. } = logged;
        let Some(request) = self.disks.find(disk, number) else {
            return self.diverge_malformed(now, "an input", &"a completion of no request");
        };
        if self.config.shared_disks.has(disk) {
            return self.follow_shared(now, disk, number);
        }
        match self.follow(now, Verifier::next_input) {
            Step::Ready(_taken) => {}
            Step::Pending => return Step::Pending,
            Step::Invalidated => return Step::Invalidated,
        }
        self.disks.delivered(disk, number);
        self.report_flush(request.operation);
        let nothing = Input::Disk(DiskCompletion { disk, number, status, data: &[] });
        let Some(own_status) = world.done(disk, number) else {
            // Only with a planted bug.
            return Step::Ready(Some(nothing));
        };
        self.disks.has_failed |= own_status == DiskStatus::Failed;
        let kind = match (status, own_status) {
            (DiskStatus::Failed, _) => {
                let _own = world.take_done(disk, number);
                return Step::Ready(Some(nothing));
            }
            (DiskStatus::Done, DiskStatus::Failed) => {
                let _own = world.take_done(disk, number);
                let is_last_host = matches!(self.role, Role::Backup(Backup::Finishing));
                if is_last_host && request.operation != DiskOperation::Read {
                    // The guest learns of the loss with its next request.
                    world.fail_disk(disk);
                    return Step::Ready(Some(nothing));
                }
                DiskFaultKind::Failed
            }
            (DiskStatus::Done, DiskStatus::Done) => {
                let own = world.take_done(disk, number);
                if let Some(own) = own.filter(|own| read_digest(own.data) == digest) {
                    return Step::Ready(Some(Input::Disk(own)));
                }
                DiskFaultKind::Differs
            }
        };
        self.leave_for_disk(now, DiskFault { disk, number, kind });
        // The machine learns it from this answer, so the next one must not repeat it.
        self.invalidated = false;
        Step::Invalidated
    }

    /// Lets the primary know soon that a flush was executed.
    fn report_flush(&mut self, operation: DiskOperation) {
        if operation == DiskOperation::Flush
            && let Some(channel) = self.session.channel_mut()
        {
            channel.report_executed();
            self.disks.report_due = true;
        }
    }

    /// Returns whether the primary waits to hear how far this backup has executed, once.
    pub fn take_report_due(&mut self) -> bool {
        core::mem::take(&mut self.disks.report_due)
    }

    /// For the planted bug [`Mutant::ReadBeforePosition`].
    fn first_done<W: LiveInputs>(&mut self, world: &mut W) -> Option<InFlight> {
        let mut all = self.disks.in_flight.iter();
        all.find(|one| world.done(one.disk, one.number).is_some()).copied()
    }

    /// Leaves the session: this host's disk does not follow the primary's.
    fn leave_for_disk(&mut self, now: Time, fault: DiskFault) {
        self.stats.disk_faults += 1;
        self.disks.fault = Some(fault);
        self.disks.distrust();
        self.emit(ReplicaEvent::DiskFault(fault));
        self.leave_session(now);
    }

    /// Returns when [`handle_disks`](Self::handle_disks) and [`copy_disks`](Self::copy_disks) must be called.
    pub(super) fn disk_timeout(&self) -> Option<Time> {
        let awaited = self.disks.awaited.map(|(_, _, since)| since + self.config.disk_wait_max);
        match &self.role {
            Role::Backup(Backup::Following) => awaited,
            Role::Primary(_) => self.disks.is_paced.then(|| self.disks.rate.next_at()),
            Role::Standalone | Role::Backup(_) | Role::Halted(_) => None,
        }
    }

    /// Leaves a session whose log waits for this host's disk for too long: the primary would wait, too, once the log is
    /// full.
    pub(super) fn handle_disks(&mut self, now: Time) {
        if !matches!(self.role, Role::Backup(Backup::Following))
            || self.disk_timeout().is_none_or(|at| at > now)
        {
            return;
        }
        let Some((disk, number, _since)) = self.disks.awaited.take() else { return };
        self.leave_for_disk(now, DiskFault { disk, number, kind: DiskFaultKind::Slow });
    }

    /// Passes messages between the copiers of the two hosts. Call it at every round of the driver's work.
    pub fn copy_disks<W: DiskCopier>(&mut self, now: Time, world: &mut W) {
        if mem::take(&mut self.disks.is_doubtful) {
            world.distrust();
        }
        let wanted = self.copy_wanted();
        if self.disks.copy != wanted {
            match (self.disks.copy, wanted) {
                (_, Some((end, _sync))) => world.begin_copy(end),
                (Some(copy), None) => match self.copy_end(copy) {
                    // The disks may be in sync: the backup's answer says so.
                    End::Awaited => return,
                    End::InSync(generation) => {
                        if copy.0 == CopyEnd::Receive {
                            // It was written whole: what had failed works again.
                            self.disks.has_failed = false;
                        }
                        let copied = world.in_sync(copy.0, generation, self.config.claimant);
                        if let Some(copied) = copied {
                            self.emit(ReplicaEvent::DisksCopied(copied));
                        }
                    }
                    End::BrokenOff => world.end_copy(),
                },
                (None, None) => {}
            }
            self.disks.copy = wanted;
        }
        let Some((end, _sync)) = wanted else { return };
        // Blocks and pages share a lane, in which each waits for the other.
        loop {
            match self.take_copy_messages(world) {
                Ok(0) => break,
                Ok(_some) => self.receive_sync(now),
                Err(error) => {
                    return match end {
                        CopyEnd::Send => self.give_up_sync(now, SyncLoss::BadCopy),
                        CopyEnd::Receive => {
                            self.leave_malformed(now, "a message of a copy", &error);
                        }
                    };
                }
            }
        }
        if self.copy_wanted() != wanted {
            return;
        }
        self.send_copy_messages(now, world);
        match (end, world.copy_state()) {
            (CopyEnd::Send, CopyState::Failed { disk }) => {
                self.give_up_sync(now, SyncLoss::DiskFailed { disk });
            }
            (CopyEnd::Receive, CopyState::Failed { disk }) => {
                self.leave_for_disk(now, DiskFault { disk, number: 0, kind: DiskFaultKind::Copy });
            }
            (CopyEnd::Send, state) => self.note_copy(now, state),
            (CopyEnd::Receive, CopyState::Running { .. } | CopyState::Whole) => {}
        }
    }

    /// Returns which end of a copy this host is, and of which sync.
    fn copy_wanted(&self) -> Option<(CopyEnd, u64)> {
        let end = match &self.role {
            _ if self.config.mirrored_disks() == 0 => return None,
            Role::Primary(Primary::Copying(precopy)) if precopy.delay.is_none() => CopyEnd::Send,
            Role::Backup(Backup::Syncing) => CopyEnd::Receive,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => return None,
        };
        Some((end, self.disks.syncs))
    }

    /// Returns how `copy` has ended, which this host no longer works on.
    fn copy_end(&self, (end, sync): (CopyEnd, u64)) -> End {
        let owner = match (&self.role, end) {
            _ if sync != self.disks.syncs => return End::BrokenOff,
            (Role::Primary(Primary::Protected(protected)), CopyEnd::Send) => {
                if !protected.is_confirmed {
                    return End::Awaited;
                }
                self.config.claimant
            }
            (
                Role::Backup(Backup::Following | Backup::Finishing | Backup::Claiming(_)),
                CopyEnd::Receive,
            ) => self.term_owner,
            (
                Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_),
                CopyEnd::Send | CopyEnd::Receive,
            ) => return End::BrokenOff,
        };
        End::InSync(Generation { term: self.term, owner })
    }

    /// Takes the messages at the front of the bulk lane, and returns how many.
    fn take_copy_messages<W: DiskCopier>(&mut self, world: &mut W) -> Result<usize, Malformed> {
        let mut count = 0;
        self.session.take_bulk(|entry| {
            let Entry::DiskCopy(message) = entry else { return Ok(Taken::No) };
            if !world.copy_takes() {
                return Ok(Taken::No);
            }
            world
                .copy_in(message)
                .map_err(|UnexpectedMessage| Malformed::Other("message that may come here"))?;
            count += 1;
            Ok(Taken::Yes)
        })?;
        Ok(count)
    }

    fn send_copy_messages<W: DiskCopier>(&mut self, now: Time, world: &mut W) {
        let per_s = self.copy_rate();
        while self.session.room(Lane::Bulk) >= DISK_COPY_ENTRY_BYTES_MAX
            && !self.gives_way_to_pages()
            && (per_s.is_none() || self.disks.rate.next_at() <= now)
            && let Some(message) = world.copy_out()
        {
            let entry = Entry::DiskCopy(message);
            if let Some(per_s) = per_s {
                self.disks.rate.sent(now, encoded_length(&entry) as u64, per_s);
            }
            self.session.append(now, &entry);
        }
        self.disks.is_paced = per_s.is_some() && self.disks.rate.next_at() > now;
    }

    /// Returns how much this host may send of a copy, bytes per second. The rest, for which the end of the sync waits, has no
    /// limit.
    fn copy_rate(&self) -> Option<NonZeroU64> {
        match &self.role {
            Role::Primary(Primary::Copying(precopy)) if !precopy.disks.is_near() => {
                self.config.disk_copy_per_s
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        }
    }

    /// Returns whether pages of memory have the link: while they are copied, a message of the copier is sent only when
    /// nothing else is on its way.
    fn gives_way_to_pages(&self) -> bool {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return false };
        let is_idle = self
            .session
            .channel()
            .is_some_and(|channel| channel.lane_acked(Lane::Bulk) == channel.appended(Lane::Bulk));
        precopy.copies_pages() && !is_idle
    }

    /// The primary's copier is in `state`.
    fn note_copy(&mut self, now: Time, state: CopyState) {
        let ends_at = now + self.config.resync.sync_max;
        let silence = self.config.timing.silence;
        let Role::Primary(Primary::Copying(precopy)) = &mut self.role else { return };
        precopy.note_disks(state, ends_at);
        let had_slowed = precopy.has_slowed();
        let CopyState::Running { bytes_left } = state else { return };
        match precopy.pace_disks(now, silence) {
            Pace::Goes => {}
            Pace::Slower if had_slowed => {}
            Pace::Slower => {
                self.stats.guests_slowed += 1;
                self.emit(ReplicaEvent::GuestSlowedForDisks { bytes_left });
            }
            Pace::GiveUp => self.give_up_sync(now, SyncLoss::DisksWrittenTooFast { bytes_left }),
        }
    }
}
